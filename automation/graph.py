"""A workflow in API form: whose photos go where, which inputs are meant, and what is sent.

Functions give new graphs; the one that they are given stays as it was.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from .problems import ListError, allowed

Graph = dict[str, dict[str, Any]]

IDENTITY, IMAGE, APPEND = "FlashFaceIdentity", "image", "append_to"
SAVE, PREVIEW = "SaveImage", "PreviewImage"
POSITIVE = "Positive prompt"  # as all shipped workflows call it
SEEDS = ("seed", "noise_seed")


class Target(NamedTuple):
    """An input that takes a value."""

    node: str
    input: str


class Chain(NamedTuple):
    """The nodes that take a person's photos, the first photo first, and what they are called."""

    nodes: tuple[str, ...]
    names: frozenset[str]


class NotFound(Exception):
    """What a column asks for and the workflow does not have."""


def load_graph(path: Path) -> Graph:
    """Only what its pictures need. Raises ListError for what is no workflow in API form."""
    try:
        graph = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ListError(f"The workflow {path} cannot be read: {error}") from None
    if isinstance(graph, dict) and "nodes" in graph and "links" in graph:
        raise ListError(
            f"{path.name} is a workflow for the canvas; export it in API form (Workflow > Export "
            "(API)), or take the one of the same name in workflows/api."
        )
    if not isinstance(graph, dict) or not all(map(_is_node, graph.values())):
        raise ListError(f"{path.name} is no workflow in API form: an object of nodes by id.")
    if not saves(graph):
        raise ListError(f"{path.name} saves no picture; end it with core's Save Image.")
    for node in graph.values():
        for link in links(node).values():
            if link[0] not in graph:
                raise ListError(f"{path.name} has a link to node {link[0]}, which is not in it.")
    graph = pruned(graph)
    try:
        before = {node: [link[0] for link in links(graph[node]).values()] for node in graph}
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle = ", ".join(error.args[1][1:])
        raise ListError(
            f"{path.name} has links that go in a circle, through the nodes {circle}; take one out."
        ) from None
    return graph


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


def title(graph: Graph, node: str) -> str:
    meta = graph[node].get("_meta")
    given = meta.get("title") if isinstance(meta, dict) else None
    return given if isinstance(given, str) else graph[node]["class_type"]


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def links(node: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: value for name, value in node["inputs"].items() if is_link(value)}


def saves(graph: Graph) -> list[str]:
    return [node for node in graph if graph[node]["class_type"] == SAVE]


def pruned(graph: Graph) -> Graph:
    """What the saved pictures are made of, and nothing that shows or writes anything else."""
    needed = {node for end in saves(graph) for node in _upstream(graph, end)}
    return {node: graph[node] for node in graph if node in needed}


def sent(graph: Graph) -> Graph:
    """Pictures go to the server's temporary files: they are kept by whoever asked for them."""
    graph = copy.deepcopy(pruned(graph))
    for node in saves(graph):
        graph[node]["class_type"] = PREVIEW
        graph[node]["inputs"] = {"images": graph[node]["inputs"].get("images")}
    return graph


def find_target(graph: Graph, column: str) -> Target:
    """Of `Node title.input`, or `id.input`. Raises NotFound."""
    dots = [place for place, letter in enumerate(column) if letter == "."]
    named = [(column[:dot], column[dot + 1 :]) for dot in dots]
    found = [(node, name) for called, name in named for node in called_nodes(graph, called)]
    if not found:
        titles = sorted({title(graph, node) for node in graph})
        raise NotFound(f"the workflow has no such node; it has {allowed(titles, 40)}")
    if len(found) > 1:
        ids = allowed(f"{node}.{name}" for node, name in found)
        raise NotFound(f"{len(found)} nodes have this title; use one of their ids, as in {ids}")
    return Target(*found[0])


def called_nodes(graph: Graph, name: str) -> list[str]:
    if name in graph:
        return [name]
    return [node for node in graph if title(graph, node).lower() == name.lower()]


def find_prompt(graph: Graph) -> Target:
    """The text that the picture follows. Raises NotFound."""
    named = called_nodes(graph, POSITIVE)
    asked = [n["inputs"]["positive"] for n in graph.values() if "positive" in links(n)]
    found = named or sorted({node for link in asked for node in _upstream(graph, link[0])})
    texts = [node for node in found if isinstance(graph[node]["inputs"].get("text"), str)]
    if len(texts) != 1:
        columns = allowed(f"{title(graph, node)}.text" for node in texts)
        raise NotFound(
            f"the workflow has {len(texts)} texts that may be meant; title one {POSITIVE!r}, or "
            f"name the input as a column: {columns}"
        )
    return Target(texts[0], "text")


def _upstream(graph: Graph, start: str) -> set[str]:
    seen, look = set(), [start]
    while look:
        node = look.pop()
        if node not in seen:
            seen.add(node)
            look += [link[0] for link in links(graph[node]).values()]
    return seen


def find_seeds(graph: Graph) -> list[Target]:
    """All of them: passes of one picture begin with the same number. Raises NotFound."""
    found = [
        Target(node, name)
        for node in graph
        for name in SEEDS
        if name in graph[node]["inputs"] and not is_link(graph[node]["inputs"][name])
    ]
    if not found:
        raise NotFound("no node of the workflow has an input seed or noise_seed that is free")
    return found


def find_chains(graph: Graph) -> list[Chain]:
    """People: a FlashFace Identity, and those whose photos it is appended to."""
    people = [node for node in graph if graph[node]["class_type"] == IDENTITY]
    before = {n: links(graph[n]).get(APPEND, [None])[0] for n in people}
    ends = [node for node in people if node not in before.values()]
    chains = []
    for end in ends:
        nodes = [end]
        while (previous := before[nodes[0]]) in before and previous is not None:
            nodes.insert(0, previous)
        called = [*nodes, *(node for own in nodes for node in _photo_path(graph, own)[-1:])]
        names = {name.lower() for node in called for name in (node, title(graph, node))}
        chains.append(Chain(tuple(nodes), frozenset(names)))
    return chains


def with_photos(graph: Graph, chain: Chain, photos: Sequence[str]) -> Graph:
    """The graph with a person's photos: as many identity nodes as there are photos."""
    graph = copy.deepcopy(graph)
    nodes = list(chain.nodes[: len(photos)])
    path = _photo_path(graph, chain.nodes[-1])
    while len(nodes) < len(photos):
        added = f"{chain.nodes[-1]}_photo_{len(nodes) + 1}"
        graph[added] = copy.deepcopy(graph[chain.nodes[-1]])
        graph[added]["inputs"][APPEND] = [nodes[-1], 0]
        nodes.append(added)
    _relink(graph, chain.nodes[-1], nodes[-1], except_for=nodes)
    for node, photo in zip(nodes, photos, strict=True):
        own = _photo_path(graph, node) if node in chain.nodes else path
        _give_photo(graph, node, own, photo)
    return graph


def _photo_path(graph: Graph, node: str) -> list[str]:
    """From what an identity's image comes out of, up to where it begins."""
    path = []
    link = links(graph[node]).get(IMAGE)
    while link is not None and link[0] not in path:
        path.append(link[0])
        (link, *others) = [*links(graph[link[0]]).values()] or [None]
        if others:
            break  # joined of several: replaced as a whole
    return path


def _give_photo(graph: Graph, node: str, path: list[str], photo: str) -> None:
    """Copies of what lies between, since another identity may share it."""
    to = graph[node]["inputs"]
    name = IMAGE
    for between in path[:-1]:
        copied = f"{node}_{between}"
        graph[copied] = copy.deepcopy(graph[between])
        to[name] = [copied, links({"inputs": to})[name][1]]
        to = graph[copied]["inputs"]
        (name,) = links(graph[copied])
    source = f"{node}_photo"
    meta = {"title": title(graph, path[-1]) if path else "Photo"}
    graph[source] = {"class_type": "LoadImage", "inputs": {"image": photo}, "_meta": meta}
    to[name] = [source, 0]


def _relink(graph: Graph, old: str, new: str, except_for: Iterable[str]) -> None:
    if old == new:
        return
    for key, node in graph.items():
        if key in except_for:
            continue
        for name, link in links(node).items():
            if link[0] == old:
                node["inputs"][name] = [new, link[1]]
