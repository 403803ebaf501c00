"""Every system of this pack on a small UNet: people, some of them in places, as one graph."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import FOLDER, VAE, load_vae
from flashface_pack.flashface_core.people.identity import join_people
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.nodes.face_fusion import FaceFusionApply, FaceFusionEncode
from flashface_pack.nodes.facestudio import FaceStudioApply, FaceStudioEncode
from flashface_pack.nodes.from_model import ReferenceNetFromModel

from .face_fusion import write_file
from .facestudio import person, style, write_facestudio
from .harness import Guidance, apply_features, load_flashface
from .models import write_flashface
from .sampling import NEGATIVE, POSITIVE, basic, classic, empty_latent, guided, ksampler, noise
from .sampling import noisy as noisy_latents

FLASHFACE, OWN_ATTENTION = "FlashFace", "ReferenceNetFromModel"
FUSION, STUDIO = "Face Fusion", "FaceStudio"
SYSTEMS = (FLASHFACE, OWN_ATTENTION, FUSION, STUDIO)
EARLY, LATE = 951, 501  # timesteps above and below the launch of face guidance


@dataclass(frozen=True)
class Graph:
    """A MODEL with its prompts."""

    model: Any
    positive: list
    negative: list

    def patched(self, patch: Callable) -> "Graph":
        """The same with one more node on its MODEL."""
        return replace(self, model=patch(self.model))

    def sample(self, batch: int = 1, size=(16, 16), mask=None, **options) -> torch.Tensor:
        """A run of the KSampler. mask: of inpainting, (1, H, W)."""
        latent = empty_latent(batch, *size)
        if mask is not None:
            latent["noise_mask"] = mask
        return ksampler(self.model, self.positive, self.negative, latent, **options)

    def step(self, timestep: int, batch: int = 1, size=(16, 16), cfg: float = 7.5) -> torch.Tensor:
        """The clean prediction of one step."""
        x = noisy_latents(self.model, noise(7, batch, *size), timestep)
        if cfg == 1.0:
            return guided(basic(self.model, self.positive), x, timestep)
        return guided(classic(self.model, self.positive, self.negative, cfg), x, timestep)


def half(left: bool, inside: bool = True, strength: float = 1.0) -> Place:
    """The left or the right half of the picture."""
    return Place((0.0 if left else 0.5, 0.0, 0.5, 1.0), strength=strength, inside_region=inside)


def in_halves(left: int = 1, right: int = 2) -> tuple:
    """Two people, each bound to a half of the picture."""
    return person(left, place=half(True)), person(right, place=half(False))


# Of a FlashFace: half as wide as the tiny models, and its photos and pictures as small as theirs.
SIZES = dict(width=32, multipliers=(1, 2), heads=2, reference_size=64, picture_size=128)


class Bench:
    """A FlashFace whose weights follow a rule, the tiny VAE, and random files for the systems that
    bring one."""

    def __init__(self, folder: Path, seed: int = 0, **sizes) -> None:
        """sizes: of a `fresh_checkpoint` where they are others than SIZES."""
        self.checkpoint = write_flashface(folder / "flashface.safetensors", **SIZES | sizes)
        self.model, self.net = load_flashface(self.checkpoint)
        # One for all graphs, as from a node of a workflow, so that photos are encoded once.
        self.own_net = ReferenceNetFromModel.execute(self.model).args[0]
        self.vae = load_vae(FOLDER / VAE)
        self.fusion = load_face_fusion(
            write_file(folder / f"fusion_{seed}.safetensors", self.model, seed)
        )
        path = write_facestudio(folder / "studio.safetensors", self.model)
        self.studio = load_facestudio(path)

    def using(self, **others) -> "Bench":
        """The same with other networks."""
        bench = copy.copy(self)
        bench.__dict__ |= others
        return bench

    def plain(self, model=None) -> Graph:
        return Graph(model or self.model, POSITIVE, NEGATIVE)

    def graph(
        self,
        system: str,
        *people,
        model=None,
        guidance: Guidance | None = None,
        strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
    ) -> Graph:
        """people: FACE_IDENTITY each, nobody: the MODEL as it is. model: in place of the small one.

        guidance: of FlashFace and ReferenceNetFromModel; strength, start and end: of Face Fusion.
        """
        graph = self.plain(model)
        if not people:
            return graph
        identity = people[0] if len(people) == 1 else join_people(people)
        if system == STUDIO:
            positive, negative = FaceStudioEncode.execute(
                self.studio, identity, 1.0, False, style(50)
            ).args
            applied = FaceStudioApply.execute(graph.model, self.studio).args[0]
            return Graph(applied, positive, negative)
        if system == FUSION:
            photos = FaceFusionEncode.execute(self.fusion, identity, self.vae, NEGATIVE).args[0]
            settings = (strength, "current step", start, end)
            return graph.patched(lambda m: FaceFusionApply.execute(m, photos, *settings).args[0])
        net = self.own_net if system == OWN_ATTENTION else self.net
        features = net.encode(identity, self.vae, NEGATIVE)
        return graph.patched(lambda m: apply_features(m, features, guidance or Guidance()))
