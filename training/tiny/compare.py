"""All systems on the same people, prompts, noise and sampler: one table.

    python -m training.tiny.compare --people 20 --seed 1 --json FILE --out FOLDER
    python -m training.tiny.compare --claims --without-cgdr FILE --json FILE

Every row of the table is the shipped tiny model of one system, run through what its nodes call;
"copied expression": of the pictures made from a single photo, in a text that asks for another
expression than that of the photo, how many show the photo's. FaceStudio and Face Fusion have no
place for the face, so nobody's place is given.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from training.comfyui import find_comfyui
from training.pictures import save_grid

from .pictures import draw_pictures

log = logging.getLogger("flashface.training")

SHOWN = 6  # people in the grid
SHORT = {
    "Face Fusion, training-free": "Fusion, untrained",
    "FaceStudio, style image": "FaceStudio, image",
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
    "copied_expression",
    "seconds_per_picture",
    "trained_parameters",
)


def measure(evaluation, system) -> tuple[dict[str, float], Tensor]:
    """The row of one system, and its pictures of the cast."""
    each = len(evaluation.labels)
    start = time.monotonic()
    pictures = draw_pictures(
        evaluation, system, 4, lambda person: [*range(person * each, (person + 1) * each)]
    )
    seconds = (time.monotonic() - start) / len(pictures)
    found = evaluation.measure(pictures)
    found["copied_expression"] = copied_expression(evaluation, system)
    found |= {"seconds_per_picture": seconds, "trained_parameters": system.parameters}
    # With one person there may be no mark to recover.
    return {name: found[name] for name in COLUMNS if found[name] == found[name]}, pictures


def copied_expression(evaluation, system) -> float:
    """From one photo each, of the adults whose text asks for another expression than it has."""
    cast, probes, each = evaluation.cast, evaluation.probes, len(evaluation.labels)
    adults = [i for i, age in enumerate(evaluation.labels) if age == "adult"]
    pictures = draw_pictures(
        evaluation, system, 1, lambda person: [person * each + i for i in adults]
    )
    rows = torch.tensor([n * each + i for n in range(evaluation.people) for i in adults])
    with torch.no_grad():
        _, values = probes.read(pictures, probes.find(pictures))
        _, photos = probes.look(cast.crops[:, 0])
    photo = photos["expression"].argmax(1).repeat_interleave(len(adults))
    differ = photo != cast.truth["expression"][rows]
    return (values["expression"] == photo)[differ].float().mean().item()


def markdown(table: dict[str, dict[str, float]]) -> str:
    """Measures down, systems across."""
    lines = ["| measure | " + " | ".join(table) + " |", "| --- |" + " ---: |" * len(table)]
    for name in COLUMNS:
        form = "{:,}" if name == "trained_parameters" else "{:.3f}"
        told = [form.format(row[name]) if name in row else "" for row in table.values()]
        lines.append("| " + " | ".join([name.replace("_", " "), *told]) + " |")
    return "\n".join(lines) + "\n"


def save_pictures(path: Path, evaluation, drawn: dict[str, Tensor]) -> None:
    """A row per person: photos, then every system's picture of a scene, another age in each row."""
    each = len(evaluation.labels)
    people = range(min(SHOWN, evaluation.people))
    kinds = list(dict.fromkeys(evaluation.labels))
    numbers = [n * each + evaluation.labels.index(kinds[n % len(kinds)]) for n in people]
    rows = [[pictures[number] for pictures in drawn.values()] for number in numbers]
    save_grid(path, [evaluation.crops(n) for n in people], rows, [SHORT.get(n, n) for n in drawn])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder of tiny models; default: the shipped")
    parser.add_argument("--systems", nargs="+", help="default: all")
    parser.add_argument("--claims", action="store_true", help="what single systems claim, instead")
    parser.add_argument("--without-cgdr", type=Path, help="with --claims: a mapping network")
    parser.add_argument("--json", type=Path, help="file for an object of numbers per system")
    parser.add_argument("--out", type=Path, help="folder for the table and a grid of pictures")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.flashface.tiny import FOLDER

    from . import claims
    from .evaluation import ToyEvaluation
    from .systems_under_test import Systems

    evaluation = ToyEvaluation(options.people, options.seed, options.models)
    systems = Systems(evaluation, options.models or FOLDER)
    if options.claims:
        found = claims.all_of(evaluation, systems, options.without_cgdr)
        for name, value in found.items():
            log.info("%36s  %.3f", name, value)
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
        return
    makers = systems.makers
    table, drawn = {}, {}
    for name in options.systems or makers:
        table[name], drawn[name] = measure(evaluation, makers[name]())
        told = ", ".join(f"{key} {value:.3f}" for key, value in table[name].items())
        log.info("%s: %s", name, told)
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "systems.md").write_text(markdown(table))
        save_pictures(options.out / "systems.png", evaluation, drawn)


if __name__ == "__main__":
    main()
