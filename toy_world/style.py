"""Light and art styles: what happens to a finished drawing, pixel by pixel or nearly so."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import Anatomy
from .scenes import STYLES, Scenes
from .shapes import Frame, fade, is_value, paint, plane, smooth_noise

# paper: its colour. pale: how far the background fades into it. edge: strength of outlines.
# hatch, blotch: texture of the pencil and of wet paint. frame: how far the border stays paper.
# night: how dark, and how much it glows. sway: how far edges run.
# fmt: off
COLUMNS = (
    "pale", "edge", "hatch", "blotch", "frame", "night", "sway",
)
# fmt: on
ROWS = {
    "flat": ((1.0, 1.0, 1.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "watercolour": ((0.99, 0.98, 0.95), 0.25, 0.55, 0.0, 0.36, 1.0, 0.0, 0.009),
    "pencil": ((0.97, 0.95, 0.90), 0.62, 0.75, 0.62, 0.0, 0.0, 0.0, 0.0),
    "neon": ((0.04, 0.02, 0.12), 0.25, 0.55, 0.0, 0.0, 0.0, 1.0, 0.0),
}


def style_numbers(scenes: Scenes) -> tuple[Tensor, dict[str, Tensor]]:
    """The paper (B, 3, 1, 1), and the other columns (B, 1, 1, 1) by name."""
    rows = [[*ROWS[name][0], *ROWS[name][1:]] for name in STYLES]
    table = torch.tensor(rows, device=scenes.style.device)[scenes.style]
    return table[:, :3, None, None], {n: plane(table[:, 3 + i]) for i, n in enumerate(COLUMNS)}


def shine(picture: Tensor, f: Frame, face: Anatomy, scenes: Scenes, solid: Tensor) -> Tensor:
    """Light on the person: from the upper left in the morning, the upper right in the evening."""
    morning, evening = (is_value(scenes, "light", name) for name in ("morning", "evening"))
    strength = plane(scenes.light_strength)
    side = f.u / face.width * (evening - morning)  # 1 on the lit side
    glow = (side * 0.8 - f.v * 0.25).clamp(-1.2, 1.2) * (morning + evening)
    soft = (-f.v).clamp(-1, 1) * (1 - morning - evening)
    # Half a step, half a slope: a shadow with an edge reads as drawn.
    edge = fade(glow, -0.55, -0.30) - 1
    level = 1 + strength * (0.13 * glow + 0.13 * edge + 0.06 * soft)
    warm = torch.tensor((0.05, 0.02, -0.06), device=picture.device)[None, :, None, None]
    tint = warm * (morning + 1.6 * evening) * strength
    lit = picture * (1 + (level - 1) * solid) * (1 + tint) + tint * 0.3
    return lit.clamp(0, 1)


def apply_style(picture: Tensor, f: Frame, scenes: Scenes, solid: Tensor) -> Tensor:
    """picture (B, 3, H, W), solid (B, 1, H, W): where the person is."""
    paper, s = style_numbers(scenes)
    piece = plane(scenes.scenery)
    outlines = _edges(picture)
    picture = paint(picture, s["pale"] * (1 - solid), paper)
    wet = smooth_noise(f.x * 1.6, f.y * 1.6, piece) * 0.6
    wet = wet + smooth_noise(f.x * 5 + f.y, f.y * 5 - f.x, piece + 0.37) * 0.4
    # Textures are lighter on the person: what tells people apart must stay.
    blotch = s["blotch"] * (0.45 + 0.45 * wet) * (1 - 0.55 * solid)
    lines = torch.sin((f.x + f.y) * 36 + 2 * torch.sin(9 * f.x - 7 * f.y))
    hatch = s["hatch"] * (0.30 + 0.45 * lines) * (1 - 0.80 * solid)
    picture = paint(picture, (blotch + hatch).clamp(0, 1), paper)
    picture = _ink(picture, outlines, s)
    # Less of a border below, where the clothes are.
    reach = torch.maximum(f.x.abs(), torch.maximum(-f.y, f.y - 0.10))
    reach = reach + 0.07 * smooth_noise(f.x * 3, f.y * 3, piece)
    picture = paint(picture, fade(reach, 0.80, 0.94) * s["frame"], paper)
    return _night(picture, f, s["night"], solid, outlines)


def _ink(picture: Tensor, outlines: Tensor, s: dict[str, Tensor]) -> Tensor:
    """Outlines: graphite in a sketch, pooled pigment in a watercolour."""
    graphite = torch.tensor((0.20, 0.19, 0.22), device=picture.device)[None, :, None, None]
    pooled = picture * picture * 0.7
    colour = torch.lerp(pooled, graphite.expand_as(picture), (s["hatch"] > 0).float())
    return paint(picture, outlines * s["edge"] * (1 - s["night"]), colour)


def _night(picture: Tensor, f: Frame, night: Tensor, solid: Tensor, outlines: Tensor) -> Tensor:
    """Deep blue shade, with magenta from the left and cyan from the right."""
    dark = torch.tensor((0.90, 0.80, 1.0), device=picture.device)[None, :, None, None]
    dim = picture * dark * (0.30 + 0.70 * solid) + 0.02
    left = torch.tensor((1.0, 0.10, 0.75), device=picture.device)[None, :, None, None]
    right = torch.tensor((0.05, 0.90, 1.0), device=picture.device)[None, :, None, None]
    step = max(1, picture.shape[-1] // 128)
    near = F.avg_pool2d(solid, 6 * step + 1, 1, 3 * step, count_include_pad=False)
    rim = solid * (1 - near) * 1.5 + (1 - solid) * near * 0.9
    lamp = torch.lerp(left, right, fade(f.a, -0.35, 0.35))
    glowing = dim + lamp * (rim + 0.10 * outlines * (1 - solid))
    return torch.lerp(picture, glowing.clamp(0, 1), night)


def _edges(picture: Tensor) -> Tensor:
    """Where neighbours differ, 0..1 (B, 1, H, W); two pixels wide at 128 px."""
    step = max(1, picture.shape[-1] // 128)
    padded = F.pad(picture, (step, step, step, step), mode="replicate")
    across = padded[:, :, step:-step, 2 * step :] - padded[:, :, step:-step, : -2 * step]
    down = padded[:, :, 2 * step :, step:-step] - padded[:, :, : -2 * step, step:-step]
    change = (across.abs() + down.abs()).mean(dim=1, keepdim=True)
    return fade(change, 0.15, 0.75)
