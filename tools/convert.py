"""The published flashface.ckpt (one ~10 GB pickle) to one safetensors a third of its size.

    python tools/convert.py flashface.ckpt [--dtype fp16] [--out flashface.safetensors]

Run it with ComfyUI's Python. Aliases and the never used ref_middle are left out; tensors are read
from the file one at a time, and the result is read again and compared. Face2Diffusion's mapping.pt
and msid.pt are converted as well; these run in fp32, so --dtype fp32 changes nothing in them.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

try:
    import torch
    from tqdm import tqdm

    from flashface_core.errors import FlashFaceError
    from flashface_core.face2diffusion.files import build_encoders, build_mapping
    from flashface_core.flashface.checkpoint import read_checkpoint, used_keys
    from flashface_core.weights_file import read_state_dict, save_whole, write_safetensors
except ModuleNotFoundError as error:
    sys.exit(f"{error}; run this with the Python that runs ComfyUI, which has it.")

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Kind(NamedTuple):
    """check: raises FlashFaceError for another file, (name, state, metadata). metadata: what the
    published file does not say. folder: of ComfyUI/models."""

    check: Callable[..., Any]
    metadata: Mapping[str, str]
    folder: str


FLASHFACE = Kind(
    read_checkpoint,
    {"num_heads": "8", "reference_size": "224", "picture_size": "768"},
    "flashface",
)
MAPPING = Kind(lambda name, state, _: build_mapping(name, state), {}, "face2diffusion")
ENCODER = Kind(build_encoders, {"num_heads": "12"}, "face2diffusion")


def kind_of(state: Mapping[str, torch.Tensor]) -> Kind:
    if "null_exp" in state:
        return MAPPING
    return ENCODER if "cls_token" in state else FLASHFACE


def convert(source: Path, out: Path, dtype: torch.dtype) -> Kind:
    """Raises FlashFaceError for a source that is no whole checkpoint of a known kind, or values
    that do not fit the dtype."""
    state, metadata = read_state_dict(source, published="checkpoint")
    kind = kind_of(state)
    kind.check(source.name, state, metadata)
    metadata = {**kind.metadata, **metadata}
    if kind is FLASHFACE:
        keys = {f"{group}.{rest}": key for key, group, rest in used_keys(state)}
        shapes = {name: tuple(state[key].shape) for name, key in keys.items()}

        def tensors():
            for name, key in tqdm(keys.items(), desc=f"Writing {out.name}", unit="tensor"):
                yield name, state[key]

        write_safetensors(out, shapes, tensors(), dtype, metadata)
    else:
        keys = {key: key for key in state}
        save_whole({key: _as(dtype, state[key]).clone() for key in state}, out, metadata)
    try:
        verify(state, keys, out, dtype, kind)
    except FlashFaceError:
        out.unlink()
        raise
    return kind


def verify(state: dict, keys: dict[str, str], out: Path, dtype: torch.dtype, kind: Kind) -> None:
    """Read the written file again and compare every value."""
    written, metadata = read_state_dict(out)
    kind.check(out.name, written, metadata)
    for name, key in tqdm(keys.items(), desc="Checking", unit="tensor"):
        if not written[name].isfinite().all():
            raise FlashFaceError(f"{name} has values outside of {dtype}; use --dtype bf16.")
        if not torch.equal(written[name], _as(dtype, state[key])):
            raise FlashFaceError(f"{name} was not written as it was read; is the disk sound?")


def _as(dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
    """Counters stay whole numbers."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="flashface.ckpt, mapping.pt or msid.pt")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--out", type=Path, help="default: beside FILE, with .safetensors")
    options = parser.parse_args(arguments)
    out = options.out or options.file.with_suffix(".safetensors")
    if not options.file.is_file():
        sys.exit(f"There is no file {options.file}.")
    if out.exists() and out.samefile(options.file):
        sys.exit(f"{out} is safetensors already; name another file with --out to convert it anew.")
    if out.exists():
        sys.exit(f"{out} exists already; delete it, or name another file with --out.")
    if out.suffix != ".safetensors":
        sys.exit(f"{out} must end in .safetensors, which is the format that is written.")
    try:
        kind = convert(options.file, out, DTYPES[options.dtype])
    except FlashFaceError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{out} cannot be written ({error}); name another place with --out.")
    size = f"{out.stat().st_size / 1e9:.2f} GB"
    print(f"{out} ({size}); put it into ComfyUI/models/{kind.folder}/.")


if __name__ == "__main__":
    main(sys.argv[1:])
