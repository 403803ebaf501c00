import math

import pytest
import torch
from flashface_pack.flashface_core import softmax
from flashface_pack.flashface_core.flashface.reference_attention import ReferenceAttention
from flashface_pack.flashface_core.softmax import ReferenceKeys
from support.scores import CountedScores

WIDTH, HEADS, TOKENS = 64, 8, 30


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return ReferenceAttention(WIDTH, HEADS)


def direct(attention, y, features, strength, weights=None, covered=None):
    """The formula of the source as it stands: two softmaxes, keys [own; references]."""

    def one(kv, bias):
        q, k, v = attention.q(y), attention.k(kv), attention.v(kv)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        logits = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
        return attention.o((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))

    rows, own = len(y), y.shape[1]
    everything = torch.cat([y, features.flatten(0, 1).expand(rows, -1, -1)], 1)
    bias = torch.zeros(rows, 1, own, everything.shape[1])
    weights = weights or [1.0] * len(features)
    logs = torch.tensor(weights).log().repeat_interleave(features.shape[1])
    bias[..., own:] += logs
    if covered is not None:
        bias[..., own:].masked_fill_(~covered[:, None, :, None], -torch.inf)
    return strength * one(everything, bias) + (1 - strength) * one(y, torch.zeros(()))


def keys(attention, features, weight=1.0, covered=None):
    k, v = attention.project(features.flatten(0, 1)[None])
    tokens = None if covered is None else covered.any(0).nonzero()[:, 0]
    return ReferenceKeys(k, v, weight, covered, tokens)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.2])
@pytest.mark.parametrize("references", [1, 4])
@torch.no_grad()
def test_it_equals_the_formula_of_the_source(attention, strength, references):
    y, features = torch.randn(2, TOKENS, WIDTH), torch.randn(references, 11, WIDTH)
    s = torch.full((2, 1, 1), strength)
    close(attention(y, [keys(attention, features)], s), direct(attention, y, features, strength))


@torch.no_grad()
def test_own_tokens_alone_equal_the_formula_at_strength_zero(attention):
    y, features = torch.randn(2, TOKENS, WIDTH), torch.randn(1, 11, WIDTH)
    close(attention(y), direct(attention, y, features, 0.0))


@torch.no_grad()
def test_weights_add_their_logarithm_to_the_logits(attention):
    y, features = torch.randn(1, TOKENS, WIDTH), torch.randn(2, 11, WIDTH)
    groups = [keys(attention, features[:1], 0.25), keys(attention, features[1:], 3.0)]
    expected = direct(attention, y, features, 1.2, [0.25, 3.0])
    close(attention(y, groups, torch.full((1, 1, 1), 1.2)), expected)


@torch.no_grad()
def test_a_photo_twice_equals_weight_two(attention):
    y, features = torch.randn(1, TOKENS, WIDTH), torch.randn(1, 11, WIDTH)
    s = torch.full((1, 1, 1), 1.2)
    twice = attention(y, [keys(attention, features.expand(2, -1, -1))], s)
    close(twice, attention(y, [keys(attention, features, 2.0)], s))


@torch.no_grad()
def test_the_order_of_references_does_not_matter(attention):
    y, features = torch.randn(1, TOKENS, WIDTH), torch.randn(3, 11, WIDTH)
    groups = [keys(attention, features[i : i + 1], 1.0 + i) for i in range(3)]
    s = torch.ones(1, 1, 1)
    close(attention(y, groups, s), attention(y, groups[::-1], s))


@torch.no_grad()
def test_rows_without_strength_are_exactly_the_own_attention(attention):
    y, features = torch.randn(3, TOKENS, WIDTH), torch.randn(1, 11, WIDTH)
    reference = [keys(attention, features)]
    mixed = attention(y, reference, torch.full((1, 1, 1), 1.2), rows=[1])
    everything = attention(y, reference, torch.full((3, 1, 1), 1.2))
    close(mixed[1], everything[1])
    close(mixed[[0, 2]], attention(y)[[0, 2]])


@pytest.mark.parametrize("rows", [None, [2, 0]])
def test_the_training_form_equals_strength_one(attention, rows):
    y, features = torch.randn(3, TOKENS, WIDTH), torch.randn(2, 11, WIDTH)
    reference = [keys(attention, features)]
    count = len(rows or y)
    got = attention(y, reference, None, rows)
    close(got, attention(y, reference, torch.ones(count, 1, 1), rows))
    got.square().sum().backward()
    assert all(p.grad is not None for p in attention.parameters())


@torch.no_grad()
def test_a_region_hides_the_references_from_the_other_tokens_exactly(attention):
    y, features = torch.randn(1, TOKENS, WIDTH), torch.randn(2, 1, 11, WIDTH)
    covered = torch.arange(TOKENS)[None] < 12
    s = torch.full((1, 1, 1), 1.2)
    first, second = (attention(y, [keys(attention, f, 1.0, covered)], s) for f in features)
    assert torch.equal(first[:, 12:], second[:, 12:])
    assert not torch.allclose(first[:, :12], second[:, :12])
    close(first, direct(attention, y, features[0], 1.2, covered=covered))


@torch.no_grad()
def test_the_plain_path_equals_the_kernels(monkeypatch):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 50, 40), torch.randn(2, 4, 70, 40), torch.randn(2, 4, 70, 40)
    out, lse = softmax.attend(q, k, v)
    monkeypatch.setattr(softmax, "PLAIN_SCORES", 2 * 4 * 70 * 16)  # in parts of 16 queries
    plain, plain_lse = softmax._attend_plain(q, k, v)
    close(out, plain)
    close(lse, plain_lse)


def test_gradients_reach_every_weight_through_the_references():
    torch.manual_seed(0)
    attention = ReferenceAttention(WIDTH, HEADS)
    y, features = torch.randn(2, TOKENS, WIDTH), torch.randn(2, 11, WIDTH)
    got = attention(y, [keys(attention, features, 2.0)], torch.full((2, 1, 1), 1.2))
    got.square().sum().backward()
    gradients = {name: p.grad for name, p in attention.named_parameters()}

    attention.zero_grad()
    direct(attention, y, features, 1.2, [2.0, 2.0]).square().sum().backward()
    for name, parameter in attention.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_stays_close(attention, dtype):
    y, features = torch.randn(2, TOKENS, WIDTH), torch.randn(2, 11, WIDTH)
    s = torch.full((2, 1, 1), 1.2)
    expected = attention(y, [keys(attention, features)], s)
    half = attention.to(dtype)
    got = half(y.to(dtype), [keys(half, features.to(dtype))], s)
    assert got.dtype == dtype and got.isfinite().all()
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.02)


@torch.no_grad()
def test_people_cost_what_their_regions_hold(attention):
    """Four people in four quarters cost as much as one who is everywhere; not four times that."""
    y, strength = torch.randn(2, 40, WIDTH), torch.ones(2, 1, 1)
    quarters = torch.eye(4).bool().repeat_interleave(10, 1)
    people = [
        keys(attention, torch.randn(2, 11, WIDTH), covered=quarter.expand(2, -1))
        for quarter in quarters
    ]
    counts = []
    for references in ([], people[:1], people, [keys(attention, torch.randn(2, 11, WIDTH))]):
        with CountedScores() as counted:
            attention(y, references, strength)
        counts.append(counted.count)
    own, one, four, everywhere = counts
    assert own == 2 * 40 * 40 and one - own == 2 * 10 * 22
    assert four - own == everywhere - own == 2 * 40 * 22


@torch.no_grad()
def test_a_region_without_a_token_at_a_site_adds_nothing(attention):
    y, strength = torch.randn(2, TOKENS, WIDTH), torch.ones(2, 1, 1)
    nowhere = keys(attention, torch.randn(1, 11, WIDTH), covered=torch.zeros(2, TOKENS).bool())
    close(attention(y, [nowhere], strength), attention(y))
