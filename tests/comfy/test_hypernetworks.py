"""A hypernetwork, and other patches that change what attention takes and gives: the same on either
side of Apply."""

import pytest
import torch
from comfy_extras.nodes_hypernetwork import load_hypernetwork_patch
from support.harness import relative_error
from support.image_prompt import louder_prompt
from support.systems import EARLY, LATE, SYSTEMS, in_halves

EQUAL = 1e-5
WIDTHS = (32, 64, 768)  # of what attention takes, in the small UNet and its prompts


@pytest.fixture(scope="module")
def hypernetwork(tmp_path_factory):
    """What core's HypernetworkLoader does with a file of random weights."""
    path = tmp_path_factory.mktemp("hypernetwork") / "random.pt"
    generator = torch.Generator().manual_seed(9)

    def layers(width: int) -> dict[str, torch.Tensor]:
        inner = 2 * width
        return {
            "linear.0.weight": torch.randn(inner, width, generator=generator) / width**0.5,
            "linear.0.bias": torch.zeros(inner),
            "linear.1.weight": torch.randn(width, inner, generator=generator) / inner**0.5,
            "linear.1.bias": torch.zeros(width),
        }

    weights = {width: [layers(width), layers(width)] for width in WIDTHS}
    torch.save({**weights, "activation_func": "relu"}, path)

    def node(model):
        patch, model = load_hypernetwork_patch(str(path), 1.0), model.clone()
        model.set_model_attn1_patch(patch)
        model.set_model_attn2_patch(patch)
        return model

    return node


@pytest.mark.parametrize("timestep", [EARLY, LATE], ids=["above", "below launch"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_hypernetwork_before_and_behind_apply(bench, system, timestep, hypernetwork):
    graph = bench.graph(system, *in_halves())
    before = bench.graph(system, *in_halves(), model=hypernetwork(bench.model)).step(timestep)
    behind = graph.patched(hypernetwork).step(timestep)
    assert relative_error(behind, before) <= EQUAL
    assert relative_error(behind, graph.step(timestep)) > 1e-3


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_louder_prompt_before_and_behind_apply(bench, system):
    def node(model):
        return louder_prompt(model, 0.5)

    before = bench.graph(system, *in_halves(), model=node(bench.model)).step(LATE)
    behind = bench.graph(system, *in_halves()).patched(node).step(LATE)
    assert relative_error(behind, before) <= EQUAL
