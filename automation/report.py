"""What both commands end with: scores, the table, contact sheets and a summary."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .jobs import ID_LETTERS, Job
from .problems import ListError
from .results import Results, writing
from .runner import Tally
from .scores import Models, Scorer, people_of, score_all, shown
from .sheets import draw_sheets
from .summary import summarize

log = logging.getLogger("flashface.automation")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-pack", type=Path, metavar="FOLDER", help="of InsightFace: likeness, identification"
    )
    parser.add_argument(
        "--looks", action="store_true", help="without one, compare edges and colours"
    )
    parser.add_argument(
        "--clip", type=Path, metavar="FOLDER", help="with a CLIP model: agreement with the prompt"
    )


def scoring(options: argparse.Namespace) -> Models:
    for name, folder in (("--model-pack", options.model_pack), ("--clip", options.clip)):
        if folder is not None and not folder.is_dir():
            raise ListError(f"{name} is {folder}, which is no folder.")
    return Models(options.model_pack, options.looks, options.clip)


def finish(
    jobs: Sequence[Job], results: Results, tally: Tally | None, models: Models
) -> list[dict[str, Any]]:
    """The rows of the table."""
    rows = results.rows(jobs)
    if models.any:
        add_scores(rows, jobs, results, models)
    return write(rows, jobs, results, tally, models.remarks)


def add_scores(
    rows: Sequence[dict[str, Any]], jobs: Sequence[Job], results: Results, models: Models
) -> None:
    there = [
        (row, shown(job, results)) for row, job in zip(rows, jobs, strict=True) if "file" in row
    ]
    scorer = Scorer(models, people_of(jobs))
    scores = score_all(scorer, [picture for _, picture in there])
    bar = tqdm(zip(there, scores, strict=True), total=len(there), desc="Scores", unit="picture")
    for (row, _), found in bar:
        row.update(found)


def write(
    rows: list[dict[str, Any]],
    jobs: Sequence[Job],
    results: Results,
    tally: Tally | None,
    remarks: Iterable[str],
) -> list[dict[str, Any]]:
    results.write_table(rows)
    with writing(results.folder / "sheets"):
        draw_sheets(jobs, results)
    text = summarize(rows, tally, [*remarks, *_others(jobs, results)])
    summary = results.folder / "summary.txt"
    with writing(summary):
        summary.write_text(text, encoding="utf-8")
    log.info("%s%s", text, results.folder)
    return rows


def _others(jobs: Iterable[Job], results: Results) -> list[str]:
    """Pictures stay when their rows change or leave the list: they may come back."""
    ids = {job.id for job in jobs}
    count = sum(path.stem[:ID_LETTERS] not in ids for path in results.pictures.glob("*.png"))
    return [f"{count} more in pictures/ are of rows that the list has no longer."] if count else []
