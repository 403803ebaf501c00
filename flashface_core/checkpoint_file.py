"""Reading checkpoint files as data, and writing safetensors tensor by tensor."""

import json
import pickle
import struct
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import safetensors
import torch

from .errors import FlashFaceError

SAFETENSORS_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def read_state_dict(
    path: str | Path, published: str = "flashface.ckpt"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (memory-mapped where the format allows) and metadata of a checkpoint file.

    published: the file that messages tell to use. No code in the file is run. Raises
    FlashFaceError for a file that is damaged, unsafe or no checkpoint at all.
    """
    path = Path(path)
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
            f"loading would run code ({_first_line(error)}). Nothing in it was run; "
            f"use a safetensors file, or the published {published}."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise FlashFaceError(
            f"{path.name} is damaged or incomplete ({_first_line(error)}); "
            "compare its size with the published one and download it again."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


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
