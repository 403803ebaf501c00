"""YuNet and SFace of OpenCV Zoo over onnxruntime: finds faces, and tells people apart.

Both are small and may be used commercially. Nothing is ever downloaded: the files are those that
the user has put there.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import FlashFaceError, first_line
from .align import align_face
from .face import Face, Found, find_faces

ZOO = "opencv zoo (YuNet + SFace)"
YUNET, SFACE = "face_detection_yunet_2023mar", "face_recognition_sface_2021dec"
VARIANTS = ("", "_int8", "_int8bq")  # as published; the first that is there is taken
INSTALL_ZOO = (
    f"install onnxruntime with ComfyUI's Python and put OpenCV Zoo's {YUNET}.onnx and {SFACE}.onnx "
    "into ComfyUI/models/opencv_zoo"
)

SIDE = 640  # of the square that YuNet looks at
OVERLAP = 128  # pixels that neighbouring squares of a large picture share
STRIDES = (8, 16, 32)
# Of 110 photographed faces the lowest has 0.79, of 113 pictures without one the best 0.52.
ZOO_SCORE = 0.7
SAME_FACE = 0.3  # intersection over union from which on two boxes are one face


def zoo_file(folder: Path, name: str) -> Path | None:
    """YUNET or SFACE in a folder."""
    paths = (folder / f"{name}{variant}.onnx" for variant in VARIANTS)
    return next((path for path in paths if path.is_file()), None)


def find_zoo(roots: Iterable[Path]) -> Path | None:
    """The first folder that holds YuNet."""
    return next((root for root in roots if zoo_file(root, YUNET)), None)


def no_zoo(folder: Path) -> FlashFaceError:
    return FlashFaceError(
        f"There is no {YUNET}.onnx in {folder}; download it from OpenCV Zoo "
        f"(models/face_detection_yunet) into this folder, and {SFACE}.onnx "
        "(models/face_recognition_sface) for likeness, or use the detector mtcnn."
    )


class ZooDetector:
    """YuNet, and SFace where it is there; both on the CPU, where they take milliseconds.

    folder: with the .onnx files. look_again: also with a border and at large size, where no face
    is found. Raises FlashFaceError for a package or a file that is missing or cannot be used.
    """

    def __init__(self, folder: Path, look_again: bool = False) -> None:
        yunet = zoo_file(folder, YUNET)
        if yunet is None:
            raise no_zoo(folder)
        self._yunet_file, self._sface_file = yunet, zoo_file(folder, SFACE)
        self.name = "opencv zoo"
        self.can_embed = self._sface_file is not None
        self.recognition = "SFace" if self.can_embed else ""
        self._look_again = look_again
        self._yunet: Any = None
        self._sface: Any = None
        self.load()

    def load(self) -> None:
        """Nothing where it is loaded; find and embed do it by themselves after a release."""
        if self._yunet is None:
            self._yunet = _Network(self._yunet_file, (1, 3, SIDE, SIDE), OUTPUTS)
            if self._sface_file is not None:
                self._sface = _Network(self._sface_file, (1, 3, 112, 112), ["fc1"])

    def release(self) -> None:
        """Give the memory of the sessions back."""
        self._yunet = self._sface = None

    def find(self, photo: torch.Tensor) -> list[Face]:
        self.load()
        return find_faces(photo, self._find_in, self._look_again)

    def _find_in(self, picture: Image.Image, size: int) -> Found:
        bgr = np.asarray(picture)[:, :, ::-1].astype(np.float32)
        looks = [self._find_in_square(bgr, x, y) for x, y in squares(*picture.size)]
        boxes, points, scores = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        kept = best_boxes(boxes, scores)
        return boxes[kept], points[kept], scores[kept]

    def _find_in_square(self, bgr: np.ndarray, x: int, y: int) -> Found:
        part = bgr[y : y + SIDE, x : x + SIDE]
        square = np.zeros((SIDE, SIDE, 3), np.float32)
        square[: part.shape[0], : part.shape[1]] = part
        outputs = self._yunet.run(square.transpose(2, 0, 1)[None])
        boxes, points, scores = read_yunet(dict(zip(OUTPUTS, outputs, strict=True)))
        return boxes + [x, y, x, y], points + [x, y], scores

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        if not self.can_embed:
            raise FlashFaceError(
                f"Faces cannot be compared without {SFACE}.onnx; put it beside {self._yunet_file}."
            )
        if face.points is None:
            raise FlashFaceError(
                "A face without key points cannot be compared; let the detector find it."
            )
        self.load()
        rgb = align_face(photo, face.points).permute(2, 0, 1)[None]
        embedding = self._sface.run(rgb.numpy().astype(np.float32))[0].ravel()
        return embedding / max(float(np.linalg.norm(embedding)), 1e-12)


OUTPUTS = [f"{what}_{stride}" for stride in STRIDES for what in ("cls", "obj", "bbox", "kps")]


class _Network:
    """A file with one picture as its input.

    Raises FlashFaceError where it, or onnxruntime, cannot be used.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], outputs: list[str]) -> None:
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except Exception as error:  # also of what was built for another numpy or torch
            raise FlashFaceError(
                f"onnxruntime cannot be imported ({first_line(error)}); install it with ComfyUI's "
                "Python, or use the detector mtcnn."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # of tidy files; errors are raised too
        self._outputs = outputs
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            picture, *others = self._session.get_inputs()
            self._name = picture.name
            # The published copies with quantised weights still list the weights that they had
            # before: whatever is given for them, nothing reads it.
            self._unread = {one.name: np.zeros(one.shape, np.float32) for one in others}
            empty = np.zeros(shape, np.float32)
            found = self.run(empty)
            self._unread = {name: value + 1 for name, value in self._unread.items()}
            is_read = any(map(np.any, map(np.subtract, found, self.run(empty))))
        except Exception as error:  # onnxruntime has errors of its own
            raise FlashFaceError(
                f"{path} cannot be used ({first_line(error)}); download the file without `_int8` "
                "in its name from OpenCV Zoo, or use the detector mtcnn."
            ) from error
        if is_read:
            raise FlashFaceError(
                f"{path} has {len(others)} weights missing; download it again from OpenCV Zoo."
            )

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        return self._session.run(self._outputs, {self._name: picture, **self._unread})


def squares(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Left and top of the squares that cover a picture."""
    for y in _starts(height):
        for x in _starts(width):
            yield x, y


def _starts(side: int) -> list[int]:
    count = 1 + max(0, -(-(side - SIDE) // (SIDE - OVERLAP)))
    return [round(i * (side - SIDE) / max(1, count - 1)) for i in range(count)]


def read_yunet(outputs: dict[str, np.ndarray]) -> Found:
    """Faces of a square from what YuNet says of each cell of three grids.

    A cell's distances are in units of its stride: of the middle and of each point from its corner;
    sizes are logarithms. A score is the geometric mean of "a face" and "an object".
    """
    found = []
    for stride in STRIDES:
        cls, obj, bbox, kps = (
            outputs[f"{name}_{stride}"][0] for name in ("cls", "obj", "bbox", "kps")
        )  # (cells, 1), (.., 1), (.., 4), (.., 10)
        scores = np.sqrt(cls.clip(0, 1) * obj.clip(0, 1))[:, 0]
        sure = np.flatnonzero(scores >= ZOO_SCORE)
        cells = np.stack([sure % (SIDE // stride), sure // (SIDE // stride)], axis=1)
        middle = (cells + bbox[sure, :2]) * stride
        half = np.exp(bbox[sure, 2:]) * stride / 2
        points = (cells[:, None] + kps[sure].reshape(-1, 5, 2)) * stride
        found.append((np.hstack([middle - half, middle + half]), points, scores[sure]))
    boxes, points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return boxes, points, scores


def best_boxes(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Which boxes (N, 4) to keep: of those that overlap by SAME_FACE, the one of the best score."""
    kept: list[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for number in np.argsort(-scores, kind="stable").tolist():
        low = np.maximum(boxes[kept, :2], boxes[number, :2])
        high = np.minimum(boxes[kept, 2:], boxes[number, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        if (shared <= SAME_FACE * (areas[kept] + areas[number] - shared)).all():
            kept.append(number)
    return kept
