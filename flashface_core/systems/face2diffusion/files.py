"""The published files of Face2Diffusion, msid.pt and mapping.pt, read as data and checked whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ...checkpoint import some
from ...checkpoint_file import read_state_dict
from ...errors import FlashFaceError
from .encoder import MSID
from .mapping import MappingNetwork

ENCODER, MAPPING = "face encoder (msid.pt)", "mapping network (mapping.pt)"
_Network = TypeVar("_Network", bound=nn.Module)


def load_encoder(path: str | Path) -> MSID:
    """msid.pt, or the same tensors as safetensors: float32 on the CPU, frozen, in eval mode.

    No code in the file is run. Raises FlashFaceError for any other file.
    """
    return build_encoder(Path(path).name, read_state_dict(path, published="msid.pt")[0])


def load_mapping(path: str | Path) -> MappingNetwork:
    """mapping.pt, or the same tensors as safetensors: float32 on the CPU, frozen, in eval mode.

    Widths follow from the file, so that a network trained on another face embedding loads alike.
    No code in the file is run. Raises FlashFaceError for any other file.
    """
    return build_mapping(Path(path).name, read_state_dict(path, published="mapping.pt")[0])


def build_encoder(name: str, state: Mapping[str, torch.Tensor]) -> MSID:
    """As load_encoder, of tensors that were read from the file called `name`."""
    _check_kind(name, state, ENCODER)
    return _build(name, state, ENCODER, MSID)


def build_mapping(name: str, state: Mapping[str, torch.Tensor]) -> MappingNetwork:
    """As load_mapping, of tensors that were read from the file called `name`."""
    _check_kind(name, state, MAPPING)
    keys = ("null_exp", "i2t_first.layers.0.0.weight", "i2t_first.fc_out.weight")
    shapes = [tuple(state[key].shape) for key in keys if key in state]
    sizes = (MSID.width,)  # as published, to name what another file lacks
    if [len(shape) for shape in shapes] == [1, 2, 2]:
        (expression,), (hidden, inputs), (text, _) = shapes
        sizes = (max(inputs - expression, 1), expression, hidden, text)
    return _build(name, state, MAPPING, lambda: MappingNetwork(*sizes))


def _check_kind(name: str, state: Mapping[str, torch.Tensor], wanted: str) -> None:
    """The two files are easily swapped."""
    kinds = {ENCODER: "cls_token", MAPPING: "null_exp"}
    for kind, key in kinds.items():
        if kind != wanted and key in state and kinds[wanted] not in state:
            raise FlashFaceError(
                f"{name} is Face2Diffusion's {kind}, expected its {wanted}; choose the other file."
            )


def _build(
    name: str, state: Mapping[str, torch.Tensor], wanted: str, make: Callable[[], _Network]
) -> _Network:
    with torch.device("meta"):  # neither memory nor time for values that the file replaces
        network = make()
    if problem := _difference(state, network.state_dict()):
        raise FlashFaceError(
            f"{name} is not Face2Diffusion's {wanted}: {problem}; "
            "use the published file, or a copy of it as safetensors."
        )
    network.to_empty(device="cpu").load_state_dict(state)
    return network.requires_grad_(False).eval()


def _difference(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> str | None:
    if missing := expected.keys() - state.keys():
        return f"it lacks {some(missing)}"
    if unknown := state.keys() - expected.keys():
        return f"it has tensors that do not belong there, {some(unknown)}"
    for key, tensor in expected.items():
        got = state[key]
        if got.shape != tensor.shape:
            return f"{key} has shape {tuple(got.shape)}, expected {tuple(tensor.shape)}"
        if tensor.is_floating_point() and not got.is_floating_point():
            return f"{key} holds {str(got.dtype).removeprefix('torch.')}, expected floating point"
    return None
