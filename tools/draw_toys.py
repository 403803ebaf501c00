"""Lays the larger workflows of the tiny models out for the canvas, from their API forms.

    .comfy/venv/bin/python tools/draw_toys.py

Writes workflows/NAME.json of every layout below; their notes stand in tools/workflow_notes/.
"""

from __future__ import annotations

import json
import os
from typing import Any

from canvas import Canvas, Group, Node, Output
from comfy_server import REPO, ComfyServer
from draw_workflows import NOTES
from environment import PRIVATE

# Rows of groups: a title, and columns of nodes by their numbers in the API form.
Layout = list[list[tuple[str, list[list[int]]]]]
LAYOUTS: dict[str, Layout] = {
    "toy_two_people": [
        [
            ("1. Models", [[1]]),
            ("2. Who", [[2, 3], [4, 5]]),
            ("3. Where", [[9, 10], [11]]),
            ("4. Prompts", [[6, 7]]),
        ],
        [("5. FlashFace", [[12], [8, 13]]), ("6. Picture", [[14, 15, 16], [17]])],
    ],
    "toy_mixing": [
        [("1. Models", [[1, 10]]), ("2. Who", [[2, 3], [4, 5], [6]]), ("3. Prompts", [[7, 8]])],
        [
            ("4. FlashFace", [[9], [11, 14, 17], [12, 15, 18], [13, 16, 19]]),
            ("5. Pictures", [[20, 23, 26], [21, 24, 27], [22, 25, 28]]),
        ],
    ],
    "toy_several_photos": [
        [
            ("1. Models", [[1, 12]]),
            ("2. Who", [[2], [3, 4, 5, 6], [7], [8]]),
            ("3. Prompts", [[9, 10]]),
        ],
        [
            ("4. FlashFace", [[11], [13, 15, 17], [14, 16, 18]]),
            ("5. Pictures", [[19, 21, 23], [20, 22, 24]]),
        ],
    ],
    "toy_saved_identity": [
        [("1. Models", [[1]]), ("2. Who", [[2]]), ("3. Prompts", [[3, 4]])],
        [("4. FlashFace", [[6, 7], [5, 8]]), ("5. Picture", [[9, 10, 11], [12]])],
    ],
    "toy_best_of_n": [
        [
            ("1. Models", [[1]]),
            ("2. Who", [[2], [3]]),
            ("3. Prompts", [[4, 5]]),
            ("4. FlashFace", [[9, 10], [6, 11], [7, 8]]),
        ],
        [("5. Pictures", [[12, 13], [14, 16], [15]]), ("6. The best", [[17], [18]])],
    ],
}


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        info = server.get("/object_info")
    for name, layout in LAYOUTS.items():
        canvas = Canvas(name, info)
        workflow = json.loads((REPO / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
        nodes = read(canvas, workflow)
        canvas.lay(
            *(
                [
                    Group(title, [[nodes[n] for n in column] for column in columns])
                    for title, columns in row
                ]
                for row in layout
            )
        )
        canvas.note((NOTES / f"{name}.md").read_text(encoding="utf-8").strip())
        path = REPO / "workflows" / f"{name}.json"
        text = json.dumps(canvas.for_canvas(), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
        print(path)


def read(canvas: Canvas, workflow: dict[str, Any]) -> dict[int, Node]:
    """The nodes of an API form, in whose order links go from earlier to later ones."""
    nodes: dict[int, Node] = {}
    for key, node in workflow.items():
        given: dict[str, Any] = {
            name: Output(nodes[int(value[0])], value[1]) if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        title = node["_meta"]["title"]
        known = canvas.display_name(node["class_type"])
        made = canvas.add(node["class_type"], None if title == known else title, **given)
        assert made.number == int(key), f"{key} is not the next number"
        nodes[int(key)] = made
    return nodes


if __name__ == "__main__":
    main()
