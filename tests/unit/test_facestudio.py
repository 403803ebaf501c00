import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.facestudio.condition import (
    HybridCondition,
    attend_to_identities,
    identities_at,
    join_tokens,
    mix_faces,
)
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.flashface_core.people.mix import mix_identities
from torch.nn.functional import normalize, scaled_dot_product_attention

STYLE, FACE, WIDTH, TOKENS, HEADS, LENGTH = 40, 16, 32, 3, 4, 48


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def condition():
    return HybridCondition(STYLE, FACE, WIDTH, TOKENS)


@pytest.fixture
def inputs():
    """face (2, F) of two people, style and text of one picture."""
    return normalize(torch.randn(2, FACE), dim=1), torch.randn(1, STYLE), torch.randn(1, STYLE)


def core_attention(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


# Hybrid guidance


def test_tokens_are_consecutive_slices_of_the_linear_map(condition, inputs):
    face, style, _ = inputs
    weight, bias = condition.linear.weight, condition.linear.bias
    guidance = condition(face, style)
    assert guidance.shape == (2, TOKENS, WIDTH)
    joined = torch.cat([style[0], face[1]])
    for token in range(TOKENS):
        rows = slice(token * WIDTH, (token + 1) * WIDTH)
        torch.testing.assert_close(guidance[1, token], weight[rows] @ joined + bias[rows])


@pytest.mark.parametrize("alpha", [0.25, 0.7])
def test_alpha_blends_the_two_branches(condition, inputs, alpha):
    face, style, text = inputs
    blended = torch.cat([alpha * style + (1 - alpha) * text] * 2)  # the map is affine
    torch.testing.assert_close(condition(face, style, text, alpha), condition(face, blended))


@pytest.mark.parametrize(("alpha", "end"), [(1.0, 1), (1.5, 1), (0.0, 0), (-0.5, 0)])
def test_the_ends_of_alpha_are_one_branch_exactly(condition, inputs, alpha, end):
    face, style, text = inputs
    got = condition(face, style, text, alpha)
    assert torch.equal(got, condition.branch(style if end else text, face))
    # What is left out does not even have to be a number.
    style, text = (style, text * torch.nan) if end else (style * torch.nan, text)
    assert torch.equal(got, condition(face, style, text, alpha))
    assert torch.equal(got, condition(face, *((style, None) if end else (None, text)), alpha))


def test_the_null_condition_is_the_bias(condition):
    null = condition.branch(None, None)
    assert torch.equal(null, condition.linear.bias.reshape(1, TOKENS, WIDTH))


def test_without_a_face_or_a_style_there_are_zeros(condition, inputs):
    face, style, _ = inputs
    assert torch.equal(condition(None, style), condition(torch.zeros(1, FACE), style))
    assert torch.equal(condition.branch(None, face), condition.branch(torch.zeros(1, STYLE), face))


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_missing_style_is_an_error(condition, inputs, alpha):
    with pytest.raises(FlashFaceError, match=f"alpha {alpha:g} takes a style image"):
        condition(inputs[0], None, inputs[2], alpha)


def test_a_missing_text_is_an_error(condition, inputs):
    with pytest.raises(FlashFaceError, match="alpha 0.5 takes a text embedding"):
        condition(inputs[0], inputs[1], None, 0.5)


def test_embeddings_of_another_encoder_are_an_error(condition, inputs):
    with pytest.raises(FlashFaceError, match=r"face embedding has the shape \(2, 20\).* 16 "):
        condition(torch.randn(2, 20), inputs[1])
    with pytest.raises(FlashFaceError, match="style embedding"):
        condition(inputs[0], torch.randn(1, 20))


def test_half_precision_is_finite(inputs):
    condition = HybridCondition(STYLE, FACE, WIDTH, TOKENS, dtype=torch.float16)
    face, style, text = (tensor.half() for tensor in inputs)
    half = condition(face, 20 * style, 20 * text, 0.3)
    exact = condition.float()(face.float(), 20 * style.float(), 20 * text.float(), 0.3)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=5e-3, atol=2e-2)


# Identity mixing


def person(*shades):
    return Identity(
        tuple(FaceReference.from_crop(torch.full((4, 4, 3), s, dtype=torch.uint8)) for s in shades)
    )


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_weights_of_a_mix_of_identities_mix_the_mean_faces(ratio):
    a, b = person(1, 2), person(3, 4, 5)
    contents = [reference.content for reference in a.references + b.references]
    known = dict(zip(contents, torch.randn(5, FACE), strict=True))

    def embed(identity):
        faces = torch.stack([known[r.content] for r in identity.references])
        return mix_faces(faces, identity.key_weights())

    got = embed(mix_identities(a, b, ratio))
    torch.testing.assert_close(got, (1 - ratio) * embed(a) + ratio * embed(b))
    if ratio in (0, 1):
        assert torch.equal(got, embed(b if ratio else a))


def test_a_weight_of_zero_leaves_the_other_face_exactly():
    faces = torch.randn(2, FACE)
    faces[1] = torch.nan
    assert torch.equal(mix_faces(faces, [0.7, 0.0]), faces[:1])
    assert torch.equal(mix_faces(faces, [0.0, 0.0]), torch.zeros(1, FACE))


def test_the_order_of_the_photos_does_not_matter():
    faces, weights = normalize(torch.randn(5, FACE), dim=1), [1.0, 0.5, 2.0, 1.0, 0.1]
    order = [3, 0, 4, 2, 1]
    got = mix_faces(faces[order], [weights[i] for i in order])
    assert (got - mix_faces(faces, weights)).abs().max() <= 1e-6


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.5]])
def test_weights_that_do_not_fit_are_an_error(weights):
    with pytest.raises(FlashFaceError, match="2 face embeddings"):
        mix_faces(torch.randn(2, FACE), weights)


# Multi-identity cross-attention


def layer(guidance, rows=2):
    """q (B, L, C), and k, v of the joined context."""
    torch.manual_seed(1)
    q = torch.randn(rows, LENGTH, WIDTH)
    to_k, to_v = torch.randn(2, WIDTH, WIDTH) / WIDTH**0.5
    context = join_tokens(guidance).expand(rows, -1, -1)
    return q, context @ to_k, context @ to_v


@pytest.mark.parametrize("attention", [None, core_attention])
def test_every_query_is_what_it_is_with_its_person_alone(condition, inputs, attention):
    face, style, _ = inputs
    guidance = condition(torch.cat([face, -face[:1]]), style)
    q, k, v = layer(guidance)
    identities = torch.randint(0, 3, (2, LENGTH))
    got = attend_to_identities(q, k, v, identities, HEADS, 3, TOKENS, attention)
    for i in range(3):
        tokens = slice(i * TOKENS, (i + 1) * TOKENS)
        alone = q, k[:, tokens], v[:, tokens]
        nobody = torch.zeros(2, LENGTH, dtype=torch.long)
        expected = attend_to_identities(*alone, nobody, HEADS, 1, TOKENS, attention)
        assert torch.equal(got[identities == i], expected[identities == i])
        torch.testing.assert_close(expected, core_attention(*alone, HEADS))


def test_one_person_is_the_plain_attention_exactly(condition, inputs):
    q, k, v = layer(condition(inputs[0][:1], inputs[1]))
    everywhere = torch.zeros(1, LENGTH, dtype=torch.long)
    got = attend_to_identities(q, k, v, everywhere, HEADS, 1, TOKENS, core_attention)
    assert torch.equal(got, core_attention(q, k, v, HEADS))


def test_another_face_in_one_region_changes_nothing_in_the_other(condition, inputs):
    face, style, _ = inputs
    identities = (torch.arange(LENGTH)[None] >= 20).long()
    outs = []
    for other in (face[1:], torch.full((1, FACE), torch.nan)):
        q, k, v = layer(condition(torch.cat([face[:1], other]), style))
        outs.append(attend_to_identities(q, k, v, identities, HEADS, 2, TOKENS))
    assert torch.equal(outs[0][:, :20], outs[1][:, :20])
    assert outs[1][:, 20:].isnan().all()


def test_a_context_that_core_repeated_gives_the_same(condition, inputs):
    q, k, v = layer(condition(*inputs[:2]))
    identities = (torch.arange(LENGTH)[None] % 2).long()
    once = attend_to_identities(q, k, v, identities, HEADS, 2, TOKENS)
    k, v = k.repeat(1, 3, 1), v.repeat(1, 3, 1)
    torch.testing.assert_close(attend_to_identities(q, k, v, identities, HEADS, 2, TOKENS), once)


def test_another_number_of_tokens_is_an_error(condition, inputs):
    q, k, v = layer(condition(*inputs[:2]))
    identities = torch.zeros(1, LENGTH, dtype=torch.long)
    with pytest.raises(FlashFaceError, match="6 tokens, which is not a multiple of 2 people"):
        attend_to_identities(q, k, v, identities, HEADS, 2, 4)


def test_attention_of_half_precision_is_finite(condition, inputs):
    q, k, v = (30 * tensor for tensor in layer(condition(*inputs[:2])))
    identities = (torch.arange(LENGTH)[None] % 2).long()
    half = attend_to_identities(q.half(), k.half(), v.half(), identities, HEADS, 2, TOKENS)
    assert half.dtype == torch.float16 and half.isfinite().all()


def test_a_token_belongs_to_the_person_who_covers_most_of_it_and_else_to_the_first():
    regions = torch.zeros(1, 3, 4, 8)
    regions[0, 1, :, 4:] = 1  # the right half
    regions[0, 2, 2:, :] = 1  # the lower half, over person 1
    regions[0, 1, 2:, 4] = 0
    regions[0, 1, [0, 1, 1], [1, 0, 1]] = 1  # three quarters of the first token
    got = identities_at(regions, (2, 4))
    assert got.dtype == torch.long
    assert got.tolist() == [[1, 0, 1, 1, 2, 2, 2, 1]]
    assert identities_at(regions, (4, 8))[0, :4].tolist() == [0, 1, 0, 0]
