"""What makes a vector of a face whose cosines compare people.

ArcFace or SFace where the detector has one, otherwise edges and colours, which need no network.
"""

from typing import Protocol

import numpy as np
import torch

from ..faces.align import ALIGNED_SIZE, ARCFACE_POINTS
from ..faces.crop import crop_face
from ..faces.face import Detector, Face
from ..people.identity import FaceReference
from .descriptor import describe

ALIGNED_FACE = Face((0.0, 0.0, float(ALIGNED_SIZE), float(ALIGNED_SIZE)), ARCFACE_POINTS)


class Embedder(Protocol):
    """name and limits are for people to read."""

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> str: ...

    def face(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        """A face of a photo, uint8 (H, W, 3), to a unit vector, float (D,)."""
        ...

    def reference(self, reference: FaceReference) -> np.ndarray | None:
        """None for a reference in which no face can be seen."""
        ...


def choose_embedder(detector: Detector | None) -> Embedder:
    return Recognition(detector) if detector and detector.can_embed else EdgesAndColours()


LIMITS = {
    "ArcFace": "ArcFace compares people rather than looks. Usual with buffalo_l on photographs, "
    "not measured by this pack: the same person above 0.4, strangers below 0.2; small faces, "
    "profiles, children and drawings are less sure.",
    "SFace": "SFace compares people rather than looks. Measured on photographs: a photograph and a "
    "changed copy of it above 0.65 (19 of 20), strangers below 0.35 (99 of 100), two photographs "
    "of one person between; strongly blurred faces, profiles, children and drawings are less sure.",
}


class Recognition:
    """The recognition model that comes with a detector: of an InsightFace pack, or SFace."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.name = f"{detector.recognition} ({detector.name})"
        self.limits = LIMITS[detector.recognition]

    def face(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        return self._detector.embed(photo, face)

    def reference(self, reference: FaceReference) -> np.ndarray | None:
        if reference.aligned is not None:
            return self.face(reference.aligned, ALIGNED_FACE)
        faces = self._detector.find(reference.crop)
        return self.face(reference.crop, faces[0]) if faces else None


class EdgesAndColours:
    """Works offline, on photographs and drawings, and knows no person."""

    name = "edges and colours (HOG and Lab, works offline)"
    limits = (
        "It compares how faces look: shape, hair, colours, light and pose count as much as who it "
        "is. Good for ranking pictures of one batch, no proof of identity; numbers of different "
        "batches do not compare. For people rather than looks connect a detector with "
        "a recognition model: InsightFace's ArcFace or OpenCV Zoo's SFace."
    )

    def face(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        return describe(crop_face(photo, face.box, face.eyes)).numpy()

    def reference(self, reference: FaceReference) -> np.ndarray | None:
        return describe(reference.crop).numpy()
