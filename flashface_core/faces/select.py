"""Which faces of which photos become an identity, and the pictures that show it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..errors import FlashFaceError
from ..identity import FaceReference, Identity
from .crop import Face, crop_face, pad_to_square, photo_to_uint8

SELECT = ["largest", "leftmost", "rightmost", "index", "every face"]
NO_FACE = ["error", "skip image", "use whole image"]

FACES_SIZE = 224
TAKEN, FOUND = (64, 200, 96), (232, 168, 56)


class FaceDetector(Protocol):
    def detect(self, photo: torch.Tensor) -> list[Face]:
        """Faces of a photo, uint8 (H, W, 3)."""
        ...


class MadeIdentity(NamedTuple):
    """identity; faces: IMAGE of the square crops; preview: IMAGE of the photos with numbered
    boxes; count: how many references these photos gave."""

    identity: Identity
    faces: torch.Tensor
    preview: torch.Tensor
    count: int


def make_identity(
    image: torch.Tensor,
    *,
    select: str,
    index: int,
    margin: float,
    no_face: str,
    weight: float,
    as_four_photos: bool,
    name: str,
    detector: FaceDetector | None = None,
    boxes=None,
    append_to: Identity | None = None,
) -> MadeIdentity:
    """IMAGE (N, H, W, C) in 0..1 to an identity; given boxes win over a detector.

    Raises FlashFaceError by the no_face policy, and for boxes that do not match the images.
    """
    photos = [photo_to_uint8(photo) for photo in image]
    given = None if boxes is None else normalise_boxes(boxes, len(photos))
    references, previews = [], []
    for number, photo in enumerate(photos):
        whole = Face((0, 0, photo.shape[1], photo.shape[0]))
        if given is not None:
            faces = given[number]
            _check_inside(faces, whole, number)
        else:
            faces = [whole] if detector is None else detector.detect(photo)
        chosen = choose_faces(faces, select, index)
        if not chosen and no_face == "error":
            raise FlashFaceError(_no_face_message(number, faces, index, select))
        if not chosen and no_face == "use whole image":
            chosen = [whole]
        crops = [crop_face(photo, face, 0.0 if face is whole else margin) for face in chosen]
        references += [FaceReference.from_crop(crop, weight) for crop in crops]
        previews.append(draw_boxes(photo, faces, chosen))
    count = len(references)
    squares = [pad_to_square(reference.crop, FACES_SIZE) for reference in references]
    blank = torch.zeros(FACES_SIZE, FACES_SIZE, 3, dtype=torch.uint8)
    if append_to is not None:
        references = [*append_to.references, *references]
        name = name or append_to.name
    identity = Identity(
        tuple(references), name, as_four_photos, append_to.place if append_to else None
    )
    return MadeIdentity(identity, _image(squares or [blank]), _image(previews), count)


def choose_faces(faces: Sequence[Face], select: str, index: int) -> list[Face]:
    """The wanted faces; none when there is no such face."""
    if select == "every face" or not faces:
        return list(faces)
    if select == "index":
        return [faces[index]] if index < len(faces) else []
    key = {
        "largest": lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]),
        "leftmost": lambda face: face.box[0] + face.box[2],
        "rightmost": lambda face: -(face.box[0] + face.box[2]),
    }[select]
    return [min(faces, key=key)]


def normalise_boxes(boxes, images: int) -> list[list[Face]]:
    """BOUNDING_BOX (one dict, a list with one per image, a list of lists) to faces per image."""
    per_image = [boxes] if isinstance(boxes, Mapping) else boxes
    if not isinstance(per_image, Sequence) or len(per_image) not in (1, images):
        found = len(per_image) if isinstance(per_image, Sequence) else type(boxes).__name__
        raise FlashFaceError(
            f"boxes are for {found} images, there are {images}; give one box, or one entry (a box "
            "or a list of boxes) per image."
        )
    if len(per_image) == 1:
        per_image = [per_image[0]] * images
    return [[_face(box) for box in _as_list(entry)] for entry in per_image]


def _as_list(entry) -> list:
    return [entry] if isinstance(entry, Mapping) else list(entry or [])


def _face(box) -> Face:
    try:
        x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError) as error:
        raise FlashFaceError(
            f"A box is {box!r}, expected x, y, width and height in pixels."
        ) from error
    if width < 1 or height < 1:
        raise FlashFaceError(
            f"A box is {width:g} x {height:g} pixels at {x:g}, {y:g}; it must be 1 x 1 or larger."
        )
    return Face((x, y, x + width, y + height))


def _check_inside(faces: Sequence[Face], whole: Face, number: int) -> None:
    for x1, y1, x2, y2 in (face.box for face in faces):
        if x2 <= 0 or y2 <= 0 or x1 >= whole.box[2] or y1 >= whole.box[3]:
            raise FlashFaceError(
                f"The box {x1:g}, {y1:g} to {x2:g}, {y2:g} is outside of image {number}, which is "
                f"{whole.box[2]} x {whole.box[3]} pixels."
            )


def _no_face_message(number: int, faces: Sequence[Face], index: int, select: str) -> str:
    if not faces:
        return (
            f"Image {number} has no face; use another photo, give its box with `boxes`, or set "
            "no_face to `skip image` or `use whole image`."
        )
    listed = "; ".join(f"{i}: " + ", ".join(f"{v:.0f}" for v in f.box) for i, f in enumerate(faces))
    return (
        f"Image {number} has {len(faces)} faces (x1, y1, x2, y2: {listed}), and {select} asks for "
        f"number {index}; set index below {len(faces)}."
    )


def draw_boxes(photo: torch.Tensor, faces: Sequence[Face], chosen: Sequence[Face]) -> torch.Tensor:
    """The photo with its faces numbered; those taken are green."""
    picture = Image.fromarray(photo.numpy())
    draw = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 160))
    font = ImageFont.load_default(size=max(10, 8 * unit))
    for number, face in enumerate(faces):
        colour = TAKEN if any(face is taken for taken in chosen) else FOUND
        x1, y1, x2, y2 = face.box
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=unit)
        corner = (max(0, x1) + 2 * unit, max(0, y1) + unit)
        box = draw.textbbox(corner, str(number), font=font)
        draw.rectangle((box[0] - unit, box[1] - unit, box[2] + unit, box[3] + unit), fill=colour)
        draw.text(corner, str(number), fill=(0, 0, 0), font=font)
    return torch.from_numpy(np.array(picture))


def _image(pictures: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(pictures).float() / 255
