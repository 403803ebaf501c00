"""Keys and values in main memory, and their way to the device and back."""

from collections.abc import Mapping

import comfy.model_management
import torch

from ...features import KeysValues
from ...sites import Site

STORAGE = torch.device("cpu")  # under --highvram, core's offload device is the GPU
Parts = tuple[torch.Tensor, torch.Tensor]


def in_main_memory(pairs: Mapping[Site, Parts]) -> list[KeysValues]:
    """keys and values (N, L, C) per site: an entry (1, L, C) for each of the N photos."""
    moved = {site: (_rows(keys), _rows(values)) for site, (keys, values) in pairs.items()}
    count = len(next(iter(moved.values()))[0])
    return [
        {site: (keys[i], values[i]) for site, (keys, values) in moved.items()} for i in range(count)
    ]


def _rows(part: torch.Tensor) -> list[torch.Tensor]:
    """Page-locked where core page-locks weights, so the device reads them while the host goes on;
    core does so neither with --disable-pinned-memory nor for every device."""
    is_locked = (
        part.device.type == "cuda" and getattr(comfy.model_management, "MAX_PINNED_MEMORY", 0) > 0
    )
    return [own_copy(row, is_locked) for row in part.to(STORAGE).split(1)]


def own_copy(row: torch.Tensor, is_locked: bool) -> torch.Tensor:
    """A view would keep the other photos' memory from being freed."""
    if is_locked:
        try:
            return row.pin_memory()
        except RuntimeError:  # the system gives no more of it
            pass
    return row.clone()


def on_device(entry: KeysValues, device: torch.device) -> KeysValues:
    return {
        site: (_move(keys, device), _move(values, device)) for site, (keys, values) in entry.items()
    }


def _move(part: torch.Tensor, device: torch.device) -> torch.Tensor:
    return comfy.model_management.cast_to_device(part, device, part.dtype)
