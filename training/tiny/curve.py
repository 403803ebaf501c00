"""How the training went, as a picture: python -m training.tiny.curve FOLDER."""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOSSES, PAIRED = "losses.csv", "paired_losses.csv"
NAMES = {"own": "photos of the person", "none": "no photo", "other": "photos of somebody else"}


def plot_curve(folder: Path) -> None:
    """losses.csv, and paired_losses.csv where there is one, become curve.png in the folder."""
    losses, has_paired = _columns(folder / LOSSES), (folder / PAIRED).exists()
    count = 2 if has_paired else 1
    figure, panels = plt.subplots(
        1, count, figsize=(5 * count, 4), layout="constrained", squeeze=False
    )
    left, right = panels[0, 0], panels[0, -1]
    left.plot(losses["step"], losses["loss"], linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    if has_paired:
        paired = _columns(folder / PAIRED)
        for name, label in NAMES.items():
            right.plot(paired["step"], paired[name], marker="o", label=label)
        right.set(title="unseen people, face region, t = 600", xlabel="step", yscale="log")
        right.legend(loc="center right", bbox_to_anchor=(1, 0.65))
    for axes in panels.flat:
        axes.grid(alpha=0.3, which="both")
    figure.savefig(folder / "curve.png", dpi=100)
    plt.close(figure)


def _columns(path: Path) -> dict[str, list[float]]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


if __name__ == "__main__":
    plot_curve(Path(sys.argv[1]))
