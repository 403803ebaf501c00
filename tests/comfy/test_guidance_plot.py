"""The plot's steps are those that a sampler really takes, with the strengths it really uses."""

import comfy.samplers
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.schedule import sampling_steps
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.flashface.plot import plan_steps
from flashface_pack.nodes.guidance import FlashFaceGuidance
from flashface_pack.nodes.plot import FlashFaceGuidancePlot
from support.harness import Guidance, apply_features
from support.sampling import STRENGTH, ksampler, watch_rows

NUMBERS = dict(
    feature_strength=1.0,
    face_guidance=1.0,
    launch_timestep=500,
    early_strength=0.85,
    guidance_rescale=0.5,
    start_percent=0.0,
    end_percent=1.0,
    coarse=1.0,
    medium=1.0,
    fine=1.0,
)


def observed_strengths(flashface, guidance, steps: int, scheduler: str) -> list[dict]:
    """By step: the strength of branch 0 (positive), 1 (negative) and 2 (y_ref) in a real run."""
    model, calls = watch_rows(flashface.model)
    model = apply_features(model, flashface.features(), guidance)
    ksampler(model, flashface.positive, flashface.negative, steps=steps, scheduler=scheduler)
    # One picture, so one row per branch.
    rows = (zip(call["branches"], call[STRENGTH].tolist(), strict=True) for call in calls)
    return [{branch: round(strength, 6) for branch, strength in row} for row in rows]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(face_guidance=0),
        dict(launch_timestep=499),
        dict(start_percent=0.2, end_percent=0.7),
        dict(feature_strength=0),
    ],
)
@pytest.mark.parametrize("scheduler", ["simple", "karras"])
def test_the_plan_is_what_a_sampler_does(flashface, settings, scheduler):
    guidance = Guidance(**settings)
    sigmas = None
    if scheduler != "simple":
        sampling = flashface.model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, 8)
    plans = plan_steps(guidance, sampling_steps(guidance, 8, sigmas))
    planned = [
        {0: p.positive, 1: p.other} | ({} if p.reference is None else {2: p.reference})
        for p in plans
    ]
    assert planned == observed_strengths(flashface, guidance, 8, scheduler)


def test_the_last_sigma_is_no_step():
    steps = sampling_steps(Guidance(), 30, torch.tensor([14.6146, 1.0, 0.0]))
    assert [step.timestep for step in steps] == [999, 354]


def test_connected_sigmas_count_and_not_steps():
    sigmas = torch.tensor([14.6, 1.0, 0.0])
    pictures = [FlashFaceGuidancePlot.execute(Guidance(), n, sigmas).args[0] for n in (5, 50)]
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0], FlashFaceGuidancePlot.execute(Guidance(), 5).args[0])


@pytest.mark.parametrize("count", [0, 1])
def test_sigmas_without_a_step_are_an_error(count):
    with pytest.raises(FlashFaceError, match=f"sigmas has {count} values"):
        FlashFaceGuidancePlot.execute(Guidance(), 30, torch.ones(count))


def test_a_preset_is_told_and_its_numbers_are_used():
    guidance = FlashFaceGuidance.execute("subtle", **NUMBERS).args[0]
    assert guidance.preset == "subtle"
    assert (guidance.feature_strength, guidance.face_guidance) == (0.85, 2.0)
    assert guidance.launch_timestep == 600
    assert FlashFaceGuidance.execute("custom", **NUMBERS).args[0].preset == ""
