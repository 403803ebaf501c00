"""Draws a graph of nodes for ComfyUI's canvas, and the same graph in API form.

Nodes stand in columns, columns in framed groups, groups in rows. What inputs, outputs and widgets a
node has is what ComfyUI says of it (/object_info).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comfy_server import REPO

# Pixels: a node's head, room between nodes (Nodes 2.0 draws them taller), and beside them.
TITLE, BETWEEN, GAP = 30, 64, 40
FRAME = (20, 80)  # of a group, around its nodes: at the sides, above the first
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
COLOURS = {"FlashFace": "#8A5AA8", "": "#3f789e"}
# Nodes that show pictures or long text: pixels; all others are as high as what they hold.
SIZES = {
    "FlashFaceIdentitySave": (300, 190),  # says below its widgets where the file lies
    "LoadImage": (280, 360),
    "PreviewImage": (280, 300),
    "SaveImage": (420, 450),
    "PreviewAny": (420, 200),
    "FlashFaceTinyPhotos": (280, 330),
}
WIDTH = 300


class Output(NamedTuple):
    node: Node
    slot: int


@dataclass(eq=False)
class Node:
    number: int
    info: dict[str, Any]
    title: str | None
    given: dict[str, Any]
    size: tuple[int, int]
    models: Sequence[dict[str, str]] = ()
    position: tuple[int, int] = (0, 0)
    links: dict[int, list[int]] = field(default_factory=dict)  # by output

    @property
    def type(self) -> str:
        return self.info["name"]

    def __getitem__(self, name: str) -> Output:
        """The output of this name."""
        return Output(self, self.info["output_name"].index(name))

    def inputs(self) -> Iterable[tuple[str, Any, dict[str, Any]]]:
        """Name, type and options, in order."""
        for kind in ("required", "optional"):
            for name, spec in self.info["input"].get(kind, {}).items():
                options = spec[1] if len(spec) > 1 else {}
                yield name, spec[0], options

    def is_widget(self, type_: Any, options: dict[str, Any]) -> bool:
        is_known = isinstance(type_, list) or type_ in WIDGETS
        return is_known and not options.get("forceInput")

    def value(self, name: str, options: dict[str, Any]) -> Any:
        if name not in self.given and "default" not in options:
            raise KeyError(f"{self.type} has no default for {name}")
        return self.given.get(name, options.get("default"))


@dataclass(frozen=True)
class Group:
    title: str
    columns: Sequence[Sequence[Node]]

    @property
    def size(self) -> tuple[int, int]:
        widths = [max(node.size[0] for node in column) for column in self.columns]
        heights = [
            sum(node.size[1] for node in column) + (len(column) - 1) * (TITLE + BETWEEN)
            for column in self.columns
        ]
        return sum(widths) + GAP * (len(widths) - 1), max(heights)


class Canvas:
    def __init__(self, name: str, info: dict[str, Any]) -> None:
        self.name, self._info = name, info
        self.nodes: list[Node] = []
        self._groups: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []

    def add(
        self,
        type_: str,
        title: str | None = None,
        box: tuple[int, int] | None = None,
        models: Sequence[dict[str, str]] = (),
        **given: Any,
    ) -> Node:
        """A node with values of widgets, and outputs of other nodes for its sockets.

        box: its size in pixels, where it is not that of its kind.
        """
        node = Node(len(self.nodes) + 1, self._info[type_], title, given, (0, 0), models)
        unknown = given.keys() - {name for name, *_ in node.inputs()}
        if unknown:
            raise KeyError(f"{type_} has no {', '.join(unknown)}")
        node.size = box or SIZES.get(type_) or (WIDTH, self._height(node))
        self.nodes.append(node)
        return node

    def display_name(self, type_: str) -> str:
        return self._info[type_]["display_name"]

    @staticmethod
    def _height(node: Node) -> int:
        sockets = widgets = 0
        for _, type_, options in node.inputs():
            if not node.is_widget(type_, options):
                sockets += 1
            else:
                widgets += 1 + bool(options.get("control_after_generate"))
                widgets += 5 * bool(options.get("multiline"))
        return 26 + 20 * max(sockets, len(node.info["output"])) + 24 * widgets

    def lay(self, *rows: Sequence[Group]) -> None:
        """Groups from left to right, row under row."""
        side, above = FRAME
        top = 0
        for row in rows:
            left = 0
            for group in row:
                width, height = group.size
                x = left
                for column in group.columns:
                    y = top
                    for node in column:
                        node.position = (x, y)
                        y += node.size[1] + TITLE + BETWEEN
                    x += max(node.size[0] for node in column) + GAP
                self._groups.append(
                    {
                        "id": len(self._groups) + 1,
                        "title": group.title,
                        "bounding": [left - side, top - above, width + 2 * side, height + 100],
                        "color": COLOURS.get(group.title.split(". ")[-1], COLOURS[""]),
                        "font_size": 24,
                        "flags": {},
                    }
                )
                left += width + GAP + 2 * side
            top += max(group.size[1] for group in row) + 100 + GAP

    def note(self, note: str) -> None:
        """To read, on the left of all."""
        height = min(100 + 22 * note.count("\n") + 20 * (len(note) // 60), 900)
        self._notes.append(
            {
                "id": len(self.nodes) + 1,
                "type": "MarkdownNote",
                "pos": [-480, 0],
                "size": [420, height],
                "flags": {},
                "order": len(self.nodes),
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "title": "Read me",
                "properties": {},
                "widgets_values": [note],
            }
        )

    def for_canvas(self) -> dict[str, Any]:
        links = list(self._link())
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"flashface/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes) + 1,
            "last_link_id": len(links),
            "nodes": [*(self._drawn(node, links) for node in self.nodes), *self._notes],
            "links": links,
            "groups": self._groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [620, 230]}},
            "version": 0.4,
        }

    def _link(self) -> Iterable[list[Any]]:
        number = 0
        for node in self.nodes:
            node.links.clear()
        for node in self.nodes:
            sockets = [
                n for n, type_, options in node.inputs() if not node.is_widget(type_, options)
            ]
            for slot, name in enumerate(sockets):
                source = node.given.get(name)
                if source is not None:
                    number += 1
                    source.node.links.setdefault(source.slot, []).append(number)
                    type_ = source.node.info["output"][source.slot]
                    yield [number, source.node.number, source.slot, node.number, slot, type_]

    def _drawn(self, node: Node, links: list[list[Any]]) -> dict[str, Any]:
        link_of = {(link[3], link[4]): link[0] for link in links}
        sockets, widgets, values = [], [], []
        for name, type_, options in node.inputs():
            shown = "COMBO" if isinstance(type_, list) else type_
            entry = {"localized_name": name, "name": name, "type": shown}
            if node.is_widget(type_, options):
                widgets.append({**entry, "widget": {"name": name}, "link": None})
                values.append(node.value(name, options))
                if options.get("control_after_generate"):
                    values.append("fixed")
                if options.get("image_upload"):
                    values.append("image")
            else:
                link = link_of.get((node.number, len(sockets)))
                sockets.append({**entry, "link": link})
        core = node.info["python_module"].startswith(("nodes", "comfy_extras"))
        properties: dict[str, Any] = {
            "cnr_id": "comfy-core" if core else "flashface",
            "ver": "0.3.75" if core else _version(),
            "Node name for S&R": node.type,
        }
        if node.models:
            properties["models"] = list(node.models)
        return {
            "id": node.number,
            "type": node.type,
            "pos": list(node.position),
            "size": list(node.size),
            "flags": {},
            "order": node.number - 1,
            "mode": 0,
            "inputs": [*sockets, *widgets],
            "outputs": [
                {"localized_name": name, "name": name, "type": type_, "links": node.links.get(i)}
                for i, (name, type_) in enumerate(
                    zip(node.info["output_name"], node.info["output"], strict=True)
                )
            ],
            **({"title": node.title} if node.title else {}),
            "properties": properties,
            "widgets_values": values,
        }

    def for_api(self) -> dict[str, Any]:
        workflow = {}
        for node in self.nodes:
            inputs: dict[str, Any] = {}
            for name, type_, options in node.inputs():
                if node.is_widget(type_, options):
                    inputs[name] = node.value(name, options)
            for name, source in node.given.items():
                if isinstance(source, Output):
                    inputs[name] = [str(source.node.number), source.slot]
            title = node.title or node.info["display_name"] or node.type  # core names not all
            workflow[str(node.number)] = {
                "inputs": inputs,
                "class_type": node.type,
                "_meta": {"title": title},
            }
        return workflow


def _version() -> str:
    for line in (REPO / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise ValueError("pyproject.toml has no version")
