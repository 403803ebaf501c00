"""Which faces of which photos become an identity."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..errors import FlashFaceError
from ..people.identity import FaceReference, Identity, IdentityGroup, one_person
from .align import align_face
from .boxes import check_inside, read_boxes
from .crop import crop_face, pad_to_square, photo_to_uint8, pure_share
from .doubts import ADVICE, doubts
from .face import Detector, Face
from .preview import draw_boxes

log = logging.getLogger("flashface")

SELECT = ["largest", "leftmost", "rightmost", "index", "every face"]
NO_FACE = ["error", "skip image", "use whole image"]

FACES_SIZE = 224
BLANK = 0.95  # share of pure black and white pixels from which on a photo shows nobody
BLANK_ADVICE = (
    "pure black or pure white. Load Image of older ComfyUIs does this to grey PNG files of 16 "
    "bits: save them with 8 bits"
)


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
    detector: Detector | None = None,
    boxes: Any = None,
    append_to: Identity | IdentityGroup | None = None,
) -> MadeIdentity:
    """IMAGE (N, H, W, C) in 0..1 to an identity; given boxes win over a detector.

    Raises FlashFaceError by the no_face policy, for boxes that do not match the images, for faces
    with a weight that are black and white alone, and for a group in append_to.
    """
    before = None if append_to is None else one_person(append_to, "append_to adds to one person")
    photos = [photo_to_uint8(photo) for photo in image]
    if not photos:
        raise FlashFaceError("The batch of images is empty; connect at least one photo.")
    given = None if boxes is None else read_boxes(boxes, len(photos))
    references, previews, doubtful = [], [], []
    for number, photo in enumerate(photos):
        height, width = photo.shape[:2]
        whole = Face((0, 0, width, height))
        if given is not None:
            faces = given[number]
        else:
            faces = [whole] if detector is None else detector.find(photo)
        is_whole = any(face is whole for face in faces)
        chosen = choose_faces(faces, select, index)
        if given is not None:
            check_inside(chosen, width, height, number)
        if not chosen and no_face == "error":
            raise FlashFaceError(_no_face_message(number, photo, faces, index, select, is_whole))
        if not chosen and no_face == "use whole image":
            chosen = [whole]
        made = [
            _whole_reference(photo, weight)
            if face is whole
            else face_reference(photo, face, weight, margin)
            for face in chosen
        ]
        _check_content(made, number)
        references += made
        said = [
            [] if face is whole or weight == 0 else doubts(photo, face, reference.crop)
            for face, reference in zip(chosen, made, strict=True)
        ]
        doubtful += [(number, words) for words in said if words]
        previews.append(draw_boxes(photo, faces, chosen, said))
    _warn_of(doubtful, name)
    count = len(references)
    squares = [pad_to_square(reference.crop, FACES_SIZE) for reference in references]
    blank = torch.zeros(FACES_SIZE, FACES_SIZE, 3, dtype=torch.uint8)
    if before is not None:
        references = [*before.references, *references]
        name = name or before.name
    identity = Identity(tuple(references), name, as_four_photos, before.place if before else None)
    return MadeIdentity(identity, _image(squares or [blank]), _image(previews), count)


def face_reference(
    photo: torch.Tensor, face: Face, weight: float = 1.0, margin: float = 0.0
) -> FaceReference:
    """A face of a photo, uint8 (H, W, 3); aligned for ArcFace where its five points are known."""
    crop = crop_face(photo, face.box, face.eyes, margin)
    if face.points is None:
        return FaceReference.from_crop(crop, weight, box=face.box)
    try:
        aligned = align_face(photo, face.points)
    except FlashFaceError:  # FlashFace does without; whoever needs it says so
        return FaceReference.from_crop(crop, weight, box=face.box)
    points = torch.from_numpy(face.points).float()
    return FaceReference.from_crop(crop, weight, box=face.box, points=points, aligned=aligned)


def _whole_reference(photo: torch.Tensor, weight: float) -> FaceReference:
    height, width = photo.shape[:2]
    return FaceReference.from_crop(crop_face(photo, (0, 0, width, height)), weight)


def _check_content(references: Sequence[FaceReference], number: int) -> None:
    for reference in references:
        share = pure_share(reference.crop)
        if reference.weight > 0 and share >= BLANK:
            raise FlashFaceError(
                f"Image {number} shows no face: {share:.0%} of what is taken of it is "
                f"{BLANK_ADVICE}. Otherwise crop the photo to the face, or use another one (with "
                "weight 0 it may stay)."
            )


def _warn_of(doubtful: Sequence[tuple[int, list[str]]], name: str) -> None:
    """One line for all photos. doubtful: number of the photo, and doubts of a face in it."""
    if not doubtful:
        return
    said = "; ".join(
        f"a face of image {number} " + " and ".join(ADVICE[word] for word in words)
        for number, words in doubtful
    )
    of = f" of {name}" if name else ""
    log.warning("Expect a weak likeness%s: %s. Use other photos where there are some.", of, said)


def choose_faces(faces: Sequence[Face], select: str, index: int) -> list[Face]:
    """The wanted faces; none when there is no such face."""
    if select == "every face" or not faces:
        return list(faces)
    if select == "index":
        return [faces[index]] if index < len(faces) else []
    key = {
        "largest": lambda face: -face.area,
        "leftmost": lambda face: face.box[0] + face.box[2],
        "rightmost": lambda face: -(face.box[0] + face.box[2]),
    }[select]
    return [min(faces, key=key)]


def _no_face_message(
    number: int,
    photo: torch.Tensor,
    faces: Sequence[Face],
    index: int,
    select: str,
    detector_missing: bool,
) -> str:
    if not faces:
        share = pure_share(photo)
        blank = f" {share:.0%} of it is {BLANK_ADVICE}." if share >= BLANK else ""
        return (
            f"Image {number} has no face; use another photo (upright, the face not too small), "
            "give its box with `boxes`, or set no_face to `skip image` or `use whole image`."
            f"{blank}"
        )
    listed = "; ".join(f"{i}: " + ", ".join(f"{v:.0f}" for v in f.box) for i, f in enumerate(faces))
    why = " (neither a detector nor boxes are connected, so the image is one)" * detector_missing
    return (
        f"Image {number} has {len(faces)} faces{why} (x1, y1, x2, y2: {listed}), and {select} asks "
        f"for number {index}; set index below {len(faces)}."
    )


def _image(pictures: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(pictures).float() / 255
