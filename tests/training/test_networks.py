"""What is trained is what is shipped."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.golden import ROOT as GOLDEN
from support.harness import load_flashface, relative_error
from support.tools import load_tool

from flashface_core.flashface.checkpoint import read_checkpoint
from flashface_core.weights_file import read_state_dict
from training.networks import (
    PARTS,
    REFERENCE_NET,
    FlashFaceNetworks,
    References,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "mini.safetensors"
    return load_tool("rule_weights").write_rule_checkpoint(path, "mini")


@pytest.fixture
def networks(path):
    return FlashFaceNetworks(read_checkpoint("mini", *read_state_dict(path)))


def batch(count=2, photos=3):
    torch.manual_seed(0)
    t = torch.randint(0, 1000, (count,))
    slots = torch.randint(0, photos, (count, 4))
    references = References(torch.randn(photos, 4, 8, 8), t[:1].expand(photos), slots, [0, 1])
    return torch.randn(count, 4, 16, 16), t, torch.randn(count, 77, 768), references


def test_the_forward_pass_in_training_equals_the_official_numbers(networks):
    data = load_file(GOLDEN / "flashface_mini" / "M2_24x16_r4_b2.safetensors")
    t = torch.full((2,), 301)
    references = References(data["in.ref"], t.repeat(2), torch.arange(4).expand(2, 4), [0, 1])
    mask = data["in.mask"][:, None].expand(2, -1, -1, -1)
    text = data["in.cond"].expand(2, -1, -1)
    got = networks.predict(data["in.x"], t, text, data["in.neg"], references, mask)
    assert got.requires_grad
    assert relative_error(got.detach(), data["t301.nd2.lam1.0"][:2]) <= 2e-4
    without = networks.predict(data["in.x"], t, text, data["in.neg"], None, mask)
    assert relative_error(without.detach(), data["t301.nd2.lam0.0"][:2]) <= 2e-4


def test_rows_without_references_are_those_of_a_run_without(networks):
    x, t, text, references = batch()
    only_second = references._replace(slots=references.slots[1:], rows=[1])
    with torch.no_grad():
        both = networks.predict(x, t, text, text[:1], references, None)
        second = networks.predict(x, t, text, text[:1], only_second, None)
        none = networks.predict(x, t, text, text[:1], None, None)
    torch.testing.assert_close(second[0], none[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second[1], both[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(second[1], none[1])


def test_references_that_nobody_sees_take_the_same_way_and_change_nothing(networks):
    """One process may draw them while another draws some that are seen."""
    x, t, text, references = batch()
    nobody = references._replace(slots=references.slots[:0], rows=[])
    networks.freeze_all_but((REFERENCE_NET,))
    with torch.no_grad():
        expected = networks.predict(x, t, text, text[:1], None, None)
    got = networks.predict(x, t, text, text[:1], nobody, None)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.square().mean().backward()
    for parameter in networks.part_parameters(REFERENCE_NET):
        assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.parametrize("parts", [PARTS, *((part,) for part in PARTS)])
def test_gradients_reach_every_trainable_tensor_and_no_other(networks, parts):
    networks.freeze_all_but(parts)
    x, t, text, references = batch()
    mask = torch.ones(2, 1, 16, 16)
    networks.predict(x, t, text, text[:1], references, mask).square().mean().backward()
    trained = {id(p) for part in parts for p in networks.part_parameters(part)}
    for name, parameter in networks.named_parameters():
        if id(parameter) in trained:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_an_unknown_part_is_an_error(networks):
    with pytest.raises(ValueError, match="vae"):
        networks.freeze_all_but(["vae"])


def test_the_saved_file_reloads_to_the_same_networks(networks, tmp_path):
    networks.freeze_all_but(PARTS)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.01)
    path = tmp_path / "trained.safetensors"
    state = {key: value.contiguous() for key, value in networks.published_state_dict().items()}
    save_file(state, path, metadata={"num_heads": "8"})
    model, net = load_flashface(path, "fp32")
    for key, value in model.model.diffusion_model.state_dict().items():
        assert torch.equal(value, networks.target.state_dict()[key]), key
    for key, value in net.network.state_dict().items():
        assert torch.equal(value, networks.network.state_dict()[key]), key
