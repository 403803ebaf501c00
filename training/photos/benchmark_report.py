"""What a benchmark leaves behind: a table with our row under the paper's, and every picture's
measures."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from training.identity_measures import bootstrap_interval, means

from .benchmark import Score
from .cases import Subset

TOLD = {  # by the paper of one person
    "sim_gt": "Sim(GT)",
    "sim_ref": "Sim(Ref)",
    "copy_paste": "Copy-Paste",
    "clip": "CLIP-T",
}
MEASURES = TOLD | {"blending_gt": "Blending(GT)", "blending_ref": "Blending(Ref)"}
# Single person, arXiv 2510.14975: Sim(GT), Sim(Ref), Copy-Paste, CLIP-T.
PAPER = {
    "InstantID": (0.464, 0.734, 0.337, 0.295),
    "WithAnyone": (0.460, 0.578, 0.144, 0.313),
    "PuLID-Flux": (0.452, 0.705, 0.315, 0.305),
    "UniPortrait (SD1.5)": (0.447, 0.677, 0.265, 0.319),
    "InfiniteYou": (0.439, 0.630, 0.233, 0.328),
    "GPT-4o": (0.425, 0.579, 0.178, 0.311),
}
REMARKS = [
    "Cosines are means over the pictures that show a face, of which the largest counts, with the "
    "95 % interval of a bootstrap over people; CLIP-T is of all pictures, by ViT-L/14.",
    "The paper's own rows were made otherwise: its script has ArcFace, FaceNet and AdaFace, leaves "
    "outliers out, and takes CLIP-T by ViT-B/16. Compare rows of one recognition model first.",
]
SEVERAL = (
    "With several people all faces count: they are matched to those of the true picture, and to "
    "the references, so that the cosines are largest, and a picture's cosine is the mean of its "
    "matched faces. As in the paper's script a face that is missing lowers none of these, so see "
    "`right number`: the share of pictures with as many faces as people. Copy-Paste is of pictures "
    "with as many faces as the true picture and the references, Blending the mean of all cosines "
    "to the faces of others. The paper's rows above are of one person."
)


class Row(NamedTuple):
    """Measures that there are, by name: mean, and the interval around it.

    faces, right_number: shares of the pictures, with a face and with as many as people.
    """

    system: str
    subset: Subset
    recognition: str
    pictures: int
    faces: float
    right_number: float
    measures: dict[str, tuple[float, float, float]]

    @property
    def name(self) -> str:
        return f"{self.system}, {self.subset.label}, {self.recognition}"


def rows_of(system: str, subset: Subset, scores: Sequence[Score]) -> list[Row]:
    """One for each recognition model."""
    rows = []
    for recognition in dict.fromkeys(score.recognition for score in scores):
        own = [score for score in scores if score.recognition == recognition]
        measures = {}
        for name in MEASURES:
            known = [score for score in own if not math.isnan(getattr(score, name))]
            if known:
                values = torch.tensor([getattr(score, name) for score in known])
                interval = bootstrap_interval(values, [score.person for score in known])
                measures[name] = (values.mean().item(), *interval)
        faces = sum(score.face for score in own) / len(own)
        right = sum(score.faces == score.people for score in own) / len(own)
        rows.append(Row(system, subset, recognition, len(own), faces, right, measures))
    return rows


def flat(rows: Sequence[Row]) -> dict[str, float | int]:
    """Numbers of all rows by names such as arcface_1_sim_gt and arcface_2_people_sim_gt."""
    found: dict[str, float | int] = {}
    for row in rows:
        start = f"{row.recognition.lower()}_{row.subset.key}"
        found |= {f"{start}_pictures": row.pictures, f"{start}_face_found": row.faces}
        found[f"{start}_right_number"] = row.right_number
        for name, (mean, low, high) in row.measures.items():
            found |= {f"{start}_{name}": mean, f"{start}_{name}_low": low}
            found[f"{start}_{name}_high"] = high
        found |= {f"{start}_{name}": value for name, value in _combined(row).items()}
    return found


def _combined(row: Row) -> dict[str, float]:
    """Face2Diffusion's means of identity and text, where the person's true picture is unknown."""
    known = row.measures
    if "sim_gt" in known or not {"sim_ref", "clip"} <= known.keys():
        return {}
    return means(known["sim_ref"][0], known["clip"][0])


def save_benchmark(
    folder: Path, lines: Sequence[str], scores: dict[Subset, Sequence[Score]]
) -> None:
    """lines: of `table`."""
    # Names of people, whatever the system writes; those that are no UTF-8 as they are.
    path = folder / "pictures.csv"
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["references", *Score._fields])
        for subset, of_them in scores.items():
            writer.writerows([subset.references, *score] for score in of_them)
    (folder / "measures.md").write_text("\n".join(lines) + "\n")


def table(rows: Sequence[Row], with_paper: bool, left_out: Sequence[str] = ()) -> list[str]:
    """Lines of Markdown. with_paper: the rows of MultiID-Bench's paper come first. left_out:
    sentences on what has no row."""
    several = any(row.subset.people != (1,) for row in rows)
    always = TOLD if with_paper else {}
    names = [n for n in MEASURES if n in always or any(n in row.measures for row in rows)]
    ends = ["right number"] * several + ["face found", "pictures"]
    combined = list(dict.fromkeys(name for row in rows for name in _combined(row)))
    head = [*(MEASURES[name] for name in names), *(name.replace("_", " ") for name in combined)]
    lines = [f"| system | {' | '.join([*head, *ends])} |"]
    lines.append("| --- |" + " ---: |" * (len(head) + len(ends)))
    if with_paper:
        for system, numbers in PAPER.items():
            told = [f"{number:.3f}" for number in numbers]
            told += [""] * (len(head) + len(ends) - len(told))
            lines.append(f"| {system} | {' | '.join(told)} |")
    for row in rows:
        cells = [_cell(row.measures.get(name)) for name in names]
        together = _combined(row)
        cells += [f"{together[name]:.3f}" if name in together else "" for name in combined]
        cells += [f"{row.right_number:.3f}"] * several
        cells += [f"{row.faces:.3f}", str(row.pictures)]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    remarks = [*(REMARKS if with_paper else REMARKS[:1]), *[SEVERAL] * several, *left_out]
    return [*lines, "", *(line for remark in remarks for line in (remark, ""))][:-1]


def _cell(value: tuple[float, float, float] | None) -> str:
    if value is None:
        return ""
    mean, low, high = value
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
