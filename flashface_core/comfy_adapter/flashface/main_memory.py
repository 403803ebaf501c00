"""Keys and values in main memory, and their way to the device and back."""

from collections.abc import Mapping

import comfy.model_management
import torch

from ...features import KeysValues
from ...sites import Site

STORAGE = torch.device("cpu")  # under --highvram, core's offload device is the GPU
Parts = tuple[torch.Tensor, torch.Tensor]


def in_main_memory(pairs: Mapping[Site, Parts]) -> list[KeysValues]:
    """keys and values (N, L, C) per site: an entry (1, L, C) for each of the N photos.

    Page-locked where core page-locks weights, so that the device reads them while the host goes on.
    """
    is_locked = any(
        part.device.type == "cuda" and core_locks_pages()
        for parts in pairs.values()
        for part in parts
    )
    moved = {
        site: [[own_copy(row, is_locked) for row in part.to(STORAGE).split(1)] for part in parts]
        for site, parts in pairs.items()
    }
    count = len(next(iter(moved.values()))[0])
    return [
        {site: (keys[i], values[i]) for site, (keys, values) in moved.items()} for i in range(count)
    ]


def core_locks_pages() -> bool:
    """Not with --disable-pinned-memory, nor on devices for which core does not."""
    return getattr(comfy.model_management, "MAX_PINNED_MEMORY", 0) > 0


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
