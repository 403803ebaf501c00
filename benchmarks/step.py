"""What one guided sampling step costs, in multiples of a plain SD1.5 step with as many rows.

    python tools/comfy.py benchmark step [--sizes 64x64 96x64] [--photos 1 4 16] [--json FILE]

Weights are made by rule in the published layout, or read from --checkpoint. Everything runs in
turn in one process; on a CPU the time is that of the processor. "operations" counts those of
matrix products, attention and convolutions, in multiples of the plain UNet's.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

from training.comfyui import find_comfyui

from .timing import BASES, ratios, run_in_turn


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    find_comfyui(options.cpu)
    import torch

    from .cases import Bench, load

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        bench: Bench = load(options.checkpoint, options.topology, options.dtype, Path(folder))
        tables = [
            measure(bench, options, size, photos)
            for size, photos in itertools.product(options.sizes, options.photos)
        ]
    report = {"machine": bench.machine(), "settings": settings(options), "tables": tables}
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/comfy.py benchmark step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(64, 64)], help="of the latents")
    parser.add_argument("--photos", type=int, nargs="+", default=[4], help="of every person")
    parser.add_argument("--rounds", type=int, default=5, help="how often every case counts")
    parser.add_argument("--cases", nargs="+", help="only those whose name contains one of these")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--checkpoint", type=Path, help="of FlashFace")
    parser.add_argument("--topology", default="sd15", choices=("sd15", "mini"), help="made by rule")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def settings(options: argparse.Namespace) -> dict:
    return {name: str(value) for name, value in vars(options).items() if value is not None}


def measure(bench, options: argparse.Namespace, size: tuple[int, int], photos: int) -> dict:
    cases = bench.cases(size, photos)
    if options.cases:
        chosen = (*BASES.values(), *options.cases)
        cases = {name: c for name, c in cases.items() if any(part in name for part in chosen)}
    run_in_turn({name: case.timing for name, case in cases.items()}, options.rounds, bench.device)
    rows = []
    for name, case in cases.items():
        base = cases[BASES[case.rows]].timing
        ratio, low, high = ratios(case.timing, base)
        rows.append(
            {
                "case": name,
                "rows": case.rows,
                "seconds": round(case.timing.median, 4),
                "ratio": round(ratio, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "operations": round(case.timing.operations / base.operations, 3),
                "photos through the ReferenceNet": case.passes,
                "peak_mib": case.timing.peak_mib and round(case.timing.peak_mib),
            }
        )
    table = {
        "height": size[0],
        "width": size[1],
        "photos": photos,
        "cache_mib_per_step": round(bench.cache_mib(photos), 1),
        "rows": rows,
    }
    show(bench, table)
    return table


def show(bench, table: dict) -> None:
    head = ", ".join(f"{name} {value}" for name, value in bench.machine().items())
    print(f"\n{head}")
    print(
        f"latents {table['height']} x {table['width']}, {table['photos']} photos of a person, "
        f"cache {table['cache_mib_per_step']} MB per step"
    )
    print(
        f"{'case':44}{'rows':>5}{'s':>9}{'x plain':>9}{'quartiles':>16}"
        f"{'operations':>12}{'photos':>8}{'MB':>7}"
    )
    for row in table["rows"]:
        low, high = row["quartiles"]
        print(
            f"{row['case']:44}{row['rows']:>5}{row['seconds']:>9.3f}{row['ratio']:>9.3f}"
            f"{f'{low:.3f}-{high:.3f}':>16}{row['operations']:>12.3f}"
            f"{row['photos through the ReferenceNet']:>8}"
            f"{'' if row['peak_mib'] is None else row['peak_mib']:>7}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
