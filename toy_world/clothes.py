"""Neck, shoulders and eight garments, from one row of numbers each."""

import torch
from torch import Tensor

from .anatomy import Anatomy
from .scenes import CLOTHES, Scenes
from .shapes import Frame, box, cover, disc, ellipse, paint, plane, superellipse

# colour, trim colour, colour inside the neckline. neck: depth of the neckline; vee: 0 round, 1
# pointed; collar: width of the trim around it; stripes, straps, high (neck), hood, inner (shirt):
# 0 or 1; front: half-width of a strip down the middle (tie, zip); buttons: 0 or 1.
RED, BLUE, WHITE = (0.82, 0.12, 0.14), (0.18, 0.36, 0.82), (0.96, 0.96, 0.97)
NAVY, YELLOW, GREEN = (0.10, 0.16, 0.42), (0.98, 0.80, 0.10), (0.16, 0.50, 0.25)
BLACK, PURPLE, GREY = (0.09, 0.09, 0.12), (0.48, 0.18, 0.62), (0.55, 0.57, 0.62)
DARK_RED, SKY, OCHRE = (0.58, 0.05, 0.10), (0.55, 0.72, 0.98), (0.62, 0.42, 0.05)
VIOLET = (0.60, 0.32, 0.74)
# fmt: off
COLUMNS = (
    "neck", "vee", "collar", "stripes", "straps", "high", "hood", "inner", "front", "buttons",
   
)
# fmt: on
ROWS = {
    "sweater": (RED, DARK_RED, RED, 0.20, 0, 0.10, 0, 0, 0, 0, 0, 0, 0),
    "hoodie": (BLUE, SKY, BLUE, 0.24, 0, 0.03, 0, 0, 0, 1, 0, 0.02, 0),
    "shirt": (WHITE, GREY, WHITE, 0.36, 1, 0.05, 0, 0, 0, 0, 0, 0, 1),
    "raincoat": (YELLOW, OCHRE, YELLOW, 0.22, 0, 0.05, 0, 0, 0, 1, 0, 0.035, 1),
    "dungarees": (WHITE, GREEN, WHITE, 0.20, 0, 0.03, 0, 1, 0, 0, 0, 0, 0),
    "suit": (BLACK, (0.20, 0.20, 0.25), WHITE, 0.95, 1, 0.05, 0, 0, 0, 0, 1, 0.075, 0),
    "jersey": (WHITE, NAVY, WHITE, 0.20, 0, 0.05, 1, 0, 0, 0, 0, 0, 0),
    "turtleneck": (PURPLE, VIOLET, PURPLE, 0.20, 0, 0.0, 0, 0, 1, 0, 0, 0, 0),
}


def draw_clothes(canvas: Tensor, f: Frame, face: Anatomy, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Neck and garment; returns the canvas and their coverage."""
    rows = [ROWS[name] for name in CLOTHES]
    colours = torch.tensor([row[:3] for row in rows], device=canvas.device)[scenes.clothes]
    cloth, trim, lining = (colours[:, n, :, None, None] for n in range(3))
    table = torch.tensor([row[3:] for row in rows], device=canvas.device)[scenes.clothes]
    s = {name: plane(table[:, n]) for n, name in enumerate(COLUMNS)}

    hood = cover(f, ellipse(f.a, f.b - 1.20, 0.86, 0.50)) * s["hood"]
    canvas = paint(canvas, hood, cloth * 0.72)
    neck_width = 0.36 - 0.06 * face.child
    neck = cover(f, box(f.a, f.b - 0.95, neck_width, 0.75, 0.1))
    canvas = paint(canvas, neck, face.skin * 0.80)

    narrow = 1 - 0.16 * face.child
    shoulders = superellipse(f.a, f.b - 2.62, 1.50 * narrow, 1.46, 2.7)
    garment = cover(f, shoulders)
    neckline = _neckline(f, neck_width, s)
    # The shirt under a jacket fills its neckline but for the throat.
    throat = cover(f, ellipse(f.a, f.b - 1.10, neck_width, 0.17))
    opening = cover(f, neckline)
    canvas = paint(canvas, opening * garment * (1 - throat) * s["inner"], lining)
    canvas = _front(canvas, f, trim, s, opening * garment, under=True)
    garment = garment * (1 - opening)
    canvas = paint(canvas, garment, _pattern(f, cloth, trim, s))
    canvas = paint(canvas, cover(f, neckline.abs() - s["collar"]) * cover(f, shoulders), trim)
    canvas = _front(canvas, f, trim, s, garment, under=False)
    rolled = cover(f, box(f.a, f.b - 1.17, neck_width + 0.05, 0.20, 0.09)) * s["high"]
    canvas = paint(canvas, rolled, trim)
    covered = torch.maximum(torch.maximum(hood, neck), torch.maximum(cover(f, shoulders), rolled))
    return canvas, covered


def _neckline(f: Frame, neck_width: Tensor, s: dict[str, Tensor]) -> Tensor:
    down = f.b - 1.05
    scoop = ellipse(f.a, down, neck_width + 0.03, s["neck"])
    point = f.a.abs() - (neck_width + 0.05) * (1 - down / s["neck"])
    return torch.lerp(scoop, point, s["vee"])


def _pattern(f: Frame, cloth: Tensor, trim: Tensor, s: dict[str, Tensor]) -> Tensor:
    stripe = cover(f, (torch.frac(f.b * 4 + 8) - 0.5).abs() * 0.25 - 0.0625) * s["stripes"]
    strap = (f.a.abs() - 0.52).abs() - 0.13
    bib = torch.maximum(f.a.abs() - 0.64, 1.62 - f.b)
    dungarees = cover(f, torch.minimum(strap, bib)) * s["straps"]
    folds = 1 - 0.10 * torch.sin(f.a * 5 + f.b * 3).clamp(min=0)
    return torch.lerp(cloth, trim, torch.maximum(stripe, dungarees)) * folds


def _front(
    canvas: Tensor, f: Frame, trim: Tensor, s: dict[str, Tensor], where: Tensor, under: bool
) -> Tensor:
    """The strip down the middle: a tie under the jacket, a zip or buttons on the garment."""
    if under:
        red = torch.tensor(RED, device=canvas.device)[None, :, None, None]
        tie = f.a.abs() - s["front"] * (0.8 + 0.5 * (f.b - 1.2))
        return paint(canvas, cover(f, torch.maximum(tie, 1.2 - f.b)) * where * s["inner"], red)
    strip = cover(f, f.a.abs() - s["front"]) * where * (1 - s["inner"])
    canvas = paint(canvas, strip, trim)
    dots = disc(f.a, (torch.frac(f.b * 3.2 + 8.2) - 0.5) / 3.2, 0.055)
    return paint(canvas, cover(f, dots) * where * s["buttons"], trim * 0.7)
