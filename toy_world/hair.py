"""Hair styles as rows of numbers: one shape behind the head, one on it, and tufts."""

import math

import torch
from torch import Tensor

from .anatomy import Anatomy
from .people import HAIR_STYLES, People
from .shapes import Frame, box, cover, disc, ellipse, fade, paint, plane

# Head units. top, side: thickness over the skull. line: where hair begins on the forehead (v);
# bow: how the line bends (v per u squared);
# temple: where it turns down (fraction of the half-width); down: how far down the sides (v).
# sweep: how much it falls to one side. bumps: count round the head, their height, 0 round 1 spiky.
# back: half-width beyond the face and lower end (v) of the hair behind. wave: of the sides behind.
# buns, tails: 0 or 1. strip: half-width of a mohawk. thick: opacity. ears: 1 when they show.
# fmt: off
COLUMNS = (
    "top", "side", "line", "bow", "temple", "down", "sweep", "bumps", "height", "spiky", "back",
    "end", "wave", "buns", "tails", "strip", "thick", "ears",
)
# fmt: on
ROWS = {
    "bald": (0, 0, -2.5, 0, 0.60, -2.5, 0, 0, 0, 0, -0.3, 0.0, 0, 0, 0, 9, 0, 1),
    "buzz cut": (0.03, 0.015, -0.66, 0.15, 0.55, -0.12, 0, 0, 0, 0, -0.3, 0.0, 0, 0, 0, 9, 0.72, 1),
    "short": (0.17, 0.045, -0.60, 0.12, 0.66, 0.02, 0.10, 0, 0, 0, -0.3, 0.0, 0, 0, 0, 9, 1, 1),
    "side part": (0.24, 0.06, -0.64, 0, 0.70, 0.06, 0.42, 0, 0, 0, -0.3, 0.0, 0, 0, 0, 9, 1, 1),
    "spiky": (0.07, 0.02, -0.66, 0, 0.68, -0.05, 0, 8, 0.30, 1, -0.3, 0.0, 0, 0, 0, 9, 1, 1),
    "mohawk": (0.46, -0.02, -0.64, 0, 0.50, -0.60, 0, 9, 0.10, 1, -0.3, 0.0, 0, 0, 0, 0.24, 1, 1),
    "curly": (0.27, 0.20, -0.62, 0.2, 0.68, 0.25, 0, 8, 0.13, 0, -0.3, 0.0, 0, 0, 0, 9, 1, 0),
    "bob": (0.15, 0.12, -0.58, -0.12, 0.80, 0.70, 0, 0, 0, 0, 0.17, 0.80, 0, 0, 0, 9, 1, 0),
    "long": (0.11, 0.07, -0.88, 1.35, 0.62, 0.95, 0.16, 0, 0, 0, 0.12, 2.6, 0, 0, 0, 9, 1, 0),
    "wavy": (0.17, 0.13, -0.66, 0.25, 0.70, 0.75, 0.28, 0, 0, 0, 0.24, 1.75, 1, 0, 0, 9, 1, 0),
    "buns": (0.05, 0.03, -0.84, 0.9, 0.60, -0.10, 0, 0, 0, 0, -0.3, 0.0, 0, 1, 0, 9, 1, 1),
    "pigtails": (0.08, 0.05, -0.86, 1.1, 0.62, 0.02, 0, 0, 0, 0, -0.3, 0.0, 0, 0, 1, 9, 1, 1),
}


class Hair:
    """The hair of a batch on its frame; drawn in three goes, from the back to the front."""

    def __init__(self, f: Frame, face: Anatomy, people: People, head: Tensor) -> None:
        table = torch.tensor([ROWS[name] for name in HAIR_STYLES], device=head.device)
        rows = table.float()[people.hair_style]
        self.style = {name: plane(rows[:, n]) for n, name in enumerate(COLUMNS)}
        self.f, self.face, self.head = f, face, head
        self.parting = plane(people.parting)
        self.angle = torch.atan2(f.u, -f.v)  # 0 at the crown
        self.cap = head - self._thickness()
        self.colour = self._colour()

    def _thickness(self) -> Tensor:
        s, v = self.style, self.f.v
        up = fade(v, 0.35, -0.75)
        turns = torch.frac(self.angle * s["bumps"] / math.pi + 0.5 * s["spiky"] + 16.0)
        saw = 1 - (2 * turns - 1).abs()
        bump = torch.lerp(1 - (2 * turns - 1) ** 2, saw, s["spiky"]) * s["height"]
        swept = 0.5 * s["sweep"] * self.f.u * torch.sign(self.parting) * up
        return s["side"] + (s["top"] - s["side"]) * up + bump * fade(v, 0.6, 0.0) + swept

    def _colour(self) -> Tensor:
        """With strands, a gloss on the crown, and grey temples in elders."""
        face, f = self.face, self.f
        strands = 0.04 * torch.sin(self.angle * 34 + 3 * f.v)
        gloss = 0.22 * torch.exp(-(((self.head + 0.10) / 0.07) ** 2)) * fade(f.v, -0.35, -0.8)
        temples = fade(f.u.abs() / face.width, 0.62, 0.86) * fade(f.v, -0.75, -0.55)
        temples = temples * fade(f.v, 0.45, 0.10)
        greyed = torch.lerp(face.hair, face.grey, (0.10 + 0.62 * temples) * face.elder)
        return (greyed * (1 + strands) + gloss * (0.25 + greyed)).clamp(0, 1)

    def draw_behind(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """What hangs behind the neck; returns the canvas and the coverage."""
        mask = torch.maximum(cover(self.f, self._back()), self._tails())
        return paint(canvas, mask, self.colour * 0.80), mask

    def draw_locks(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """What falls over the shoulders, beside the neck."""
        inner = 0.50 + 0.12 * fade(self.f.v, 0.9, 1.6) - self.f.u.abs()
        mask = cover(self.f, torch.maximum(self._back(), inner)) * fade(self.f.v, 0.5, 0.7)
        return paint(canvas, mask, self.colour * 0.88), mask

    def draw_front(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        s, f, face = self.style, self.f, self.face
        q = f.u.abs() / face.width
        # Which side is swept follows the parting; its size tells how much.
        fall = self.parting + 0.35 * torch.sign(self.parting)
        line = s["line"] + s["bow"] * f.u * f.u + s["sweep"] * fall * f.u * 0.30
        saw = (torch.frac(f.u * 4 + 16.5) * 2 - 1).abs()
        line = line + 0.10 * s["spiky"] * (saw - 0.5)
        line = line + (s["down"] - line) * fade(q, s["temple"], s["temple"] + 0.30)
        shape = torch.maximum(self.cap, f.v - line)
        shape = torch.maximum(shape, f.u.abs() - s["strip"])
        mask = cover(f, shape) * s["thick"]
        canvas = paint(canvas, mask, self.colour)
        buns = self._buns()
        return paint(canvas, buns, self.colour), torch.maximum(mask, buns)

    def _back(self) -> Tensor:
        s, f = self.style, self.f
        wave = 0.09 * s["wave"] * torch.sin(8.5 * f.v + 1.0)
        half = (s["end"] + 0.55) * 0.5
        width = self.face.width + s["back"] + wave
        # Long hair hangs down while the head tilts, so it is drawn in the upright frame.
        hang = torch.lerp(f.u, f.a, fade(f.v, 0.4, 1.2))
        return box(hang, f.v + 0.55 - half, width, half, 0.28)

    def _buns(self) -> Tensor:
        u, v = self.f.u.abs() - 0.60, self.f.v + 0.96
        return cover(self.f, disc(u, v, 0.27)) * self.style["buns"]

    def _tails(self) -> Tensor:
        u, v = self.f.u.abs() - self.face.width - 0.20, self.f.v - 0.42
        sway = u - 0.16 * v
        tail = ellipse(sway, v - 0.02, 0.20 + 0.0 * v, 0.62)
        return cover(self.f, tail) * self.style["tails"]

    def draw_ties(self, canvas: Tensor) -> Tensor:
        """The ribbons that hold pigtails."""
        tie = disc(self.f.u.abs() - self.face.width - 0.07, self.f.v + 0.13, 0.10)
        red = torch.tensor((0.92, 0.20, 0.32), device=canvas.device)[None, :, None, None]
        return paint(canvas, cover(self.f, tie) * self.style["tails"], red)
