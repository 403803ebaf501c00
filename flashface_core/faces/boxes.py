"""Faces that are given as boxes: core's BOUNDING_BOX, and plain numbers."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ..errors import FlashFaceError
from .face import Face

KEYS = ("x", "y", "width", "height")
LARGEST = 2  # times the photo's sides


def read_boxes(boxes: Any, images: int) -> list[list[Face]]:
    """Faces per image.

    boxes: one box, a list with one box per image, or a list per image; one entry is for all
    images. Of a single image all boxes of a list are; an empty one says that nothing was found in
    any image. A box is a dict of x, y, width and height, or these four numbers, in pixels.
    Raises FlashFaceError for anything else.
    """
    if hasattr(boxes, "tolist"):  # numpy, torch
        boxes = boxes.tolist()
    entries = [boxes] if _is_box(boxes) else boxes
    if _is_list(entries) and (not len(entries) or (images == 1 and all(map(_is_box, entries)))):
        entries = [entries]
    if not _is_list(entries) or len(entries) not in (1, images):
        found = len(entries) if _is_list(entries) else type(boxes).__name__
        raise FlashFaceError(
            f"boxes are for {found} images, there are {images}; give one box, or one entry (a box "
            "or a list of boxes) per image."
        )
    if len(entries) == 1:
        entries = [entries[0]] * images
    return [[_face(box) for box in _as_list(entry)] for entry in entries]


def check_inside(faces: Sequence[Face], width: int, height: int, number: int) -> None:
    """Raises FlashFaceError for a box that misses its image, or is far larger than it."""
    for x1, y1, x2, y2 in (face.box for face in faces):
        where = f"The box {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        # Rounded, as crops are cut.
        if round(x2) <= 0 or round(y2) <= 0 or round(x1) >= width or round(y1) >= height:
            raise FlashFaceError(
                f"{where} is outside of image {number}, which is {width} x {height} pixels."
            )
        if x2 - x1 > LARGEST * width or y2 - y1 > LARGEST * height:
            raise FlashFaceError(
                f"{where} is more than twice as large as image {number}, which is {width} x "
                f"{height} pixels; give x, y, width and height in pixels of this image."
            )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return isinstance(value, Mapping) or (
        _is_list(value) and len(value) > 0 and all(map(_is_number, value))
    )


def _as_list(entry: Any) -> list:
    if hasattr(entry, "tolist"):
        entry = entry.tolist()
    if entry is None:
        return []
    return [entry] if _is_box(entry) or not _is_list(entry) else list(entry)


def _face(box: Any) -> Face:
    if hasattr(box, "tolist"):
        box = box.tolist()
    try:
        values = [box[key] for key in KEYS] if isinstance(box, Mapping) else box
        x, y, width, height = (float(value) for value in values)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise FlashFaceError(
            f"A box is {box!r}, expected x, y, width and height in pixels."
        ) from error
    if not all(map(math.isfinite, (x, y, width, height))) or width < 1 or height < 1:
        raise FlashFaceError(
            f"A box is {width:g} x {height:g} pixels at {x:g}, {y:g}; it must be 1 x 1 or larger."
        )
    return Face((x, y, x + width, y + height))
