"""The fine mark of a person: drawn over everything, so that every age and style shows it."""

import torch
from torch import Tensor

from .anatomy import Anatomy, anatomy, to_picture
from .people import MARK_COLOURS, MARK_PLACES, People
from .scenes import Scenes
from .shapes import Frame, box, cover, disc, is_value, paint, pick, plane
from .style import style_numbers

RADIUS = 0.175  # head units: 12.5 to 15.5 px across at 128 px
HALO = 0.030  # a thin dark rim: the colours are told apart on any skin
# Left is the left of the picture. Places keep clear of eyes, glasses and mouth.
PLACES = {
    "left cheek": (-0.48, 0.42),
    "right cheek": (0.48, 0.42),
    "forehead": (0.0, -0.48),
    "chin": (0.0, 0.87),
}


def mark_centre(face: Anatomy, people: People) -> tuple[Tensor, Tensor]:
    """u, v of the mark, (B, 1, 1, 1) each; it moves with the face's width and the child's eyes."""
    table = torch.tensor([PLACES[name] for name in MARK_PLACES], device=face.width.device)
    u, v = (plane(table[people.mark_place][:, n]) for n in range(2))
    is_forehead = is_value(people, "mark_place", "forehead")
    is_cheek = u.abs().clamp(max=0.01) * 100
    return u * (face.width / 0.78), v + face.child * (0.09 * is_forehead + 0.05 * is_cheek)


def draw_mark(canvas: Tensor, f: Frame, face: Anatomy, people: People) -> Tensor:
    u, v = mark_centre(face, people)
    shape = _shape(f.u - u, f.v - v, people)
    worn = 1 - is_value(people, "mark", "none")
    tint = pick(MARK_COLOURS, people.mark_colour)
    canvas = paint(canvas, cover(f, shape - HALO) * worn, tint * 0.22)
    return paint(canvas, cover(f, shape) * worn, tint)


def _shape(x: Tensor, y: Tensor, people: People) -> Tensor:
    """Signed distance to each person's mark around (0, 0), at most RADIUS - HALO large."""
    x, y = x / RADIUS, y / RADIUS  # shapes below fill -1..1 with their halo
    shapes = {
        "mole": disc(x, y, 0.62),
        "scar": _scar(x, y),
        "star": _star(x, y),
        "heart": _heart(x.abs(), y),
        "cross": torch.minimum(box(x, y, 0.77, 0.24, 0.02), box(x, y, 0.24, 0.77, 0.02)),
        "ring": disc(x, y, 0.56).abs() - 0.20,
    }
    chosen = torch.full_like(x, 9.0)
    for name, distance in shapes.items():
        chosen = torch.where(is_value(people, "mark", name) > 0, distance, chosen)
    return chosen * RADIUS


def _scar(x: Tensor, y: Tensor) -> Tensor:
    """A slash with two stitches."""
    s, t = (x - y) * 0.7071, (x + y) * 0.7071
    slash = box(s, t, 0.80, 0.15, 0.05)
    stitches = box(s.abs() - 0.36, t, 0.09, 0.36, 0.05)
    return torch.minimum(slash, stitches)


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, the first upwards."""
    sector = 2 * torch.pi / 5
    angle = torch.atan2(x, -y + 1e-7)
    angle = (torch.frac(angle / sector + 8.5) - 0.5).abs() * sector
    radius = torch.sqrt(x * x + y * y + 1e-6)
    # The edge from a point (r = .79, angle 0) to the notch (r = .36, angle sector / 2).
    along, across = radius * torch.cos(angle), radius * torch.sin(angle)
    edge = (along - 0.79) * 0.424 + across * 0.906
    return torch.maximum(edge, radius - 0.80)  # or the halo would run out at the points


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """x: the distance from its axis. Two lobes on a corner."""
    lobes = disc(x - 0.34, y + 0.22, 0.40)
    corner = torch.maximum((x + y) * 0.7071 - 0.48, -y - 0.16)
    return torch.minimum(lobes, torch.maximum(corner, x - 0.74))


def mark_box(people: People, scenes: Scenes) -> Tensor:
    """Float (B, 4): x1, y1, x2, y2 of the marks in fractions of the picture."""
    face = anatomy(people, scenes)
    x, y = (t.flatten() for t in to_picture(face, *mark_centre(face, people)))
    # Room for the tilt, for an edge, and for paint that runs in a watercolour.
    sway = style_numbers(scenes)[1]["sway"].flatten()
    half = face.scale.flatten() * (RADIUS * 1.08) / 2 + 0.003 + sway
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)
