"""The published flashface.ckpt (one ~10 GB pickle) to one safetensors a third of its size.

    python tools/convert.py flashface.ckpt [--dtype fp16] [--out flashface.safetensors]

Run it with ComfyUI's Python. Aliases and the never used ref_middle are left out; tensors are read
from the file one at a time, and the result is read again and compared.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

try:
    import torch
    from tqdm import tqdm

    from flashface_core.checkpoint import read_checkpoint, used_keys
    from flashface_core.checkpoint_file import read_state_dict, write_safetensors
    from flashface_core.errors import FlashFaceError
except ModuleNotFoundError as error:
    sys.exit(f"{error}; run this with the Python that runs ComfyUI, which has it.")

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
METADATA = {"num_heads": "8", "reference_size": "224", "picture_size": "768"}


def convert(source: Path, out: Path, dtype: torch.dtype) -> None:
    """Raises FlashFaceError for a source that is no whole FlashFace checkpoint, or values that
    do not fit the dtype."""
    state, metadata = read_state_dict(source)
    read_checkpoint(source.name, state, metadata)
    keys = {f"{group}.{rest}": key for key, group, rest in used_keys(state)}
    shapes = {name: tuple(state[key].shape) for name, key in keys.items()}

    def tensors():
        for name, key in tqdm(keys.items(), desc=f"Writing {out.name}", unit="tensor"):
            yield name, state[key]

    write_safetensors(out, shapes, tensors(), dtype, {**METADATA, **metadata})
    try:
        verify(state, keys, out, dtype)
    except FlashFaceError:
        out.unlink()
        raise


def verify(state: dict, keys: dict[str, str], out: Path, dtype: torch.dtype) -> None:
    """Read the written file again and compare every value."""
    written, metadata = read_state_dict(out)
    read_checkpoint(out.name, written, metadata)
    for name, key in tqdm(keys.items(), desc="Checking", unit="tensor"):
        if not written[name].isfinite().all():
            raise FlashFaceError(f"{name} has values outside of {dtype}; use --dtype bf16.")
        if not torch.equal(written[name], state[key].to(dtype)):
            raise FlashFaceError(f"{name} was not written as it was read; is the disk sound?")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the published checkpoint")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--out", type=Path, help="default: beside FILE, with .safetensors")
    options = parser.parse_args(arguments)
    out = options.out or options.file.with_suffix(".safetensors")
    if not options.file.is_file():
        sys.exit(f"There is no file {options.file}.")
    if out.exists():
        sys.exit(f"{out} exists already; delete it, or name another file with --out.")
    if out.suffix != ".safetensors":
        sys.exit(f"{out} must end in .safetensors, which is the format that is written.")
    try:
        convert(options.file, out, DTYPES[options.dtype])
    except FlashFaceError as error:
        sys.exit(str(error))
    print(f"{out} ({out.stat().st_size / 1e9:.2f} GB); put it into ComfyUI/models/flashface/.")


if __name__ == "__main__":
    main(sys.argv[1:])
