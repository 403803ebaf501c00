"""The same list on many machines, through Ray Data: an actor per GPU with a ComfyUI of its own.

    python -m automation.ray_run manifest.csv --workflow NAME.json --out FOLDER --actors 8

ComfyUI is that of COMFYUI_PATH. On a cluster (--address) it, this repository, the photos and FOLDER
have the same paths on every machine.
"""

import argparse
import asyncio
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import ray.data
from pyarrow import parquet
from ray.data.checkpoint import CheckpointConfig

from .client import Server
from .jobs import Job, by_photos
from .lock import only_run
from .own_server import OwnServer
from .prepare import check
from .problems import ListError
from .report import scoring, write
from .results import COLUMNS, Results, Unwritten
from .run import (
    DONE,
    INCOMPLETE,
    REFUSED,
    add_order_arguments,
    add_row_seconds,
    order_of,
    say,
    stopped_at,
)
from .runner import Runner, Settings, Tally, client_name
from .scores import Models, Scorer, people_of, shown

log = logging.getLogger("flashface.automation")

CPUS = 0.1  # of an actor, that tasks which read and write find room beside it
REPO = Path(__file__).resolve().parent.parent
SCORES = ("likeness", "looks_most_like", "identified", "clip")
DONE_SCHEMA = pa.schema([("id", pa.string())])
SCORE_SCHEMA = pa.schema([("id", pa.string()), *((name, COLUMNS[name]) for name in SCORES)])


class Comfy(NamedTuple):
    """How an actor starts its server."""

    path: Path
    base: Path
    arguments: tuple[str, ...]

    def start(self) -> OwnServer:
        return OwnServer(self.path, self.base, self.arguments)


class Painter:
    """Drives one ComfyUI, which ends with the actor. jobs: by id."""

    def __init__(self, jobs: Any, out: Path, comfy: Comfy, settings: Settings) -> None:
        self._jobs: dict[str, Job] = ray.get(jobs)
        self._results = Results(out, f"_{uuid.uuid4().hex[:12]}")
        self._comfy, self._settings = comfy, settings
        self._server: OwnServer | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Ids to those of rows that are done; why others are not is in the journal."""
        jobs = [self._jobs[name] for name in batch["id"].to_pylist()]
        missing = [job for job in jobs if not self._results.has(job)]
        for _ in range(self._settings.tries):
            if not missing:
                break
            # In this thread, whose end would be the server's.
            if self._server is None or not self._server.runs:
                self._server = self._comfy.start()
            tally = asyncio.run(self._draw(missing, self._server.url))
            missing = [job for job in missing if not self._results.has(job)] if tally.left else []
            if missing:
                self._server.stop()
        done = [{"id": job.id} for job in jobs if self._results.has(job)]
        return pa.Table.from_pylist(done, DONE_SCHEMA)

    async def _draw(self, jobs: Sequence[Job], url: str) -> Tally:
        client = client_name(self._results.folder)
        given = (url, client, self._settings.patience, self._settings.row_seconds)
        async with Server(*given) as server:
            return await Runner([server], self._results, self._settings).run(jobs)

    def __del__(self) -> None:
        server = getattr(self, "_server", None)
        if server is not None:
            server.stop()


class ScoreStage:
    """Models and people once per actor, pictures in batches."""

    def __init__(self, jobs: Any, out: Path, models: Models) -> None:
        self._jobs: dict[str, Job] = ray.get(jobs)
        self._results = Results(out)
        self._scorer = Scorer(models, people_of(self._jobs.values()))

    def __call__(self, batch: pa.Table) -> pa.Table:
        names = batch["id"].to_pylist()
        found = self._scorer([shown(self._jobs[name], self._results) for name in names])
        rows = [{"id": name, **row} for name, row in zip(names, found, strict=True)]
        return pa.Table.from_pylist(rows, SCORE_SCHEMA)


class _Asked:
    """A server that lives as long as a question about its nodes."""

    def __init__(self, comfy: Comfy, gpus: float) -> None:
        self.name = "ComfyUI at COMFYUI_PATH"
        self._ask = ray.remote(num_gpus=gpus)(_describe)
        self._comfy = comfy

    async def describe(self, classes: Iterable[str]) -> dict[str, Any]:
        return await self._ask.remote(self._comfy, sorted(classes))


def _describe(comfy: Comfy, classes: list[str]) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with Server(own.url, "flashface-check", 60) as server:
            return await server.describe(classes)

    own = comfy.start()
    try:
        return asyncio.run(ask())
    finally:
        own.stop()


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return run(options)
    except (ListError, OSError) as error:
        log.error("%s", error)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m automation.ray_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_order_arguments(parser)
    parser.add_argument("--actors", type=int, help="default: one per GPU, or one")
    parser.add_argument("--gpus", type=float, help="per actor; default: 1 where there are any")
    parser.add_argument("--address", help="of a running cluster; default: this machine alone")
    parser.add_argument("--base", type=Path, help="ComfyUI's base directory, if another")
    parser.add_argument(
        "--comfy-argument", action="append", default=[], help="for ComfyUI's main.py; repeatable"
    )
    parser.add_argument("--tries", type=int, default=Settings().tries)
    add_row_seconds(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    models = scoring(options)
    comfy = _comfy(options)
    variables = {"PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])}
    variables["COMFYUI_PATH"] = str(comfy.path)
    ray.init(
        address=options.address or "local",
        runtime_env={"env_vars": variables},
        include_dashboard=None if options.address else False,
    )
    try:
        there = int(ray.cluster_resources().get("GPU", 0))
        gpus = options.gpus if options.gpus is not None else float(there > 0)
        actors = options.actors or max(1, int(there / gpus) if gpus else 1)
        checked = asyncio.run(check(order_of(options), [_Asked(comfy, gpus)]))
        if not say(checked, options):
            return REFUSED
        if options.check:
            return DONE
        results = Results(options.out)
        with only_run(results.folder):
            results.remove_parts()
            try:
                return paint(checked.jobs, results, options, comfy, models, actors, gpus)
            except Unwritten as error:
                return stopped_at(error, checked.jobs, results)
    finally:
        ray.shutdown()


def _comfy(options: argparse.Namespace) -> Comfy:
    given = os.environ.get("COMFYUI_PATH")
    if not given:
        raise ListError("COMFYUI_PATH is not set; set it to the folder of a ComfyUI.")
    path = Path(given)
    if not (path / "main.py").is_file():
        raise ListError(f"COMFYUI_PATH is {given}, which holds no main.py of ComfyUI.")
    path = path.resolve()
    return Comfy(path, (options.base or path).resolve(), tuple(options.comfy_argument))


def paint(
    jobs: list[Job],
    results: Results,
    options: argparse.Namespace,
    comfy: Comfy,
    models: Models,
    actors: int,
    gpus: float,
) -> int:
    by_id = ray.put({job.id: job for job in jobs})
    folder = results.folder / "ray"
    context = ray.data.DataContext.get_current()
    context.use_datasource_v2 = False  # it joins small files, and with them people
    context.checkpoint_config = CheckpointConfig("id", str(folder / "checkpoint"))
    pictures = _ids(jobs, folder / "ids").map_batches(
        Painter,
        batch_size=None,  # a person's rows
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=CPUS,
        num_gpus=gpus,
        fn_constructor_args=(
            by_id,
            results.folder,
            comfy,
            Settings(tries=options.tries, row_seconds=options.row_seconds),
        ),
    )
    if models.any:
        pictures = pictures.map_batches(
            ScoreStage,
            batch_size=16,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=CPUS,
            fn_constructor_args=(by_id, results.folder, models),
        )
    pictures.write_parquet(str(folder / "rows"))
    rows = results.rows(jobs)
    scores = {row["id"]: row for row in parquet.read_table(folder / "rows").to_pylist()}
    for row in rows:
        row.update({k: v for k, v in scores.get(row["id"], {}).items() if v is not None})
    write(rows, jobs, results, None, models.remarks)
    shutil.rmtree(folder, ignore_errors=True)
    return DONE if all(row.get("file") for row in rows) else INCOMPLETE


def _ids(jobs: Iterable[Job], folder: Path) -> ray.data.Dataset:
    """A block per person, so that features are computed once."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    people = by_photos(jobs).values()
    for number, own in enumerate(people):
        table = pa.table({"id": [job.id for job in own]})
        parquet.write_table(table, folder / f"{number:06d}.parquet")
    return ray.data.read_parquet(str(folder), override_num_blocks=len(people))


if __name__ == "__main__":
    sys.exit(main())
