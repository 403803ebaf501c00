"""The main job once: a photo in, a picture of that person out, with the shipped workflow.

Run by `python tools/comfy.py demo`, in the environment that ComfyUI runs in.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import skimage.data
from comfy_server import REPO, ComfyServer
from demo_models import make_demo_models
from environment import PRIVATE
from PIL import Image, ImageDraw, ImageFont

BASE = PRIVATE / "base"  # that of `serve` as well
OUTPUT = REPO / "demo_output"
WORKFLOW = REPO / "workflows" / "api" / "photo_to_portrait.json"
PHOTO = "astronaut.png"  # the one that the shipped workflow names; comes with scikit-image

# The shipped workflow makes 768 x 768 in 25 steps; a CPU does this in seconds. 10 divides 1000.
SIZE, STEPS = 256, 10
SEED = 1

WHAT_IT_IS = """
The networks of this demo are made by rule, not trained: the picture is noise. It shows only that
the whole way from photo to picture works. For real pictures, put into your ComfyUI
  models/flashface      the published flashface.ckpt (Hugging Face: shilongz/FlashFace-SD1.5)
  models/text_encoders  CLIP-L, clip_l.safetensors
  models/vae            an SD1.5 VAE
and open workflows/photo_to_portrait.json (Templates > flashface).
"""


def prepare() -> None:
    """The photo and the models that the shipped workflow names, where they are missing."""
    for path in make_demo_models(BASE / "models"):
        print(f"  made by rule: {path.relative_to(REPO)}")
    (BASE / "input").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(skimage.data.__file__).parent / PHOTO, BASE / "input" / PHOTO)


def main() -> None:
    print("FlashFace demo: one photo, one picture, the shipped workflow, a real ComfyUI.")
    prepare()
    workflow = json.loads(WORKFLOW.read_text())
    node(workflow, "EmptyLatentImage")["inputs"].update(width=SIZE, height=SIZE)
    node(workflow, "KSampler")["inputs"].update(steps=STEPS, seed=SEED)

    # Networks this small gain nothing from threads, and lose much where others use the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    with ComfyServer(BASE) as server:
        print(f"  ComfyUI answers after {time.monotonic() - started:.0f} s")
        started = time.monotonic()
        outputs = server.prompt(workflow)
        print(f"  {SIZE} x {SIZE}, {STEPS} steps: {time.monotonic() - started:.0f} s")
        (reference,) = server.files({"": outputs[key(workflow, "Face crops")]})
        (picture,) = server.files({"": outputs[key(workflow, "Save Image")]})
        OUTPUT.mkdir(exist_ok=True)
        shutil.copyfile(reference, OUTPUT / "reference.png")
        shutil.copyfile(picture, OUTPUT / "picture.png")
    side_by_side(OUTPUT / "reference.png", OUTPUT / "picture.png", OUTPUT / "side_by_side.png")

    print(WHAT_IT_IS)
    for name in ("reference.png", "picture.png", "side_by_side.png"):
        print(OUTPUT / name)


def key(workflow: dict[str, Any], name: str) -> str:
    """Id of the one node with this title or class."""
    (found,) = (
        node_id
        for node_id, node in workflow.items()
        if name in (node["_meta"]["title"], node["class_type"])
    )
    return found


def node(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    return workflow[key(workflow, name)]


def side_by_side(reference: Path, picture: Path, target: Path) -> None:
    size, margin, line = SIZE, 16, 24
    sheet = Image.new("RGB", (2 * size + 3 * margin, size + 2 * margin + line), "white")
    draw = ImageDraw.Draw(sheet)
    texts = {reference: "Face crop of the photo", picture: "Picture (weights made by rule)"}
    for column, (path, text) in enumerate(texts.items()):
        left = margin + column * (size + margin)
        with Image.open(path) as image:
            sheet.paste(image.convert("RGB").resize((size, size)), (left, margin))
        draw.text((left, margin + size + 6), text, "black", ImageFont.load_default(size=14))
    sheet.save(target)


if __name__ == "__main__":
    if sys.argv[1:] == ["--only-prepare"]:
        prepare()
    else:
        main()
