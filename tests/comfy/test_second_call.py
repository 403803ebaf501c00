"""Beside what looks at rows y_ref comes in a call of its own, which nobody may take for a step."""

import functools
import logging

import comfy.controlnet
import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from support.core_nodes import patch
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.systems import FLASHFACE, FUSION, OWN_ATTENTION, STUDIO, Bench, Graph, in_halves

import nodes

ALIKE = 1e-4
# A face that draws nothing, so that whatever is seen of it is a fault.
WEAK = Guidance(feature_strength=1e-5, early_strength=1e-5, guidance_rescale=0.0)
NEVER, USUAL = 1e-9, 0.05  # reuse thresholds: skips no step, skips many


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("systems"), width=64)


def same(model):
    """A patch that returns what it is given: others cannot know."""
    model = model.clone()
    model.set_model_attn2_output_patch(lambda out, _options: out)
    return model


def free_u(model):
    return patch("FreeU_V2", model)


def easy(model, threshold: float):
    return EasyCacheNode.execute(model, threshold, 0.15, 0.95, False).args[0]


def draw(bench, system, is_first, other, threshold, guidance, cfg):
    model = other(bench.model)
    if is_first:
        graph = bench.graph(system, person(1, 2), model=model, guidance=guidance)
        graph = graph.patched(lambda model: easy(model, threshold))
    else:
        model = easy(model, threshold)
        graph = bench.graph(system, person(1, 2), model=model, guidance=guidance)
    return graph.sample(steps=10, cfg=cfg)


@pytest.fixture(scope="module")
def alone(bench):
    """EasyCache's picture without a face, drawn once for all systems and orders."""

    def drawn(other, threshold, cfg):
        return bench.plain(easy(other(bench.model), threshold)).sample(steps=10, cfg=cfg)

    return functools.cache(drawn)


@pytest.mark.parametrize("cfg", [7.5, 1.0])
@pytest.mark.parametrize("threshold", [NEVER, USUAL])
@pytest.mark.parametrize("other", [same, free_u])
@pytest.mark.parametrize("is_first", [True, False], ids=["Apply before", "Apply after"])
@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION])
def test_easycache_skips_what_it_skips_alone(bench, alone, system, is_first, other, threshold, cfg):
    weak = draw(bench, system, is_first, other, threshold, WEAK, cfg)
    assert relative_error(weak, alone(other, threshold, cfg)) < ALIKE


@pytest.mark.parametrize("is_first", [True, False], ids=["Apply before", "Apply after"])
def test_easycache_changes_a_face_as_little_as_a_picture_without(bench, is_first):
    guidance = Guidance(guidance_rescale=0.0)
    face = bench.graph(FLASHFACE, person(1, 2), model=same(bench.model), guidance=guidance)
    face = face.sample(steps=10)
    plain = bench.plain().sample(steps=10)
    cached = bench.plain(easy(bench.model, USUAL)).sample(steps=10)
    own = relative_error(cached, plain)
    assert own > ALIKE and relative_error(face, plain) > 0.1
    exact = draw(bench, FLASHFACE, is_first, same, NEVER, guidance, 7.5)
    assert relative_error(exact, face) < ALIKE
    skipped = draw(bench, FLASHFACE, is_first, same, USUAL, guidance, 7.5)
    assert relative_error(skipped, face) < 2 * own


class Adapter(torch.nn.Module):
    unshuffle_amount = 8

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 64, 8, stride=8)

    def forward(self, hint):
        return {"input": [self.convolution(hint)]}


@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_an_adapter_with_a_picture_per_sample_is_there_in_every_step(bench, caplog, cfg):
    torch.manual_seed(0)
    control = comfy.controlnet.T2IAdapter(Adapter(), 3, 8, "nearest-exact")
    hints = torch.rand(2, 128, 128, 3)

    def sample(graph):
        conds = nodes.ControlNetApplyAdvanced().apply_controlnet(
            graph.positive, graph.negative, control, hints, 1.0, 0.0, 1.0
        )
        return Graph(graph.model, *conds).sample(2, steps=10, cfg=cfg)

    weak = sample(bench.graph(FLASHFACE, person(1, 2), guidance=WEAK))
    assert not [text for text in caplog.messages if "control could not be applied" in text]
    alone = sample(bench.plain())
    assert relative_error(weak, alone) < ALIKE
    assert relative_error(bench.plain().sample(2, steps=10, cfg=cfg), alone) > 0.01


def own_way(model):
    """A node that calls the blocks itself, as DeepCache does."""
    model = model.clone()
    base = model.model

    def run(_apply_model, given):
        x, t, c = given["input"], given["timestep"], given["c"]
        scaled = base.model_sampling.calculate_input(t, x)
        times = base.model_sampling.timestep(t).float()
        text, options = c["c_crossattn"], c["transformer_options"]
        out = base.diffusion_model._forward(scaled, times, text, transformer_options=options)
        return base.model_sampling.calculate_denoised(t, out, x)

    model.set_model_unet_function_wrapper(run)
    return model


@pytest.mark.parametrize("system", [FLASHFACE, OWN_ATTENTION, FUSION])
def test_a_node_that_bypasses_apply_model_is_told(bench, caplog, system):
    caplog.set_level(logging.WARNING, "flashface")
    guidance = Guidance(guidance_rescale=0.0)
    alone = bench.plain(own_way(bench.model)).sample()
    assert not caplog.messages
    drawn = bench.graph(system, person(1, 2), guidance=guidance).patched(own_way).sample()
    assert relative_error(drawn, alone) < ALIKE  # or the test is about nothing
    (line,) = caplog.messages
    assert "had no effect: a node on this MODEL runs the UNet in its own way" in line


def test_so_are_regions_that_it_loses(bench, caplog):
    caplog.set_level(logging.WARNING, "flashface")
    bench.graph(STUDIO, *in_halves()).sample()
    bench.graph(STUDIO, person(1)).patched(own_way).sample()
    assert not caplog.messages
    lost, swapped = (
        bench.graph(STUDIO, *people).patched(own_way).sample()
        for people in (in_halves(), in_halves(2, 1))
    )
    assert relative_error(lost, swapped) < 1e-3  # wherever each of them was to be
    lines = caplog.messages
    assert len(lines) == 2
    assert "gave nobody a region: a node on this MODEL runs the UNet in its own way" in lines[0]
