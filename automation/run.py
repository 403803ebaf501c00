"""Pictures of a list of people and prompts, by one ComfyUI server or many.

    python -m automation.run manifest.csv --workflow workflows/api/NAME.json \\
        --server http://127.0.0.1:8188 --out FOLDER

docs/AUTOMATION.md says what a manifest holds. The same command goes on where it was stopped.
"""

import argparse
import asyncio
import logging
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .jobs import Job
from .lock import only_run
from .prepare import Checked, Order, check, connected
from .problems import ListError, told
from .report import add_score_arguments, finish, scoring
from .results import Results, Unwritten, writing
from .runner import Runner, Settings, Tally, client_name
from .scores import Models

log = logging.getLogger("flashface.automation")
DONE, INCOMPLETE, REFUSED, STOPPED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with ExitStack() as held:
            # Not in the loop, whose signals are those of the runner: Ctrl-C stops this as well.
            return asyncio.run(run(options, held))()
    except (ListError, OSError) as error:
        log.error("%s", error)
        return REFUSED
    except (asyncio.CancelledError, KeyboardInterrupt):
        log.error("Stopped; the same command goes on with the rows that are left.")
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m automation.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_order_arguments(parser)
    parser.add_argument(
        "--server", action="append", required=True, metavar="URL", help="may be given repeatedly"
    )
    usual = Settings()
    parser.add_argument("--tries", type=_count, default=usual.tries, help="of a row, at most")
    parser.add_argument(
        "--queued", type=_count, default=usual.queued, help="prompts at a server at a time"
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=usual.patience,
        metavar="SECONDS",
        help="without an answer, after which a server is lost",
    )
    add_row_seconds(parser)
    return parser


def add_row_seconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--row-seconds",
        type=_seconds,
        metavar="SECONDS",
        help="of work at a row, after which it is interrupted and counts as failed; default: any",
    )


def add_order_arguments(parser: argparse.ArgumentParser) -> None:
    """What both commands ask for."""
    parser.add_argument("manifest", type=Path, help=".csv, .jsonl, .parquet; a grid: .yaml, .json")
    parser.add_argument("--workflow", type=Path, required=True, help="in API form")
    parser.add_argument("--out", type=_folder, required=True, metavar="FOLDER")
    parser.add_argument(
        "--photos",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="that photos may lie in, instead of the manifest's own; may be given repeatedly",
    )
    parser.add_argument("--check", action="store_true", help="check the manifest and run nothing")
    add_score_arguments(parser)


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder")
    return path


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")


def order_of(options: argparse.Namespace) -> Order:
    return Order(options.manifest.resolve(), options.workflow, tuple(options.photos))


async def run(options: argparse.Namespace, held: ExitStack) -> Callable[[], int]:
    """Gives what is left to do when all servers are let go of: scores, sheets, the exit code.
    held: what nobody else may have until then."""
    settings = Settings(options.tries, options.queued, options.patience, options.row_seconds)
    scores = scoring(options)
    async with AsyncExitStack() as stack:
        client = "flashface-check" if options.check else client_name(options.out)
        servers = await connected(
            stack, options.server, client, settings.patience, settings.row_seconds
        )
        checked = await check(order_of(options), servers)
        if not say(checked, options):
            return lambda: REFUSED
        if options.check:
            return lambda: DONE
        results = Results(options.out)
        held.enter_context(only_run(results.folder))
        results.remove_parts()
        missing = [job for job in checked.jobs if not results.has(job)]
        done = len(checked.jobs) - len(missing)
        with tqdm(total=len(checked.jobs), initial=done, unit="picture", smoothing=0.1) as bar:

            def show(tally: Tally) -> None:
                bar.n = done + sum(tally.done.values()) + tally.failed
                bar.set_postfix(known=tally.known, failed=tally.failed, refresh=False)
                bar.update(0)

            with logging_redirect_tqdm():
                try:
                    tally = await Runner(servers, results, settings, show).run(missing)
                except Unwritten as error:
                    return partial(stopped_at, error, checked.jobs, results)
    return lambda: end(checked.jobs, results, tally, scores)


def end(jobs: list[Job], results: Results, tally: Tally, scores: Models) -> int:
    try:
        with writing(results.folder):
            rows = finish(jobs, results, tally, scores)
    except Unwritten as error:
        return stopped_at(error, jobs, results)
    return DONE if all(row.get("file") for row in rows) else INCOMPLETE


def stopped_at(error: Unwritten, jobs: Sequence[Job], results: Results) -> int:
    log.error("%s", error)
    log.error("%d of %d pictures are there.", sum(map(results.has, jobs)), len(jobs))
    return INCOMPLETE


def say(checked: Checked, options: argparse.Namespace) -> bool:
    """Whether the list may run, and in lines why not."""
    for line in told(checked.problems):
        log.error("%s", line)
    if checked.problems:
        count = len(checked.problems)
        mistakes = f"{count} mistake{'s' if count > 1 else ''}"
        log.error("%s: %s; nothing was run.", options.manifest.name, mistakes)
        return False
    if checked.repeated:
        rows = ", ".join(map(str, checked.repeated[:12]))
        log.warning("Pictures that a row before asks for are made once: rows %s.", rows)
    people = len({job.whose for job in checked.jobs})
    log.info("%d pictures of %d people.", len(checked.jobs), people)
    return True


if __name__ == "__main__":
    sys.exit(main())
