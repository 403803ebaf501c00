"""Several people in one picture: where each of them goes, and how like them its faces are.

Measured as MultiID-Bench's own script does (WithAnyone, arXiv 2510.14975): faces are matched to
those of the truth and, apart from that, to the references, so that the sum of cosines is largest.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from flashface_core.faces.face import Detector
from flashface_core.faces.select import face_reference
from flashface_core.people.identity import Identity, IdentityGroup, join_people
from flashface_core.people.place import Place
from training.identity_measures import copy_paste

from .cases import Case
from .look import pixels_of
from .sources import Box

NAN = float("nan")
LEAST = 1 / 16  # of the picture's side: a smaller place may fall between the pixels of a latent


class GroupMeasures(NamedTuple):
    """Means over the matched faces of a picture; NaN where there is nothing to measure.

    blending_gt, blending_ref: means of all cosines to the truth's faces, and to the references,
    but for the matched ones.
    """

    sim_gt: float
    sim_ref: float
    copy_paste: float
    blending_gt: float
    blending_ref: float


def group_of(case: Case, detector: Detector) -> IdentityGroup | None:
    """Everybody with a place; None where a reference shows no face.

    Places are those of the truth's faces, by who they are. Where fewer are found than there are
    people they are the boxes that came with the case, and without such a row from left to right.
    """
    references, vectors = [], []
    for data in case.group:
        photo = pixels_of(data)
        if not (faces := detector.find(photo)):
            return None
        references.append(face_reference(photo, faces[0]))
        vectors.append(detector.embed(photo, faces[0]))
    places = _places(case, np.stack(vectors), detector)
    return join_people(
        [
            Identity((reference,), str(number)).with_place(Place(place, inside_region=True))
            for number, (reference, place) in enumerate(zip(references, places, strict=True), 1)
        ]
    )


def _places(case: Case, people: np.ndarray, detector: Detector) -> list[Box]:
    """x, y, width and height of everybody, in fractions of a square. people: (P, D)"""
    if case.truth is not None:
        truth = pixels_of(case.truth)
        height, width = truth.shape[:2]
        faces = detector.find(truth)
        if len(faces) >= len(people):
            vectors = np.stack([detector.embed(truth, face) for face in faces])
            _, columns = linear_sum_assignment(people @ vectors.T, maximize=True)
            return in_square([faces[column].box for column in columns], width, height)
        if len(case.boxes) == len(people):
            return in_square(case.boxes, width, height)
    side = 0.6 / len(people)
    return [((n + 0.5) / len(people) - side / 2, 0.2, side, side) for n in range(len(people))]


def in_square(boxes: Sequence[Box], width: int, height: int) -> list[Box]:
    """Boxes (x1, y1, x2, y2) in pixels of a picture as x, y, width and height in fractions of a
    square: the part of the picture around them, or more than the picture where they need it."""
    x1, y1, x2, y2 = np.asarray(boxes, dtype=float).T
    x1, x2 = x1.clip(0, width), x2.clip(0, width)
    y1, y2 = y1.clip(0, height), y2.clip(0, height)
    side = max(min(width, height), np.ptp([x1, x2]), np.ptp([y1, y2]))
    rows = [_along(x1, x2, width, side), _along(y1, y2, height, side)]
    return [(x, y, w, h) for (x, w), (y, h) in zip(*rows, strict=True)]


def _along(low: np.ndarray, high: np.ndarray, length: int, side: float) -> list[tuple]:
    """Start and length of every box on one axis, in fractions of the square's side."""
    start = (length - side) / 2
    if start > 0:
        start = min(max((low.min() + high.max() - side) / 2, 0.0), length - side)
    size = ((high - low) / side).clip(LEAST, 1)
    first = ((low + high) / 2 - start) / side - size / 2
    return list(zip(first.clip(0, 1 - size).tolist(), size.tolist(), strict=True))


def face_vectors(photo: Tensor, detector: Detector) -> Tensor:
    """Of all faces of a photo, uint8 (H, W, 3): unit vectors (N, D), or (0, 0) without a face."""
    found = [detector.embed(photo, face) for face in detector.find(photo)]
    return torch.from_numpy(np.stack(found)).double() if found else torch.zeros(0, 0)


def measure_group(drawn: Tensor, references: Tensor, truth: Tensor) -> GroupMeasures:
    """Of unit vectors (N, D) of each; (0, 0) where a face is missing."""
    to_truth, to_references = _matched(drawn, truth), _matched(drawn, references)
    copied = NAN
    if to_truth and to_references and len(drawn) == len(truth) == len(references):
        between = (truth[to_truth.whom] * references[to_references.whom]).sum(1)
        copied = copy_paste(to_truth.cosines, to_references.cosines, between).mean().item()
    (gt, gt_others), (ref, ref_others) = (
        (match.cosines.mean().item(), match.others) if match else (NAN, NAN)
        for match in (to_truth, to_references)
    )
    return GroupMeasures(gt, ref, copied, gt_others, ref_others)


class _Match(NamedTuple):
    """Cosines of the matched pairs, who is matched to each, and the mean of all other cosines."""

    cosines: Tensor
    whom: Tensor
    others: float


def _matched(drawn: Tensor, people: Tensor) -> _Match | None:
    """None without a face on one of the sides. Who is too many on one side has no match."""
    if not len(drawn) or not len(people):
        return None
    cosines = drawn @ people.T
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cosines.numpy(), maximize=True))
    others = torch.ones_like(cosines, dtype=torch.bool)
    others[rows, columns] = False
    mean = cosines[others].mean().item()  # NaN for one face and one person
    return _Match(cosines[rows, columns], columns, mean)
