"""The pictures that ship beside workflows/*.json, from one real run of each with the tiny models.

    .comfy/venv/bin/python tools/shipped_pictures.py [WORKFLOW ...]

Writes the photos that the workflows name, four of each person, and the thumbnail of every workflow
that needs no download. Run it again whenever the tiny models or a workflow change.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from PIL import Image, ImageDraw, ImageFont
from toy_people import draw_photos, save_photos

WORKFLOWS = REPO / "workflows"
SEED = 5  # of the people
SHOWN = {"toy_person.png": 0, "toy_person_2.png": 2}  # which of them: they differ in everything

# saved_identity takes the file that save_identity leaves.
NAMES = (
    "tiny_models",
    "several_photos",
    "two_people",
    "mixing",
    "save_identity",
    "saved_identity",
    "best_of_n",
    "face2diffusion",
    "style_portrait",
    "style_two_people",
    "face_fusion",
)

MARGIN, FOOT = 16, 28

Pictures = list[Image.Image]
Panel = tuple[str, Image.Image]  # caption, and what stands above it


def main() -> None:
    people = draw_photos(SEED, 1 + max(SHOWN.values()))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        for name, person in SHOWN.items():
            for folder in (WORKFLOWS, server.base / "input"):
                save_photos(folder / name, people[person])
            print(WORKFLOWS / name)
        photos = [people[person] for person in SHOWN.values()]
        for name in sys.argv[1:] or NAMES:
            drawn = run(server, json.loads((WORKFLOWS / "api" / f"{name}.json").read_text()))
            sheet(panels(name, photos, drawn)).save(WORKFLOWS / f"{name}.jpg", quality=90)
            print(WORKFLOWS / f"{name}.jpg")


def run(server: ComfyServer, workflow: dict[str, Any]) -> dict[str, Pictures]:
    """What a workflow shows, by the titles of the nodes that show it."""
    outputs = server.prompt(workflow)
    return {
        workflow[node]["_meta"]["title"]: [
            Image.open(path).convert("RGB") for path in server.files({node: output})
        ]
        for node, output in outputs.items()
    }


def panels(name: str, photos: Sequence[Pictures], drawn: dict[str, Pictures]) -> list[list[Panel]]:
    """Rows of the thumbnail of a workflow. photos: of the two people."""
    first, second = photos
    saved = drawn.get("Save Image", [])
    if name == "several_photos":
        old = first[0].convert("L").convert("RGB")
        return [
            [
                ("Four photos", tiles([old, *first[1:]], 2, 72)),
                ("of the first alone", tiles(drawn["From one photo"], 1, 152)),
                ("of all four", tiles(drawn["From four photos"], 1, 152)),
            ]
        ]
    if name == "two_people":
        strips = [("Photos of A", tiles(first, 4, 58)), ("Photos of B", tiles(second, 4, 58))]
        (picture,) = saved
        return [strips, [("A and B", picture.resize((480, 240), Image.Resampling.LANCZOS))]]
    if name == "mixing":
        titles = {"A": "A", "The mix": "half of each", "B": "B"}
        return [[(text, tiles(drawn[title], 1, 149)) for title, text in titles.items()]]
    if name == "save_identity":
        return [[("Four photos, kept as toy_person.safetensors", tiles(drawn["Faces"], 4, 120))]]
    if name == "saved_identity":
        return [[("toy_person.safetensors", tiles(first, 2, 116)), ("an elder", tiles(saved, 1))]]
    if name == "best_of_n":
        every, best = drawn["All eight"], drawn["The best"]
        return [[("Eight pictures", tiles(every, 4, 78)), ("the best one", tiles(best, 1, 152))]]
    if name == "face2diffusion":
        return [[("Four photos", tiles(first, 2, 116)), ('"a portrait of f l"', tiles(saved, 1))]]
    if name == "style_portrait":
        style = ("style image", tiles(drawn["Style image"], 1, 148))
        return [[("Four photos", tiles(first, 2, 74)), style, ("both", tiles(saved, 1, 148))]]
    if name == "style_two_people":
        strips = [("Photos of A", tiles(first, 4, 58)), ("Photos of B", tiles(second, 4, 58))]
        style, (picture,) = tiles(drawn["Style image"], 1, 150), saved
        both = picture.resize((300, 150), Image.Resampling.LANCZOS)
        return [strips, [("style image", style), ("A and B", both)]]
    return [[("Four photos", tiles(first, 2, 116)), ('"a child ... by the sea"', tiles(saved, 1))]]


def tiles(pictures: Pictures, columns: int, side: int = 232) -> Image.Image:
    """Square pictures, row after row."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * side), "white")
    for n, picture in enumerate(pictures):
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        whole.paste(small, (n % columns * side, n // columns * side))
    return whole


def sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    widths = [sum(image.width + MARGIN for _, image in row) for row in rows]
    heights = [max(image.height for _, image in row) + MARGIN + FOOT for row in rows]
    whole = Image.new("RGB", (max(widths) + MARGIN, sum(heights) + MARGIN), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=14)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for caption, image in row:
            whole.paste(image, (left, top))
            pen.text((left, top + height - FOOT - MARGIN + 7), caption, "black", font)
            left += image.width + MARGIN
        top += height
    return whole


if __name__ == "__main__":
    main()
