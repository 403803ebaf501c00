"""Photos with their faces numbered, for the user to see which is which and what is doubtful."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..font import font_of
from .face import Face

TAKEN, FOUND, DOUBT = (64, 200, 96), (232, 168, 56), (255, 112, 96)
PREVIEW_SIZE = 1024  # pixels of the long side at most


def draw_boxes(
    photo: torch.Tensor,
    faces: Sequence[Face],
    chosen: Sequence[Face],
    doubts: Sequence[Sequence[str]] = (),
) -> torch.Tensor:
    """uint8 (H, W, 3) to the same, at most PREVIEW_SIZE; the boxes of chosen faces are green.

    doubts: of each chosen face, written below its box, or above where there is no room.
    """
    picture = Image.fromarray(photo.numpy())
    scale = min(1.0, PREVIEW_SIZE / max(picture.size))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 160))
    font = font_of(max(10, 8 * unit))
    for number, face in enumerate(faces):
        colour = TAKEN if any(face is taken for taken in chosen) else FOUND
        x1, y1, x2, y2 = (scale * value for value in face.box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=unit)
        corner = (max(0, x1) + 2 * unit, max(0, y1) + unit)
        _write(draw, corner, str(number), colour, font, unit)
    for face, words in zip(chosen, doubts, strict=False):
        if words:
            box = [scale * value for value in face.box]
            _write_beside(draw, picture.size, box, ", ".join(words), font, unit)
    return torch.from_numpy(np.array(picture))


def _write(draw, corner, text: str, colour, font, unit: int) -> None:
    box = draw.textbbox(corner, text, font=font)
    draw.rectangle((box[0] - unit, box[1] - unit, box[2] + unit, box[3] + unit), fill=colour)
    draw.text(corner, text, fill=(0, 0, 0), font=font)


def _write_beside(draw, size, box, text: str, font, unit: int) -> None:
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = min(max(unit, box[0] + unit), max(unit, size[0] - right - 2 * unit))
    y = box[3] + 2 * unit - top
    if y + bottom + unit > size[1]:
        y = max(0, box[1] - bottom - 3 * unit)
    _write(draw, (x, y), text, DOUBT, font, unit)
