"""The folder of results: pictures/ID.png, journal.jsonl, results.parquet, sheets/, summary.txt.

A picture that is there is done, and it is there only when it is whole: after a crash nothing has to
be put right.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from .client import Drawn
from .jobs import Job
from .png import with_text

ROW_KEY = "flashface_row"
COLUMNS = {  # of the table; those of the manifest stand between person and file
    "id": pa.string(),
    "row": pa.int64(),
    "person": pa.string(),
    "file": pa.string(),
    "more_files": pa.list_(pa.string()),
    "seconds": pa.float64(),
    "server": pa.string(),
    "tries": pa.int64(),
    "features_known": pa.bool_(),
    "error": pa.string(),
    "likeness": pa.float64(),
    "looks_most_like": pa.string(),
    "identified": pa.bool_(),
    "clip": pa.float64(),
}
BEFORE_VALUES = 3


class Unwritten(Exception):
    """One sentence: at which file the results were stopped, and why."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes into the folder: the errors of a full disk name no file."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or path, error.strerror or error
        raise Unwritten(f"{where}: {why}; put that right, and the same command goes on.") from error


class Results:
    """worker: whose journal it is, where several write into one folder."""

    def __init__(self, folder: Path, worker: str = "") -> None:
        self.folder = folder.resolve()
        self.pictures = self.folder / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self._journal = self.folder / f"journal{worker}.jsonl"

    def remove_parts(self) -> None:
        """What a crash left. Only where nobody else writes into the folder."""
        for path in (*self.folder.glob("*.part"), *self.pictures.glob("*.part")):
            path.unlink(missing_ok=True)

    def path(self, job: Job) -> Path:
        return self.pictures / f"{job.id}.png"

    def more_paths(self, job: Job) -> list[Path]:
        """Of a workflow that saves several."""
        return sorted(self.pictures.glob(f"{job.id}_*.png"))

    def has(self, job: Job) -> bool:
        return self.path(job).is_file()

    def save(self, job: Job, drawn: Drawn, server: str, tries: int) -> dict[str, Any]:
        """What the journal says of it. The picture that stands for the row comes last."""
        text = json.dumps(metadata(job), ensure_ascii=True)
        for number, picture in reversed(list(enumerate(drawn.pictures, 1))):
            name = f"{job.id}_{number}.png" if number > 1 else f"{job.id}.png"
            _write(self.pictures / name, with_text(picture, ROW_KEY, text))
        seconds = round(drawn.seconds, 3)
        told = dict(seconds=seconds, server=server, tries=tries, features_known=drawn.known)
        return self._note(job, {**told, "error": None})

    def fail(self, job: Job, error: str, server: str, tries: int) -> dict[str, Any]:
        return self._note(job, {"server": server, "tries": tries, "error": error})

    def _note(self, job: Job, told: dict[str, Any]) -> dict[str, Any]:
        with writing(self._journal), self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"id": job.id, **told}) + "\n")
        return told

    def journal(self) -> dict[str, dict[str, Any]]:
        """The last word on every id. A line that a crash cut off is passed over."""
        told: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("journal*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    name = entry.pop("id")
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
                # Another worker may have made what this one gave up.
                if entry.get("error") is None or name not in told or told[name].get("error"):
                    told[name] = entry
        return told

    def rows(self, jobs: Iterable[Job]) -> list[dict[str, Any]]:
        told = self.journal()
        rows = []
        for job in jobs:
            row = {"id": job.id, "row": job.row, "person": job.person, **job.values}
            row |= told.get(job.id, {})
            if self.has(job):
                row["error"] = None
                row["file"] = self._relative(self.path(job))
                row["more_files"] = list(map(self._relative, self.more_paths(job)))
            rows.append(row)
        return rows

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def write_table(self, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / "results.parquet"
        with _whole(path) as unfinished:
            parquet.write_table(table(rows), unfinished)
        return path


def table(rows: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    fields = [pa.field(name, kind) for name, kind in COLUMNS.items()]
    values = [pa.field(name, _kind(row.get(name) for row in rows)) for name in names]
    schema = pa.schema([*fields[:BEFORE_VALUES], *values, *fields[BEFORE_VALUES:]])
    return pa.Table.from_pylist(rows, schema)


def _kind(values: Iterable[Any]) -> pa.DataType:
    """Seeds go up to 2**64 - 1."""
    there = [value for value in values if value is not None]
    if any(isinstance(value, int) and value >= 2**63 for value in there):
        return pa.uint64()
    return pa.array(there).type


def metadata(job: Job) -> Mapping[str, Any]:
    """Of a row, for the picture: photos by their hashes, no paths, nothing that a run changes."""
    photos = [[photo.sha256 for photo in own] for own in job.photos]
    return {"id": job.id, "person": job.person, **job.values, "photos": photos}


def _write(path: Path, data: bytes) -> None:
    with _whole(path) as unfinished, unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Another path to write to, which becomes this one if all goes well."""
    unfinished = path.with_suffix(".part")
    with writing(path):
        try:
            yield unfinished
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
