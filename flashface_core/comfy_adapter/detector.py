"""FACE_DETECTOR: a face detector whose memory ComfyUI gives back as it does that of its models."""

from pathlib import Path
from typing import cast

import comfy.model_management
import comfy.model_patcher
import numpy as np
import torch
from comfy.patcher_extension import CallbacksMP

from ..faces.detect import AnyDetector, load_detector, load_usable_detector
from ..faces.face import Face
from ..faces.zoo import ZOO


class FaceDetectorModels(torch.nn.Module):
    """Stands for the detector in ComfyUI's list of loaded models; has no weights of its own.

    A session of onnxruntime is not a module, so nothing can be moved: it is loaded or it is not.
    """


class ManagedDetector:
    """Loads the models when they are needed; forgets them when ComfyUI unloads, and right after
    use where memory is short."""

    def __init__(self, detector: AnyDetector) -> None:
        self._detector = detector
        self._patcher = comfy.model_patcher.ModelPatcher(
            FaceDetectorModels(),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=torch.device("cpu"),
        )

        def detached(patcher, unpatch_all: bool) -> None:
            if unpatch_all:  # otherwise core is about to load the same patcher again
                detector.release()

        self._patcher.add_callback(CallbacksMP.ON_DETACH, detached)
        self._enter()

    @property
    def name(self) -> str:
        return self._detector.name

    @property
    def can_embed(self) -> bool:
        return self._detector.can_embed

    @property
    def recognition(self) -> str:
        return self._detector.recognition

    def find(self, photo: torch.Tensor) -> list[Face]:
        self._enter()
        try:
            return self._detector.find(photo)
        finally:
            self._leave()

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        self._enter()
        try:
            return self._detector.embed(photo, face)
        finally:
            self._leave()

    def _enter(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        # Makes core's minimum of room free, which is more than the models need.
        comfy.model_management.load_models_gpu([self._patcher])

    def _leave(self) -> None:
        # Half of what _enter makes free: more was lost than what the models took.
        needed = comfy.model_management.minimum_inference_memory() / 2
        devices = {self._patcher.load_device, torch.device("cpu")}
        free = [cast(float, comfy.model_management.get_free_memory(one)) for one in devices]
        if min(free) < needed:
            self._detector.release()


def make_detector(name: str, model_pack: Path | None, zoo: Path | None = None) -> ManagedDetector:
    """name: of DETECTORS; auto is the first that can be used of InsightFace, MTCNN and OpenCV Zoo.

    zoo: the folder of OpenCV Zoo's files.
    The models are loaded once here, so that what is wrong with them is reported at once.
    Raises FlashFaceError saying what is missing.
    """
    gpu = comfy.model_management.get_torch_device().type != "cpu"
    if name == "auto":
        return ManagedDetector(load_usable_detector(model_pack, gpu, look_again=True, zoo=zoo))
    folder = zoo if name == ZOO else model_pack
    return ManagedDetector(load_detector(name, folder, gpu, look_again=True))
