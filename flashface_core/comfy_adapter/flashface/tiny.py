"""The tiny models that come with the pack, as core's own objects."""

from pathlib import Path

import comfy.sd
import numpy as np
import torch
from PIL import Image

from ...errors import FlashFaceError
from ...tiny_text import LAYERS, clip_state_dict
from ...weights_file import read_state_dict
from ..patcher import loaded_by
from .load import load_flashface

FOLDER = Path(__file__).resolve().parents[3] / "tiny_models"
FLASHFACE, VAE = "flashface_tiny.safetensors", "vae_tiny.safetensors"
# Of people that nobody has trained on: a row for each, PHOTO_SIDE pixels high.
PHOTOS, PEOPLE, PHOTO_SIDE = "photos.png", 8, 64


def load_tiny_models(embedding_directory: list[str] | None = None):
    """MODEL, REFERENCE_NET, CLIP and VAE.

    Raises FlashFaceError for a file that is missing or damaged.
    """
    model, net = load_flashface(_shipped(FLASHFACE))
    return model, net, load_tiny_clip(embedding_directory), load_vae(_shipped(VAE))


def load_tiny_photos(person: int) -> torch.Tensor:
    """Face crops of a drawn person: IMAGE (4, 64, 64, 3), 0 to 1. person: 0 to PEOPLE - 1."""
    with Image.open(_shipped(PHOTOS)) as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).float() / 255
    row = pixels[person * PHOTO_SIDE :][:PHOTO_SIDE]
    return torch.stack(row.split(PHOTO_SIDE, dim=1))


def _shipped(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise FlashFaceError(
            f"There is no {name} in {FOLDER}, where it comes with the pack; clone or install the "
            "pack again."
        )
    return path


def load_tiny_clip(embedding_directory: list[str] | None = None, layers: int = LAYERS):
    """layers: with 2 it gives the same in a sixth of the time, but is no CLIP-L to be saved."""
    clip = _tiny_clip(embedding_directory, layers)
    loaded_by(clip.patcher, _load_clip_patcher, embedding_directory, layers)
    return clip


def _tiny_clip(embedding_directory: list[str] | None, layers: int, **options):
    return comfy.sd.load_text_encoder_state_dicts(
        [clip_state_dict(layers)],
        embedding_directory,
        clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options={"model_config": {"num_hidden_layers": layers}},
        **options,
    )


def load_vae(path: Path):
    """A file in TAESD's single-file layout, as core's VAELoader reads it."""
    vae = _taesd(path)
    loaded_by(vae.patcher, _load_vae_patcher, path)
    return vae


def _taesd(path: Path):
    state, metadata = read_state_dict(path)
    vae = comfy.sd.VAE(sd=state, metadata=metadata)
    vae.throw_exception_if_invalid()
    return vae


def _load_clip_patcher(
    embedding_directory: list[str] | None, layers: int, disable_dynamic: bool = False
):
    return _tiny_clip(embedding_directory, layers, disable_dynamic=disable_dynamic).patcher


def _load_vae_patcher(path: Path, disable_dynamic: bool = False):
    return _taesd(path).patcher
