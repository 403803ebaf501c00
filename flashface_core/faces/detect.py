"""Which detector: InsightFace, or MTCNN which works offline.

Both packages are optional, and nothing is ever downloaded.
"""

import logging
from pathlib import Path

from ..errors import FlashFaceError
from .insight import InsightFaceDetector
from .mtcnn import INSTALL_MTCNN, MtcnnDetector
from .packs import INSTALL_INSIGHTFACE

log = logging.getLogger("flashface")

DETECTORS = ["auto", "insightface", "mtcnn"]


def load_detector(
    name: str, model_pack: Path | None = None, gpu: bool = True, look_again: bool = False
) -> InsightFaceDetector | MtcnnDetector:
    """One of DETECTORS; auto is InsightFace where its model pack is given, otherwise MTCNN.

    gpu: InsightFace may use it. look_again: see find_faces.
    Raises FlashFaceError saying what is missing.
    """
    if name not in DETECTORS:
        raise FlashFaceError(f"There is no detector {name!r}; use one of {', '.join(DETECTORS)}.")
    if name == "mtcnn" or (name == "auto" and model_pack is None):
        return MtcnnDetector(look_again)
    if model_pack is None:
        raise FlashFaceError(
            "InsightFace needs a model pack and none is given; put one (such as buffalo_l) into "
            "ComfyUI/models/insightface/models/ and choose it, or use the detector mtcnn."
        )
    return InsightFaceDetector(model_pack, gpu, look_again)


def load_usable_detector(
    model_pack: Path | None, gpu: bool = True, look_again: bool = False
) -> InsightFaceDetector | MtcnnDetector:
    """InsightFace where the package and the pack can be used, otherwise MTCNN with a warning.

    Raises FlashFaceError where neither can be used.
    """
    reasons = []
    for name in ("insightface", "mtcnn"):
        if name == "insightface" and model_pack is None:
            continue
        try:
            return load_detector(name, model_pack, gpu, look_again)
        except FlashFaceError as error:
            reasons.append(str(error))
            log.warning("%s", error)
    raise FlashFaceError(
        f"No face detector can be used. For MTCNN run {INSTALL_MTCNN} with ComfyUI's Python; for "
        f"InsightFace {INSTALL_INSIGHTFACE} and put a model pack such as buffalo_l into "
        "ComfyUI/models/insightface/models. FlashFace Identity works without a detector too: "
        "connect `boxes`, or crop the photos to the face (core's Image Crop), also by a mask."
    )
