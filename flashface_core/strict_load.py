"""The one way in which tensors of a file become those of a network: all of them, or an error."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn

from .errors import FlashFaceError


class Difference(NamedTuple):
    """What keeps a file's tensors from being a network's.

    shapes: key, shape in the file, shape in the network. whole_numbers: key and dtype in the file
    of what is to be floating point. Both in the order of the network.
    """

    missing: list[str]
    unexpected: list[str]
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    whole_numbers: list[tuple[str, str]]


class _Expected(NamedTuple):
    """shape: None where the module does not say. dtype: None, as in the file.

    is_pending: the module makes the tensor when it is loaded.
    """

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    is_pending: bool


def load_strictly(
    module: nn.Module,
    state: Mapping[str, torch.Tensor],
    explain: Callable[[Difference], str],
    assign: bool = False,
) -> None:
    """Nothing is loaded unless everything fits. A module on the meta device comes to the CPU.

    explain: the error's message. assign: take over the tensors themselves, with their dtype; else
    they are copied, in the dtype that the module was made with. Raises FlashFaceError.
    """
    expected = _expected(module)
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    shapes, whole_numbers = [], []
    for key, wanted in expected.items():
        if key not in state:
            continue
        got = state[key]
        if wanted.shape is not None and tuple(got.shape) != wanted.shape:
            shapes.append((key, tuple(got.shape), wanted.shape))
        is_floating = wanted.dtype is None or wanted.dtype.is_floating_point
        if is_floating and not got.is_floating_point():
            whole_numbers.append((key, str(got.dtype).removeprefix("torch.")))
    if missing or unexpected or shapes or whole_numbers:
        raise FlashFaceError(
            explain(Difference(sorted(missing), sorted(unexpected), shapes, whole_numbers))
        )
    if not assign:
        # A pending tensor would become a copy of the file's, in the file's dtype.
        state = {
            key: tensor.to(dtype=expected[key].dtype) if expected[key].is_pending else tensor
            for key, tensor in state.items()
        }
        if any(parameter.is_meta for parameter in module.parameters()):
            module.to_empty(device="cpu")
    module.load_state_dict(state, assign=assign)


def _expected(module: nn.Module) -> dict[str, _Expected]:
    """Every tensor that the module takes.

    Newer cores' layers have no weight before they are loaded, and state_dict() does not list it
    then. Loading does: what is missing from nothing is everything. Asked of layers alone, as some
    networks of core's leave out for good what a file does not have.
    """
    expected = {
        key: _Expected(tuple(tensor.shape), tensor.dtype, is_pending=False)
        for key, tensor in module.state_dict().items()
    }
    for path, layer in module.named_modules():
        if next(layer.children(), None) is not None:
            continue
        with torch.device("meta"):  # where a layer puts something in the place of what is missing
            missing = layer.load_state_dict({}, strict=False).missing_keys
        for name in missing:
            key = f"{path}.{name}" if path else name
            if key not in expected:
                # The dtype that core was asked for, as its layers keep it until they are loaded.
                dtype = getattr(layer, f"{name}_comfy_model_dtype", None)
                expected[key] = _Expected(_declared_shape(layer, name), dtype, is_pending=True)
    return expected


def _declared_shape(layer: nn.Module, name: str) -> tuple[int, ...] | None:
    if isinstance(layer, nn.Linear):
        rows = (layer.out_features,)
        return (*rows, layer.in_features) if name == "weight" else rows
    tensor = getattr(layer, name, None)  # what it put in its place
    return None if tensor is None else tuple(tensor.shape)
