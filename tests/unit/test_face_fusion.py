import math

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face_fusion.fusion import (
    FaceProjection,
    face_tokens,
    fuse_rows,
    fusion_change,
)
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.flashface_core.people.mix import mix_identities
from support.fused import core_attention, fuse, person_keys

WIDTH, HEADS, LENGTH, TEXT, PHOTOS, SEEN = 32, 4, 48, 7, 3, 20


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def project():
    return FaceProjection(WIDTH).requires_grad_(False)


@pytest.fixture
def layer():
    """q (B, L, C), k and v of the text."""
    return torch.randn(2, LENGTH, WIDTH), *torch.randn(2, 2, TEXT, WIDTH)


@pytest.fixture
def photos():
    """Hidden states (N, L, C) and which of them show the face."""
    return torch.randn(PHOTOS, SEEN, WIDTH), torch.rand(PHOTOS, SEEN) > 0.4


def direct(q, k, v, project, features, faces, logs, seen):
    """The formula as it stands, in float64. logs: bias per photo; seen: bool (L, photos)."""
    face_k, face_v = (t.expand(len(q), -1, -1) for t in project(features.flatten(0, 1)[None]))
    q, k, v = q.double(), torch.cat([k, face_k], 1).double(), torch.cat([v, face_v], 1).double()
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    bias = torch.tensor(logs, dtype=torch.float64)[:, None].expand(faces.shape)
    bias = bias.masked_fill(~faces, -torch.inf).flatten().expand(LENGTH, -1)
    bias = bias.masked_fill(~seen.repeat_interleave(SEEN, 1), -torch.inf)
    bias = torch.cat([bias.new_zeros(LENGTH, TEXT), bias], 1)
    logits = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2).float()


def half_regions():
    left = torch.arange(LENGTH) < 18
    return left, ~left


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_it_is_one_softmax_over_text_and_face_tokens(layer, project, photos, strength):
    weights = [1.0, 0.25, 1.0]
    got = fuse(*layer, person_keys(project, *photos, weights), strength, HEADS)
    logs = [math.log(strength * weight) for weight in weights]
    everywhere = torch.ones(LENGTH, PHOTOS, dtype=torch.bool)
    torch.testing.assert_close(got, direct(*layer, project, *photos, logs, everywhere))


def test_people_in_regions_equal_the_formula(layer, project, photos):
    features, faces = photos
    left, right = half_regions()
    references = [
        *person_keys(project, features[:2], faces[:2], [1, 1], left),
        *person_keys(project, features[2:], faces[2:], [0.5], right),
    ]
    seen = torch.stack([left, left, right], 1)
    expected = direct(*layer, project, *photos, [0.0, 0.0, math.log(0.5)], seen)
    torch.testing.assert_close(fuse(*layer, references, 1.0, HEADS), expected)


# Ends


def test_strength_zero_changes_nothing(layer, project, photos):
    references = person_keys(project, *photos, [1.0] * PHOTOS)
    assert torch.equal(fusion_change(*layer, references, 0.0, HEADS), torch.zeros_like(layer[0]))
    assert (fusion_change(*layer, references, 1e-3, HEADS) != 0).any()


def test_a_strength_near_zero_is_near_the_plain_attention(layer, project, photos):
    change = fusion_change(*layer, person_keys(project, *photos, [1.0] * PHOTOS), 1e-6, HEADS)
    assert 0 < change.abs().max() < 1e-3


def test_a_photo_without_a_face_token_changes_nothing(layer, project, photos):
    features, faces = photos
    references = person_keys(project, features, torch.zeros_like(faces), [1.0] * PHOTOS)
    assert torch.equal(fusion_change(*layer, references, 1.0, HEADS), torch.zeros_like(layer[0]))


def test_nobody_changes_nothing(layer):
    assert torch.equal(fusion_change(*layer, [], 1.0, HEADS), torch.zeros_like(layer[0]))


def test_tokens_outside_of_the_face_are_never_seen(layer, project, photos):
    features, faces = photos
    hidden = features.masked_fill(~faces[..., None], torch.nan)
    outs = [
        fuse(*layer, person_keys(project, f, faces, [1.0] * PHOTOS), 1.0, HEADS)
        for f in (features, hidden)
    ]
    assert torch.equal(*outs)


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_a_face_between_two_people_ends_in_each_of_them_exactly(layer, project, photos, ratio):
    references = [
        FaceReference.from_crop(torch.full((4, 4, 3), shade, dtype=torch.uint8))
        for shade in range(PHOTOS)
    ]
    index = {reference.content: i for i, reference in enumerate(references)}
    a, b = (Identity(tuple(r), as_four_photos=False) for r in (references[:1], references[1:]))

    def out(identity):
        chosen = [index[reference.content] for reference in identity.references]
        features, faces = (tensor[chosen] for tensor in photos)
        keys = person_keys(project, features, faces, identity.key_weights())
        return fuse(*layer, keys, 1.0, HEADS)

    got = out(mix_identities(a, b, ratio))
    if ratio in (0, 1):
        assert torch.equal(got, out(b if ratio else a))
    else:
        total = (1 - ratio) + 2 * ratio
        weights = [(1 - ratio) * total, ratio * total / 2, ratio * total / 2]
        everywhere = torch.ones(LENGTH, PHOTOS, dtype=torch.bool)
        logs = [math.log(weight) for weight in weights]
        torch.testing.assert_close(got, direct(*layer, project, *photos, logs, everywhere))


# Order, regions, precision


def test_the_order_of_photos_and_people_does_not_matter(layer, project, photos):
    features, faces = photos
    weights, order = [1.0, 0.5, 1.0], [2, 0, 1]
    given = person_keys(project, features, faces, weights)
    turned = person_keys(project, features[order], faces[order], [weights[i] for i in order])
    left, right = half_regions()
    people = [
        *person_keys(project, features[:1], faces[:1], [1.0], left),
        *person_keys(project, features[1:], faces[1:], [0.5, 1.0], right),
    ]
    for one, other in ((given, turned), (people, people[::-1])):
        outs = [fuse(*layer, references, 0.7, HEADS) for references in (one, other)]
        assert (outs[0] - outs[1]).abs().max() <= 1e-6


def test_other_photos_in_one_region_change_nothing_in_the_other(layer, project, photos):
    features, faces = photos
    left, right = half_regions()
    first = person_keys(project, features[:1], faces[:1], [1.0], left)
    outs = [
        fuse(
            *layer,
            first + person_keys(project, f, faces[1:2], [1.0], right),
            1.0,
            HEADS,
        )
        for f in (features[1:2], features[2:], torch.full_like(features[:1], torch.nan))
    ]
    for other in outs[1:]:
        assert torch.equal(outs[0][:, left], other[:, left])
        assert not torch.allclose(outs[0][:, right], other[:, right])


def test_queries_outside_of_every_region_are_the_plain_attention_exactly(layer, project, photos):
    left, _ = half_regions()
    references = person_keys(project, *photos, [1.0] * PHOTOS, left)
    change = fusion_change(*layer, references, 1.0, HEADS)
    assert (change[:, ~left] == 0).all()
    assert (change[:, left] != 0).any(-1).all()


@pytest.mark.parametrize("scale", [1, 30])
def test_half_precision_is_finite(layer, project, photos, scale):
    features, faces = photos
    left, _ = half_regions()
    outs = []
    for dtype in (torch.float16, torch.float32):
        q, k, v = ((scale * tensor).half().to(dtype) for tensor in layer)
        keys = person_keys(project.to(dtype), features.half().to(dtype), faces, [1.0] * 3, left)
        outs.append(fuse(q, k, v, keys, 0.5, HEADS))
    assert outs[0].dtype == torch.float16
    assert outs[0].isfinite().all()
    if scale == 1:
        torch.testing.assert_close(outs[0].float(), outs[1], rtol=5e-3, atol=5e-3)


def test_a_small_face_is_lost_at_no_scale():
    faces = torch.zeros(2, 32, 32)
    faces[0, 9, 5] = 1
    for size in ((32, 32), (8, 8), (4, 4), (1, 1)):
        tokens = face_tokens(faces, size)
        assert tokens.shape == (2, size[0] * size[1])
        assert tokens.sum(1).tolist() == [1, 0]
    assert face_tokens(faces, (8, 8))[0].nonzero().item() == 2 * 8 + 1


# Training


def test_the_training_form_equals_strength_one_row_by_row(layer, project, photos):
    features, faces = photos[0][:2], photos[1][:2]
    faces[1] = False  # a row whose face was dropped
    got = fuse_rows(*layer, *project(features), faces, HEADS)
    for row, (feature, face) in enumerate(zip(features, faces, strict=True)):
        parts = [tensor[row : row + 1] for tensor in layer]
        keys = person_keys(project, feature[None], face[None], [1.0])
        torch.testing.assert_close(got[row : row + 1], fuse(*parts, keys, 1.0, HEADS))
    torch.testing.assert_close(got[1:], core_attention(*(t[1:] for t in layer), HEADS))


def test_both_forms_give_the_projections_the_same_gradient(layer, photos):
    features, faces = photos[0][:1], photos[1][:1]
    layer = [tensor[:1] for tensor in layer]
    project = FaceProjection(WIDTH)
    gradients = []
    for form in (
        lambda: fuse_rows(*layer, *project(features), faces, HEADS),
        lambda: fuse(*layer, person_keys(project, features, faces, [1.0]), 1.0, HEADS),
    ):
        project.zero_grad()
        form().square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in project.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


# Errors


def test_a_negative_strength_is_an_error(layer, project, photos):
    references = person_keys(project, *photos, [1.0] * PHOTOS)
    with pytest.raises(FlashFaceError, match="strength is -0.5; it must be 0 or more"):
        fuse(*layer, references, -0.5, HEADS)
