"""Cutting faces out of photos exactly as the official code does (FLASHFACE.md section 7)."""

import math

import numpy as np
import torch
from PIL import Image

from ..errors import FlashFaceError

Box = tuple[float, float, float, float]
Points = tuple[tuple[float, float], tuple[float, float]]

LARGEST_CROP = 12000**2  # pixels; Pillow refuses more than 13377 ** 2


def photo_to_uint8(photo: torch.Tensor) -> torch.Tensor:
    """IMAGE (H, W, C) in 0..1 with 1, 3 or 4 channels to uint8 (H, W, 3); alpha falls on black.

    Raises FlashFaceError for another number of channels, and for NaN.
    """
    if photo.shape[-1] not in (1, 3, 4):
        raise FlashFaceError(
            f"An image has {photo.shape[-1]} channels; expected 1 (grey), 3 (RGB) or 4 (RGBA)."
        )
    photo = photo.detach().float().cpu()
    check_numbers(photo, "An image")
    if photo.shape[-1] == 1:
        photo = photo.expand(-1, -1, 3)
    if photo.shape[-1] == 4:
        photo = photo[..., :3] * photo[..., 3:]
    return (photo * 255).round_().clamp_(0, 255).to(torch.uint8)


def check_numbers(pixels: torch.Tensor, what: str) -> None:
    """Raises FlashFaceError for NaN and infinity."""
    if not pixels.isfinite().all():
        raise FlashFaceError(
            f"{what} has pixels that are no numbers (NaN or infinite), as a sampler or VAE leaves "
            "where half precision overflows; draw it again in fp32 or bf16."
        )


def pure_share(picture: torch.Tensor) -> float:
    """Of the pixels of uint8 (H, W, 3): how many are pure black or pure white, 0..1."""
    return ((picture == 0).all(-1) | (picture == 255).all(-1)).float().mean().item()


def crop_face(
    photo: torch.Tensor, box: Box, eyes: Points | None = None, margin: float = 0.0
) -> torch.Tensor:
    """Cut out and level a face: uint8 (H, W, 3) in, uint8 (h, w, 3) out, black outside the photo.

    box: x1, y1, x2, y2. eyes: the eye that is left in the image, and the right one; None: the crop
    is not levelled. margin: fraction of the box added on every side (official: 0).
    Raises FlashFaceError for a crop beyond LARGEST_CROP.
    """
    x1, y1, x2, y2 = box
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, top, right, bottom = round(x1 - dx), round(y1 - dy), round(x2 + dx), round(y2 + dy)
    width, height = max(1, right - left), max(1, bottom - top)
    if width * height > LARGEST_CROP:
        raise FlashFaceError(
            f"The crop of a face would be {width} x {height} pixels; lower crop_margin, give a "
            "smaller box, or make the photo smaller."
        )
    crop = Image.fromarray(photo.numpy()).crop((left, top, left + width, top + height))
    if eyes is not None and (angle := eye_angle(*eyes)) != 0:
        crop = crop.rotate(angle)  # about its centre, same size, nearest, black corners
    return torch.from_numpy(np.array(crop))


def eye_angle(left: tuple[float, float], right: tuple[float, float]) -> float:
    """Degrees counter-clockwise that bring the eyes level.

    No rotation for coinciding eyes, or eyes exactly above each other with the left one not lower.
    """
    dx, dy = right[0] - left[0], right[1] - left[1]
    if dx == 0 and dy >= 0:
        return 0.0
    return math.degrees(math.atan2(dy, dx))


def pad_to_square(crop: torch.Tensor, size: int) -> torch.Tensor:
    """Resize the long side to `size` (bicubic) and pad with black: uint8 (size, size, 3)."""
    height, width = crop.shape[:2]
    scale = size / max(height, width)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    resized = Image.fromarray(crop.numpy()).resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size))
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return torch.from_numpy(np.array(square))
