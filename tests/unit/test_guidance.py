import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.flashface.guidance import (
    PRESETS,
    Guidance,
    StepPlan,
    add_face_guidance,
    plan_step,
    rescale_guidance,
)


@pytest.mark.parametrize(
    ("timestep", "expected"),
    [
        (751, StepPlan(0.85, 0.85, None, 0.0, 0.5)),
        (750, StepPlan(0.0, 0.0, 1.2, 3.2, 0.5)),
        (0, StepPlan(0.0, 0.0, 1.2, 3.2, 0.5)),
    ],
)
def test_the_phases_meet_at_the_launch_timestep(timestep, expected):
    assert plan_step(Guidance(), timestep) == expected


def test_without_face_guidance_every_row_sees_the_face():
    plan = plan_step(Guidance(face_guidance=0), 500)
    assert plan == StepPlan(1.2, 1.2, None, 0.0, 0.5)


def test_strength_zero_needs_no_third_branch():
    plan = plan_step(Guidance(feature_strength=0), 500)
    assert plan.reference is None and not plan.needs_features and plan.rescale == 0.5


def test_outside_the_window_everything_is_off():
    plan = plan_step(Guidance(), 500, inside_window=False)
    assert plan == StepPlan(0.0, 0.0, None, 0.0, 0.0)


def test_a_window_without_steps_is_an_error():
    with pytest.raises(FlashFaceError, match="start_percent 0.5"):
        Guidance(start_percent=0.5, end_percent=0.5)


def test_face_term_and_rescale_equal_the_official_formula_on_eps():
    torch.manual_seed(0)
    sigma = 2.5
    x, u, y, y_ref = torch.randn(4, 2, 4, 8, 8)  # x, and eps of three branches
    text, face, rescale = 7.5, 3.2, 0.5
    eps = u + text * (y - u) + face * (y_ref - y)
    spread = y.flatten(1).std(1) / (eps.flatten(1).std(1) + 1e-12)
    eps = eps * (rescale * spread + (1 - rescale))[:, None, None, None]

    clean = {name: x - sigma * e for name, e in (("u", u), ("y", y), ("y_ref", y_ref))}
    guided = clean["u"] + text * (clean["y"] - clean["u"])
    guided = add_face_guidance(guided, clean["y_ref"], clean["y"], face)
    got = rescale_guidance(x, guided, clean["y"], rescale)
    torch.testing.assert_close(got, x - sigma * eps, rtol=1e-5, atol=1e-4)


def test_rescale_of_a_batch_is_per_sample():
    torch.manual_seed(0)
    x, denoised, y = torch.randn(3, 2, 4, 8, 8)
    both = rescale_guidance(x, denoised, y, 0.5)
    alone = rescale_guidance(x[1:], denoised[1:], y[1:], 0.5)
    torch.testing.assert_close(both[1:], alone)


def test_presets_are_the_authors():
    assert PRESETS == {
        "stable identity": (1.2, 3.2, 750),
        "strong identity": (1.2, 3.0, 800),
        "change age": (0.9, 2.5, 750),
        "subtle": (0.85, 2.0, 600),
    }
