"""MTCNN of facenet-pytorch: finds faces offline, for its weights lie in its wheel."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import FlashFaceError, first_line
from .face import NOTHING, Face, Found, find_faces

MTCNN_SCORE = 0.9
MTCNN_SMALLEST = 20  # pixels; MTCNN stumbles over pictures that hold no such face
INSTALL_MTCNN = "pip install --no-deps facenet-pytorch==2.5.3"


class MtcnnDetector:
    """On the CPU, where a photo takes a fraction of a second: its pooling is not on every GPU.

    look_again: also with a border and at large size, where no face is found. Raises FlashFaceError
    where the package is missing.
    """

    name, can_embed, recognition = "mtcnn", False, ""

    def __init__(self, look_again: bool = False) -> None:
        self._look_again = look_again
        self._mtcnn: Any = None
        self.load()

    def load(self) -> None:
        """Nothing where it is loaded; find does it by itself after a release."""
        if self._mtcnn is not None:
            return
        try:
            from facenet_pytorch import MTCNN
        except Exception as error:  # also of what was built for another numpy or torch
            raise FlashFaceError(
                f"facenet-pytorch cannot be imported ({first_line(error)}); install it with "
                f"ComfyUI's Python: {INSTALL_MTCNN}."
            ) from error
        # Weights made in inference mode, as a node would, could not be used outside of it.
        with torch.inference_mode(False):
            self._mtcnn = MTCNN(
                keep_all=True, min_face_size=MTCNN_SMALLEST, device=torch.device("cpu")
            ).eval()

    def release(self) -> None:
        """Give the memory back."""
        self._mtcnn = None

    def find(self, photo: torch.Tensor) -> list[Face]:
        self.load()
        return find_faces(photo, self._find_in, self._look_again)

    def _find_in(self, picture: Image.Image, size: int) -> Found:
        if min(picture.size) < MTCNN_SMALLEST:
            return NOTHING
        boxes, scores, points = self._mtcnn.detect(picture, landmarks=True)
        if boxes is None:
            return NOTHING
        sure = np.asarray(scores, dtype=np.float64) >= MTCNN_SCORE
        return boxes[sure], points[sure], scores[sure]

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        raise FlashFaceError(
            "MTCNN finds faces and cannot compare them; use InsightFace with a model pack that "
            "has a recognition model, or OpenCV Zoo's SFace."
        )
