"""A picture of what the guidance does over the steps of sampling.

What happens in a step is asked of plan_step; nothing is worked out a second time here.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..font import font_of
from ..sites import COARSE, FINE, MEDIUM
from .guidance import Guidance, StepPlan, plan_step

# Twice the 512 pixels at which it has to be readable.
WIDTH, MARGIN, COLUMN = 1024, 24, 212
LEFT, RIGHT = MARGIN + COLUMN, WIDTH - MARGIN
LANE, GAP, LINE, HEADING = 54, 12, 34, 40
TITLE, TEXT = 36, 24
INSIDE = 30  # height from which a bar holds its number
TICK_DISTANCE = 58  # between the middles of two numbers at the axis

PAPER, INK, PALE, WARNING = (255, 255, 255), (28, 30, 34), (128, 132, 140), (190, 40, 30)
GRID, HATCH, MARKER = (226, 228, 232), (214, 216, 220), (60, 64, 72)
FACE, FACE_LEVEL, WEIGHT, RESCALE = (
    (142, 186, 229),
    (174, 205, 236),
    (240, 184, 120),
    (178, 208, 160),
)


class Step(NamedTuple):
    """One step of a sampler: its timestep, and whether it lies between start and end percent."""

    timestep: float
    is_inside: bool


class Lane(NamedTuple):
    """One row of the picture. values: per step, None where there is nothing to tell; full: the
    value that fills the height."""

    label: str
    values: Sequence[float | None]
    full: float
    colour: tuple[int, int, int]


def plan_steps(guidance: Guidance, steps: Sequence[Step]) -> list[StepPlan]:
    """FlashFaceApply leaves a MODEL as it is when all strengths are 0, rescale included."""
    return [
        plan_step(guidance, step.timestep, step.is_inside and not guidance.is_off) for step in steps
    ]


def is_face_used(guidance: Guidance, plans: Sequence[StepPlan]) -> bool:
    levels = (guidance.coarse, guidance.medium, guidance.fine)
    return any(levels) and any(plan.needs_features for plan in plans)


def draw_guidance(guidance: Guidance, steps: Sequence[Step]) -> torch.Tensor:
    """IMAGE (1, H, 1024, 3) in 0..1. steps: at least one, in the order of sampling."""
    plans = plan_steps(guidance, steps)
    headers = _headers(guidance, steps, plans)
    groups = _groups(guidance, plans)
    marker_lines = 1 if all(step.is_inside for step in steps) else 2
    top = MARGIN + TITLE + 18 + (len(headers) - 1 + marker_lines) * LINE
    bottom = top + sum(HEADING + len(lanes) * (LANE + GAP) for _, lanes in groups)
    page = _Page(bottom + 2 * LINE + MARGIN, len(steps))
    _draw_headers(page, headers)
    _shade_outside(page, steps, top, bottom)
    # The dashed lines stand between these: a number must not lie across one.
    parts = [(step.is_inside, step.timestep > guidance.launch_timestep) for step in steps]
    y, titles = top, []
    for title, lanes in groups:
        titles.append(((MARGIN, y + 5), title))
        y += HEADING
        for lane in lanes:
            _draw_lane(page, lane, parts, y)
            y += LANE + GAP
    _draw_markers(page, guidance, steps, top, bottom)
    for where, title in titles:
        page.label(where, title, PALE)
    _draw_axis(page, steps, bottom)
    return torch.from_numpy(np.array(page.picture)).float()[None] / 255


class _Page:
    """The picture, and where a step is on it."""

    def __init__(self, height: int, steps: int) -> None:
        self.picture = Image.new("RGB", (WIDTH, height), PAPER)
        self.draw = ImageDraw.Draw(self.picture)
        self.font = font_of(TEXT)
        self.title_font = font_of(TITLE)
        self.steps = steps

    def x(self, step: float) -> int:
        return round(LEFT + step * (RIGHT - LEFT) / self.steps)

    def width(self, text: str) -> int:
        return round(self.draw.textlength(text, font=self.font))

    def text(self, where, text: str, colour=INK, anchor: str = "la", font=None) -> None:
        self.draw.text(where, text, fill=colour, font=font or self.font, anchor=anchor)

    def label(self, where, text: str, colour=INK, anchor: str = "la") -> None:
        """Text on paper of its own, so that no line runs through it."""
        x1, y1, x2, y2 = self.draw.textbbox(where, text, font=self.font, anchor=anchor)
        self.draw.rectangle((x1 - 4, y1 - 2, x2 + 4, y2 + 2), fill=PAPER)
        self.text(where, text, colour, anchor)


def _number(value: float) -> str:
    return f"{value:.3g}"


def _headers(
    guidance: Guidance, steps: Sequence[Step], plans: Sequence[StepPlan]
) -> list[tuple[str, tuple[int, int, int]]]:
    """The title and the lines below it, each with its colour."""
    g = guidance
    three = (
        f"feature_strength {g.feature_strength:g}, face_guidance {g.face_guidance:g}, "
        f"launch_timestep {g.launch_timestep:g}"
    )
    rest = (
        f"early_strength {g.early_strength:g}, guidance_rescale {g.guidance_rescale:g}, "
        f"on from {g.start_percent:.0%} to {g.end_percent:.0%}"
    )
    used = is_face_used(g, plans)
    name = f"preset {g.preset}" if g.preset else "custom"
    title = f"Guidance: {name}" if used else "Guidance: the face is never used"
    lines = [(title, INK if used else WARNING)]
    lines.append((f"The preset sets {three}" if g.preset else three, INK))
    lines.append((rest, INK))
    note = _note(g, steps, plans)
    return [*lines, (note, WARNING)] if note else lines


def _note(g: Guidance, steps: Sequence[Step], plans: Sequence[StepPlan]) -> str:
    """What somebody who turned these knobs may not expect."""
    if g.is_off:
        return "All strengths and face_guidance are 0: the MODEL is left as it is."
    if not any(step.is_inside for step in steps):
        return "No step lies between start_percent and end_percent."
    if not is_face_used(g, plans):
        why = "The strength is 0 in every step"
        if not (g.coarse or g.medium or g.fine):
            why = "coarse, medium and fine are 0"
        rescales = any(plan.rescale for plan in plans)
        return why + ("; only the rescale does something." if rescales else ".")
    if g.face_guidance and not any(plan.face_guidance for plan in plans):
        return f"No step inside is at or below timestep {g.launch_timestep:g}: no face guidance."
    return ""


def _groups(guidance: Guidance, plans: Sequence[StepPlan]) -> list[tuple[str, list[Lane]]]:
    g = guidance
    levels = {level: g.level_strength(level) for level in (COARSE, MEDIUM, FINE)}
    same = set(levels.values()) == {1.0}
    seen = [max(p.positive, p.other, p.reference or 0.0) for p in plans]
    full = max([1.0, *(value * max(1.0, *levels.values()) for value in seen)])
    strength = [
        Lane("positive", [p.positive for p in plans], full, FACE),
        Lane("other prompts", [p.other for p in plans], full, FACE),
        Lane("extra (y_ref)", [p.reference for p in plans], full, FACE),
    ]
    # Without y_ref there is nothing to weigh.
    weights = [0.0 if p.reference is None else p.face_guidance for p in plans]
    groups = [("How strongly each branch sees the face", strength)]
    if not same:
        lanes = [
            Lane(f"{name} x {by:g}", [value * by for value in seen], full, FACE_LEVEL)
            for name, by in levels.items()
        ]
        groups.append(("The same by layer: where the face is seen", lanes))
    weighing = [
        Lane("face guidance", weights, max([1.0, *weights]), WEIGHT),
        Lane("rescale", [p.rescale for p in plans], 1.0, RESCALE),
    ]
    return [*groups, ("Weight of (with face - without face), and rescale", weighing)]


def _draw_headers(page: _Page, headers) -> None:
    (title, colour), *lines = headers
    page.text((MARGIN, MARGIN), title, colour, font=page.title_font)
    y = MARGIN + TITLE + 18
    for line, colour in lines:
        page.text((MARGIN, y), line, colour)
        y += LINE


def _shade_outside(page: _Page, steps: Sequence[Step], top: int, bottom: int) -> None:
    hatched = Image.new("RGB", page.picture.size, PAPER)
    draw = ImageDraw.Draw(hatched)
    for x in range(LEFT - bottom, RIGHT, 14):
        draw.line((x, bottom, x + bottom - top, top), fill=HATCH, width=2)
    for number, step in enumerate(steps):
        if not step.is_inside:
            box = (page.x(number), top, page.x(number + 1), bottom)
            page.picture.paste(hatched.crop(box), box)


def _draw_lane(page: _Page, lane: Lane, parts: Sequence[tuple], y: int) -> None:
    page.text((MARGIN, y + LANE // 2), lane.label, anchor="lm")
    base = y + LANE
    page.draw.line((LEFT, base, RIGHT, base), fill=GRID, width=2)
    first = 0
    for (value, _), run in groupby(zip(lane.values, parts, strict=True)):
        last = first + len(list(run))
        x1, x2 = page.x(first), page.x(last)
        height = 0
        if value:
            height = max(4, round(LANE * value / lane.full))
            page.draw.rectangle((x1, base - height, max(x1, x2 - 1), base), fill=lane.colour)
            _draw_cells(page, first, last, base - height, base)
        text = "none" if value is None else _number(value)
        if page.width(text) + 6 <= x2 - x1:
            middle = base - height // 2 if height >= INSIDE else base - height - INSIDE // 2
            page.text((round((x1 + x2) / 2), middle), text, INK if value else PALE, anchor="mm")
        first = last


def _draw_cells(page: _Page, first: int, last: int, top: int, bottom: int) -> None:
    if page.x(1) - page.x(0) >= 12:
        for step in range(first + 1, last):
            page.draw.line((page.x(step), top, page.x(step), bottom), fill=PAPER, width=1)


def _draw_markers(page: _Page, guidance: Guidance, steps, top: int, bottom: int) -> None:
    """The launch timestep, and in a line of their own start and end."""
    inside = [number for number, step in enumerate(steps) if step.is_inside]
    has_window = len(inside) < len(steps)
    upper, lower = top - (2 if has_window else 1) * LINE + 2, top - LINE + 2
    start, end = f"start {guidance.start_percent:.0%}", f"end {guidance.end_percent:.0%}"
    x1, x2 = (page.x(inside[0]), page.x(inside[-1] + 1)) if inside else (LEFT, LEFT)
    has_start, has_end = x1 > LEFT, LEFT < x2 < RIGHT

    launch = f"launch {guidance.launch_timestep:g}"
    x = page.x(sum(step.timestep > guidance.launch_timestep for step in steps))
    for drawn, line, y in ((True, x, upper), (has_start, x1, lower), (has_end, x2, lower)):
        if drawn:
            _dashed(page, line, y, bottom)
    is_room = x + 12 + page.width(launch) <= RIGHT
    page.label((x + 8 if is_room else x - 8, upper), launch, MARKER, "la" if is_room else "ra")
    if not inside:
        page.label((LEFT, lower), f"{start}, {end}: no step between", MARKER)
        return
    end_x = min(x2 + 8, RIGHT - page.width(end))
    if has_start:
        page.label((min(x1 - 8, end_x - 16) if has_end else x1 - 8, lower), start, MARKER, "ra")
    if has_end:
        page.label((end_x, lower), end, MARKER)


def _dashed(page: _Page, x: int, top: int, bottom: int) -> None:
    for y in range(top, bottom, 12):
        page.draw.line((x, y, x, min(y + 6, bottom)), fill=MARKER, width=2)


def _draw_axis(page: _Page, steps: Sequence[Step], y: int) -> None:
    page.text((MARGIN, y + 8), "step", PALE)
    page.text((MARGIN, y + 8 + LINE), "timestep", PALE)
    for number in ticks(len(steps), RIGHT - LEFT):
        middle = round((page.x(number) + page.x(number + 1)) / 2)
        page.draw.line((middle, y, middle, y + 6), fill=PALE, width=2)
        for line, text in enumerate((str(number + 1), f"{steps[number].timestep:g}")):
            x = min(middle, WIDTH - MARGIN // 2 - page.width(text) // 2)
            page.text((x, y + 8 + line * LINE), text, anchor="ma")


def ticks(steps: int, width: int) -> list[int]:
    """Indices of the steps that get a number: the first, the last, and round ones between."""
    cell = width / steps
    rounds = (n for n in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500) if n * cell >= TICK_DISTANCE)
    every = next(rounds, steps)
    between = range(every - 1, steps, every)
    near = TICK_DISTANCE / cell
    kept = [n for n in between if n >= near and n <= steps - 1 - near]
    return sorted({0, steps - 1, *kept})
