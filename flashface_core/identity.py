"""Who is to be drawn: face crops with weights, and where they go in the picture."""

import hashlib
from dataclasses import dataclass, replace

import torch

from .errors import FlashFaceError
from .place import Place

# The official demos always hand four photos to the network (FLASHFACE.md section 7, point 7).
TRAINED_PHOTOS = 4


@dataclass(frozen=True, eq=False)
class FaceReference:
    """One photo of a face.

    crop: uint8 (h, w, 3) on the CPU, levelled and cut out, not yet padded to a square.
    weight: how much this photo counts, >= 0; adds log(weight) to the logits of its keys.
    content: hash of the crop, so that equal photos share what was computed from them.
    """

    crop: torch.Tensor
    weight: float
    content: str

    @classmethod
    def from_crop(cls, crop: torch.Tensor, weight: float = 1.0) -> "FaceReference":
        """Raises FlashFaceError for a negative weight."""
        if weight < 0:
            raise FlashFaceError(f"A photo's weight is {weight:g}; it must be 0 or more.")
        crop = crop.contiguous()
        shape = f"{tuple(crop.shape)}".encode()
        return cls(crop, weight, hashlib.sha256(shape + crop.numpy().tobytes()).hexdigest())


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
