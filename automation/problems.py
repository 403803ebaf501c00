"""What is wrong with a list, told by row and column before anything runs."""

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """row: counted from 1; None: of the workflow, the file or a server rather than of one row."""

    row: int | None
    column: str
    text: str


class ListError(Exception):
    """One sentence about a file that cannot be used at all."""


def told(problems: Iterable[Problem]) -> list[str]:
    """A line each; what is wrong in many rows in the same way is told once."""
    rows: dict[tuple[str, str], list[int | None]] = {}
    for problem in problems:
        rows.setdefault((problem.column, problem.text), []).append(problem.row)
    lines = []
    for (column, text), where in rows.items():
        more = f" (and {len(where) - 1} more rows)" if len(where) > 1 else ""
        row = "" if where[0] is None else f"row {where[0]}{more}, "
        lines.append(f"{row}{column}: {text}")
    return lines


def allowed(values: Iterable[object], most: int = 12) -> str:
    every = [str(value) for value in values]
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return (", ".join(every[:most]) or "nothing: the list is empty") + rest
