"""ModelPatchers for networks of ours, and the memory that sampling needs beside the MODEL."""

import math
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch

from ..features import FaceFeatures
from .photo_encoder import ROWS_PER_PASS


def make_patcher(module: torch.nn.Module, disable_dynamic: bool = False):
    """Newer cores bind CoreModelPatcher at start-up, to their dynamic class."""
    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    # The dynamic one takes over a file's tensors and casts them to these as it brings them in.
    keep_dtypes = getattr(comfy.model_management, "archive_model_dtypes", None)
    if keep_dtypes is not None:
        keep_dtypes(module)
    return patcher_class(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def loaded_by(patcher: Any, load: Callable, *args) -> None:
    """load(*args, disable_dynamic=...) gives a fresh ModelPatcher of the same network.

    Newer cores ask for it: TorchCompileModel, prompts with hooks, copies for other GPUs.
    """
    patcher.cached_patcher_init = (load, args)


def make_memory_estimate(features: FaceFeatures, branches: int):
    def estimate(executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: room for a third branch, or for the photos that go through a network
        together where that takes more, and for keys and values."""
        references = sum(len(person.references) for person in features.people)
        size = max(r.latent[0, 0].numel() for p in features.people for r in p.references)
        kv_bytes = references * features.net.keys_values_bytes(size)
        one_row = max(1, model.model.memory_required([1, *noise_shape[1:]]))
        photos = min(references, ROWS_PER_PASS) * size / math.prod(noise_shape[-2:])
        in_passes = max(noise_shape[0] * branches, photos)
        # core counts two rows per sample
        rows = math.ceil(in_passes / 2 + kv_bytes / one_row / 2)
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    return estimate
