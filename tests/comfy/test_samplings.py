"""Noise schedules that nodes of core put on a MODEL: those with timesteps run, others are refused.

The networks that look at the photos know the 1000 timesteps of Stable Diffusion, and no others.
"""

import comfy.model_sampling
import pytest
import torch
from comfy_extras.nodes_model_advanced import (
    ModelSamplingContinuousEDM,
    ModelSamplingContinuousV,
    ModelSamplingDiscrete,
    ModelSamplingSD3,
)
from flashface_pack.flashface_core.comfy_adapter.photo_encoder import PhotoEncoder
from flashface_pack.flashface_core.comfy_adapter.sampling import at_trained_noise, noise_level
from flashface_pack.flashface_core.errors import FlashFaceError
from support.facestudio import person
from support.harness import Guidance, relative_error
from support.systems import FLASHFACE, FUSION, OWN_ATTENTION, STUDIO, SYSTEMS
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS_AT_PHOTOS = (FLASHFACE, OWN_ATTENTION, FUSION)
PEOPLE = (person(1, 2),)


def edm(kind: str):
    return lambda model: ModelSamplingContinuousEDM().patch(model, kind, 120.0, 0.002)[0]


def discrete(kind: str, zsnr: bool):
    return lambda model: ModelSamplingDiscrete().patch(model, kind, zsnr)[0]


CONTINUOUS = {
    "EDM, v": edm("v_prediction"),
    "EDM": edm("edm"),
    "EDM, Playground": edm("edm_playground_v2.5"),
    "EDM, eps": edm("eps"),
    "V": lambda model: ModelSamplingContinuousV().patch(model, "v_prediction", 500.0, 0.03)[0],
    "flow": lambda model: ModelSamplingSD3().patch(model, 3.0)[0],
}
DISCRETE = {
    f"{kind}, {'zero SNR' if zsnr else 'as trained'}": discrete(kind, zsnr)
    for kind in ("eps", "v_prediction", "x0")
    for zsnr in (False, True)
}


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("system", LOOKS_AT_PHOTOS)
def test_a_sampling_without_timesteps_is_refused_at_apply(bench, system, name):
    if system == OWN_ATTENTION and name == "EDM, Playground":
        pytest.skip("refused before, for its latent format")
    with pytest.raises(FlashFaceError, match="timesteps") as caught:
        bench.graph(system, *PEOPLE, model=CONTINUOUS[name](bench.model))
    sentence = str(caught.value)
    assert "ModelSampling" in sentence and "\n" not in sentence and "<" not in sentence


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("system", LOOKS_AT_PHOTOS)
def test_a_sampling_without_timesteps_after_apply_is_refused_in_the_run(bench, system, name):
    graph = bench.graph(system, *PEOPLE).patched(CONTINUOUS[name])
    with pytest.raises(FlashFaceError, match="timesteps"):
        graph.sample()


@pytest.mark.parametrize("name", ["eps, zero SNR", "v_prediction, zero SNR"])
@pytest.mark.parametrize("system", LOOKS_AT_PHOTOS)
def test_percents_are_of_the_sampling_that_runs(bench, system, name):
    """Whether the node that sets it stands before Apply or behind it."""
    window = Guidance(start_percent=0.1, end_percent=0.8)
    given: dict = dict(start=0.1, end=0.8) if system == FUSION else dict(guidance=window)
    before = bench.graph(system, *PEOPLE, model=DISCRETE[name](bench.model), **given)
    behind = bench.graph(system, *PEOPLE, **given).patched(DISCRETE[name])
    got, expected = (graph.sample(steps=10) for graph in (behind, before))
    assert relative_error(got, expected) == 0
    always = bench.graph(system, *PEOPLE, model=DISCRETE[name](bench.model)).sample(steps=10)
    assert relative_error(always, expected) > 1e-3


@pytest.mark.parametrize("name", CONTINUOUS)
def test_facestudio_has_no_photos_to_look_at_and_runs_with_any(bench, name):
    graph = bench.graph(STUDIO, *PEOPLE, model=CONTINUOUS[name](bench.model))
    assert graph.sample().isfinite().all()


def test_apply_without_effect_leaves_any_sampling_alone(bench):
    model = CONTINUOUS["EDM, v"](bench.model)
    off = Guidance(feature_strength=0, early_strength=0, face_guidance=0)
    graph = bench.graph(FLASHFACE, *PEOPLE, model=model, guidance=off)
    assert graph.sample().isfinite().all()


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("is_first", [True, False], ids=["before Apply", "after Apply"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_discrete_samplings_run_and_photos_are_seen_at_whole_timesteps(
    bench, system, is_first, name, monkeypatch
):
    node, seen = DISCRETE[name], []
    kinds = [PhotoEncoder, *PhotoEncoder.__subclasses__()]
    for kind in kinds + [k for one in kinds for k in one.__subclasses__()]:
        if "step_references" in vars(kind):
            monkeypatch.setattr(kind, "step_references", watching(kind, seen))
    if is_first:
        graph = bench.graph(system, *PEOPLE, model=node(bench.model))
    else:
        graph = bench.graph(system, *PEOPLE).patched(node)
    drawn = graph.sample(3, steps=4, scheduler="karras")
    assert drawn.isfinite().all()
    without = bench.plain(node(bench.model)).sample(3, steps=4, scheduler="karras")
    assert relative_error(drawn, without) > 1e-3
    if system in LOOKS_AT_PHOTOS:
        assert seen and all(0 <= t <= 999 and t == int(t) for t in seen), seen


def watching(kind, seen: list):
    step_references = kind.step_references

    def watched(self, features, timestep, *args, **kwargs):
        seen.append(timestep)
        return step_references(self, features, timestep, *args, **kwargs)

    return watched


class Read(TorchDispatchMode):
    """Counts values that Python takes out of tensors one by one; on a GPU each waits for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@torch.inference_mode(False)
def test_the_noise_level_of_a_step_is_read_at_once():
    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    timestep = sampling.sigma(torch.tensor([411.4, 411.4]))
    with Read() as read:
        level = noise_level(sampling, timestep)
        at_trained_noise(level, torch.ones(2, 4, 8, 8), timestep)
    assert read.count == 0
    assert (level.t, level.sigma) == (411, timestep[0].item())
    assert level.trained == pytest.approx(sampling.sigmas[411].item(), rel=1e-6)
    with Read() as read:
        timestep[0].item()
    assert read.count == 1  # so it would have been seen
