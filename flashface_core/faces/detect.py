"""Finding faces in photos, and telling people apart: InsightFace, or MTCNN which works offline.

Both packages are optional, and nothing is ever downloaded.
"""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from ..errors import FlashFaceError
from .crop import Face

DETECTORS = ["auto", "insightface", "mtcnn"]

DETECTION_SIZE = 640  # long side in pixels at which the official code looks (FLASHFACE.md 7)
# Of the detectors' own ranges; the official RetinaFace's 0.6 is on a scale of its own.
INSIGHTFACE_SCORE, MTCNN_SCORE = 0.5, 0.9
MTCNN_SMALLEST = 20  # pixels; MTCNN stumbles over pictures that hold no such face


class Detection(NamedTuple):
    """A face in a photo, in pixels.

    box: x1, y1, x2, y2. points: float (5, 2), the x and y of left eye, right eye, nose, left and
    right corner of the mouth, left and right as in the image. score: 0..1.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    score: float

    @property
    def face(self) -> Face:
        (x1, y1), (x2, y2) = self.points[:2].tolist()
        return Face(self.box, ((x1, y1), (x2, y2)))


class Detector(Protocol):
    """What the FACE_DETECTOR socket carries."""

    name: str

    def find(self, photo: torch.Tensor) -> list[Detection]:
        """Faces of a photo, uint8 (H, W, 3), the largest first."""
        ...

    def detect(self, photo: torch.Tensor) -> list[Face]:
        """The same as boxes and eyes."""
        ...

    @property
    def can_embed(self) -> bool: ...

    def embed(self, photo: torch.Tensor, detection: Detection) -> np.ndarray:
        """Who it is: a unit vector, float32 (D,); cosines compare people.

        Raises FlashFaceError where can_embed is False.
        """
        ...


def load_detector(name: str, model_pack: Path | None = None) -> Detector:
    """One of DETECTORS; auto is InsightFace where its model pack is given, otherwise MTCNN.

    Raises FlashFaceError saying what is missing.
    """
    if name not in DETECTORS:
        raise FlashFaceError(f"There is no detector {name!r}; use one of {', '.join(DETECTORS)}.")
    if name == "mtcnn" or (name == "auto" and model_pack is None):
        return MtcnnDetector()
    if model_pack is None:
        raise FlashFaceError(
            "InsightFace needs a model pack and none is given; put one (such as buffalo_l) into "
            "ComfyUI/models/insightface/models/ and choose it, or use the detector mtcnn."
        )
    return InsightFaceDetector(model_pack)


class InsightFaceDetector:
    """SCRFD, and ArcFace where the pack has it.

    folder: of the model pack, with its .onnx files.
    """

    def __init__(self, folder: Path) -> None:
        folder = Path(folder).resolve()
        # InsightFace would try to download a pack that is not there.
        if not folder.is_dir() or not any(folder.rglob("*.onnx")):
            raise FlashFaceError(
                f"There is no InsightFace model pack at {folder} (a folder with .onnx files); "
                "unpack one there, such as buffalo_l, or use the detector mtcnn."
            )
        try:
            from insightface.app import FaceAnalysis  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise FlashFaceError(
                f"InsightFace cannot be imported ({error}); install insightface and onnxruntime "
                "with ComfyUI's Python, or use the detector mtcnn."
            ) from error
        try:
            self._app = FaceAnalysis(str(folder), allowed_modules=["detection", "recognition"])
            self._app.prepare(ctx_id=0, det_thresh=INSIGHTFACE_SCORE)
        except Exception as error:  # onnx and onnxruntime each have errors of their own
            reason = str(error).strip().splitlines()
            raise FlashFaceError(
                f"The InsightFace model pack {folder} cannot be used "
                f"({reason[0] if reason else 'it has no detection model'}); "
                "unpack it again, or use the detector mtcnn."
            ) from error
        self.name = f"insightface {folder.name}"

    def find(self, photo: torch.Tensor) -> list[Detection]:
        boxes, points = self._app.det_model.detect(_bgr(photo))
        if points is None:
            raise FlashFaceError(
                f"The detection model of {self.name} gives no key points; use a pack whose "
                "detector has them (det_*.onnx of buffalo_l), or the detector mtcnn."
            )
        return _largest_first(boxes[:, :4], points, boxes[:, 4])

    def detect(self, photo: torch.Tensor) -> list[Face]:
        return [detection.face for detection in self.find(photo)]

    @property
    def can_embed(self) -> bool:
        return "recognition" in self._app.models

    def embed(self, photo: torch.Tensor, detection: Detection) -> np.ndarray:
        from insightface.app.common import Face as Carrier  # pyright: ignore[reportMissingImports]

        if not self.can_embed:
            raise FlashFaceError(
                f"{self.name} has no recognition model (w600k_r50.onnx in buffalo_l), so faces "
                "cannot be compared; use a whole model pack."
            )
        carrier = Carrier(kps=detection.points.astype(np.float32))
        values = self._app.models["recognition"].get(_bgr(photo), carrier)
        embedding = np.asarray(values, dtype=np.float32).ravel()
        return embedding / max(float(np.linalg.norm(embedding)), 1e-12)


class MtcnnDetector:
    """facenet-pytorch's MTCNN, whose weights lie in its wheel."""

    name, can_embed = "mtcnn", False

    def __init__(self) -> None:
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise FlashFaceError(
                f"facenet-pytorch cannot be imported ({error}); install it with ComfyUI's Python: "
                "pip install --no-deps facenet-pytorch."
            ) from error
        self._mtcnn = MTCNN(
            keep_all=True, min_face_size=MTCNN_SMALLEST, device=torch.device("cpu")
        ).eval()

    def find(self, photo: torch.Tensor) -> list[Detection]:
        picture = Image.fromarray(photo.numpy())
        scale = DETECTION_SIZE / max(picture.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        if min(picture.size) < MTCNN_SMALLEST:
            return []
        scale_x, scale_y = picture.width / photo.shape[1], picture.height / photo.shape[0]
        found: Any = self._mtcnn.detect(picture, landmarks=True)
        boxes, scores, points = found
        if boxes is None:
            return []
        boxes = np.asarray(boxes, dtype=np.float64) / [scale_x, scale_y, scale_x, scale_y]
        points = np.asarray(points, dtype=np.float64) / [scale_x, scale_y]
        scores = np.asarray(scores, dtype=np.float64)
        sure = scores >= MTCNN_SCORE
        return _largest_first(boxes[sure], points[sure], scores[sure])

    def detect(self, photo: torch.Tensor) -> list[Face]:
        return [detection.face for detection in self.find(photo)]

    def embed(self, photo: torch.Tensor, detection: Detection) -> np.ndarray:
        raise FlashFaceError(
            "MTCNN finds faces and cannot compare them; use InsightFace with a model pack that "
            "has a recognition model."
        )


def _bgr(photo: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(photo.numpy()[:, :, ::-1])


def _largest_first(boxes: np.ndarray, points: np.ndarray, scores: np.ndarray) -> list[Detection]:
    found = []
    for box, five, score in zip(boxes, points, scores, strict=True):
        x1, y1, x2, y2 = (float(value) for value in box)
        found.append(Detection((x1, y1, x2, y2), np.asarray(five, dtype=np.float64), float(score)))
    return sorted(found, key=lambda one: -(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]))
