"""What an evaluation leaves behind: a table for people, one for machines, plots and a grid."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .evaluation import Evaluation, Measures
from .pictures import save_grid

TITLES = {"": "FlashFace", "_without": "without", "_of_drawings": "true drawings"}
GRID_PEOPLE = 8


def save_report(
    folder: Path, evaluation: Evaluation, result: dict, sweeps: dict[str, list[Measures]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in result if f"{name}_without" in result]
    titles = {end: title for end, title in TITLES.items() if names[0] + end in result}
    with open(folder / "measures.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "value", *names])
        for end, title in titles.items():
            writer.writerow([title, "", *(result.get(name + end, "") for name in names)])
        for setting, rows in sweeps.items():
            for row in rows:
                writer.writerow([setting, row[setting], *(row[name] for name in names)])
    lines = [f"{result['people']} people x {result['prompts']} prompts, seed {result['seed']}."]
    lines.append(f"{result['seconds_per_picture']:.2f} s per picture.\n")
    lines += [f"{remark}\n" for remark in evaluation.remarks]
    rows = [[_told(name), *(result.get(name + end) for end in titles)] for name in names]
    lines += _table(["measure", *titles.values()], rows)
    for setting, found in sweeps.items():
        rows = [
            [f"{row[setting]:g}", *(row[name] for name in evaluation.compared)] for row in found
        ]
        lines += _table([_told(setting), *map(_told, evaluation.compared)], rows)
        _plot(folder / f"sweep_{setting}.png", setting, found, evaluation)
    (folder / "measures.md").write_text("\n".join(lines))
    _grid(folder / "grid.png", evaluation)


def _told(name: str) -> str:
    return name.replace("_", " ")


def _table(head: list[str], rows: list[list]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for first, *values in rows:
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        lines.append("| " + " | ".join([first, *cells]) + " |")
    return [*lines, ""]


def _plot(path: Path, setting: str, rows: list[Measures], evaluation: Evaluation) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in evaluation.compared:
        values = [row[name] for row in rows]
        axes.plot([row[setting] for row in rows], values, marker="o", label=_told(name))
    axes.axvline(_default(setting, evaluation), color="grey", linestyle=":", label="default")
    axes.set(xlabel=_told(setting), ylabel="fraction of 1", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _default(setting: str, evaluation: Evaluation) -> float:
    if setting == "references":
        return len(evaluation.crops(0))
    return getattr(evaluation.settings.guidance, setting)


def _grid(path: Path, evaluation: Evaluation) -> None:
    """With FlashFace, and the first prompt without."""
    each, people = len(evaluation.labels), range(min(GRID_PEOPLE, evaluation.people))
    rows = [[*evaluation.pictures[n * each :][:each], evaluation.plain[n * each]] for n in people]
    photos = [evaluation.crops(n) for n in people]
    save_grid(path, photos, rows, [*evaluation.labels, "without"])
