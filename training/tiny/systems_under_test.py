"""What every system gives the sampler for a toy person, through what its nodes call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flashface_core.comfy_adapter.face2diffusion import (
    Face2Diffusion,
    encode_text,
    load_face2diffusion,
)
from flashface_core.comfy_adapter.face_fusion.apply import apply_fusion
from flashface_core.comfy_adapter.face_fusion.photos import (
    FaceFusion,
    collect_photos,
    load_face_fusion,
)
from flashface_core.comfy_adapter.facestudio.apply import apply_facestudio
from flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_core.comfy_adapter.flashface.from_model import reference_net_from_model
from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE, load_tiny_clip
from flashface_core.face2diffusion.word import PLACEHOLDER
from flashface_core.weights_file import read_state_dict
from toy_world.draw import draw
from toy_world.people import People
from training.sampling import Conditioned

from .text import with_person

MAPPING, FACES = "face2diffusion/mapping_tiny.safetensors", "face2diffusion/msid_tiny.safetensors"
STUDIO = "facestudio/facestudio_tiny.safetensors"
FUSION = "face_fusion/face_fusion_tiny.safetensors"
STRANGER = 10_000  # the first of the test people who lend their style images only


class System(NamedTuple):
    """condition: of an identity, the numbers of pictures of the cast, and FlashFace's guidance.

    parameters: that were trained for it, beside the UNet that all share.
    """

    condition: Callable[[Any, list[int], Any], Conditioned]
    parameters: int


class Systems:
    """Made one by one, when asked for. folder: of the tiny models, with a folder per system."""

    def __init__(self, evaluation, folder: Path) -> None:
        self.models, self.cast, self.folder = evaluation.models, evaluation.cast, folder
        self.negative = [[self.models.encode_text([""]), {}]]
        self.makers: dict[str, Callable[[], System]] = {
            "FlashFace": lambda: System(
                self.features(self.models.net), trained_parameters(folder / FLASHFACE)
            ),
            "Face2Diffusion": self.face2diffusion,
            "FaceStudio, text": lambda: self.facestudio(0.0),
            "FaceStudio, style image": lambda: self.facestudio(1.0),
            "Face Fusion": lambda: System(
                self.fusion(load_face_fusion(folder / FUSION)), trained_parameters(folder / FUSION)
            ),
            "Face Fusion, training-free": lambda: System(self.fusion(FaceFusion()), 0),
            "training-free reference": lambda: System(
                self.features(reference_net_from_model(self.models.model)), 0
            ),
            "no reference": lambda: System(self.nobody, 0),
        }

    def told(self, numbers: list[int]) -> list:
        return [[self.models.encode_text([self.cast.captions[n] for n in numbers]), {}]]

    def nobody(self, identity, numbers, guidance) -> Conditioned:
        return Conditioned(self.models.model, self.told(numbers), self.negative)

    def features(self, net):
        def condition(identity, numbers, guidance):
            seen = net.encode(identity, self.models.vae, self.negative)
            model = apply_features(self.models.model, seen, guidance)
            return Conditioned(model, self.told(numbers), self.negative)

        return condition

    def face2diffusion(self, words: Face2Diffusion | None = None) -> System:
        """words: those of the folder if not given."""
        if words is None:
            words = load_face2diffusion(self.folder / MAPPING, self.folder / FACES)
        clip = load_tiny_clip(layers=2)

        def condition(identity, numbers, guidance):
            prompts = [with_person(self.cast.captions[n]) for n in numbers]
            given = [encode_text(clip, words, identity, prompt, PLACEHOLDER) for prompt in prompts]
            return Conditioned(self.models.model, joined(given), self.negative)

        return System(condition, trained_parameters(self.folder / MAPPING))

    def facestudio(self, alpha: float) -> System:
        """alpha 1: the style image shows somebody else in the scene that is asked for."""
        studio = load_facestudio(self.folder / STUDIO)
        model = apply_facestudio(self.models.model, studio)

        def condition(identity, numbers, guidance):
            made = []
            for n in numbers:
                style = style_image(self.cast, n) if alpha else None
                made.append(studio.encode(identity, alpha, False, style, self.told([n])))
            return Conditioned(model, joined([one for one, _ in made]), made[0][1])

        return System(condition, trained_parameters(self.folder / STUDIO, ("linear.", "unet.")))

    def fusion(self, weights: FaceFusion):
        def condition(identity, numbers, guidance):
            photos = collect_photos(weights, identity, self.models.vae, self.negative)
            model = apply_fusion(self.models.model, photos)
            return Conditioned(model, self.told(numbers), self.negative)

        return condition


def joined(given: list[list]) -> list:
    """CONDITIONINGs of one entry each as one of as many rows, with the options of the first."""
    return [[torch.cat([one[0][0] for one in given]), given[0][0][1]]]


def trained_parameters(path: Path, prefixes: tuple[str, ...] = ("",)) -> int:
    """Values in the tensors of a file whose names begin so."""
    state, _ = read_state_dict(path)
    return sum(value.numel() for key, value in state.items() if key.startswith(prefixes))


def style_image(cast, number: int) -> Tensor:
    """IMAGE of a person nobody asked for, in the scene and at the age of a picture of the cast."""
    stranger = People.draw_from(0, "test", [STRANGER + number])
    pictures, _ = draw(stranger, cast.scenes[number : number + 1])
    return pictures.movedim(1, -1)
