"""The four systems by name: their networks, and the files that training makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flashface_core.errors import FlashFaceError
from flashface_core.flashface.checkpoint import Checkpoint

FLASHFACE, FACE2DIFFUSION = "flashface", "face2diffusion"
FACESTUDIO, FACE_FUSION = "facestudio", "face_fusion"
SYSTEMS = (FLASHFACE, FACE2DIFFUSION, FACESTUDIO, FACE_FUSION)
WITH_ENCODERS = (FACE2DIFFUSION, FACESTUDIO)  # they see pictures through frozen encoders
WEIGHTS = {
    FLASHFACE: "flashface.safetensors",
    FACE2DIFFUSION: "mapping.safetensors",
    FACESTUDIO: "facestudio.safetensors",
    FACE_FUSION: "face_fusion.safetensors",
}
# Of photographs (SYSTEMS.md section B.6).
PROMPTS = ("a photo of f l", "a photo of a person")


class Given(NamedTuple):
    """text: what `load_text_encoder` gives. widths: of what encoders saw, by name. encoders:
    tensors and metadata that go into the trained file."""

    text: Any
    widths: Mapping[str, int]
    encoders: tuple[dict[str, torch.Tensor], dict[str, str]] = ({}, {})


def parts_of(system: str) -> tuple[str, ...]:
    """What may be trained."""
    return _networks(system).parts


def build(system: str, start: Checkpoint, given: Given):
    """Networks. start: a FlashFace, or a plain UNet as a Checkpoint that has a target alone.

    Raises FlashFaceError for a start that the system cannot have.
    """
    kind = _networks(system)
    if system == FACE2DIFFUSION:
        from flashface_core.face2diffusion.mapping import EXPRESSION, HIDDEN

        from .face2diffusion import EXPRESSION_SEEN, FACE

        expression = given.widths.get(EXPRESSION_SEEN, EXPRESSION)
        widths = (given.widths[FACE], HIDDEN, expression)
        return kind(start, given.text, *widths, prompts=PROMPTS)
    if system == FACESTUDIO:
        from .facestudio import FACE, STYLE

        return kind(start, given.widths[STYLE], given.widths[FACE])
    return kind(start)


def save(system: str, networks, given: Given, path: Path, dtype: torch.dtype) -> None:
    """In the published layout, or this pack's own where nothing is published."""
    if system == FLASHFACE:
        from .publish import publish

        publish(networks, path, dtype)
    elif system == FACESTUDIO:
        networks.save(path, *given.encoders, dtype)
    else:
        networks.save(path, dtype)


def go_on_from(system: str, networks, path: Path) -> None:
    """Take over what an earlier run has trained. Raises FlashFaceError for a file of another system
    or of other sizes."""
    if system == FLASHFACE:
        raise FlashFaceError("FlashFace goes on from --checkpoint; leave --go-on-from out.")
    try:
        networks.load(path)
    except RuntimeError as error:  # torch's word for other shapes or names
        reason = str(error).splitlines()[-1].strip()
        raise FlashFaceError(
            f"{path.name} does not fit the networks of {system} on this data ({reason}); give what "
            "was trained with the same encoders and the same UNet."
        ) from error


def _networks(system: str) -> Any:
    """The class."""
    if system == FLASHFACE:
        from .networks import FlashFaceNetworks as networks
    elif system == FACE2DIFFUSION:
        from .face2diffusion import Face2DiffusionNetworks as networks
    elif system == FACESTUDIO:
        from .facestudio import FaceStudioNetworks as networks
    elif system == FACE_FUSION:
        from .face_fusion import FaceFusionNetworks as networks
    else:
        raise FlashFaceError(f"There is no system {system!r}; use one of {', '.join(SYSTEMS)}.")
    return networks
