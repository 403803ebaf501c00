"""Eight backgrounds from one family: a sky, a far ridge, a near ground, and a grid of spots."""

import torch
from torch import Tensor

from .scenes import BACKGROUNDS, Scenes
from .shapes import Frame, paint, plane, scatter

# Five colours: sky above, sky below, far, near, spots. Then: far, how high it rises, its count, and
# its shape (0 waves, 1 peaks, 2 blocks); near and how it waves; spots: cells per unit across and
# down, size, roundness (0 boxes, 1 discs), which part of the cells has one, from and to (y), offset
# of every second row, how much they vary; snow on the ridge; a sun or moon.
# fmt: off
COLUMNS = (
    "far", "rise", "count", "shape", "near", "wave", "across", "down", "size", "round", "share",
    "above", "below", "offset", "vary", "snow", "sun",
)
# fmt: on
ROWS = {
    "forest": (
        ((0.75, 0.90, 0.66), (0.90, 0.96, 0.78), (0.10, 0.40, 0.22), (0.05, 0.24, 0.12)),
        ((0.16, 0.50, 0.26), -0.55, 0.65, 2.2, 1, 0.35, 0.06),
        (2.1, 1.0, 0.0, 1, 0.0, 2.0, 2.0, 0.5, 0.2, 0, 0),
    ),
    "sea": (
        ((0.45, 0.78, 0.98), (0.85, 0.95, 1.00), (0.05, 0.45, 0.72), (0.95, 0.84, 0.58)),
        ((0.80, 0.95, 1.00), -0.05, 0.0, 2, 0, 0.62, 0.04),
        (2.2, 6.0, 0.30, 0, 0.5, 0.02, 0.5, 0.5, 0.0, 0, 1),
    ),
    "city": (
        ((0.93, 0.55, 0.42), (1.00, 0.83, 0.55), (0.27, 0.24, 0.36), (0.19, 0.17, 0.27)),
        ((1.00, 0.88, 0.42), -0.62, 0.55, 3.1, 2, 0.75, 0.0),
        (7.5, 6.0, 0.62, 0, 0.60, -2.0, 0.7, 0.0, 0.1, 0, 0),
    ),
    "mountains": (
        ((0.55, 0.72, 0.95), (0.86, 0.92, 0.99), (0.42, 0.45, 0.60), (0.45, 0.62, 0.34)),
        ((1.00, 1.00, 1.00), -0.75, 0.85, 1.15, 1, 0.45, 0.10),
        (2.0, 2.0, 0.0, 1, 0.0, 2.0, 2.0, 0.0, 0.0, 1, 0),
    ),
    "stars": (
        ((0.04, 0.05, 0.20), (0.16, 0.13, 0.42), (0.05, 0.05, 0.14), (0.03, 0.04, 0.10)),
        ((1.00, 0.97, 0.75), 0.55, 0.12, 1.4, 0, 0.9, 0.05),
        (5.0, 5.0, 0.30, 1, 0.75, -1.1, 0.5, 0.35, 0.1, 0, 2),
    ),
    "bricks": (
        ((0.86, 0.80, 0.73), (0.80, 0.73, 0.66), (0.8, 0.7, 0.6), (0.8, 0.7, 0.6)),
        ((0.72, 0.30, 0.20), 3.0, 0.0, 1, 0, 3.0, 0.0),
        (2.6, 5.2, 0.87, 0, 1.0, -2.0, 2.0, 0.5, 0.25, 0, 0),
    ),
    "library": (
        ((0.33, 0.19, 0.10), (0.26, 0.14, 0.08), (0.4, 0.2, 0.1), (0.4, 0.2, 0.1)),
        ((0.66, 0.46, 0.34), 3.0, 0.0, 1, 0, 3.0, 0.0),
        (7.0, 2.2, 0.80, 0, 1.0, -2.0, 2.0, 0.0, 0.62, 0, 0),
    ),
    "flowers": (
        ((0.62, 0.86, 0.99), (0.95, 0.98, 0.93), (0.55, 0.80, 0.36), (0.42, 0.72, 0.28)),
        ((0.98, 0.42, 0.66), -0.25, 0.18, 1.1, 0, 0.15, 0.07),
        (4.6, 4.6, 0.56, 1, 0.8, 0.22, 1.2, 0.5, 0.45, 0, 1),
    ),
}


def draw_backdrop(f: Frame, scenes: Scenes, pixel: float) -> Tensor:
    """(B, 3, H, W). pixel: the size of one in the picture's -1..1."""
    rows = [ROWS[name] for name in BACKGROUNDS]
    flat = [[*sum(first, ()), *second[0], *second[1:], *third] for first, second, third in rows]
    table = torch.tensor(flat, device=f.x.device)[scenes.background]
    high, low, far, near, spot = (table[:, n : n + 3, None, None] for n in range(0, 15, 3))
    s = {name: plane(table[:, 15 + n]) for n, name in enumerate(COLUMNS)}
    piece = plane(scenes.scenery)

    canvas = torch.lerp(high, low, (f.y * 0.6 + 0.5).clamp(0, 1))
    canvas = _sun(canvas, f, s, piece, pixel)
    depth = (f.y - _ridge(f, s, piece)) / pixel + 0.5
    canvas = paint(canvas, depth.clamp(0, 1), far)
    snow = (0.22 + 0.05 * torch.sin(f.x * 21) - depth * pixel) / pixel
    canvas = paint(canvas, snow.clamp(0, 1) * depth.clamp(0, 1) * s["snow"], spot)
    ground = s["near"] + s["wave"] * torch.sin(4 * f.x + 6.3 * piece)
    canvas = paint(canvas, ((f.y - ground) / pixel + 0.5).clamp(0, 1), near)
    # Windows are lit in houses only, so blocks hide spots above the ridge.
    inside = torch.where(s["shape"] > 1.5, (depth - 3).clamp(0, 1), torch.ones_like(depth))
    return _spots(canvas, f, s, piece, spot, inside, pixel)


def _ridge(f: Frame, s: dict[str, Tensor], piece: Tensor) -> Tensor:
    """y of the far line."""
    t = f.x * s["count"] + 3.7 * piece
    waves = 0.5 + 0.5 * torch.sin(2 * torch.pi * t)
    peaks = (torch.frac(t + 32) * 2 - 1).abs() * 0.75 + (torch.frac(t * 1.7 + 32.3) - 0.5).abs() / 2
    blocks = scatter(torch.floor(t), torch.zeros_like(t), piece)
    shape = torch.where(s["shape"] > 1.5, blocks, torch.where(s["shape"] > 0.5, peaks, waves))
    return s["far"] + s["rise"] * shape


def _sun(canvas: Tensor, f: Frame, s: dict[str, Tensor], piece: Tensor, pixel: float) -> Tensor:
    x, y = f.x - torch.where(piece < 0.5, -0.72, 0.72), f.y + 0.70
    disc = (0.5 - (torch.sqrt(x * x + y * y + 1e-6) - 0.16) / pixel).clamp(0, 1)
    bite = (0.5 - (torch.sqrt((x - 0.08) ** 2 + y * y + 1e-6) - 0.13) / pixel).clamp(0, 1)
    moon = (s["sun"] > 1.5).float()
    warm = torch.tensor((1.0, 0.93, 0.60), device=canvas.device)[None, :, None, None]
    return paint(canvas, disc * (1 - bite * moon) * s["sun"].clamp(max=1), warm)


def _spots(
    canvas: Tensor,
    f: Frame,
    s: dict[str, Tensor],
    piece: Tensor,
    spot: Tensor,
    inside: Tensor,
    pixel: float,
) -> Tensor:
    """Waves, windows, stars, bricks, books and flowers."""
    row = torch.floor(f.y * s["down"] + 32)
    across = f.x * s["across"] + 32 + 1.7 * piece + s["offset"] * row
    column = torch.floor(across)
    chance, hue = scatter(column, row, piece), scatter(row, column * 1.37, piece * 0.7)
    p = (torch.frac(across) - 0.5) / s["across"]
    q = (torch.frac(f.y * s["down"] + 32) - 0.5) / s["down"]
    half_p, half_q = 0.5 * s["size"] / s["across"], 0.5 * s["size"] / s["down"]
    boxes = torch.maximum(p.abs() - half_p, q.abs() - half_q)
    discs = torch.sqrt(p * p + q * q + 1e-6) - half_p
    shown = (chance < s["share"]) & (f.y > s["above"]) & (f.y < s["below"])
    mask = (0.5 - torch.lerp(boxes, discs, s["round"]) / pixel).clamp(0, 1) * shown * inside
    # A turn of the hue that leaves brightness about where it was.
    phase = torch.tensor((0.0, 2.1, 4.2), device=canvas.device)[None, :, None, None]
    varied = spot + s["vary"] * 0.38 * torch.sin(6.28 * hue + phase)
    return paint(canvas, mask, varied.clamp(0, 1))
