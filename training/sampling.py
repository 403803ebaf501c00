"""Pictures of people, drawn by ComfyUI's own sampler from a MODEL with or without a face."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.sample
import torch

from flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_core.flashface.guidance import Guidance
from flashface_core.people.identity import FaceReference, Identity, IdentityGroup, one_person
from flashface_core.people.place import Place

from .data import TextEncoder


class Models(NamedTuple):
    """What FlashFaceTinyModels gives, with a function in CLIP's place."""

    model: Any
    net: Any
    encode_text: TextEncoder
    vae: Any


class Conditioned(NamedTuple):
    """What a system gives the sampler for some captions of one person."""

    model: Any
    positive: list
    negative: list


class Settings(NamedTuple):
    """Of the sampler. cfg: of the text; `simple` is the official spacing if steps divide 1000."""

    steps: int = 20
    cfg: float = 5.0
    sampler: str = "euler"
    scheduler: str = "simple"
    guidance: Guidance = Guidance()


def clip_encoder(clip) -> TextEncoder:
    """A core CLIP as a function of captions."""

    def encode(captions: list[str]) -> torch.Tensor:
        return torch.cat([clip.encode_from_tokens(clip.tokenize(text)) for text in captions])

    return encode


def identity_of(crops: torch.Tensor) -> Identity:
    """Face crops (N, 3, h, w) in 0..1 as the identity of one person."""
    pixels = (crops * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    return Identity(tuple(FaceReference.from_crop(crop) for crop in pixels))


def region_masks(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Boxes (B, 4) in fractions as the masks of a place, bool (B, size, size)."""
    edges = (boxes.clamp(0, 1) * size).round().long()
    steps = torch.arange(size)
    x1, y1, x2, y2 = edges.unbind(1)
    rows = (steps >= y1[:, None]) & (steps < y2[:, None])
    columns = (steps >= x1[:, None]) & (steps < x2[:, None])
    return rows[:, :, None] & columns[:, None, :]


@torch.no_grad()
def sample_pictures(
    models: Models,
    captions: Sequence[str],
    seed: int,
    settings: Settings,
    size: int | tuple[int, int],
    identity: Identity | IdentityGroup | None = None,
    boxes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pictures (B, 3, height, width) in 0..1, one per caption; noise by the seed.

    size: height and width, or the side of a square. identity: of all of them; None: the MODEL
    alone. boxes: (B, 4) faces of one person in squares, x1, y1, x2, y2 in fractions; None: where
    the identity has its place, or anywhere.
    """
    height = size if isinstance(size, int) else size[0]
    model = models.model
    positive = [[models.encode_text(list(captions)), {}]]
    negative = [[models.encode_text([""]), {}]]
    if identity is not None:
        if boxes is not None:
            person = one_person(identity, "boxes are the places of one person")
            identity = person.with_place(Place((0, 0, 1, 1), region_masks(boxes, height)))
        features = models.net.encode(identity, models.vae, negative)
        model = apply_features(model, features, settings.guidance)
    return sample(model, models.vae, positive, negative, len(captions), seed, settings, size)


@torch.no_grad()
def sample(
    model: Any,
    vae: Any,
    positive: list,
    negative: list,
    count: int,
    seed: int,
    settings: Settings,
    size: int | tuple[int, int],
) -> torch.Tensor:
    """`count` pictures (B, 3, height, width) in 0..1 of CONDITIONINGs; noise by the seed."""
    height, width = (size, size) if isinstance(size, int) else size
    latent = torch.zeros(count, 4, height // 8, width // 8)
    noise = comfy.sample.prepare_noise(latent, seed)
    samples = comfy.sample.sample(
        model,
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler,
        settings.scheduler,
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=seed,
    )
    return vae.decode(samples).movedim(-1, 1).float()
