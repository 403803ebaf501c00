"""Signed distances and paint: everything is (B, 1, H, W) or (B, 3, H, W), broadcast over a batch.

A shape is a signed distance in head units, negative inside; `cover` makes it coverage 0..1 with an
edge one pixel wide. Nothing here branches on values, so torch.compile fuses a whole drawing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-6


@dataclass(frozen=True)
class Frame:
    """Where each pixel lies. Head units: chin at v = 1, crown at v = -1, nose line at u = 0."""

    x: Tensor  # picture, -1..1 to the right
    y: Tensor  # picture, -1..1 downwards
    u: Tensor  # head, turned with it
    v: Tensor
    a: Tensor  # shoulders: as u, v but upright
    b: Tensor
    pixel: Tensor  # (B, 1, 1, 1) one pixel in head units


def cover(frame: Frame, distance: Tensor) -> Tensor:
    """Coverage of a shape."""
    return (0.5 - distance / frame.pixel).clamp(0, 1)


def fade(x: Tensor, start: Tensor | float, end: Tensor | float) -> Tensor:
    """Smoothly from 0 at `start` to 1 at `end`."""
    t = ((x - start) / (end - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def paint(canvas: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    # Not torch.lerp, which is several times slower when it broadcasts.
    return torch.addcmul(canvas, mask, colour - canvas)


def ellipse(x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """About right near the edge, which is all that coverage needs."""
    px, py = x / rx, y / ry
    level = torch.sqrt(px * px + py * py + TINY)
    slope = torch.sqrt((px / rx) ** 2 + (py / ry) ** 2 + TINY)
    return level * (level - 1) / slope


def disc(x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    return torch.sqrt(x * x + y * y + TINY) - radius


def superellipse(
    x: Tensor, y: Tensor, rx: Tensor | float, ry: Tensor | float, power: Tensor | float
) -> Tensor:
    """Distance along the ray from the centre to |x/rx|^p + |y/ry|^p = 1."""
    px, py = (x / rx).abs() + TINY, (y / ry).abs() + TINY
    level = (px**power + py**power) ** (1 / power)
    return torch.sqrt(x * x + y * y + TINY) * (1 - 1 / level)


def box(
    x: Tensor, y: Tensor, half_x: Tensor | float, half_y: Tensor | float, corner: Tensor | float
) -> Tensor:
    """A box with rounded corners."""
    qx, qy = x.abs() - half_x + corner, y.abs() - half_y + corner
    outside = torch.sqrt(qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2 + TINY)
    return outside + torch.maximum(qx, qy).clamp(max=0) - corner


def lens(x: Tensor, y: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
    """An almond: two arcs that meet at x = +-rx, ry high. Needs ry <= rx."""
    radius = (rx * rx + ry * ry) / (2 * ry)
    return torch.sqrt(x * x + (y.abs() + radius - ry) ** 2 + TINY) - radius


def stroke(
    x: Tensor, y: Tensor, half: Tensor | float, bend: Tensor | float, width: Tensor | float
) -> Tensor:
    """A brush stroke along y = bend * (x / half)^2, tapering towards x = +-half."""
    t = x / half
    body = (1 - t * t).clamp(min=0)
    return torch.maximum((y - bend * t * t).abs() - width * torch.sqrt(body), x.abs() - half)


def turn(x: Tensor, y: Tensor, sine: Tensor | float, cosine: Tensor | float):
    return x * cosine + y * sine, y * cosine - x * sine


def smooth_noise(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    """Slow, wandering, about -1..1; `phase` (B, 1, 1, 1) picks the piece."""
    return (
        torch.sin(3.1 * x + 1.7 * torch.sin(2.3 * y + 6.3 * phase) + 9.0 * phase)
        + torch.sin(4.3 * y - 1.3 * torch.sin(3.7 * x - 4.0 * phase) + 5.0 * phase)
    ) * 0.5


def scatter(i: Tensor, j: Tensor, phase: Tensor | float) -> Tensor:
    """A number in 0..1 per cell (i, j); exact enough to be the same in any batch size."""
    return torch.frac(i * 0.7548777 + j * 0.5698403 + phase + 64.0)


def pick(table: dict[str, tuple[float, ...]], index: Tensor) -> Tensor:
    """Rows of a table of numbers as (B, n, 1, 1)."""
    rows = torch.tensor(list(table.values()), device=index.device)
    return rows[index][:, :, None, None]


def plane(values: Tensor) -> Tensor:
    """(B,) to float (B, 1, 1, 1)."""
    return values.float()[:, None, None, None]


def is_value(factors, name: str, value: str) -> Tensor:
    """1 where a categorical factor has this value, else 0: (B, 1, 1, 1)."""
    return plane(getattr(factors, name) == factors.names(name).index(value))
