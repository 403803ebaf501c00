"""The base UNet between its stage and FlashFace's: a file that is small enough to keep."""

from pathlib import Path

import torch

from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE
from flashface_core.flashface.checkpoint import Checkpoint, read_checkpoint
from flashface_core.weights_file import read_state_dict, write_safetensors
from training.initial import with_new_references

BASE = "base_tiny.safetensors"
TARGET_PREFIX, POSITION = "target.", "position.weight"


def save_base(checkpoint: Checkpoint, path: Path) -> None:
    """The UNet and the position channel."""
    assert checkpoint.position is not None
    state = {TARGET_PREFIX + key: value for key, value in checkpoint.target.items()}
    state[POSITION] = checkpoint.position
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    tensors = ((key, value.detach().cpu()) for key, value in state.items())
    metadata = {
        "num_heads": str(checkpoint.heads),
        "reference_size": str(checkpoint.reference_size),
        "picture_size": str(checkpoint.picture_size),
    }
    write_safetensors(path, shapes, tensors, torch.float16, metadata)


def load_base(path: Path) -> Checkpoint:
    """A FlashFace whose UNet can draw, and whose other networks begin as copies of it."""
    state, metadata = read_state_dict(path)
    position = state.pop(POSITION)
    return with_new_references(
        "tiny",
        {key.removeprefix(TARGET_PREFIX): value for key, value in state.items()},
        position,
        heads=int(metadata["num_heads"]),
        reference_size=int(metadata["reference_size"]),
        picture_size=int(metadata["picture_size"]),
    )


def read_models(folder: Path) -> Checkpoint:
    """FlashFace of a folder of tiny models, or where it is not made yet, the base that is there."""
    if not (folder / FLASHFACE).is_file():
        return load_base(folder / BASE)
    return read_flashface(folder / FLASHFACE)


def read_flashface(path: Path) -> Checkpoint:
    """Raises FlashFaceError for any other file."""
    return read_checkpoint("tiny", *read_state_dict(path))
