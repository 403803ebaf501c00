"""A Face Fusion file: W'_k and W'_v of every cross-attention, under the names of their sites."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import FlashFaceError
from ..sites import Site
from ..weights_file import read_state_dict, shorten

CURRENT_STEP, CLEAN = "current step", "none"  # the noise on the photos
KEY = re.compile(r"(input|middle|output)\.(\d+)\.(\d+)\.([kv])\.weight")


class FaceFusionFile(NamedTuple):
    """k, v: (C, C) by site. reference_size: pixels of a photo in its training, where it says so, a
    multiple of 8 and at least 64;
    reference_noise: CURRENT_STEP or CLEAN, the noise that photos had there."""

    name: str
    k: Mapping[Site, torch.Tensor]
    v: Mapping[Site, torch.Tensor]
    reference_size: int | None
    reference_noise: str

    @property
    def widths(self) -> dict[Site, int]:
        """Channels C by site."""
        return {site: len(weight) for site, weight in self.k.items()}


def read_face_fusion(path: str | Path) -> FaceFusionFile:
    """Of any UNet: sites and widths follow from the keys. Metadata: reference_size and
    reference_noise ("current step" when absent).

    Raises FlashFaceError for any other file.
    """
    name = Path(path).name
    state, metadata = read_state_dict(path)
    matches = {key: KEY.fullmatch(key) for key in state}
    foreign = [key for key, match in matches.items() if match is None]
    if foreign or not state:
        found = f"keys like {shorten(foreign)}" if foreign else "no tensors"
        raise FlashFaceError(
            f"{name} is not a Face Fusion file: it has {found}, expected input.1.0.k.weight and "
            "the like for every cross-attention; choose a file made by training/."
        )
    parts: dict[str, dict[Site, torch.Tensor]] = {"k": {}, "v": {}}
    for key, match in matches.items():
        assert match is not None
        block, index, depth, part = match.groups()
        parts[part][block, int(index), int(depth)] = state[key]
    k, v = parts["k"], parts["v"]
    if halves := sorted(k.keys() ^ v.keys()):
        raise FlashFaceError(
            f"{name} is incomplete: k.weight or v.weight is missing at "
            f"{shorten(map(_dotted, halves))}; copy or train it again."
        )
    for site in k:
        shapes = [tuple(weight.shape) for weight in (k[site], v[site])]
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != shapes[0][1]:
            raise FlashFaceError(
                f"{name} does not fit Face Fusion: k and v at {_dotted(site)} are {shapes[0]} and "
                f"{shapes[1]}, expected two squares of one size; choose a file made by training/."
            )
        if not (k[site].is_floating_point() and v[site].is_floating_point()):
            raise FlashFaceError(
                f"{name} does not fit Face Fusion: the values at {_dotted(site)} are "
                f"{k[site].dtype}, expected fp32, fp16 or bf16; choose a file made by training/."
            )
    size = metadata.get("reference_size")
    if size is not None and not (size.isdecimal() and int(size) >= 64 and int(size) % 8 == 0):
        raise FlashFaceError(
            f"{name} says that photos are {size!r} pixels large, expected a multiple of 8 and at "
            "least 64; copy or train it again."
        )
    noise = metadata.get("reference_noise", CURRENT_STEP)
    if noise not in (CURRENT_STEP, CLEAN):
        raise FlashFaceError(
            f"{name} was trained with the noise {noise!r} on the photos, expected {CURRENT_STEP!r} "
            f"or {CLEAN!r}; this version of the pack does not know it, update it."
        )
    return FaceFusionFile(name, k, v, None if size is None else int(size), noise)


def _dotted(site: Site) -> str:
    return ".".join(map(str, site))
