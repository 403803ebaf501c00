"""Grids of pictures for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

SIZE, LABEL, GAP = 128, 16, 4  # pixels of a picture, above a column, and between pictures


def to_image(picture: Tensor) -> Image.Image:
    """(3, H, W) in 0..1."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.cpu().numpy())


def save_grid(
    path: Path,
    photos: Sequence[Sequence[Tensor]],
    rows: Sequence[Sequence[Tensor]],
    labels: Sequence[str],
) -> None:
    """A row per person: up to four of the photos, then the pictures.

    photos, rows: pictures (3, h, w) in 0..1. labels: one per picture of a row.
    """
    step, half = SIZE + GAP, SIZE // 2
    sheet = Image.new("RGB", ((1 + len(labels)) * step, LABEL + len(rows) * step), "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(("photos", *labels)):
        pen.text((column * step + 2, 2), text[:20], fill="black", font_size=11)
    for row, (crops, pictures) in enumerate(zip(photos, rows, strict=True)):
        y = LABEL + row * step
        for n, crop in enumerate(crops[:4]):
            photo = ImageOps.pad(to_image(crop), (half, half), color="white")
            sheet.paste(photo, (n % 2 * half, y + n // 2 * half))
        for column, picture in enumerate(pictures, 1):
            sheet.paste(to_image(picture).resize((SIZE, SIZE)), (column * step, y))
    sheet.save(path)
