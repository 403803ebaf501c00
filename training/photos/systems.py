"""FlashFace and the other systems on files as they are published, one prompt at a time.

Each is sampled as its authors do where they say how (docs/SYSTEMS.md), and as FlashFace otherwise.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flashface_core.comfy_adapter.face2diffusion import encode_text, load_face2diffusion
from flashface_core.comfy_adapter.face_fusion.apply import apply_fusion
from flashface_core.comfy_adapter.face_fusion.photos import (
    FaceFusion,
    collect_photos,
    load_face_fusion,
)
from flashface_core.comfy_adapter.facestudio.apply import apply_facestudio
from flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_core.errors import FlashFaceError
from flashface_core.face2diffusion.word import PLACEHOLDER
from flashface_core.faces.face import Detector
from flashface_core.people.identity import Identity, IdentityGroup
from flashface_core.weights_file import read_state_dict
from training.clip import ClipText
from training.sampling import Conditioned, Settings
from training.systems import FACE2DIFFUSION, FACE_FUSION, FACESTUDIO, FLASHFACE

from .cases import Case
from .evaluation import OFFICIAL

SD15_SIZE = 512
FIRST = ("ori_encoder.0.weight", "encoder.0.weight")  # of FlashFace's checkpoints alone
Who = Identity | IdentityGroup
Condition = Callable[[Who, Case], Conditioned]


class Shared(NamedTuple):
    """detector: for FaceStudio files whose faces are ArcFace's."""

    checkpoint: Path
    text: ClipText
    vae: Any
    detector: Detector

    def told(self, prompt: str) -> list:
        return [[self.text([prompt]), {}]]


class System(NamedTuple):
    """condition: what the sampler is given for one or several people and a case. size: of the
    pictures."""

    condition: Condition
    settings: Settings
    size: int


def make_system(name: str, shared: Shared, weights: list[Path]) -> System:
    """weights: of the system, beside the checkpoint of the UNet, in the order of WEIGHTS.

    Raises FlashFaceError for files of another kind.
    """
    return MAKERS[name](shared, weights)


def _flashface(shared: Shared, weights: list[Path]) -> System:
    model, net = load_flashface(shared.checkpoint)
    negative = shared.told("")

    def condition(identity: Who, case: Case) -> Conditioned:
        features = net.encode(identity, shared.vae, negative)
        applied = apply_features(model, features, OFFICIAL.guidance)
        return Conditioned(applied, shared.told(case.plain_prompt), negative)

    return System(condition, OFFICIAL, net.picture_size)


def _nobody(shared: Shared, weights: list[Path]) -> System:
    model, size = load_unet(shared.checkpoint)
    negative = shared.told("")

    def condition(identity: Who, case: Case) -> Conditioned:
        return Conditioned(model, shared.told(case.plain_prompt), negative)

    return System(condition, OFFICIAL, size)


def _face2diffusion(shared: Shared, weights: list[Path]) -> System:
    model, size = load_unet(shared.checkpoint)
    words = load_face2diffusion(*weights)
    negative = shared.told("")

    def condition(identity: Who, case: Case) -> Conditioned:
        prompt = case.prompt_with(PLACEHOLDER)
        told = encode_text(shared.text.clip, words, identity, prompt, PLACEHOLDER)
        return Conditioned(model, told, negative)

    settings = Settings(steps=30, cfg=7.0, sampler="euler_ancestral", scheduler="normal")
    return System(condition, settings, size)


def _facestudio(shared: Shared, weights: list[Path]) -> System:
    """By the text alone: no benchmark here has a style image."""
    unet, size = load_unet(shared.checkpoint)
    studio = load_facestudio(weights[0])
    model = apply_facestudio(unet, studio)

    def condition(identity: Who, case: Case) -> Conditioned:
        told = shared.told(case.plain_prompt)
        made = studio.encode(identity, alpha=0.0, text=told, detector=shared.detector)
        return Conditioned(model, *made)

    settings = OFFICIAL._replace(sampler="euler_ancestral", scheduler="normal")
    return System(condition, settings, size)


def _face_fusion(shared: Shared, weights: list[Path]) -> System:
    """Training-free without a file."""
    model, size = load_unet(shared.checkpoint)
    fusion = load_face_fusion(weights[0]) if weights else FaceFusion()
    negative = shared.told("")

    def condition(identity: Who, case: Case) -> Conditioned:
        photos = collect_photos(fusion, identity, shared.vae, negative)
        return Conditioned(apply_fusion(model, photos), shared.told(case.plain_prompt), negative)

    return System(condition, OFFICIAL, size)


MAKERS: dict[str, Callable[[Shared, list[Path]], System]] = {
    FLASHFACE: _flashface,
    FACE2DIFFUSION: _face2diffusion,
    FACESTUDIO: _facestudio,
    FACE_FUSION: _face_fusion,
    "none": _nobody,
}


def load_unet(path: Path) -> tuple[Any, int]:
    """SD1.5's UNet, or that of a FlashFace checkpoint, as MODEL; and the size of its pictures.

    Raises FlashFaceError for another model.
    """
    import comfy.sd

    state, _ = read_state_dict(path, "an SD1.5 checkpoint")
    if any(key in state for key in FIRST):
        model, net = load_flashface(path)
        return model, net.picture_size
    try:
        found = comfy.sd.load_state_dict_guess_config(state, output_vae=False, output_clip=False)
    except Exception as error:  # core raises of every kind for what is no model
        raise _no_sd15(path, type(error).__name__) from error
    model = None if found is None else found[0]
    if model is None or model.model.model_config.unet_config.get("context_dim") != 768:
        raise _no_sd15(path, "another kind of model")
    return model, SD15_SIZE


def _no_sd15(path: Path, found: str) -> FlashFaceError:
    return FlashFaceError(
        f"{path.name} is not SD1.5 ({found}); give as --checkpoint a whole SD1.5 checkpoint, or "
        "FlashFace's weights."
    )
