"""Which detector: InsightFace, MTCNN which works offline, or YuNet of OpenCV Zoo.

All packages are optional, and nothing is ever downloaded.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from ..errors import FlashFaceError
from .insight import InsightFaceDetector
from .mtcnn import INSTALL_MTCNN, MtcnnDetector
from .packs import INSTALL_INSIGHTFACE
from .zoo import INSTALL_ZOO, ZOO, ZooDetector

log = logging.getLogger("flashface")

DETECTORS = ["auto", "insightface", "mtcnn", ZOO]

AnyDetector = InsightFaceDetector | MtcnnDetector | ZooDetector


def load_detector(
    name: str, model_pack: Path | None = None, gpu: bool = True, look_again: bool = False
) -> AnyDetector:
    """One of DETECTORS; auto is InsightFace where its model pack is given, otherwise MTCNN.

    model_pack: a folder with .onnx files, of InsightFace or of OpenCV Zoo. gpu: InsightFace may
    use it. look_again: see find_faces.
    Raises FlashFaceError saying what is missing.
    """
    if name not in DETECTORS:
        raise FlashFaceError(f"There is no detector {name!r}; use one of {', '.join(DETECTORS)}.")
    if name == "mtcnn" or (name == "auto" and model_pack is None):
        return MtcnnDetector(look_again)
    if name == ZOO:
        if model_pack is None:
            raise FlashFaceError(f"OpenCV Zoo's files are not given; {INSTALL_ZOO}.")
        return ZooDetector(model_pack, look_again)
    if model_pack is None:
        raise FlashFaceError(
            "InsightFace needs a model pack and none is given; put one (such as buffalo_l) into "
            "ComfyUI/models/insightface/models/ and choose it, or use the detector mtcnn."
        )
    return InsightFaceDetector(model_pack, gpu, look_again)


def load_usable_detector(
    model_pack: Path | None, gpu: bool = True, look_again: bool = False, zoo: Path | None = None
) -> AnyDetector:
    """InsightFace where the package and the pack can be used, otherwise MTCNN, otherwise YuNet of
    the folder zoo; with a warning for each that cannot be.

    Raises FlashFaceError where none can be used.
    """
    ways: list[Callable[[], AnyDetector]] = [lambda: MtcnnDetector(look_again)]
    if model_pack is not None:
        ways.insert(0, lambda: InsightFaceDetector(model_pack, gpu, look_again))
    if zoo is not None:
        ways.append(lambda: ZooDetector(zoo, look_again))
    for way in ways:
        try:
            return way()
        except FlashFaceError as error:
            log.warning("%s", error)
    raise FlashFaceError(
        f"No face detector can be used. For MTCNN run {INSTALL_MTCNN} with ComfyUI's Python; for "
        f"InsightFace {INSTALL_INSIGHTFACE} and put a model pack such as buffalo_l into "
        f"ComfyUI/models/insightface/models; for YuNet {INSTALL_ZOO}. FlashFace Identity works "
        "without a detector too: connect `boxes`, or crop the photos to the face (core's Image "
        "Crop), also by a mask."
    )
