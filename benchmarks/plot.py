"""How the cost of a step grows with photos, pixels and people.

    python -m benchmarks.plot STEP.json [STEP.json ...] --out FILE.png

The files are what `benchmark step --json` wrote; whiskers are quartiles.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KNOWN, ABOVE, FIRST, OFFICIAL, HALVES = (
    "below launch, cached",
    "above launch, cached",
    "below launch, first run",
    "official way, below launch",
    "below launch, two people in halves, cached",
)
LABELS = {
    KNOWN: "below launch, known photos",
    ABOVE: "above launch, known photos",
    FIRST: "below launch, first run",
    OFFICIAL: "the official way",
    HALVES: "two people, half each, known",
}


class Point(NamedTuple):
    size: tuple[int, int]
    photos: int
    ratio: float
    quartiles: tuple[float, float]


def read(paths: list[Path]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for path in paths:
        for table in json.loads(path.read_text(encoding="utf-8"))["tables"]:
            size = (table["height"], table["width"])
            for row in table["rows"]:
                point = Point(size, table["photos"], row["ratio"], tuple(row["quartiles"]))
                found.setdefault(row["case"], []).append(point)
    return found


def draw(found: dict[str, list[Point]], path: Path) -> None:
    figure, (photos, pixels, people) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    sizes = sorted({point.size for points in found.values() for point in points}, key=_pixels)
    smallest = sizes[0]
    for case in (OFFICIAL, FIRST, ABOVE, KNOWN):
        chosen = [point for point in found.get(case, []) if point.size == smallest]
        _line(photos, case, sorted((point.photos, point) for point in chosen))
    photos.set(
        xscale="log",
        xlabel=f"photos of the person ({_name(smallest)} latents)",
        ylabel="x a plain step with as many rows",
    )
    ticks = sorted({point.photos for points in found.values() for point in points})
    photos.set_xticks(ticks, [str(tick) for tick in ticks])
    photos.minorticks_off()
    usual = 4
    for axes, cases in ((pixels, (OFFICIAL, FIRST, ABOVE, KNOWN)), (people, (HALVES, KNOWN))):
        for case in cases:
            chosen = [point for point in found.get(case, []) if point.photos == usual]
            _line(axes, case, sorted((_pixels(point.size), point) for point in chosen))
        axes.set(xlabel=f"latents ({usual} photos of a person)")
        axes.set_xticks([_pixels(size) for size in sizes], [_name(size) for size in sizes])
        axes.tick_params(axis="x", labelrotation=30)
    people.set(ylim=(0.9, 1.3))
    for axes in (photos, pixels, people):
        axes.axhline(1, color="black", linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _line(axes, case: str, points: list[tuple[int, Point]]) -> None:
    if not points:
        return
    xs, ys = [x for x, _ in points], [point.ratio for _, point in points]
    low = [max(0.0, point.ratio - point.quartiles[0]) for _, point in points]
    high = [max(0.0, point.quartiles[1] - point.ratio) for _, point in points]
    axes.errorbar(xs, ys, yerr=[low, high], marker="o", capsize=3, label=LABELS[case])


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    draw(read(options.reports), options.out)


if __name__ == "__main__":
    main()
