"""Rows of a manifest as pictures to be made: what is sent for each, and its id."""

import contextlib
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .graph import (
    PREVIEW,
    Chain,
    Graph,
    NotFound,
    Target,
    find_chains,
    find_prompt,
    find_seeds,
    find_target,
    sent,
    with_photos,
)
from .manifest import OWN_COLUMNS, PERSON, PHOTOS, PROMPT, SEED, Line
from .photos import Photo, PhotoError, PhotoFolders
from .problems import Problem, allowed
from .values import Described, Unfit, checked_target, fitted, takes_upload

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
FEATURES = "FACE_FEATURES"
ID_LETTERS = 32


class Job(NamedTuple):
    """A picture. row: the first one of the manifest that asks for it. person: as people call them,
    is_named: in the manifest, and not by the folder of their photos. group: equal where photos are.
    known: nodes whose work is kept for rows of the same person. values: of the row's columns, as
    they are sent. photos: of each person in the picture. uploads: all files that the server must
    have."""

    id: str
    row: int
    person: str
    is_named: bool
    group: str
    graph: Graph
    known: tuple[str, ...]
    values: dict[str, Any]
    photos: tuple[tuple[Photo, ...], ...]
    uploads: tuple[Photo, ...]

    @property
    def whose(self) -> str:
        """Equal where the person is: as the manifest names them, else by their photos."""
        return self.person if self.is_named else self.group

    @property
    def outputs(self) -> list[str]:
        return [node for node, data in self.graph.items() if data["class_type"] == PREVIEW]


class Plan(NamedTuple):
    """jobs: in the order of the manifest. repeated: rows that ask for a picture once more."""

    jobs: list[Job]
    repeated: list[int]
    problems: list[Problem]


def plan(lines: Iterable[Line], graph: Graph, described: Described, photos: PhotoFolders) -> Plan:
    """Every row is looked at, whatever is wrong with those before it."""
    maker = _Maker(graph, described, photos)
    jobs: dict[str, Job] = {}
    repeated, problems = [], []
    for line in lines:
        job = maker.make(line, problems)
        if job is None:
            continue
        if job.id in jobs:
            repeated.append(line.number)
        else:
            jobs[job.id] = job
    return Plan(list(jobs.values()), repeated, problems)


def replaced_inputs(lines: Sequence[Line], graph: Graph) -> set[Target]:
    """Those for which every row has a value of its own; the workflow's is never sent."""
    if not lines:
        return set()
    found: set[Target] = set()
    for column in set(lines[0].values).intersection(*(line.values for line in lines)):
        with contextlib.suppress(NotFound):  # told of its row, or the column of photos
            found.update(targets(graph, column))
    return found


def targets(graph: Graph, column: str) -> list[Target]:
    """The inputs that a column's values go into. Raises NotFound."""
    if column == PROMPT:
        return [find_prompt(graph)]
    if column == SEED:
        return find_seeds(graph)
    if "." not in column:
        known = ", ".join(OWN_COLUMNS)
        raise NotFound(f"is no column; allowed are {known} and `Node title.input`")
    return [find_target(graph, column)]


def pack_version() -> str:
    found = re.search(r'^version = "(.+)"$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def job_id(graph: Graph, version: str) -> str:
    """The hash of what determines a picture. Photos are in the graph by their own hashes."""
    nodes = {node: [data["class_type"], data["inputs"]] for node, data in graph.items()}
    text = json.dumps([version, nodes], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:ID_LETTERS]


class _Maker:
    def __init__(self, graph: Graph, described: Described, photos: PhotoFolders) -> None:
        self._graph, self._described, self._photos = graph, described, photos
        self._chains = find_chains(graph)
        self._version = pack_version()

    def make(self, line: Line, problems: list[Problem]) -> Job | None:
        """None where anything is wrong, which is added to `problems`."""
        before = len(problems)
        graph = {key: {**node, "inputs": {**node["inputs"]}} for key, node in self._graph.items()}
        values: dict[str, Any] = {}
        people: dict[Chain, list[Photo]] = {}
        uploads: list[Photo] = []
        for column, cell in line.values.items():
            try:
                chain = self._chain(column)
                if chain is not None:
                    people[chain] = self._photos.find(cell)
                elif column != PERSON:
                    values[column] = self._set(graph, column, cell, uploads)
            except (NotFound, Unfit, PhotoError) as error:
                problems.append(Problem(line.number, column, str(error)))
        if len(problems) > before:
            return None
        for chain, found in people.items():
            graph = with_photos(graph, chain, [photo.name for photo in found])
        graph = sent(graph)
        photos = tuple(map(tuple, people.values()))
        name = line.values.get(PERSON)
        person = str(name) if name is not None else _named_by_folder(photos)
        person = unicodedata.normalize("NFC", person)  # folders of Macs are called in NFD
        marks = [photo.sha256 for own in photos for photo in own] or [person]
        return Job(
            id=job_id(graph, self._version),
            row=line.number,
            person=person,
            is_named=name is not None,
            group=hashlib.sha256(repr(marks).encode()).hexdigest()[:ID_LETTERS],
            graph=graph,
            known=self._known(graph),
            values=values,
            photos=photos,
            uploads=tuple({p.name: p for p in (*sum(photos, ()), *uploads)}.values()),
        )

    def _chain(self, column: str) -> Chain | None:
        """Whose photos a column holds; None for another column."""
        if column != PHOTOS and not column.endswith(f".{PHOTOS}"):
            return None
        name = column[: -len(PHOTOS) - 1].lower()
        found = [chain for chain in self._chains if not name or name in chain.names]
        if len(found) == 1:
            return found[0]
        every = [f"{sorted(chain.names)[-1]}.{PHOTOS}" for chain in self._chains]
        raise NotFound(
            f"{len(found)} people of the workflow may be meant; columns for them are "
            f"{allowed(every)}"
        )

    def _set(self, graph: Graph, column: str, cell: Any, uploads: list[Photo]) -> Any:
        value = None
        for target in targets(self._graph, column):
            spec = checked_target(self._graph, self._described, target)
            if takes_upload(spec):
                (photo,) = self._one(cell)
                uploads.append(photo)
                value = photo.name
            else:
                value = fitted(cell, spec)
            graph[target.node]["inputs"][target.input] = value
        return value

    def _one(self, cell: Any) -> list[Photo]:
        found = self._photos.find(cell)
        if len(found) != 1:
            raise PhotoError(f"{cell} names {len(found)} files, expected one")
        return found

    def _known(self, graph: Graph) -> tuple[str, ...]:
        """What takes a person's photos in; where no node keeps features, the photos alone."""
        outputs = {n: self._described[d["class_type"]].get("output", []) for n, d in graph.items()}
        features = [node for node, kinds in outputs.items() if FEATURES in kinds]
        return tuple(features or [n for n in graph if graph[n]["class_type"] == "LoadImage"])


def _named_by_folder(photos: Iterable[tuple[Photo, ...]]) -> str:
    names = (os.fsencode(own[0].path.parent.name) for own in photos)
    return " + ".join(name.decode("utf-8", "replace") for name in names)


def by_photos(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """By `group`, in the order in which the manifest first has them."""
    return _grouped(jobs, lambda job: job.group)


def by_person(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """By `whose`, in the order in which the manifest first has them."""
    return _grouped(jobs, lambda job: job.whose)


def _grouped(jobs: Iterable[Job], key: Callable[[Job], str]) -> dict[str, list[Job]]:
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return groups
