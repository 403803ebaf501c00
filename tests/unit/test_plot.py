"""The plot of a guidance, read back from its pixels."""

import pytest
import torch
from flashface_pack.flashface_core.flashface.guidance import PRESETS, Guidance, plan_step
from flashface_pack.flashface_core.flashface.plot import (
    FACE,
    FACE_LEVEL,
    LEFT,
    RESCALE,
    RIGHT,
    TICK_DISTANCE,
    WARNING,
    WEIGHT,
    Step,
    draw_guidance,
    is_face_used,
    plan_steps,
    ticks,
)

OFF = dict(feature_strength=0, early_strength=0, face_guidance=0)
NOWHERE = dict(start_percent=0.8, end_percent=0.81)


def trailing(count: int, inside=lambda timestep: True) -> list[Step]:
    """As SD1.5's scheduler simple, for counts that divide 1000."""
    return [Step(t, inside(t)) for t in range(999, -1, -1000 // count)][:count]


def columns(picture: torch.Tensor, colour) -> torch.Tensor:
    """How many pixels of a colour every column of the plot has."""
    pixels = (picture[0, :, LEFT:RIGHT] * 255).round().int()
    return (pixels == torch.tensor(colour)).all(-1).sum(0)


def share(picture: torch.Tensor, colour) -> float:
    """Part of the width over which a colour is seen."""
    return (columns(picture, colour) > 0).float().mean().item()


def is_warned(picture: torch.Tensor) -> bool:
    """The title is red."""
    title = (picture[0, :60] * 255).round().int()
    return bool((title == torch.tensor(WARNING)).all(-1).any())


def test_the_plot_asks_plan_step_for_every_step():
    guidance = Guidance(start_percent=0.2)
    steps = trailing(20, inside=lambda t: t < 800)
    expected = [plan_step(guidance, t, t < 800) for t, _ in steps]
    assert plan_steps(guidance, steps) == expected


def test_nothing_is_planned_where_apply_leaves_the_model_alone():
    plans = plan_steps(Guidance(**OFF), trailing(20))
    assert all(plan == plan_step(Guidance(), 0, inside_window=False) for plan in plans)


@pytest.mark.parametrize("launch", [1000, 750, 300, 0])
def test_face_guidance_is_drawn_over_the_steps_at_and_below_the_launch_timestep(launch):
    guidance = Guidance(launch_timestep=launch)
    picture = draw_guidance(guidance, trailing(20))
    below = sum(step.timestep <= launch for step in trailing(20)) / 20
    assert share(picture, WEIGHT) == pytest.approx(below, abs=0.03 if below else 0)
    assert share(picture, RESCALE) > 0.95


def test_nothing_is_drawn_outside_of_the_window():
    steps = trailing(20, inside=lambda t: 300 < t < 700)
    picture = draw_guidance(Guidance(launch_timestep=1000), steps)
    inside = sum(step.is_inside for step in steps) / 20
    for colour in (FACE, WEIGHT, RESCALE):
        assert share(picture, colour) == pytest.approx(inside, abs=0.03)


def test_heights_are_the_strengths():
    steps = [Step(t, True) for t in range(999, -1, -1)]  # too narrow for lines and numbers
    picture = draw_guidance(Guidance(early_strength=0.3, launch_timestep=500), steps)
    heights = columns(picture, FACE).float()
    early, late = heights[20].item(), heights[-20].item()
    # before the launch both branches show 0.3, after it one shows 1.2
    assert early / late == pytest.approx(2 * 0.3 / 1.2, abs=0.05)


def test_layers_are_drawn_only_when_they_differ():
    plain = draw_guidance(Guidance(), trailing(20))
    layers = draw_guidance(Guidance(coarse=0.5), trailing(20))
    assert share(plain, FACE_LEVEL) == 0 and share(layers, FACE_LEVEL) > 0.9
    assert layers.shape[1] > plain.shape[1]


@pytest.mark.parametrize(
    ("settings", "steps", "used"),
    [
        ({}, trailing(20), True),
        (OFF, trailing(20), False),
        (dict(feature_strength=0), trailing(20), True),  # early_strength remains
        (dict(early_strength=0), trailing(20), True),
        (dict(early_strength=0, launch_timestep=0), trailing(20), False),
        (dict(coarse=0, medium=0, fine=0), trailing(20), False),
        (dict(coarse=0, medium=0), trailing(20), True),
        (NOWHERE, trailing(20, inside=lambda t: False), False),
    ],
)
def test_the_title_tells_when_the_face_is_never_used(settings, steps, used):
    guidance = Guidance(**settings)
    assert is_face_used(guidance, plan_steps(guidance, steps)) is used
    assert is_warned(draw_guidance(guidance, steps)) is not used


def test_a_preset_is_named_and_changes_nothing_else():
    numbers = PRESETS["subtle"]
    named, same = Guidance(*numbers, preset="subtle"), Guidance(*numbers)
    assert named == same
    pictures = [draw_guidance(guidance, trailing(20)) for guidance in (named, same)]
    different = (pictures[0] != pictures[1]).any(-1).any(-1)[0].nonzero().flatten()
    assert len(different) and different.max() < 115  # title and the line below it


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20, 30, 50, 100, 333, 1000])
def test_numbers_at_the_axis_do_not_touch(count):
    shown = ticks(count, RIGHT - LEFT)
    cell = (RIGHT - LEFT) / count
    assert shown[0] == 0 and shown[-1] == count - 1
    assert all(
        (b - a) * cell >= TICK_DISTANCE - 1e-6 for a, b in zip(shown, shown[1:], strict=False)
    )


@pytest.mark.parametrize(
    "settings",
    [
        dict(
            launch_timestep=1000, face_guidance=20.0, feature_strength=2.95, guidance_rescale=0.95
        ),
        dict(launch_timestep=0, early_strength=2.95, coarse=2.95),
        dict(preset="strong identity", start_percent=0.01, end_percent=0.02),
        dict(start_percent=0.98, end_percent=0.99),
    ],
)
@pytest.mark.parametrize("count", [1, 4, 100, 1000])
def test_nothing_runs_over_the_edge(settings, count):
    guidance = Guidance(**settings)
    start, end = (999 * (1 - p) for p in (guidance.start_percent, guidance.end_percent))
    picture = draw_guidance(guidance, trailing(count, inside=lambda t: end <= t <= start))
    assert picture.shape[0] == 1 and picture.shape[2:] == (1024, 3)
    assert picture.dtype == torch.float32 and picture.min() >= 0 and picture.max() == 1
    for edge in (picture[:, :4], picture[:, -4:], picture[:, :, :4], picture[:, :, -4:]):
        assert (edge == 1).all()
