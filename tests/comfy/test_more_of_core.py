"""Nodes of core that change MODEL in ways of their own, in one graph with FlashFaceApply."""

from dataclasses import replace

import comfy.hooks
import pytest
import torch
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_eps import EpsilonScaling
from comfy_extras.nodes_fresca import FreSca
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from support.control import lora_state
from support.core_calls import context_windows
from support.harness import (
    Guidance,
    Place,
    WrappersMP,
    apply_features,
    looks_on,
    observe,
    relative_error,
    sigma_of,
)
from support.sampling import classic, empty_latent, face_step, guided, ksampler, noise

import nodes

GUIDANCE = Guidance()
LATE = 501
EQUAL = 1e-5
PLACE = Place((0.3, 0.1, 0.4, 0.4))


def sampling_of(prediction, zsnr):
    return lambda model: ModelSamplingDiscrete().patch(model, prediction, zsnr)[0]


NODES = {
    "deep shrink": lambda model: PatchModelAddDownscale.execute(
        model, 3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic"
    ).args[0],
    "v-prediction": sampling_of("v_prediction", False),
    "zero terminal SNR": sampling_of("v_prediction", True),
    "EpsilonScaling": lambda model: EpsilonScaling.execute(model, 1.02).args[0],
    "FreSca": lambda model: FreSca.execute(model, 1.0, 1.25, 5).args[0],
}
# These change every call of the network, the others only what the guider makes of it.
ON_THE_NETWORK = {"deep shrink", "v-prediction", "zero terminal SNR"}


@pytest.mark.parametrize("name", NODES)
def test_a_node_of_core_acts_as_ever_and_the_face_is_added(flashface, name):
    node, features = NODES[name], flashface.features(place=PLACE)
    model = apply_features(node(flashface.model), features, GUIDANCE)
    x = noise(7, 2) * sigma_of(model, LATE)
    if name in ON_THE_NETWORK:
        graph, patch = replace(flashface, model=node(flashface.model)), None
    else:
        graph, patch = flashface, node
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE, patch)
    got = guided(classic(model, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL
    unpatched = apply_features(flashface.model, features, GUIDANCE)
    without = guided(classic(unpatched, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, without) > 1e-3


def test_a_lora_hook_on_one_prompt_alone(flashface):
    """Core runs the hooked prompt in calls of its own, with other weights; y_ref is one of them."""
    hooks = comfy.hooks.create_hook_lora(lora_state(flashface.model, ""), 0.5, 0.0)
    positive = comfy.hooks.set_hooks_for_conditioning(flashface.positive, hooks)
    graph, features = replace(flashface, positive=positive), flashface.features()
    x = noise(7, 2) * sigma_of(flashface.model, LATE)
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE)
    model = apply_features(flashface.model, features, GUIDANCE)
    got = guided(classic(model, positive, flashface.negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL
    without = guided(classic(model, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, without) > 1e-2


@pytest.mark.parametrize("first", [True, False], ids=["before Apply", "after Apply"])
def test_easycache_keeps_the_branch_with_the_face_apart(flashface, first):
    """It repeats old differences of every branch, by uuid, in the steps that it skips."""

    def easy(model):
        return EasyCacheNode.execute(model, 1000.0, 0.15, 0.95, False).args[0]

    model, seen = observe(flashface.model)
    model = easy(model) if first else model
    model = apply_features(model, flashface.features(), GUIDANCE)
    model = model if first else easy(model)
    drawn = ksampler(model, flashface.positive, flashface.negative, steps=6)
    everything = apply_features(flashface.model, flashface.features(), GUIDANCE)
    exact = ksampler(everything, flashface.positive, flashface.negative, steps=6)
    assert not torch.equal(drawn, exact), "nothing was skipped"
    late = [seen.rows(i) for i, branches in enumerate(seen.branches) if 2 in branches]
    assert len(late) > 2
    for rows in late:
        assert relative_error(rows[2], rows[0]) > 1e-3


@pytest.mark.parametrize("first", [True, False], ids=["before Apply", "after Apply"])
def test_lazycache_skips_steps_of_a_run_with_the_face(flashface, first):
    def lazy(model):
        return LazyCacheNode.execute(model, 1000.0, 0.15, 0.95, False).args[0]

    features = flashface.features()
    if first:
        model = apply_features(lazy(flashface.model), features, GUIDANCE)
    else:
        model = lazy(apply_features(flashface.model, features, GUIDANCE))
    prompts = flashface.positive, flashface.negative
    drawn = ksampler(model, *prompts, steps=6)
    assert torch.isfinite(drawn).all()
    assert relative_error(drawn, ksampler(lazy(flashface.model), *prompts, steps=6)) > 1e-3


def test_differential_diffusion_with_a_soft_mask(flashface):
    mask = torch.linspace(0, 1, 128).expand(1, 128, 128)
    original = {"samples": noise(11)}
    (latent,) = nodes.SetLatentNoiseMask().set_mask(original, mask)
    (model,) = DifferentialDiffusion.execute(flashface.model).args
    patched = apply_features(model, flashface.features(place=PLACE), GUIDANCE)
    prompts = flashface.positive, flashface.negative
    drawn = ksampler(patched, *prompts, latent, steps=4)
    assert relative_error(drawn, ksampler(model, *prompts, latent, steps=4)) > 1e-3
    assert float((drawn - original["samples"])[..., 0].abs().max()) <= 1e-4


def test_lcm_sampling_with_its_own_timesteps(flashface):
    """50 of the trained timesteps; sigmas between two of them are neither."""
    model = sampling_of("lcm", False)(flashface.model)
    patched = apply_features(model, flashface.features(place=PLACE), GUIDANCE)
    settings = (1, 4, 1.5, "lcm", "sgm_uniform", flashface.positive, flashface.negative)
    drawn, bare = (
        nodes.KSampler().sample(m, *settings, empty_latent(), 1.0)[0]["samples"]
        for m in (patched, model)
    )
    assert torch.isfinite(drawn).all() and relative_error(drawn, bare) > 1e-3


def windows(dim):
    """12 latent pixels each, 4 shared with the next."""
    return lambda model: context_windows(model, 12, 4, dim)


@pytest.mark.parametrize("place", [None, PLACE], ids=["anywhere", "placed"])
@pytest.mark.parametrize("dim", [2, 3], ids=["rows", "columns"])
def test_context_windows_over_a_picture(flashface, dim, place):
    """Core cuts the picture into windows inside of calc_cond_batch and joins their results."""
    node, features = windows(dim), flashface.features(place=place)
    graph = replace(flashface, model=node(flashface.model))
    model = node(apply_features(flashface.model, features, GUIDANCE))
    x = noise(7, 1, 20, 20) * sigma_of(model, LATE)
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE)
    got = guided(classic(model, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL


@pytest.mark.parametrize("scheduler", ["simple", "karras"])
def test_nodes_find_the_step_in_the_list_of_noise_levels(flashface, scheduler):
    """Also where the face moves a level to the timestep next to it, as it does for karras."""
    steps = []

    def watch(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        levels, level = transformer_options["sample_sigmas"], transformer_options["sigmas"][0]
        steps.append((levels == level).nonzero().flatten().tolist())
        return executor(x, timesteps, context, y, control, transformer_options, **kwargs)

    model = apply_features(flashface.model, flashface.features(), GUIDANCE)
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_levels", looks_on(watch))
    prompts = flashface.positive, flashface.negative
    ksampler(model, *prompts, steps=4, scheduler=scheduler)
    assert steps == [[0], [1], [2], [3]]
    latent = empty_latent(1, 20, 20)
    drawn = ksampler(windows(2)(model), *prompts, latent, steps=4, scheduler=scheduler)
    assert torch.isfinite(drawn).all()
