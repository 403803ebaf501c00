"""Who is to be drawn: face crops with weights, and where they go in the picture."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import FlashFaceError
from .place import Place

# The official demos always hand four photos to the network (FLASHFACE.md section 7, point 7).
TRAINED_PHOTOS = 4


@dataclass(frozen=True, eq=False)
class FaceReference:
    """One photo of a face.

    crop: uint8 (h, w, 3) on the CPU, levelled and cut out, not yet padded to a square.
    weight: how much this photo counts, >= 0; adds log(weight) to the logits of its keys.
    content: hash of the crop, so that equal photos share what was computed from them.
    box: x1, y1, x2, y2 of the face in its photo, in pixels; None where the photo was the crop.
    points: float (5, 2), x and y of the eyes, the nose and the corners of the mouth in the photo,
    left before right as in the image; None where no detector found them.
    aligned: uint8 (112, 112, 3), the face brought to ArcFace's five points; None without points.
    """

    crop: torch.Tensor
    weight: float
    content: str
    box: tuple[float, float, float, float] | None = None
    points: torch.Tensor | None = None
    aligned: torch.Tensor | None = None

    @classmethod
    def from_crop(cls, crop: torch.Tensor, weight: float = 1.0, **found: Any) -> "FaceReference":
        """found: box, points and aligned. Raises FlashFaceError for a negative weight."""
        if not 0 <= weight < math.inf:  # NaN is neither
            raise FlashFaceError(f"A photo's weight is {weight:g}; it must be 0 or more.")
        crop = crop.contiguous()
        shape = f"{tuple(crop.shape)}".encode()
        content = hashlib.sha256(shape + crop.numpy().tobytes()).hexdigest()
        return cls(crop, weight, content, **found)


@dataclass(frozen=True, eq=False)
class Identity:
    """One person: the photos, and (optional) the place in the picture."""

    references: tuple[FaceReference, ...]
    name: str = ""
    as_four_photos: bool = True
    place: Place | None = None

    def with_place(self, place: Place) -> "Identity":
        return replace(self, place=place)

    def key_weights(self) -> tuple[float, ...]:
        """Weight of every reference's keys in the softmax.

        `as four photos` scales fewer than four photos to a total of 4: the official demos draw
        the missing ones at random from those given, and n copies of a key weigh n.
        """
        weights = tuple(reference.weight for reference in self.references)
        total = sum(weights)
        photos = sum(weight > 0 for weight in weights)
        if not self.as_four_photos or photos >= TRAINED_PHOTOS or total == 0:
            return weights
        return tuple(weight * TRAINED_PHOTOS / total for weight in weights)


@dataclass(frozen=True, eq=False)
class IdentityGroup:
    """Several people to be drawn in one picture, two at least, each with a place of their own."""

    people: tuple[Identity, ...]


def join_people(identities: Sequence[Identity | IdentityGroup]) -> IdentityGroup:
    """People of all; groups of groups are one group."""
    return IdentityGroup(tuple(person for one in identities for person in people_of(one)))


def people_of(identity: Identity | IdentityGroup) -> tuple[Identity, ...]:
    return identity.people if isinstance(identity, IdentityGroup) else (identity,)


def one_person(identity: Identity | IdentityGroup, what_for: str) -> Identity:
    """Raises FlashFaceError for a group. what_for: "FlashFaceIdentityMix mixes two people"."""
    if isinstance(identity, IdentityGroup):
        names = ", ".join(person.name or "no name" for person in identity.people)
        raise FlashFaceError(
            f"{what_for}, and was given a group of {len(identity.people)} ({names}); connect one "
            "person, before FlashFace Identity Group joins them."
        )
    return identity
