"""Files of weights: read as data, written tensor by tensor, and loaded whole or not at all."""

import json
import pickle
import secrets
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from .errors import FlashFaceError, first_line

SAFETENSORS_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def read_state_dict(
    path: str | Path, published: str = "flashface.ckpt"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (memory-mapped where the format allows) and metadata of a checkpoint file.

    published: the file that messages tell to use. No code in the file is run. Raises
    FlashFaceError for a file that is missing, damaged, unsafe or no checkpoint at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FlashFaceError(f"There is no file {path}; give the path of a file of weights.")
    if path.suffix.lower() in (".safetensors", ".sft"):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise FlashFaceError(
                f"{path.name} is not a whole safetensors file ({error}); copy or download it again."
            ) from error
    state = _read_pickle(path, published)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise FlashFaceError(
            f"{path.name} holds {type(state).__name__}, expected a dictionary of tensors; "
            f"use the published {published} or a file made by tools/convert.py."
        )
    return state, {}


def _read_pickle(path: Path, published: str):
    # As core's load_torch_file(safe_load=True), of which this part of the pack knows nothing.
    load_weights = partial(torch.load, path, map_location="cpu", weights_only=True)
    try:
        try:
            return load_weights(mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):  # a file of the format before torch 1.6 cannot be mapped
                raise
            return load_weights()
    except pickle.UnpicklingError as error:
        raise FlashFaceError(
            f"{path.name} was refused: it is not a plain file of weights, or holds objects whose "
            f"loading would run code ({first_line(error)}). Nothing in it was run; "
            f"use a safetensors file, or the published {published}."
        ) from error
    except Exception as error:  # torch stumbles in many ways over what is no such file
        raise FlashFaceError(
            f"{path.name} is damaged or incomplete ({first_line(error)}); "
            "compare its size with the published one and download it again."
        ) from error


def save_whole(
    tensors: Mapping[str, torch.Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    replace: bool = True,
) -> None:
    """A safetensors file that appears under its name only when it is complete.

    Raises OSError; without `replace` FileExistsError for a name that is taken, also where another
    process takes it meanwhile.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        unfinished.touch()  # its error has a number, that of safetensors words alone
        save_file(contiguous, unfinished, None if metadata is None else dict(metadata))
        if replace:
            unfinished.replace(path)
        else:
            _take_name(unfinished, path)
    except SafetensorError as error:  # what it says of a full disk, or of a folder not our own
        raise OSError(str(error)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _take_name(unfinished: Path, path: Path) -> None:
    try:
        path.hardlink_to(unfinished)  # fails where there is a file, unlike a change of name
    except FileExistsError:
        raise
    except OSError:  # a disk without such links
        with path.open("xb"):
            pass
        unfinished.replace(path)


def write_safetensors(
    path: str | Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    dtype: torch.dtype,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file holding one tensor in memory at a time.

    shapes: every key in the order in which `tensors` yields it. The file appears under its name
    only when it is complete. Raises ValueError when `tensors` does not match `shapes`.
    """
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for key, shape in shapes.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        span = [offset, offset + size]
        header[key] = {
            "dtype": SAFETENSORS_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": span,
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    unfinished = Path(path).with_name(Path(path).name + ".part")
    try:
        with open(unfinished, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            expected = iter(shapes.items())
            for key, tensor in tensors:
                if (key, tuple(tensor.shape)) != next(expected, None):
                    raise ValueError(
                        f"{key} {tuple(tensor.shape)} is not the next tensor announced"
                    )
                data = tensor.to(dtype).contiguous().flatten().view(torch.uint8)
                file.write(data.numpy().data)
            if (rest := next(expected, None)) is not None:
                raise ValueError(f"{rest[0]} was announced and not written")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


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


def shorten(names) -> str:
    """The first few names and how many there are, for messages."""
    names = sorted(names)
    if not names:
        return "none"
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
