"""The main job: photos of three people in, pictures of each of them out, with a shipped workflow.

Run by `python tools/comfy.py demo`, in the environment that ComfyUI runs in. It drives ComfyUI as
any script can: the workflow in API form, with values put in, is posted to the server.
"""

import copy
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from comfy_server import REPO, ComfyServer
from demo_grid import draw_grid
from environment import PRIVATE
from PIL import Image
from toy_people import draw_photos, save_photos

BASE = PRIVATE / "base"  # that of `serve` as well
OUTPUT = REPO / "demo_output"
WORKFLOW = REPO / "workflows" / "api" / "01_start_here.json"

PEOPLE, CAST = 3, 2  # the first three people of this seed
SEED = 1  # of the sampler, for every picture
PROMPTS = (
    "a portrait of an adult, smiling, wearing a red sweater, in a forest, flat colours, "
    "soft light, upright",
    "a portrait of a child, smiling, wearing a yellow raincoat, by the sea, flat colours, "
    "morning sun, upright",
    "a portrait of an elder, neutral, wearing a black suit, in a library, flat colours, "
    "soft light, upright",
    "a portrait of an adult, surprised, wearing a striped jersey, in a city, neon night, "
    "evening sun, upright",
)

WHAT_IT_IS = """
What you see: photos of three people whom the networks have never seen, and pictures of them that
only these photos and the words above each column tell apart: all pictures of a column begin with
the same noise. The last row is the same MODEL without FlashFace, which knows nobody.
The networks are really trained, on the same code, but tiny: all they know is a toy world of drawn
portraits, 128 pixels wide. For photographs, put into your ComfyUI
  models/flashface      the published flashface.ckpt (Hugging Face: shilongz/FlashFace-SD1.5)
  models/text_encoders  CLIP-L, clip_l.safetensors
  models/vae            an SD1.5 VAE
and open workflows/02_portrait_from_photos.json (Templates > flashface) with photos of your own.
"""


def main() -> None:
    print(f"FlashFace demo: {PEOPLE} people, {len(PROMPTS)} prompts, a real ComfyUI.")
    photos = draw_photos(CAST, PEOPLE)
    for number, person in enumerate(photos, 1):
        save_photos(BASE / "input" / photo_name(number), person)
    OUTPUT.mkdir(exist_ok=True)

    # Networks this small gain nothing from threads, and lose much where others use the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    with ComfyServer(BASE) as server:
        print(f"  ComfyUI answers after {time.monotonic() - started:.0f} s")
        rows = [draw_row(server, number) for number in range(1, PEOPLE + 1)]
        rows.append(draw_row(server, None))
        print(f"  all pictures after {time.monotonic() - started:.0f} s")
    grid = OUTPUT / "grid.png"
    draw_grid([open_all(row) for row in rows], photos, PROMPTS).save(grid)
    print(WHAT_IT_IS)
    for path in (grid, *(path for row in rows for path in row)):
        print(path)


def draw_row(server: ComfyServer, number: int | None) -> list[Path]:
    """Pictures of one person for every prompt; None: without FlashFace."""
    row = []
    for column, prompt in enumerate(PROMPTS, 1):
        workflow = filled_in(json.loads(WORKFLOW.read_text()), prompt, number)
        (picture,) = server.files(server.prompt(workflow))
        name = "without" if number is None else f"person_{number}"
        row.append(OUTPUT / f"{name}_prompt_{column}.png")
        shutil.copyfile(picture, row[-1])
        print(f"  {row[-1].name}: {prompt}")
    return row


def filled_in(workflow: dict[str, Any], prompt: str, number: int | None) -> dict[str, Any]:
    """The shipped workflow for one picture of a person, or of nobody."""
    workflow = copy.deepcopy(workflow)
    node(workflow, "Positive prompt")["text"] = prompt
    node(workflow, "KSampler")["seed"] = SEED
    if "an adult" not in prompt:  # the photos show adults
        node(workflow, "FlashFaceGuidance")["preset"] = "change age"
    if number is None:
        node(workflow, "KSampler")["model"] = [key(workflow, "FlashFaceTinyModels"), 0]
    else:
        put_photos(workflow, photo_name(number))
    return workflow


def put_photos(workflow: dict[str, Any], image: str) -> None:
    """A picture of the server's input folder, in place of the photos that the pack brings."""
    workflow[key(workflow, "Photos")].update(class_type="LoadImage", inputs={"image": image})


def photo_name(number: int) -> str:
    return f"demo_person_{number}.png"


def key(workflow: dict[str, Any], name: str) -> str:
    """Id of the one node with this title or class."""
    (found,) = (
        node_id
        for node_id, node in workflow.items()
        if name in (node["_meta"]["title"], node["class_type"])
    )
    return found


def node(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    """Inputs of the one node with this title or class."""
    return workflow[key(workflow, name)]["inputs"]


def open_all(paths: list[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


if __name__ == "__main__":
    main()
