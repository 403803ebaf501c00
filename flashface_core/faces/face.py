"""A face that was found, what finds faces, and how often a photo is looked at."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

# Long side in pixels at which the official code looks (FLASHFACE.md section 7), and the one at
# which small faces of large photos are looked for.
DETECTION_SIZE, LARGE_SIZE = 640, 1920
# Of the sides, added on each: a face that fills its photo, or is cut off, is then found.
BORDER = 0.5


class Face(NamedTuple):
    """A face in a photo, in pixels.

    box: x1, y1, x2, y2. points: float (5, 2), the x and y of left eye, right eye, nose, left and
    right corner of the mouth, left and right as in the image; None for a given box, which is then
    not levelled. score: 0..1.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray | None = None
    score: float = 1.0

    @property
    def eyes(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        if self.points is None:
            return None
        (x1, y1), (x2, y2) = self.points[:2].tolist()
        return (x1, y1), (x2, y2)

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


class Detector(Protocol):
    """What the FACE_DETECTOR socket carries."""

    @property
    def name(self) -> str: ...

    @property
    def can_embed(self) -> bool: ...

    @property
    def recognition(self) -> str:
        """The network behind embed: ArcFace or SFace; "" where can_embed is False."""
        ...

    def find(self, photo: torch.Tensor) -> list[Face]:
        """Faces of a photo, uint8 (H, W, 3), the largest first."""
        ...

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        """Who it is: a unit vector, float32 (D,); cosines compare people.

        Raises FlashFaceError where can_embed is False.
        """
        ...


# Boxes (N, 4), points (N, 5, 2) and scores (N,) in pixels of an RGB picture that is no longer on
# its long side than the size, at which it is to be looked at.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
FindIn = Callable[[Image.Image, int], Found]
NOTHING: Found = np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0)


def find_faces(photo: torch.Tensor, find_in: FindIn, look_again: bool) -> list[Face]:
    """Faces of a photo, uint8 (H, W, 3), the largest first, from the first look that shows any.

    look_again: after a look as the official code takes it, with a border, then at large size.
    """
    for look in _looks(Image.fromarray(photo.numpy()), look_again):
        boxes, points, scores = find_in(look.picture, look.size)
        boxes = np.asarray(boxes, dtype=np.float64)
        boxes = boxes / np.tile(look.scale, 2) - np.tile(look.corner, 2)
        points = np.asarray(points, dtype=np.float64) / look.scale - look.corner
        if len(boxes):
            found = zip(boxes.tolist(), points, np.asarray(scores).tolist(), strict=True)
            faces = [Face((x1, y1, x2, y2), five, s) for (x1, y1, x2, y2), five, s in found]
            return sorted(faces, key=lambda face: -face.area)
    return []


class _Look(NamedTuple):
    """scale: pixels of the picture per pixel of the photo, x and y. corner: where the photo begins
    in the picture, in pixels of the photo."""

    picture: Image.Image
    size: int
    scale: np.ndarray
    corner: np.ndarray


def _looks(photo: Image.Image, look_again: bool) -> Iterator[_Look]:
    here, small = np.zeros(2), _shrunk(photo, DETECTION_SIZE)
    yield _Look(small, DETECTION_SIZE, _scale(small, photo), here)
    if not look_again:
        return
    x, y = (round(BORDER * side) for side in small.size)
    wide = small.crop((-x, -y, small.width + x, small.height + y))
    picture = _shrunk(wide, DETECTION_SIZE)
    scale = _scale(picture, wide) * _scale(small, photo)
    yield _Look(picture, DETECTION_SIZE, scale, np.array([x, y]) / _scale(small, photo))
    if max(photo.size) > DETECTION_SIZE:
        large = _shrunk(photo, LARGE_SIZE)
        yield _Look(large, LARGE_SIZE, _scale(large, photo), here)


def _shrunk(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _scale(picture: Image.Image, of: Image.Image) -> np.ndarray:
    return np.array(picture.size) / np.array(of.size)
