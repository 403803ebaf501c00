"""All systems on the same people, prompts, noise and sampler: one table.

    python -m training.tiny.compare --people 20 --seed 1 --json FILE --out FOLDER
    python -m training.tiny.compare --claims --cgdr FILE FILE --json FILE

Every row of the table is the shipped tiny model of one system, run through what its nodes call;
"copied expression": of the pictures made from a single photo, in a text that asks for another
expression than that of the photo, how many show the photo's; copied pose likewise. FaceStudio and
Face Fusion have no place for the face, so nobody's place is given.
"""

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from training.comfyui import find_comfyui
from training.command_line import file_to_write, folder_to_read, folder_to_write, write_json
from training.pictures import save_grid

from .measure import copying
from .pictures import draw_pictures
from .together import NEIGHBOURS

log = logging.getLogger("flashface.training")

SHOWN = 6  # people in the grid
SHORT = {
    "Face Fusion, training-free": "Fusion, untrained",
    "FaceStudio, style image": "FaceStudio, image",
    "training-free reference": "own attention",
}
COLUMNS = (
    "similarity",
    "identification",
    "text_accuracy",
    "background",
    "expression",
    "child_age",
    "child_identification",
    "elder_age",
    "elder_identification",
    "mark_recovery",
    "harmonic_mean",
    "geometric_mean",
    "similarity_to_truth",
    "copied_expression",
    "copied_pose",
    "one_photo_similarity_to_truth",
    "one_photo_similarity",
    "copy_paste",
    "seconds_per_picture",
    "trained_parameters",
)


def measure(evaluation, system) -> tuple[dict[str, float | list[float]], Tensor]:
    """The row of one system, with a `NAME_interval` where there is one, and its pictures of the
    cast."""
    each = len(evaluation.labels)
    start = time.monotonic()
    pictures = draw_pictures(
        evaluation, system, 4, lambda person: [*range(person * each, (person + 1) * each)]
    )
    seconds = (time.monotonic() - start) / len(pictures)
    found = evaluation.measure(pictures) | from_one_photo(evaluation, system)
    found |= {"seconds_per_picture": seconds, "trained_parameters": system.parameters}
    # With one person there may be no mark to recover.
    row: dict[str, float | list[float]] = {
        name: found[name] for name in COLUMNS if found[name] == found[name]
    }
    for name, interval in evaluation.intervals(pictures).items():
        if name in row:
            row[f"{name}_interval"] = [round(end, 4) for end in interval]
    return row, pictures


def from_one_photo(evaluation, system) -> dict[str, float]:
    """Of the adults: what a picture copies of its photo beside the person."""
    each = len(evaluation.labels)
    adults = [i for i, age in enumerate(evaluation.labels) if age == "adult"]
    pictures = draw_pictures(
        evaluation, system, 1, lambda person: [person * each + i for i in adults]
    )
    rows = torch.tensor([n * each + i for n in range(evaluation.people) for i in adults])
    copied = copying(pictures, rows, evaluation.cast, evaluation.probes)
    return {
        "copied_expression": copied.expression,
        "copied_pose": copied.pose,
        "one_photo_similarity": copied.photo,
        "one_photo_similarity_to_truth": copied.truth,
        "copy_paste": copied.copy_paste,
    }


def markdown(table: dict[str, dict]) -> str:
    """Measures down, systems across."""
    lines = ["| measure | " + " | ".join(table) + " |", "| --- |" + " ---: |" * len(table)]
    for name in COLUMNS:
        told = [_cell(row, name) for row in table.values()]
        lines.append("| " + " | ".join([name.replace("_", " "), *told]) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict, name: str) -> str:
    if name not in row:
        return ""
    if name == "trained_parameters":
        return f"{row[name]:,}"
    interval = row.get(f"{name}_interval")
    return f"{row[name]:.3f}" + (f" ({interval[0]:.2f}-{interval[1]:.2f})" if interval else "")


def plot(path: Path, table: dict[str, dict]) -> None:
    """Who it is against what was asked for: a point per system."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name, row in table.items():
        x, y = row["text_accuracy"], row["identification"]
        ends = [
            row.get(f"{key}_interval", [v, v])
            for key, v in (("text_accuracy", x), ("identification", y))
        ]
        errors = [
            [[max(0.0, v - low)], [max(0.0, high - v)]]
            for v, (low, high) in zip((x, y), ends, strict=True)
        ]
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], marker="o", capsize=3, label=name)
    axes.set(xlabel="text obeyed", ylabel="identified among 50", xlim=(0, 1.03), ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def save_pictures(path: Path, evaluation, drawn: dict[str, Tensor]) -> None:
    """A row per person: photos, then every system's picture of a scene, another age in each row."""
    each = len(evaluation.labels)
    people = range(min(SHOWN, evaluation.people))
    kinds = list(dict.fromkeys(evaluation.labels))
    numbers = [n * each + evaluation.labels.index(kinds[n % len(kinds)]) for n in people]
    rows = [[pictures[number] for pictures in drawn.values()] for number in numbers]
    save_grid(path, [evaluation.crops(n) for n in people], rows, [SHORT.get(n, n) for n in drawn])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--models", type=folder_to_read, help="of tiny models; default: the shipped"
    )
    parser.add_argument("--systems", nargs="+", help="default: all")
    parser.add_argument("--claims", action="store_true", help="what single systems claim, instead")
    cgdr = "what CGDR changes, instead: mapping networks of one recipe with it and without"
    parser.add_argument("--cgdr", type=Path, nargs=2, metavar=("WITH", "WITHOUT"), help=cgdr)
    parser.add_argument(
        "--json", type=file_to_write, help="file for an object of numbers per system"
    )
    parser.add_argument(
        "--out", type=folder_to_write, help="folder for the table and a grid of pictures"
    )
    options = parser.parse_args(arguments)
    if (options.claims or options.cgdr) and options.people > NEIGHBOURS:
        parser.error(
            f"--people is {options.people}; with --claims or --cgdr give {NEIGHBOURS} or fewer"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.flashface.tiny import FOLDER

    from . import claims
    from .evaluation import ToyEvaluation
    from .systems_under_test import Systems

    evaluation = ToyEvaluation(options.people, options.seed, options.models)
    systems = Systems(evaluation, options.models or FOLDER)
    if options.claims or options.cgdr:
        found = claims.all_of(evaluation, systems) if options.claims else {}
        if options.cgdr:
            found |= claims.class_guidance(evaluation, systems, *options.cgdr)
        for name, value in found.items():
            log.info("%36s  %.3f", name, value)
        if options.json:
            write_json(options.json, found)
        return
    makers = systems.makers
    if unknown := [name for name in options.systems or () if name not in makers]:
        parser.error(f"--systems has {unknown[0]!r}; there are {', '.join(makers)}")
    table, drawn = {}, {}
    for name in options.systems or makers:
        table[name], drawn[name] = measure(evaluation, makers[name]())
        told = ", ".join(f"{k} {v:.3f}" for k, v in table[name].items() if isinstance(v, float))
        log.info("%s: %s", name, told)
    if options.json:
        write_json(options.json, table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "systems.md").write_text(markdown(table))
        plot(options.out / "systems_plot.png", table)
        save_pictures(options.out / "systems.png", evaluation, drawn)


if __name__ == "__main__":
    main()
