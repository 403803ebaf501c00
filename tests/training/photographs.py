"""Prepared photographs, and files small enough to train on them in seconds."""

from pathlib import Path

import comfy.taesd.taesd
from safetensors.torch import save_file
from support.control import seeded_like
from support.photographs import add, astronaut, cameraman, different, encoded

from flashface_core.faces.detect import MtcnnDetector
from flashface_core.flashface.checkpoint import published_state_dict
from flashface_core.tiny_text import clip_state_dict
from training.initial import fresh_checkpoint
from training.photos.dataset import Sizes
from training.photos.prepare import prepare

SIZES = Sizes(picture=128, face=64)


def write_vae(path: Path) -> Path:
    state = comfy.taesd.taesd.TAESD(latent_channels=4).state_dict()
    save_file(seeded_like(state, seed=8), path)
    return path


def write_source(folder: Path) -> Path:
    for person, picture in (("anna", astronaut()), ("carl", cameraman())):
        for name, variant in different(picture).items():
            add(folder, f"{person}/{name}.png", encoded(variant, "PNG"), f"{person} as {name}")
    return folder


def prepared(source: Path, out: Path) -> Path:
    prepare(source, out, MtcnnDetector(), size=SIZES.picture, face_size=SIZES.face, per_shard=2)
    return out


def write_weights(path: Path) -> Path:
    fresh = fresh_checkpoint("fresh", width=32, heads=1)
    state = {key: value.contiguous() for key, value in published_state_dict(fresh).items()}
    sizes = {"num_heads": "1", "reference_size": "64", "picture_size": "128"}
    save_file(state, path, metadata=sizes)
    return path


def write_clip(path: Path) -> Path:
    save_file({key: value.half().contiguous() for key, value in clip_state_dict().items()}, path)
    return path
