"""Face2Diffusion's algebra: what must hold whatever the weights are."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.denoising import class_guided_target
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.face2diffusion.files import build_encoder
from flashface_pack.flashface_core.face2diffusion.mapping import MappingNetwork
from flashface_pack.flashface_core.face2diffusion.word import (
    inject,
    placeholder_positions,
    word_tokens,
)
from skimage import data
from support.face2diffusion import published_shapes, rule_state
from torch.nn.functional import mse_loss


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("rule", rule_state(published_shapes("msid")))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = MappingNetwork(24, 8, 32, 16).eval()
    torch.nn.init.normal_(network.null_exp)
    return network


@torch.inference_mode()
def test_a_vector_does_not_depend_on_the_other_faces_of_the_batch(encoder):
    photo = torch.from_numpy(data.astronaut())
    faces = torch.stack([photo[y : y + 112, 160:272] for y in (40, 60, 300)])
    inputs = network_input(faces)
    assert inputs.shape == (3, 3, 112, 112) and inputs.min() >= -1 and inputs.max() <= 1
    together = encoder(inputs)
    alone = torch.cat([encoder(inputs[i : i + 1]) for i in range(3)])
    assert together.shape == (3, encoder.vector_width)
    assert torch.allclose(together, alone, atol=2e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


@torch.inference_mode()
def test_a_scale_of_faint_class_tokens_is_normalised_with_the_official_epsilons(encoder):
    """As the first published scales are; the golden numbers, of order 1, do not depend on them."""
    state = encoder.state_dict()
    state["norms.layer_2.0.running_var"] = torch.full((384,), 2e-5)
    state["norms.layer_2.0.weight"] = torch.full((384,), 1e-5)
    state["norms.layer_2.0.bias"] = torch.zeros(384)
    faint = build_encoder("faint", state)
    inputs = network_input(torch.from_numpy(data.astronaut())[None, 40:152, 160:272])
    y = faint.class_tokens(inputs)[:, 0].double()
    weights = {key: value.double() for key, value in state.items()}
    y = (y - weights["norms.layer_2.0.running_mean"]) / (2e-5 + 1e-5) ** 0.5 * 1e-5
    variance = y.var(dim=1, correction=0, keepdim=True)
    y = (y - y.mean(dim=1, keepdim=True)) / (variance + 1e-5) ** 0.5
    y = y * weights["norms.layer_2.1.weight"] + weights["norms.layer_2.1.bias"]
    assert (faint(inputs)[:, :384].double() - y).abs().max() < 2e-5


@torch.inference_mode()
def test_the_learned_vector_stands_in_for_an_expression(network):
    identity, expression = normal(3, 24), normal(3, 8, seed=1)
    without, with_it = network(identity), network(identity, expression)
    assert torch.equal(network(identity, expression, torch.zeros(3)), without)
    assert torch.equal(network(identity, expression, torch.ones(3)), with_it)
    assert torch.equal(network(identity, network.null_exp[None]), without)
    mixed = network(identity, expression, torch.tensor([1.0, 0.0, 0.5]))
    assert torch.allclose(mixed[0], with_it[0]) and torch.allclose(mixed[1], without[1])
    half = network(identity, 0.5 * expression + 0.5 * network.null_exp)
    assert torch.allclose(mixed[2], half[2], atol=1e-6)
    assert (with_it - without).abs().max() > 0.01


@torch.inference_mode()
def test_one_expression_serves_several_faces_and_the_two_tokens_differ(network):
    identity, expression = normal(3, 24), normal(1, 8, seed=1)
    word = network(identity, expression)
    assert torch.equal(word, network(identity, expression.expand(3, -1)))
    assert word.shape == (3, 2, 16) and (word[:, 0] - word[:, 1]).abs().max() > 0.01


def test_the_learned_vector_is_trained_only_where_it_stands_in(network):
    network(normal(2, 24), normal(2, 8, seed=1), torch.ones(2)).sum().backward()
    assert not network.null_exp.grad.any()
    network(normal(2, 24), normal(2, 8, seed=1), torch.tensor([1.0, 0.0])).sum().backward()
    assert network.null_exp.grad.any()


@pytest.mark.parametrize(
    "ids, positions",
    [
        ([49406, 325, 331, 49407], [1]),
        ([49406, 320, 325, 331, 537, 325, 331, 49407], [2, 5]),
        ([49406, 325, 320, 331, 49407], []),  # an "f" and an "l" elsewhere are no placeholder
        ([49406, 325, 325, 331, 49407], [2]),
        ([325], []),
        ([], []),
    ],
)
def test_placeholders_are_found(ids, positions):
    assert placeholder_positions(ids) == positions
    assert placeholder_positions(torch.tensor(ids, dtype=torch.int64)) == positions


@pytest.mark.parametrize("position", [0, 1, 40, 75])
def test_what_the_text_model_computes_with_is_the_word_itself(position):
    tokens, word, places = normal(2, 77, 16), normal(2, 2, 16, seed=1), normal(77, 16, seed=2)
    seen = inject(tokens, word, places, position) + places
    assert torch.allclose(seen[:, position : position + 2], word, atol=1e-6)
    others = [i for i in range(77) if i not in (position, position + 1)]
    assert torch.equal(seen[:, others], (tokens + places)[:, others])


def test_one_word_serves_a_batch_and_gets_the_gradient():
    tokens, places = normal(3, 77, 16), normal(77, 16, seed=2)
    word = normal(1, 2, 16, seed=1).requires_grad_()
    inject(tokens, word, places, 5).sum().backward()
    assert torch.equal(word.grad, torch.full((1, 2, 16), 3.0))


def test_half_precision_positions_do_not_round_the_word():
    places, word = normal(77, 16).half(), normal(2, 16, seed=1)
    given = word_tokens(word, places, 9)
    assert given.dtype == torch.float32
    assert torch.allclose(given + places[9:11].float(), word, atol=1e-6)


@pytest.mark.parametrize("position", [-1, 76, 77])
def test_a_word_outside_of_the_tokens_is_an_error(position):
    with pytest.raises(FlashFaceError, match=f"cannot begin at {position} of 77 tokens"):
        word_tokens(normal(2, 16), normal(77, 16), position)


def test_the_text_model_of_another_width_is_an_error():
    with pytest.raises(FlashFaceError, match=r"shape \(2, 768\), .* needs \(2, 1280\)"):
        word_tokens(normal(2, 768), normal(77, 1280), 1)


def test_the_face_is_taught_by_the_noise_and_the_rest_by_the_class():
    noise, as_class = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1).requires_grad_()
    face = torch.zeros(2, 1, 8, 8)
    face[:, :, 2:5, 3:7] = 1
    everywhere, nowhere = torch.ones_like(face), torch.zeros_like(face)
    assert torch.equal(class_guided_target(noise, as_class, everywhere), noise)
    assert torch.equal(class_guided_target(noise, as_class, nowhere), as_class)
    prediction = noise.clone().requires_grad_()
    mse_loss(prediction, class_guided_target(noise, as_class, face)).backward()
    on_face = face.bool().expand_as(noise)
    assert as_class.grad is None
    assert not prediction.grad[on_face].any() and prediction.grad[~on_face].all()
