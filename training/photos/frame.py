"""The square that is trained on, cut out of a photograph, and the face as a reference."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from flashface_core.faces.crop import pad_to_square

from .look import PhotoScan, read_photo
from .sources import Photo


class Framed(NamedTuple):
    """picture: RGB (size, size). face: uint8 (face_size, face_size, 3), levelled and padded as the
    nodes do it. box: x1, y1, x2, y2 of the face, and points: its key points (x, y), as fractions of
    the picture."""

    picture: Image.Image
    face: torch.Tensor
    box: tuple[float, float, float, float]
    points: list[tuple[float, float]]


def frame(photo: Photo, look: PhotoScan, size: int, face_size: int) -> Framed:
    picture = read_photo(photo)
    left, top, side = square_around(picture.width, picture.height, look.box)
    cut = picture.resize(
        (size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    face = pad_to_square(look.crop(torch.from_numpy(np.array(picture))), face_size)
    x1, y1, x2, y2 = look.box
    box = ((x1 - left) / side, (y1 - top) / side, (x2 - left) / side, (y2 - top) / side)
    points = [((x - left) / side, (y - top) / side) for x, y in look.points]
    return Framed(cut, face, box, points)


def square_around(width: int, height: int, box: tuple[float, ...]) -> tuple[int, int, int]:
    """left, top and side in pixels of the largest square: the middle one, or as much beside it as
    the face needs."""
    side = min(width, height)
    starts = []
    for extent, low, high in ((width, box[0], box[2]), (height, box[1], box[3])):
        start = (extent - side) / 2
        start = min(max(start, high - side), low)
        starts.append(round(min(max(start, 0), extent - side)))
    return starts[0], starts[1], side
