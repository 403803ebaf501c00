"""The files of Face2Diffusion, read as data and checked whole.

The published ones are msid.pt and mapping.pt. Other sizes of both networks follow from keys and
shapes; what these cannot say of an encoder stands in the file's metadata: `num_heads` (12 when
absent) and `face`, what it was trained on ("aligned" when absent, or "crop").
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..errors import FlashFaceError
from ..weights_file import Difference, load_strictly, read_state_dict, shorten
from .encoder import ALIGNED, CROP, MSID, PUBLISHED, Topology
from .mapping import MappingNetwork

ENCODER, MAPPING = "face encoder (msid.pt)", "mapping network (mapping.pt)"
WHOLE = "use the published file, or a copy of it as safetensors"
EXPRESSION = "expression."  # of a second encoder in the file, a face to its expression
_NO_METADATA: Mapping[str, str] = {}
_Network = TypeVar("_Network", bound=nn.Module)


def load_encoder(path: str | Path) -> MSID:
    """The face encoder of a file alone, as load_encoders."""
    return load_encoders(path)[0]


def load_encoders(path: str | Path) -> tuple[MSID, MSID | None]:
    """msid.pt, or the same tensors as safetensors, of any sizes, and the expression encoder where
    the file has one: float32 on the CPU, frozen, in eval mode.

    No code in the file is run. Raises FlashFaceError for any other file.
    """
    state, metadata = read_state_dict(path, published="msid.pt")
    return build_encoders(Path(path).name, state, metadata)


def load_mapping(path: str | Path) -> MappingNetwork:
    """mapping.pt, or the same tensors as safetensors: float32 on the CPU, frozen, in eval mode.

    Widths follow from the file, so that a network trained on another face embedding loads alike.
    No code in the file is run. Raises FlashFaceError for any other file.
    """
    return build_mapping(Path(path).name, read_state_dict(path, published="mapping.pt")[0])


def build_encoders(
    name: str, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] = _NO_METADATA
) -> tuple[MSID, MSID | None]:
    """As load_encoders, of what was read from the file called `name`."""
    expression = {key: value for key, value in state.items() if key.startswith(EXPRESSION)}
    identity = {key: value for key, value in state.items() if key not in expression}
    encoder = build_encoder(name, identity, metadata)
    if not expression:
        return encoder, None
    # The face is the same, unless the file says otherwise.
    metadata = {f"{EXPRESSION}face": encoder.face, **metadata}
    return encoder, build_encoder(name, expression, metadata, EXPRESSION)


def build_encoder(
    name: str,
    state: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] = _NO_METADATA,
    prefix: str = "",
    kind: str = f"Face2Diffusion's {ENCODER}",
    advice: str = WHOLE,
) -> MSID:
    """An MSID, frozen and in eval mode, of the tensors of `state` that begin with `prefix`.

    name: of the file, for messages. metadata: of the file; its keys have the same prefix. kind,
    advice: what it is said not to be, and what to do, where it is none. The network's `topology`
    and `face` say what it must be given. Raises FlashFaceError.
    """
    if prefix:
        name = f"{prefix}* in {name}"
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    else:
        _check_kind(name, state, ENCODER)
    face, heads = metadata.get(f"{prefix}face", ALIGNED), metadata.get(f"{prefix}num_heads")
    if face not in (ALIGNED, CROP):
        raise FlashFaceError(
            f"{name} was trained on {face!r} faces, expected {ALIGNED!r} or {CROP!r}; this version "
            "of the pack does not know them, update it."
        )
    topology = _topology(state, face, heads)
    network = _build(name, state, kind, advice, lambda: MSID(topology, face))
    if topology.heads == 0 or topology.width % topology.heads:
        raise FlashFaceError(
            f"{name} has num_heads {heads or f'{PUBLISHED.heads}, as none is in its metadata'}, "
            f"expected a divisor of its width {topology.width}; write the number of heads it was "
            "trained with into the metadata."
        )
    return network


def build_mapping(name: str, state: Mapping[str, torch.Tensor]) -> MappingNetwork:
    """As load_mapping, of tensors that were read from the file called `name`."""
    _check_kind(name, state, MAPPING)
    keys = ("null_exp", "i2t_first.layers.0.0.weight", "i2t_first.fc_out.weight")
    shapes = [tuple(state[key].shape) for key in keys if key in state]
    sizes = (PUBLISHED.vector_width,)  # to name what another file lacks
    if [len(shape) for shape in shapes] == [1, 2, 2]:
        (expression,), (hidden, inputs), (text, _) = shapes
        sizes = (max(inputs - expression, 1), expression, hidden, text)
    kind = f"Face2Diffusion's {MAPPING}"
    return _build(name, state, kind, WHOLE, lambda: MappingNetwork(*sizes))


def _topology(state: Mapping[str, torch.Tensor], face: str, heads: str | None) -> Topology:
    """As far as the keys tell; the published numbers stand in, to name what the file lacks.

    Aligned faces have one size. heads: 0 for what is not a number.
    """
    shapes = [
        tuple(state[key].shape)
        for key in ("cls_token", "patch_embed.proj.weight", "pos_embed")
        if key in state
    ]
    if [len(shape) for shape in shapes] != [3, 4, 3] or min(n for s in shapes for n in s) < 1:
        return PUBLISHED
    width, patch, (_, tokens, _) = shapes[0][-1], shapes[1][-1], shapes[2]
    if tokens < 2:  # no patch at all
        return PUBLISHED
    size = PUBLISHED.size if face == ALIGNED else patch * math.isqrt(tokens - 1)
    blocks = _numbers(state, r"blocks\.(\d{1,4})\.")
    scales = _numbers(state, r"norms\.layer_(\d{1,4})\.")
    # Never more than one block beyond those in the file: enough to name what it lacks.
    depth = len(blocks) + (max(scales, default=0) >= len(blocks))
    count = PUBLISHED.heads if heads is None else 0
    if heads and re.fullmatch("[0-9]{1,4}", heads):
        count = int(heads)
    return Topology(size, patch, width, depth, count, scales or PUBLISHED.scales)


def _numbers(state: Mapping[str, torch.Tensor], pattern: str) -> tuple[int, ...]:
    found = (re.match(pattern, key) for key in state)
    return tuple(sorted({int(match[1]) for match in found if match}))


def _check_kind(name: str, state: Mapping[str, torch.Tensor], wanted: str) -> None:
    """The two files are easily swapped."""
    kinds = {ENCODER: "cls_token", MAPPING: "null_exp"}
    for kind, key in kinds.items():
        if kind != wanted and key in state and kinds[wanted] not in state:
            raise FlashFaceError(
                f"{name} is Face2Diffusion's {kind}, expected its {wanted}; choose the other file."
            )


def _build(
    name: str,
    state: Mapping[str, torch.Tensor],
    kind: str,
    advice: str,
    make: Callable[[], _Network],
) -> _Network:
    def explain(difference: Difference) -> str:
        return f"{name} is not {kind}: {_problem(difference)}; {advice}."

    with torch.device("meta"):  # neither memory nor time for values that the file replaces
        network = make()
    load_strictly(network, state, explain)
    return network.requires_grad_(False).eval()


def _problem(difference: Difference) -> str:
    if difference.missing:
        return f"it lacks {shorten(difference.missing)}"
    if difference.unexpected:
        return f"it has tensors that do not belong there, {shorten(difference.unexpected)}"
    if difference.shapes:
        key, got, wanted = difference.shapes[0]
        return f"{key} has shape {got}, expected {wanted}"
    key, dtype = difference.whole_numbers[0]
    return f"{key} holds {dtype}, expected floating point"
