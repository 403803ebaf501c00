"""All shipped workflows, for the canvas and in API form.

    .comfy/venv/bin/python tools/draw_workflows.py

Writes workflows/NAME.json and workflows/api/NAME.json of every graph below; what their notes say
stands in tools/workflow_notes/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import workflows_models
import workflows_people
import workflows_pictures
import workflows_toys
from canvas import Canvas
from comfy_server import REPO, ComfyServer
from environment import PRIVATE

NOTES = Path(__file__).parent / "workflow_notes"


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        info = server.get("/object_info")
    for name, draw in GRAPHS.items():
        canvas = Canvas(name, info)
        draw(canvas)
        note = (NOTES / f"{name}.md").read_text(encoding="utf-8").strip()
        canvas.note(note.replace("{FILES}", (NOTES / "files.md").read_text(encoding="utf-8")))
        for path, form in (
            (REPO / "workflows" / f"{name}.json", canvas.for_canvas()),
            (REPO / "workflows" / "api" / f"{name}.json", canvas.for_api()),
        ):
            text = json.dumps(form, indent=2, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")
            print(path)


GRAPHS: dict[str, Callable[[Canvas], None]] = {
    "01_start_here": workflows_toys.start_here,
    "02_portrait_from_photos": workflows_people.portrait,
    "03_child_and_elder": workflows_people.change_age,
    "04_face_into_picture": workflows_pictures.into_picture,
    "05_two_people": workflows_people.two_people,
    "06_mixing": workflows_people.mixing,
    "07_hires_fix": workflows_pictures.hires_fix,
    "08_drawing_to_person": workflows_pictures.image_to_person,
    "09_best_of_four": workflows_people.best_of_n,
    "10_face_pass": workflows_pictures.face_pass,
    "11_character_sheet": workflows_people.character_sheet,
    "12_save_identity": workflows_people.save_identity,
    "13_saved_identity": workflows_people.saved_identity,
    "14_lora_and_controlnet": workflows_models.lora_and_controlnet,
    "15_other_base": workflows_models.other_base,
    "16_face2diffusion": workflows_models.face2diffusion,
    "17_training_free": workflows_models.training_free,
    "toy_several_photos": workflows_toys.several_photos,
    "toy_two_people": workflows_toys.two_people,
    "toy_mixing": workflows_toys.mixing,
    "toy_save_identity": workflows_toys.save_identity,
    "toy_saved_identity": workflows_toys.saved_identity,
    "toy_best_of_n": workflows_toys.best_of_n,
    "toy_style_portrait": workflows_toys.style_portrait,
    "toy_style_two_people": workflows_toys.style_two_people,
}

if __name__ == "__main__":
    main()
