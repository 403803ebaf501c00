"""The first workflow, and those for photographs: for the canvas, and in API form.

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
from canvas import Canvas, Group
from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from workflow_parts import Models, applied, decode, sampler, save, size, text

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


def start_here(canvas: Canvas) -> None:
    """On the tiny models, with nothing to download or to choose."""
    tiny = canvas.add("FlashFaceTinyModels")
    of = Models([tiny], *(tiny[name] for name in ("MODEL", "REFERENCE_NET", "CLIP", "VAE")))
    photos = canvas.add("FlashFaceTinyPhotos", "Photos", person=0)
    who = canvas.add("FlashFaceIdentity", image=photos["photos"])
    positive = text(
        canvas,
        "a portrait of a child, smiling, wearing a yellow raincoat, by the sea, flat colours, "
        "morning sun, upright",
        of.clip,
    )
    negative = text(canvas, "", of.clip, "Negative prompt")
    prompt, no_words = positive["CONDITIONING"], negative["CONDITIONING"]
    head = dict(x=0.19, y=0.2, width=0.62, height=0.62)
    face = applied(canvas, who["FACE_IDENTITY"], of, no_words, "custom", place=head)
    latent = size(canvas, 128, 128)
    drawn = sampler(
        canvas, face.model, prompt, no_words, latent["LATENT"], steps=20, cfg=5.0, sampler="euler"
    )
    decoded = decode(canvas, drawn, of)
    larger = canvas.add(
        "ImageScaleBy",
        "Larger, to look at",
        image=decoded["IMAGE"],
        upscale_method="lanczos",
        scale_by=3.0,
    )
    saved = save(canvas, larger)
    canvas.lay(
        [
            Group("1. Models", [[tiny]]),
            Group("2. Who", [[photos], [who]]),
            Group("3. Prompts", [[positive, negative]]),
        ],
        [
            Group("4. FlashFace", face.columns),
            Group("5. Picture", [[latent, drawn, decoded], [larger, saved]]),
        ],
    )


GRAPHS: dict[str, Callable[[Canvas], None]] = {
    "01_start_here": start_here,
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
}

if __name__ == "__main__":
    main()
