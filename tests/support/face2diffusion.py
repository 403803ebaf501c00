"""Face2Diffusion networks with values made by rule (tests/golden/README.md, section 3)."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from .golden import ROOT

KEYS = ROOT / "face2diffusion" / "state_dict_keys.json"  # of the official networks


def published_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published "msid" or "mapping" file."""
    return {key: tuple(shape) for key, shape in json.loads(KEYS.read_text())[network].items()}


def rule_tensor(key: str, shape: tuple[int, ...], salt: str = "") -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    seed = int.from_bytes(hashlib.sha256((salt + key).encode()).digest()[:8], "little")
    values = np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)
    if len(shape) >= 2:
        values /= math.sqrt(math.prod(shape[1:]))
    elif key.endswith(".running_var"):
        values = 1 + abs(0.02 * values)
    elif key.endswith((".running_mean", ".bias")):
        values *= 0.02
    elif key.endswith(".weight"):
        values = 1 + 0.02 * values
    return torch.from_numpy(values.astype(np.float32))


def rule_state(shapes: dict[str, tuple[int, ...]], salt: str = "") -> dict[str, torch.Tensor]:
    return {key: rule_tensor(key, shape, salt) for key, shape in shapes.items()}


def write_published(folder: Path) -> tuple[Path, Path]:
    """Files of mapping and encoder in the published layout, one as published, one converted."""
    mapping, encoder = folder / "mapping.pt", folder / "msid.safetensors"
    torch.save(rule_state(published_shapes("mapping")), mapping)
    save_file(rule_state(published_shapes("msid")), encoder)
    return mapping, encoder
