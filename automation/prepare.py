"""From a manifest, a workflow and the servers to jobs that can run: both commands begin with it."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .answers import Lost, Strange
from .client import Server
from .graph import IMAGE, PREVIEW, Graph, Target, find_chains, load_graph
from .jobs import PHOTOS, Job, plan, replaced_inputs
from .manifest import Line, read_manifest
from .photos import PhotoFolders
from .problems import ListError, Problem
from .values import Described, check_graph, differences

log = logging.getLogger("flashface.automation")


class Order(NamedTuple):
    """What is asked for. photos: folders that may be read; none: that of the manifest."""

    manifest: Path
    workflow: Path
    photos: tuple[Path, ...] = ()


class Checked(NamedTuple):
    """jobs: of all rows, where there are no problems. repeated: rows that are there already."""

    jobs: list[Job]
    repeated: list[int]
    problems: list[Problem]


class Describes(Protocol):
    """A server, as far as a list is checked against it."""

    name: str

    async def describe(self, classes: Iterable[str]) -> dict[str, Any]: ...


async def check(order: Order, servers: Sequence[Describes]) -> Checked:
    """The whole manifest against what the servers have. Raises ListError, and where nobody
    answers."""
    lines, problems = read_manifest(order.manifest)
    graph = load_graph(order.workflow)
    for folder in order.photos:
        if not folder.is_dir():
            raise ListError(f"--photos is {folder}, which is no folder.")
    classes = {node["class_type"] for node in graph.values()} | {"LoadImage", PREVIEW}
    described, of_servers = await _described(servers, classes)
    replaced = replaced_inputs(lines, graph) | photo_inputs(lines, graph)
    of_graph = check_graph(graph, described, replaced)
    problems = problems + of_servers + of_graph
    if any(not described[name] for name in classes):
        return Checked([], [], problems)
    folders = PhotoFolders(order.manifest.parent, order.photos)
    made = plan(lines, graph, described, folders)
    problems = sorted(problems + made.problems, key=lambda one: one.row or 0)
    return Checked([] if problems else made.jobs, made.repeated, problems)


def photo_inputs(lines: Sequence[Line], graph: Graph) -> set[Target]:
    """Where every row puts photos of its own, whatever the workflow has there."""
    columns = set(lines[0].values).intersection(*(line.values for line in lines)) if lines else ()
    names = {column[: -len(PHOTOS) - 1].lower() for column in columns if _is_of_photos(column)}
    chains = [chain for chain in find_chains(graph) if "" in names or names & chain.names]
    return {Target(node, IMAGE) for chain in chains for node in chain.nodes}


def _is_of_photos(column: str) -> bool:
    return column == PHOTOS or column.endswith(f".{PHOTOS}")


async def _described(
    servers: Sequence[Describes], classes: set[str]
) -> tuple[Described, list[Problem]]:
    """Of the first server that answers; those after it must say the same."""
    answers = await asyncio.gather(
        *(one.describe(classes) for one in servers), return_exceptions=True
    )
    there, strange, problems = [], [], []
    for server, answer in zip(servers, answers, strict=True):
        if isinstance(answer, Strange):
            strange.append(f"{server.name}: {answer}")
        if isinstance(answer, Lost):
            rest = "; the others begin" if len(servers) > 1 else ""
            log.warning("%s cannot be used (%s)%s.", server.name, answer, rest)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            there.append((server, answer))
    if strange and not there:
        raise ListError(f"No server answers as ComfyUI does. {'. '.join(strange)}.")
    if not there:
        raise ListError(
            "No server answers; start ComfyUI, and give its address with --server, such as "
            "http://127.0.0.1:8188."
        )
    (first, described), *others = there
    for server, answer in others:
        for name in differences(described, answer):
            text = f"its node {name} differs from that of {first.name}; give both the same files"
            problems.append(Problem(None, server.name, text))
    return described, problems


async def connected(
    stack: AsyncExitStack,
    urls: Sequence[str],
    client: str,
    patience: float,
    row_seconds: float | None = None,
) -> list[Server]:
    """Servers for as long as the stack is open. Raises ListError for what is no address."""
    try:
        servers = [Server(url, client, patience, row_seconds) for url in urls]
    except ValueError as error:
        raise ListError(str(error)) from None
    names = [server.name for server in servers]
    if len(set(names)) < len(names):
        raise ListError("A server is named twice; give every address once.")
    return [await stack.enter_async_context(server) for server in servers]
