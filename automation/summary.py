"""What came out, in lines to read."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .runner import Tally

MOST_ERRORS = 20


def summarize(rows: list[dict[str, Any]], tally: Tally | None, remarks: Iterable[str]) -> str:
    done = [row for row in rows if row.get("file")]
    lines = [f"{len(done)} of {len(rows)} pictures are there."]
    if tally is not None and sum(tally.done.values()):
        made = sum(tally.done.values())
        rate = 60 * made / max(tally.seconds, 1e-9)
        lines.append(f"{made} were made now, {rate:.1f} per minute.")
        lines += [f"  {server}: {count}" for server, count in sorted(tally.done.items())]
        lines.append(f"The person's features were known already for {tally.known} of them.")
    lines += _scores(rows)
    lines += remarks
    failed = [row for row in rows if row.get("error")]
    if failed:
        lines.append(f"{len(failed)} rows failed:")
        lines += [f"  row {r['row']} ({r['id']}): {r['error']}" for r in failed[:MOST_ERRORS]]
        if len(failed) > MOST_ERRORS:
            lines.append(f"  and {len(failed) - MOST_ERRORS} more, in results.parquet")
    left = len(rows) - len(done) - len(failed)
    if left:
        lines.append(f"{left} rows are left; the same command goes on with them.")
    return "\n".join(lines) + "\n"


def _scores(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for name in ("likeness", "clip"):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            mean = sum(values) / len(values)
            lines.append(f"Mean {name} of {len(values)} pictures: {mean:.3f}")
    told = Counter(row["identified"] for row in rows if row.get("identified") is not None)
    if told:
        among = len({row["person"] for row in rows})
        lines.append(f"Identified among {among}: {told[True]} of {sum(told.values())}")
    return lines
