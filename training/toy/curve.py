"""How the training went, as a picture: python -m training.toy.curve FOLDER."""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOSSES, PAIRED = "losses.csv", "paired_losses.csv"
NAMES = {"own": "photos of the person", "none": "no photo", "other": "photos of somebody else"}


def plot_curve(folder: Path) -> None:
    """losses.csv and paired_losses.csv in the folder become curve.png."""
    losses, paired = (_columns(folder / name) for name in (LOSSES, PAIRED))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(losses["step"], losses["loss"], linewidth=0.8)
    left.set(title="training loss", xlabel="step", yscale="log")
    for name, label in NAMES.items():
        right.plot(paired["step"], paired[name], marker="o", label=label)
    right.set(title="unseen people, face region, t = 600", xlabel="step", yscale="log")
    right.legend(loc="center right", bbox_to_anchor=(1, 0.65))
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    figure.savefig(folder / "curve.png", dpi=100)
    plt.close(figure)


def _columns(path: Path) -> dict[str, list[float]]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


if __name__ == "__main__":
    plot_curve(Path(sys.argv[1]))
