"""Manifests: CSV, JSON lines or Parquet with a row per picture, or a grid that is expanded.

Cells without a value are left out: the workflow's own holds.
"""

import glob
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import yaml
from pyarrow import csv, parquet

from .problems import ListError, Problem, allowed

MOST_ROWS = 1_000_000
GRID_KEYS = {"people": "photos", "prompts": "prompt", "seeds": "seed"}


class Line(NamedTuple):
    """number: of the row, from 1, without a header."""

    number: int
    values: dict[str, Any]


def read_manifest(path: Path) -> tuple[list[Line], list[Problem]]:
    """Every row, and what could not be read. Raises ListError for a file of another kind."""
    readers = {
        ".csv": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
        ".json": _read_grid,
        ".yaml": _read_grid,
        ".yml": _read_grid,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ListError(f"{path.name} is no manifest; give a file {allowed(readers)}.")
    if not path.is_file():
        raise ListError(f"There is no manifest {path}; give the path of a file.")
    try:
        lines, problems = read(path)
    except (pa.ArrowInvalid, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ListError(f"{path.name} cannot be read: {error}") from None
    if not lines and not problems:
        raise ListError(f"{path.name} has no rows; give a row per picture.")
    if len(lines) > MOST_ROWS:
        raise ListError(f"{path.name} has {len(lines)} rows; give at most {MOST_ROWS}.")
    return [_without_gaps(line) for line in lines], problems


def _without_gaps(line: Line) -> Line:
    return Line(line.number, {key: v for key, v in line.values.items() if v is not None})


def _read_csv(path: Path) -> tuple[list[Line], list[Problem]]:
    """All cells are texts; their types follow from the inputs that they are for."""
    names = _header(path)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ListError(f"{path.name} has the column {twice[0]} twice; give every column once.")
    problems = []

    def note(row: Any) -> str:
        text = f"has {row.actual_columns} cells, and the header {row.expected_columns}"
        problems.append(Problem(row.number - 1, "all columns", text))
        return "skip"

    parse = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    reading = csv.ReadOptions(use_threads=False)
    rows = csv.read_csv(path, reading, parse, convert).to_pylist()
    missing = {problem.row for problem in problems}
    numbers = (number for number in itertools.count(1) if number not in missing)
    return [Line(next(numbers), row) for row in rows], problems


def _header(path: Path) -> list[str]:
    reading = csv.ReadOptions(use_threads=False)
    skip = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
    with csv.open_csv(path, reading, skip) as reader:
        return reader.schema.names


def _read_json_lines(path: Path) -> tuple[list[Line], list[Problem]]:
    lines, problems = [], []
    text = path.read_text(encoding="utf-8-sig")
    for number, line in enumerate((one for one in text.split("\n") if one.strip()), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            problems.append(Problem(number, "all columns", f"is not JSON: {error}"))
            continue
        if isinstance(row, dict):
            lines.append(Line(number, row))
        else:
            text = f"is {line.strip()[:40]}, expected an object"
            problems.append(Problem(number, "all columns", text))
    return lines, problems


def _read_parquet(path: Path) -> tuple[list[Line], list[Problem]]:
    rows = parquet.read_table(path).to_pylist()
    return [Line(number, row) for number, row in enumerate(rows, 1)], []


def _read_grid(path: Path) -> tuple[list[Line], list[Problem]]:
    """people x prompts x seeds x any other list of values, in this order."""
    text = path.read_text(encoding="utf-8-sig")
    grid = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    if not isinstance(grid, dict):
        raise ListError(f"{path.name} is no grid; give people, prompts and seeds, a list each.")
    axes, problems = [], []
    for key in (*GRID_KEYS, *(str(name) for name in grid if name not in GRID_KEYS)):
        if key not in grid:
            continue
        found = _people(grid[key], path.parent) if key == "people" else grid[key]
        if isinstance(found, list) and found:
            axes.append((GRID_KEYS.get(key, key), found))
        else:
            problems.append(Problem(None, key, f"is {str(grid[key])[:60]}, expected a list"))
    count = 1
    for _, values in axes:
        count *= len(values)
    if count > MOST_ROWS:
        raise ListError(f"{path.name} asks for {count} rows; give at most {MOST_ROWS}.")
    if problems or not axes:
        return [], problems
    names = [name for name, _ in axes]
    every = itertools.product(*(values for _, values in axes))
    rows = (_grid_row(dict(zip(names, values, strict=True))) for values in every)
    return [Line(number, row) for number, row in enumerate(rows, 1)], []


def _grid_row(row: dict[str, Any]) -> dict[str, Any]:
    person = row.get("photos")
    return row | person if isinstance(person, dict) else row


def _people(given: Any, folder: Path) -> Any:
    """A list of persons: of `{name: photos}`, or of a glob whose folders are a person each."""
    if isinstance(given, dict):
        return [{"person": str(name), "photos": photos} for name, photos in given.items()]
    if isinstance(given, str):
        return list(_folders(given, folder))
    return given


def _folders(pattern: str, folder: Path) -> Iterator[dict[str, str]]:
    """Only below the manifest; photos are checked again when they are looked up."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ListError(f"people is {pattern}; give folders below that of the manifest.")
    for found in sorted(folder.glob(pattern)):
        if found.is_dir():
            name = found.relative_to(folder).as_posix()
            yield {"person": found.name, "photos": f"{glob.escape(name)}/*"}
