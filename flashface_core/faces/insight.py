"""InsightFace over onnxruntime: finds faces, and tells people apart.

Nothing is ever downloaded: a model pack is a folder that the user has put there.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import FlashFaceError, first_line
from .face import DETECTION_SIZE, NOTHING, Face, Found, find_faces
from .packs import INSTALL_INSIGHTFACE, model_folder

log = logging.getLogger("flashface")

INSIGHTFACE_SCORE = 0.5
# TensorRT is left out, which builds an engine for minutes, and CoreML, in which SCRFD can crash.
GPU_PROVIDERS = [
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
    "DmlExecutionProvider",
    "OpenVINOExecutionProvider",
]
CPU_PROVIDER = "CPUExecutionProvider"
LONGEST = 64  # times the short side: SCRFD's resizing fails on pictures that are but a line


def choose_providers(available: Sequence[str], gpu: bool = True) -> list[str]:
    """What onnxruntime is asked to run on, the best first and the CPU last."""
    found = [provider for provider in GPU_PROVIDERS if gpu and provider in available]
    return [*found[:1], CPU_PROVIDER]


class InsightFaceDetector:
    """SCRFD, and ArcFace where the pack has it.

    folder: of the model pack, with its .onnx files. gpu: use one where onnxruntime offers it.
    look_again: also with a border and at large size, where no face is found. providers: of
    onnxruntime, instead of those that fit gpu.
    Raises FlashFaceError for a package or a pack that is missing or cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        gpu: bool = True,
        look_again: bool = False,
        providers: Sequence[str] = (),
    ) -> None:
        folder = Path(folder).resolve()
        self.name = f"insightface {folder.name}"
        # InsightFace would try to download a pack that is not there.
        self._folder = model_folder(folder)
        if self._folder is None:
            raise FlashFaceError(
                f"There is no InsightFace model pack at {folder} (a folder with .onnx files); "
                "unpack one there, such as buffalo_l, or use the detector mtcnn."
            )
        self._gpu, self._look_again, self._providers = gpu, look_again, list(providers)
        self._app: Any = None
        self.load()
        self.can_embed = "recognition" in self._app.models
        self.recognition = "ArcFace" if self.can_embed else ""

    def load(self) -> None:
        """Nothing where it is loaded; find and embed do it by themselves after a release."""
        if self._app is not None:
            return
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
            from insightface.app import FaceAnalysis  # pyright: ignore[reportMissingImports]
        except Exception as error:  # also of what was built for another numpy or torch
            raise FlashFaceError(
                f"InsightFace cannot be imported ({first_line(error)}); {INSTALL_INSIGHTFACE}, "
                "or use the detector mtcnn."
            ) from error
        providers = self._providers or choose_providers(
            onnxruntime.get_available_providers(), self._gpu
        )
        try:
            app = FaceAnalysis(
                str(self._folder),
                allowed_modules=["detection", "recognition"],
                providers=providers,
            )
            app.prepare(ctx_id=0, det_thresh=INSIGHTFACE_SCORE)
        except Exception as error:  # onnx and onnxruntime each have errors of their own
            reason = str(error).strip().splitlines()
            raise FlashFaceError(
                f"The InsightFace model pack {self._folder} cannot be used "
                f"({reason[0] if reason else 'it has no detection model'}); "
                "unpack it again, or use the detector mtcnn."
            ) from error
        self._app = app
        self._warn_of_fallback(providers[0])

    def _warn_of_fallback(self, wanted: str) -> None:
        used = self._app.det_model.session.get_providers()
        if wanted not in used:
            log.warning(
                "onnxruntime cannot use its %s here, so faces are found on the CPU, which is "
                "slower. Its log says why; often its version does not fit the GPU's driver.",
                wanted,
            )

    def release(self) -> None:
        """Give the memory of the sessions back."""
        self._app = None

    def find(self, photo: torch.Tensor) -> list[Face]:
        self.load()
        return find_faces(photo, self._find_in, self._look_again)

    def _find_in(self, picture: Image.Image, size: int) -> Found:
        detector = self._app.det_model
        is_fixed = isinstance(detector.session.get_inputs()[0].shape[2], int)
        skip = max(picture.size) > LONGEST * min(picture.size)
        if skip or (is_fixed and size != DETECTION_SIZE):  # a second look would be the first again
            return NOTHING
        at = {} if size == DETECTION_SIZE else {"input_size": (size, size)}
        boxes, points = detector.detect(np.asarray(picture)[:, :, ::-1].copy(), **at)
        if points is None:
            raise FlashFaceError(
                f"The detection model of {self.name} gives no key points; use a pack whose "
                "detector has them (det_*.onnx of buffalo_l), or the detector mtcnn."
            )
        return boxes[:, :4], points, boxes[:, 4]

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        if not self.can_embed:
            raise FlashFaceError(
                f"{self.name} has no recognition model (w600k_r50.onnx in buffalo_l), so faces "
                "cannot be compared; use a whole model pack."
            )
        if face.points is None:
            raise FlashFaceError(
                "A face without key points cannot be compared; let the detector find it."
            )
        self.load()
        from insightface.app.common import Face as Carrier  # pyright: ignore[reportMissingImports]

        carrier = Carrier(kps=face.points.astype(np.float32))
        bgr = np.ascontiguousarray(photo.numpy()[:, :, ::-1])
        values = self._app.models["recognition"].get(bgr, carrier)
        embedding = np.asarray(values, dtype=np.float32).ravel()
        return embedding / max(float(np.linalg.norm(embedding)), 1e-12)
