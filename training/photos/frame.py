"""The picture that is trained on, cut out of a photograph, and the face as a reference."""

from collections.abc import Callable, Sequence
from math import log
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from flashface_core.faces.crop import pad_to_square

from .look import PhotoScan, read_photo
from .sources import Photo


class Framed(NamedTuple):
    """picture: RGB, of the shape that was asked for. face: uint8 (face_size, face_size, 3),
    levelled and padded as the nodes do it. box: x1, y1, x2, y2 of the face, and points: its key
    points (x, y), as fractions of the picture."""

    picture: Image.Image
    face: torch.Tensor
    box: tuple[float, float, float, float]
    points: list[tuple[float, float]]


Shape = tuple[int, int]
"""Width and height in pixels."""
WIDEST = 2.0  # width by height, or height by width


def shapes(size: int) -> list[Shape]:
    """The square, and what is as large and up to twice as wide or high, in steps that a UNet
    halves three times (of small pictures: once)."""
    step = 64 if size >= 512 else 16
    found = {(size, size)}
    for short in range(step, size, step):
        long = size * size // short // step * step
        if long <= WIDEST * short:
            found |= {(short, long), (long, short)}
    return sorted(found)


def nearest_shape(width: int, height: int, size: int) -> Shape:
    """The one of `shapes` that loses least of a photograph."""
    return min(shapes(size), key=lambda s: (abs(log(s[0] / s[1] * height / width)), s))


def frame(photo: Photo, look: PhotoScan, shape: Shape, face_size: int) -> Framed:
    picture = read_photo(photo)
    size = (picture.width, picture.height)
    left, top, width, height = rectangle_around(*size, look.box, shape)
    cut = picture.resize(shape, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
    face = pad_to_square(look.crop(torch.from_numpy(np.array(picture))), face_size)
    x1, y1, x2, y2 = look.box
    box = ((x1 - left) / width, (y1 - top) / height, (x2 - left) / width, (y2 - top) / height)
    points = [((x - left) / width, (y - top) / height) for x, y in look.points]
    return Framed(cut, face, box, points)


def rectangle_around(
    width: int, height: int, box: tuple[float, ...], shape: Shape = (1, 1)
) -> tuple[int, int, int, int]:
    """left, top, width and height in pixels of the largest part like `shape`: the middle one, or as
    much beside it as the face needs."""
    ratio = shape[0] / shape[1]
    part = (min(width, round(height * ratio)), min(height, round(width / ratio)))
    starts = []
    for extent, side, low, high in zip((width, height), part, box[:2], box[2:], strict=True):
        start = (extent - side) / 2
        start = min(max(start, high - side), low)
        starts.append(round(min(max(start, 0), extent - side)))
    return starts[0], starts[1], *part


def by_shape(
    function: Callable[[torch.Tensor], torch.Tensor], pictures: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """What a function of batches gives for pictures (H, W, C), those of a shape in one batch."""
    groups: dict[torch.Size, list[int]] = {}
    for row, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(row)
    given = {}
    for rows in groups.values():
        values = function(torch.stack([pictures[row] for row in rows]))
        given.update(zip(rows, values, strict=True))
    return [given[row] for row in range(len(pictures))]
