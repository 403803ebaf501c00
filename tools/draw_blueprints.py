"""Subgraph blueprints: several nodes as one block, which newer frontends list with the nodes.

    .comfy/venv/bin/python tools/draw_blueprints.py

Writes subgraphs/NAME.json of every block below.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from canvas import Canvas, Group, Node, Output
from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from workflow_parts import Models, applied, models

INPUTS, OUTPUTS = -10, -20  # the two nodes that stand for a block's own sockets
GAP = 220  # between them and the others


class Pin(NamedTuple):
    """An input of a node inside, a socket or a widget, that the block shows."""

    node: Node
    name: str


class Block(NamedTuple):
    description: str
    pins: Sequence[Pin]
    outputs: Sequence[Output]


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        info = server.get("/object_info")
    folder = REPO / "subgraphs"
    folder.mkdir(exist_ok=True)
    for name, draw in BLOCKS.items():
        canvas = Canvas(name, info)
        path = folder / f"{name}.json"
        form = json.dumps(blueprint(canvas, draw(canvas)), indent=2, ensure_ascii=False)
        path.write_text(form + "\n", encoding="utf-8", newline="\n")
        print(path)


def load_models(canvas: Canvas) -> Block:
    of = models(canvas)
    loader, clip, vae = of.nodes
    canvas.lay([Group("Models", [of.nodes])])
    return Block(
        "Checkpoint, text encoder and VAE of FlashFace, for photographs.",
        [
            Pin(loader, "model_name"),
            Pin(clip, "clip_name"),
            Pin(vae, "vae_name"),
        ],
        [of.model, of.net, of.clip, of.vae],
    )


def person_into_picture(canvas: Canvas) -> Block:
    nothing: Any = None  # what comes from outside of the block
    outside = Models([], nothing, nothing, nothing, nothing)
    face = applied(canvas, nothing, outside, nothing, place={})
    assert face.place is not None
    canvas.lay([Group("FlashFace", face.columns)])
    pins = [
        Pin(face.apply, "model"),
        Pin(face.place, "identity"),
        *(Pin(face.encode, name) for name in ("reference_net", "vae", "negative")),
        *(Pin(face.place, name) for name in ("x", "y", "width", "height")),
        Pin(face.guidance, "preset"),
    ]
    return Block(
        "A person at a place of the picture: Identity Place, Encode, Guidance and Apply in one.",
        pins,
        [face.model],
    )


def blueprint(canvas: Canvas, block: Block) -> dict[str, Any]:
    """A workflow of one node, the block, and what is in it."""
    drawn = canvas.for_canvas()
    nodes = {node["id"]: node for node in drawn["nodes"]}
    links: list[dict[str, Any]] = [
        dict(
            zip(
                ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"),
                link,
                strict=True,
            )
        )
        for link in drawn["links"]
    ]
    left = min(node["pos"][0] for node in nodes.values())
    right = max(node["pos"][0] + node["size"][0] for node in nodes.values())
    inputs, outputs = [], []

    def link(origin: tuple[int, int], target: tuple[int, int], type_: str) -> int:
        number = len(links) + 1
        links.append({"id": number, "type": type_})
        links[-1] |= {"origin_id": origin[0], "origin_slot": origin[1]}
        links[-1] |= {"target_id": target[0], "target_slot": target[1]}
        return number

    for slot, (node, name) in enumerate(block.pins):
        entries = nodes[node.number]["inputs"]
        at = next(i for i, entry in enumerate(entries) if entry["name"] == name)
        number = link((INPUTS, slot), (node.number, at), entries[at]["type"])
        entries[at]["link"] = number
        inputs.append(_socket(canvas, name, entries[at]["type"], number, left, slot))
    for slot, (node, at) in enumerate(block.outputs):
        entry = nodes[node.number]["outputs"][at]
        number = link((node.number, at), (OUTPUTS, slot), entry["type"])
        entry["links"] = [*(entry["links"] or []), number]
        outputs.append(_socket(canvas, entry["name"], entry["type"], number, right, slot))
    inside = {
        "id": _id(canvas, "block"),
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": max(nodes),
            "lastLinkId": len(links),
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": canvas.name,
        "inputNode": {"id": INPUTS, "bounding": _frame(left - GAP, len(inputs))},
        "outputNode": {"id": OUTPUTS, "bounding": _frame(right + 60, len(outputs))},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": list(nodes.values()),
        "groups": [],
        "links": links,
        "extra": {},
        "category": "FlashFace",
        "description": block.description,
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [_outer(canvas, block, inside, nodes)],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [inside]},
        "extra": {},
    }


def _outer(
    canvas: Canvas, block: Block, inside: dict[str, Any], nodes: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    sockets, shown, values = [], [], []
    for (node, name), entry in zip(block.pins, inside["inputs"], strict=True):
        socket = {"name": name, "type": entry["type"], "link": None}
        widgets = [e["name"] for e in nodes[node.number]["inputs"] if "widget" in e]
        if name in widgets:
            socket["widget"] = {"name": name}
            shown.append(["-1", name])
            values.append(nodes[node.number]["widgets_values"][widgets.index(name)])
        sockets.append(socket)
    return {
        "id": 1,
        "type": inside["id"],
        "pos": [0, 0],
        "size": [300, 60 + 24 * len(sockets)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": sockets,
        "outputs": [
            {"name": entry["name"], "type": entry["type"], "links": None}
            for entry in inside["outputs"]
        ],
        "title": canvas.name,
        "properties": {"proxyWidgets": shown, "cnr_id": "flashface"},
        "widgets_values": values,
    }


def _socket(
    canvas: Canvas, name: str, type_: str, number: int, x: int, slot: int
) -> dict[str, Any]:
    return {
        "id": _id(canvas, f"{name}{slot}"),
        "name": name,
        "type": type_,
        "linkIds": [number],
        "pos": [x - 100, 20 + 20 * slot],
    }


def _frame(x: int, sockets: int) -> list[int]:
    return [x, 0, 120, 40 + 20 * sockets]


def _id(canvas: Canvas, of: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"flashface/{canvas.name}/{of}"))


BLOCKS: dict[str, Callable[[Canvas], Block]] = {
    "FlashFace models": load_models,
    "FlashFace person into picture": person_into_picture,
}

if __name__ == "__main__":
    main()
