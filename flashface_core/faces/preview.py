"""Photos with their faces numbered, for the user to see which is which."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .face import Face

TAKEN, FOUND = (64, 200, 96), (232, 168, 56)
PREVIEW_SIZE = 1024  # pixels of the long side at most


def draw_boxes(photo: torch.Tensor, faces: Sequence[Face], chosen: Sequence[Face]) -> torch.Tensor:
    """uint8 (H, W, 3) to the same, at most PREVIEW_SIZE; the boxes of chosen faces are green."""
    picture = Image.fromarray(photo.numpy())
    scale = min(1.0, PREVIEW_SIZE / max(picture.size))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 160))
    font = ImageFont.load_default(size=max(10, 8 * unit))
    for number, face in enumerate(faces):
        colour = TAKEN if any(face is taken for taken in chosen) else FOUND
        x1, y1, x2, y2 = (scale * value for value in face.box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=unit)
        corner = (max(0, x1) + 2 * unit, max(0, y1) + unit)
        box = draw.textbbox(corner, str(number), font=font)
        draw.rectangle((box[0] - unit, box[1] - unit, box[2] + unit, box[3] + unit), fill=colour)
        draw.text(corner, str(number), fill=(0, 0, 0), font=font)
    return torch.from_numpy(np.array(picture))
