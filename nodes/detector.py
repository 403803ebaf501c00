"""FlashFaceDetectorLoader: what finds the faces in photos."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..flashface_core.comfy_adapter.detector import make_detector
from ..flashface_core.errors import FlashFaceError
from ..flashface_core.faces.detect import DETECTORS
from ..flashface_core.faces.packs import NO_PACK, choose_pack, find_model_packs
from ..flashface_core.faces.zoo import ZOO, find_zoo, no_zoo
from .base import FlashFaceNode, schema
from .sockets import IDENTITY, FaceDetector

FOLDER, ZOO_FOLDER = "insightface", "opencv_zoo"


def places(folder: str) -> list[Path]:
    """models/<folder>, and what extra_model_paths.yaml declares under this name."""
    declared, _ = folder_paths.folder_names_and_paths.get(folder, ([], set()))
    roots = [Path(folder_paths.models_dir, folder), *map(Path, declared)]
    return list(dict.fromkeys(roots))


class FlashFaceDetectorLoader(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceDetectorLoader",
            display_name="FlashFace Detector Loader",
            category=IDENTITY,
            aliases=["face detection", "insightface", "mtcnn", "yunet", "sface", "opencv zoo"],
            description="Loads a face detector: InsightFace with a model pack that you have put "
            "there, MTCNN, or OpenCV Zoo's YuNet. Nothing is downloaded.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=DETECTORS,
                    default="auto",
                    tooltip="auto: InsightFace where it is installed with a model pack, otherwise "
                    "MTCNN (facenet-pytorch), otherwise OpenCV Zoo's YuNet, whose files go into "
                    "models/opencv_zoo.",
                ),
                io.Combo.Input(
                    "model_pack",
                    options=list(find_model_packs(places(FOLDER))) or [NO_PACK],
                    tooltip="For InsightFace: a folder in models/insightface/models, such as "
                    "buffalo_l or antelopev2, with the pack's .onnx files.",
                ),
            ],
            outputs=[
                FaceDetector.Output(
                    display_name="FACE_DETECTOR",
                    tooltip="For FlashFace Identity, Crop Face and Similarity.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, detector=None, model_pack=None):
        # Named here so that core's own "value not in list" gives way to a sentence that helps;
        # all but insightface work in a workflow from a machine with other packs.
        if detector is not None and detector not in DETECTORS:
            return f"There is no detector {detector!r}; use one of {', '.join(DETECTORS)}."
        if detector is None or model_pack is None:  # comes over a link, known when it runs
            return True
        try:
            choose(detector, model_pack)
        except FlashFaceError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, detector, model_pack):
        """Another pack, or other files in it, are another detector."""
        if detector is None or model_pack is None:
            return ""
        try:
            used = choose(detector, model_pack)
        except FlashFaceError as error:
            return str(error)
        files = sorted(path for folder in used if folder for path in folder.rglob("*.onnx"))
        found = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        return detector, model_pack, found

    @classmethod
    def execute(cls, detector, model_pack) -> io.NodeOutput:
        return io.NodeOutput(make_detector(detector, *choose(detector, model_pack)))


def choose(detector: str, model_pack: str) -> tuple[Path | None, Path | None]:
    """The folders of InsightFace's pack and of OpenCV Zoo that may be used; None: not that one.

    Raises FlashFaceError where what the detector needs is not there.
    """
    roots = places(FOLDER)
    zoo = find_zoo(places(ZOO_FOLDER)) if detector in ("auto", ZOO) else None
    if detector == ZOO and zoo is None:
        raise no_zoo(places(ZOO_FOLDER)[0])
    return choose_pack(detector, model_pack, find_model_packs(roots), roots), zoo


NODES = [FlashFaceDetectorLoader]
