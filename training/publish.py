"""Trained networks as a file in the published layout, which FlashFaceLoader reads."""

from pathlib import Path

import torch

from flashface_core.weights_file import write_safetensors

from .networks import FlashFaceNetworks


def publish(
    networks: FlashFaceNetworks, path: str | Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write the current weights, with the metadata that shapes cannot tell."""
    reference_size, picture_size = networks.sizes
    state = networks.published_state_dict()
    metadata = {
        "num_heads": str(networks.heads),
        "reference_size": str(reference_size),
        "picture_size": str(picture_size),
    }
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    tensors = ((key, value.detach().cpu()) for key, value in state.items())
    write_safetensors(path, shapes, tensors, dtype, metadata)
