"""Trained weights as files in the published layouts."""

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import PartialState

from flashface_core.weights_file import write_safetensors

from .networks import FlashFaceNetworks
from .sharded import whole


def publish(
    networks: FlashFaceNetworks, path: str | Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write the current weights, with the metadata that shapes cannot tell; for FlashFaceLoader."""
    reference_size, picture_size = networks.sizes
    metadata = {
        "num_heads": str(networks.heads),
        "reference_size": str(reference_size),
        "picture_size": str(picture_size),
    }
    write_weights(path, networks.published_state_dict(), dtype, metadata)


def write_weights(
    path: str | Path,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    metadata: Mapping[str, str],
) -> None:
    """The main process writes; the others only send their parts, one tensor at a time."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    tensors = ((key, whole(value).cpu()) for key, value in state.items())
    if PartialState().is_main_process:
        write_safetensors(path, shapes, tensors, dtype, metadata)
    else:
        for _ in tensors:
            pass
