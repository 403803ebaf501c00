"""FlashFace beside other nodes that patch MODEL or prompts (docs/COMPATIBILITY.md).

Ours at zero is the other alone, the other at zero is ours alone, and both draw in either order.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import comfy.sd
import pytest
import torch
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from support.control import lora_state, random_controlnet
from support.harness import Guidance, Place, apply_features, relative_error
from support.image_prompt import image_prompt, louder_prompt
from support.sampling import CFG, empty_latent, ksampler

import nodes

PLACE = Place((0.3, 0.1, 0.4, 0.4))
EQUAL = 1e-5
OFF = Guidance(feature_strength=0, early_strength=0, face_guidance=0)


class Other(NamedTuple):
    """A node at its usual settings and at those that change nothing, as graph to graph.

    exact: whether core itself draws bit-identically to a MODEL without the node for the latter.
    """

    on: Callable
    off: Callable
    exact: bool = True


def on_model(patch: Callable) -> Callable:
    return lambda graph: replace(graph, model=patch(graph.model))


def lora(strength: float) -> Callable:
    def patch(model):
        state = lora_state(model, "")
        return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]

    return on_model(patch)


def controlnet(strength: float) -> Callable:
    def guide(graph):
        image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
        control = random_controlnet(graph.model)
        positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
            graph.positive, graph.negative, control, image, strength, 0.0, 1.0
        )
        return replace(graph, positive=positive, negative=negative)

    return guide


def of_core(node: Callable, on: tuple, off: tuple, exact: bool = True) -> Other:
    def at(settings: tuple) -> Callable:
        def patch(model):
            result = node(model, *settings)
            return getattr(result, "args", result)[0]  # a new or an old node's output

        return on_model(patch)

    return Other(at(on), at(off), exact)


OTHERS = {
    "image prompt": Other(
        on_model(lambda model: image_prompt(model, 0.7)),
        on_model(lambda model: image_prompt(model, 0.0)),
    ),
    "attn2 output patch": Other(
        on_model(lambda model: louder_prompt(model, 0.5)),
        on_model(lambda model: louder_prompt(model, 0.0)),
    ),
    "ToMe": of_core(TomePatchModel.execute, (0.4,), (0.0,)),
    # One tile of 2048 pixels holds the whole picture.
    "HyperTile": of_core(HyperTile.execute, (32, 2, 0, False), (2048, 1, 0, False)),
    "PAG": of_core(PerturbedAttentionGuidance.execute, (3.0,), (0.0,)),
    # Computes the attention of the middle block in steps of its own, at any scale.
    "SAG": of_core(SelfAttentionGuidance.execute, (0.5, 2.0), (0.0, 2.0), exact=False),
    # There and back through a Fourier transform.
    "FreeU": of_core(FreeU().patch, (1.1, 1.2, 0.9, 0.2), (1.0,) * 4, exact=False),
    "FreeU_V2": of_core(FreeU_V2().patch, (1.3, 1.4, 0.9, 0.2), (1.0,) * 4, exact=False),
    # There and back through the network's output.
    "RescaleCFG": of_core(RescaleCFG().patch, (0.7,), (0.0,), exact=False),
    "LoRA": Other(lora(1.0), lora(0.0)),
    "ControlNet": Other(controlnet(1.0), controlnet(0.0)),
}
# batch, latent height and width, cfg
SETTINGS = {
    "three of 120 x 136": (3, 17, 15, CFG),
    "one of 128 x 128 at cfg 1": (1, 16, 16, 1.0),
}
NOTHING_TO_DO = [("RescaleCFG", "one of 128 x 128 at cfg 1")]  # without a negative prompt

every_setting = pytest.mark.parametrize("setting", SETTINGS)
every_other = pytest.mark.parametrize("name", OTHERS)


def sample(graph, setting) -> torch.Tensor:
    """Two steps, one above launch and one below."""
    *size, cfg = SETTINGS[setting]
    return ksampler(graph.model, graph.positive, graph.negative, empty_latent(*size), cfg=cfg)


def with_face(graph, guidance: Guidance | None = None, weights=None):
    features = graph.features(2, weights=weights, place=PLACE)
    return replace(graph, model=apply_features(graph.model, features, guidance or Guidance()))


@pytest.fixture
def graph(name, flashface, wide):
    """What a node of OTHERS is tried on."""
    return wide if name == "ControlNet" else flashface


KNOWN: dict = {}


def once(graph, setting, change: Callable | None = None) -> torch.Tensor:
    """What several tests compare with is drawn once: a graph as it is, or changed."""
    key = graph.model, setting, change
    if key not in KNOWN:
        KNOWN[key] = sample(change(graph) if change else graph, setting)
    return KNOWN[key]


def both_orders(ours: Callable, other: Callable, graph, setting) -> list[torch.Tensor]:
    """The other before Apply, and after it."""
    return [sample(g, setting) for g in (ours(other(graph)), other(ours(graph)))]


@every_setting
@every_other
@pytest.mark.parametrize("zero", ["strengths", "weights"])
def test_ours_at_zero_is_the_other_alone(graph, name, zero, setting):
    other = OTHERS[name].on
    settings = {"guidance": OFF} if zero == "strengths" else {"weights": [0.0, 0.0]}
    expected = once(graph, setting, other)
    for got in both_orders(lambda g: with_face(g, **settings), other, graph, setting):
        assert torch.equal(got, expected)


@every_setting
@every_other
def test_the_other_at_zero_is_ours_alone(graph, name, setting):
    _, off, exact = OTHERS[name]
    bare, ours = once(graph, setting), once(graph, setting, with_face)
    cores = relative_error(sample(off(graph), setting), bare)
    for got in both_orders(with_face, off, graph, setting):
        # A patch of others may tell rows apart, so the row with the face is in a call of its own.
        assert relative_error(got, ours) <= EQUAL
        assert cores == 0 if exact else cores <= EQUAL


@every_setting
@every_other
def test_both_draw_in_either_order(graph, name, setting):
    other = OTHERS[name].on
    first, last = both_orders(with_face, other, graph, setting)
    assert torch.isfinite(first).all() and torch.equal(first, last)
    assert relative_error(first, once(graph, setting, other)) > 1e-3
    if (name, setting) not in NOTHING_TO_DO:
        assert relative_error(first, once(graph, setting, with_face)) > 1e-3
