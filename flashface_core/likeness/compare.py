"""Likeness of every picture of a batch to one person, and which picture is the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..errors import FlashFaceError
from ..faces.crop import photo_to_uint8
from ..faces.face import Detector, Face
from ..people.identity import Identity, IdentityGroup, one_person
from ..people.place import Place
from .embedders import Embedder, choose_embedder

NO_FACE = -1.0  # the lowest cosine there is


class Likeness(NamedTuple):
    """scores: one per picture, a cosine in -1..1, larger is more alike; -1 without a face.
    best: index of the largest score, the first of equal ones. report: for people to read."""

    scores: list[float]
    best: int
    report: str


def compare(
    image: torch.Tensor,
    identity: Identity | IdentityGroup,
    detector: Detector | None = None,
) -> Likeness:
    """IMAGE (B, H, W, C) in 0..1 against the weighted mean of a person's photos.

    With a detector the largest face counts, of those in the person's place when there is one;
    without, the place, or the whole picture. Raises FlashFaceError for a group of people, and for
    a person without a photo that can be compared.
    """
    person = one_person(identity, "FlashFace Similarity compares pictures with one person")
    if not len(image):
        raise FlashFaceError("The batch of images is empty; connect at least one picture.")
    embedder = choose_embedder(detector)
    own, used = embed_person(person, embedder)
    scores, notes = [], []
    for number, picture in enumerate(image):
        if not picture.isfinite().all():
            scores.append(NO_FACE)
            notes.append("no picture: pixels that are no numbers (NaN or infinite)")
            continue
        photo = photo_to_uint8(picture)
        face, note = find_face(photo, number, person.place, detector)
        scores.append(NO_FACE if face is None else float(embedder.face(photo, face) @ own))
        notes.append(note)
    best = max(range(len(scores)), key=lambda number: scores[number])
    head = f"Likeness to {person.name or 'the identity'}, {used}."
    body = [head, f"Measured with {embedder.name}.", *_lines(scores, notes), embedder.limits]
    # Two spaces break a line in Markdown, which is how core's Preview as Text shows it.
    return Likeness(scores, best, "  \n".join(body))


def embed_person(person: Identity, embedder: Embedder) -> tuple[np.ndarray, str]:
    """The unit vector of the weighted mean of the photos' unit vectors, and what went into it."""
    counted = [reference for reference in person.references if reference.weight > 0]
    if not counted:
        raise FlashFaceError(
            f"The identity has {len(person.references)} photos and none with a weight above 0; "
            "give one of them a weight in FlashFace Identity."
        )
    seen = [(embedder.reference(reference), reference.weight) for reference in counted]
    known = [(vector, weight) for vector, weight in seen if vector is not None]
    if not known:
        raise FlashFaceError(
            f"{embedder.name} finds no face in any of the identity's {len(counted)} photos; use "
            "photos that show a whole face, or disconnect the detector to compare looks."
        )
    mean = np.sum([np.float64(weight) * vector for vector, weight in known], axis=0)
    used = f"{len(known)} of its {len(person.references)} photos count"
    return mean / max(float(np.linalg.norm(mean)), 1e-12), used


def find_face(
    photo: torch.Tensor, number: int, place: Place | None, detector: Detector | None
) -> tuple[Face | None, str]:
    """The face of a picture, uint8 (H, W, 3), that is to be compared, and which one that is.

    number: of the picture in its batch, for places that are one mask per picture.
    """
    height, width = photo.shape[:2]
    given = None
    if place is not None:
        boxes = place.boxes()
        x1, y1, x2, y2 = boxes[number % len(boxes)]
        given = (float(x1 * width), float(y1 * height), float(x2 * width), float(y2 * height))
    if detector is None:
        if given is None:
            return Face((0, 0, width, height)), "no detector and no place: whole picture"
        return Face(given), "no detector: the identity's place"
    faces = detector.find(photo)
    if not faces:
        return None, "no face found"
    there = [face for face in faces if given is not None and _is_inside(face, given)]
    if len(faces) == 1:
        outside = given is not None and not there
        return faces[0], "1 face, outside the identity's place" if outside else "1 face"
    if there:
        return there[0], f"{len(faces)} faces: the largest in the identity's place"
    return faces[0], f"{len(faces)} faces: the largest"


def _is_inside(face: Face, box: tuple[float, float, float, float]) -> bool:
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _lines(scores: Sequence[float], notes: Sequence[str]) -> list[str]:
    order = sorted(range(len(scores)), key=lambda number: -scores[number])  # ties: the first one
    rank = {number: place for place, number in enumerate(order, start=1)}
    lines = []
    for number, (score, note) in enumerate(zip(scores, notes, strict=True)):
        marker = "best" if rank[number] == 1 else f"#{rank[number]}"
        lines.append(f"{marker:>5}  image {number}  {score:+.3f}  {note}")
    return lines
