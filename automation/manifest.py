"""Manifests: CSV, JSON lines or Parquet with a row per picture, or a grid that is expanded.

Cells without a value are left out: the workflow's own holds. Rows without any are no pictures.
"""

import codecs
import glob
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import yaml
from pyarrow import csv, parquet

from .photos import meant
from .problems import ListError, Problem, allowed

MOST_ROWS = 1_000_000
PERSON, PHOTOS, PROMPT, SEED = "person", "photos", "prompt", "seed"
OWN_COLUMNS = (PHOTOS, PERSON, PROMPT, SEED)  # any other is called `Node title.input`
GRID_KEYS = {"people": PHOTOS, "prompts": PROMPT, "seeds": SEED}
SEPARATOR = re.compile(r'"?sep=(.)"?[ \t]*\r?\n', re.IGNORECASE)  # a first line of Excel's
PANDAS_INDEX = re.compile(r"__index_level_\d+__")
HALF = re.compile("[\ud800-\udfff]")  # of a character: no text that can be sent or saved


class _Texts(yaml.SafeLoader):
    """Values are the texts that are written, as in CSV: 007 is no 7, yes no True, and an input that
    takes a number makes one of it."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in kinds if tag.endswith((":null", ":merge"))]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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
    except (pa.ArrowInvalid, yaml.YAMLError, ValueError) as error:
        raise ListError(f"{path.name} cannot be read: {error}") from None
    told = len(problems)
    lines = [line for line in (_tidy(line, problems) for line in lines) if line.values]
    if not lines and not problems:
        raise ListError(f"{path.name} has no rows; give a row per picture.")
    if len(lines) > MOST_ROWS:
        raise ListError(f"{path.name} has {len(lines)} rows; give at most {MOST_ROWS}.")
    wrong = {problem.row for problem in problems[told:]}
    return [line for line in lines if line.number not in wrong], problems


def _tidy(line: Line, problems: list[Problem]) -> Line:
    """Without gaps, columns called as they are elsewhere; what cannot be goes to `problems`."""
    values: dict[str, Any] = {}
    for given, value in line.values.items():
        if value is None:
            continue
        name = _column(given)
        if name in values:
            problems.append(Problem(line.number, name, "is given twice; give every column once"))
        parts = value if isinstance(value, list) else [value]
        if any(isinstance(part, str) and HALF.search(part) for part in (name, *parts)):
            text = f"got {str(value)[:60]!a}, which has half a character; write it whole"
            problems.append(Problem(line.number, name, text))
        values[name] = value
    return Line(line.number, values)


def _column(given: str) -> str:
    """Names of our own are meant however they are capitalised."""
    name = given.strip()
    return name.lower() if name.lower() in (*OWN_COLUMNS, *GRID_KEYS) else name


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ListError(
            f"{path.name} is in {'UTF-16' if is_wide else 'an older encoding'}, expected "
            "UTF-8; save it so (in Excel as `CSV UTF-8`)."
        ) from None


def _read_csv(path: Path) -> tuple[list[Line], list[Problem]]:
    """All cells are texts; their types follow from the inputs that they are for."""
    text, separator = _separated(_text(path))
    data = pa.py_buffer(text.encode())
    problems = []

    def note(row: Any) -> str:
        text = f"has {row.actual_columns} cells, and the header {row.expected_columns}"
        problems.append(Problem(row.number - 1, "all columns", text))
        return "skip"

    reading = csv.ReadOptions(use_threads=False)
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=note)
    with csv.open_csv(pa.BufferReader(data), reading, parse) as reader:
        names = reader.schema.names
    problems.clear()  # that reader looked at some of the rows
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    table = csv.read_csv(pa.BufferReader(data), reading, parse, convert)
    columns = _named(path, names, [column.to_pylist() for column in table.columns])
    missing = {problem.row for problem in problems}
    numbers = (number for number in itertools.count(1) if number not in missing)
    rows = zip(*columns.values(), strict=True)
    return [Line(next(numbers), dict(zip(columns, row, strict=True))) for row in rows], problems


def _separated(text: str) -> tuple[str, str]:
    """A CSV without a line that tells the separator, and that: `;` or tab where the header has them
    and no comma, as Excel writes it in half of the world."""
    told = SEPARATOR.match(text)
    if told is not None:
        return text[told.end() :], told[1]
    header = re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    header = re.sub(r'"[^"]*"', "", header)
    return text, next((one for one in ",;\t" if one in header), ",")


def _named(path: Path, names: list[str], cells: list[list[Any]]) -> dict[str, list[Any]]:
    """Columns without a name and without values are none: spreadsheets write what was cleared."""
    columns: dict[str, list[Any]] = {}
    for number, (given, column) in enumerate(zip(names, cells, strict=True), 1):
        name = _column(given)
        if not name and any(column):
            raise ListError(
                f"{path.name} has values in column {number}, which has no name; give it one, or "
                "leave it out (in pandas: index=False)."
            )
        if name in columns:
            raise ListError(f"{path.name} has the column {name} twice; give every column once.")
        if name:
            columns[name] = column
    return columns


def _read_json_lines(path: Path) -> tuple[list[Line], list[Problem]]:
    lines, problems = [], []
    ends = re.split("[\r\n]", _text(path))
    for number, line in enumerate((one for one in ends if one.strip()), 1):
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
    table = parquet.read_table(path)
    names = [name for name in table.schema.names if not PANDAS_INDEX.fullmatch(name)]
    rows = table.select(names).to_pylist()
    return [Line(number, row) for number, row in enumerate(rows, 1)], []


def _read_grid(path: Path) -> tuple[list[Line], list[Problem]]:
    """people x prompts x seeds x any other list of values, in this order."""
    text = _text(path)
    is_json = path.suffix.lower() == ".json"
    grid = json.loads(text) if is_json else yaml.load(text, _Texts)  # safely
    if not isinstance(grid, dict):
        raise ListError(f"{path.name} is no grid; give people, prompts and seeds, a list each.")
    grid = {_column(str(key)): value for key, value in grid.items()}
    axes: dict[str, list[Any]] = {}
    problems = []
    for key in (*GRID_KEYS, *(name for name in grid if name not in GRID_KEYS)):
        if key not in grid:
            continue
        column = GRID_KEYS.get(key, key)
        found = _people(grid[key], path.parent) if key == "people" else grid[key]
        wrong = _wrong_in_grid(key, grid[key], found)
        if column in axes:
            wrong = "is given twice, also by its other name; give it once"
        if wrong:
            problems.append(Problem(None, key, wrong))
        else:
            axes[column] = found
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST_ROWS:
        raise ListError(f"{path.name} asks for {count} rows; give at most {MOST_ROWS}.")
    if problems or not axes:
        return [], problems
    every = itertools.product(*axes.values())
    rows = (_grid_row(dict(zip(axes, values, strict=True))) for values in every)
    return [Line(number, row) for number, row in enumerate(rows, 1)], []


def _wrong_in_grid(key: str, given: Any, found: Any) -> str | None:
    """found: what `given` means. None: nothing."""
    if isinstance(found, list) and found:
        return None
    if key not in (*GRID_KEYS, *OWN_COLUMNS) and "." not in key:
        return f"is no key of a grid; allowed are {', '.join(GRID_KEYS)} and `Node title.input`"
    if isinstance(given, str) and key == "people":
        return f"is {given[:60]}, which means no folder beside the manifest; give a folder a person"
    return f"is {str(given)[:60]}, expected a list"


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
    for found in meant(folder, pattern):
        if found.is_dir():
            name = found.relative_to(folder).as_posix()
            yield {"person": found.name, "photos": f"{glob.escape(name)}/*"}
