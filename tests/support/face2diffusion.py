"""Face2Diffusion networks with values made by rule (tests/golden/README.md, section 3)."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from flashface_pack.flashface_core.face2diffusion.encoder import CROP, MSID, Topology
from flashface_pack.flashface_core.face2diffusion.mapping import MappingNetwork
from safetensors.torch import save_file

from .golden import ROOT

KEYS = ROOT / "face2diffusion" / "state_dict_keys.json"  # of the official networks

# Sizes other than the published ones.
IDENTITY = Topology(size=32, patch=8, width=24, depth=3, heads=4, scales=(0, 2))
EXPRESSION = Topology(size=16, patch=4, width=16, depth=2, heads=2, scales=(1,))
HIDDEN, TEXT = 32, 768


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


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def small_encoder(topology: Topology = IDENTITY, prefix: str = "") -> dict[str, torch.Tensor]:
    state = rule_state(shapes_of(MSID(topology)))
    return {prefix + key: value for key, value in state.items()}


def small_metadata(face: str | None = CROP) -> dict[str, str]:
    """Of a file with small_encoder() and small_encoder(EXPRESSION, "expression.")."""
    kind = {} if face is None else {"face": face}
    heads = {"num_heads": IDENTITY.heads, "expression.num_heads": EXPRESSION.heads}
    return kind | {key: str(value) for key, value in heads.items()}


def write_small(folder: Path, expression: bool = True, face: str | None = CROP, told=None):
    """Files of mapping and encoder with other sizes, and what the tiny trained ones have too.

    told: width of the expression that the mapping network was trained with.
    """
    mapping, encoder = folder / "mapping_small.safetensors", folder / "msid_small.safetensors"
    width = told or EXPRESSION.vector_width
    network = MappingNetwork(IDENTITY.vector_width, width, HIDDEN, TEXT)
    save_file(rule_state(shapes_of(network)), mapping)
    state = small_encoder()
    if expression:
        state |= small_encoder(EXPRESSION, "expression.")
    save_file(state, encoder, small_metadata(face))
    return mapping, encoder
