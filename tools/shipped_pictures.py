"""The pictures that ship beside workflows/*.json, from one real run of each with the tiny models.

    .comfy/venv/bin/python tools/shipped_pictures.py [WORKFLOW ...]

Writes the thumbnail of every workflow. Those for photographs run as the same graph with the tiny
models, drawn people and their words, and the thumbnail says so. Run it again whenever the tiny
models or a workflow change.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from as_toy import PAIR, SCENE, as_toy
from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from PIL import Image, ImageDraw, ImageFont
from toy_people import draw_photos
from workflows_people import POSES

WORKFLOWS = REPO / "workflows"
FIRST = "01_start_here"
SEED = 5
PEOPLE = 8
PHOTOS = REPO / "tiny_models" / "photos.png"  # a row for each, of four
SHOWN = (0, 2)  # which people of it: they differ in everything
SHOWN_IN = {"toy_style_portrait": (6, 2), "toy_style_two_people": (6, 2)}  # as they have it

# In order: toy_saved_identity takes the file that toy_save_identity leaves.
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
FOOTNOTE = "the same graph with the tiny models and drawn people"
FEET = {
    "14_lora_and_controlnet": "drawn people; what goes in, beside a LoRA. No result is shown",
    "17_training_free": "drawn people; what goes in. No result is shown",
}
MARGIN, FOOT, LARGEST = 16, 28, 512
BACK, INK, FAINT = (32, 33, 36), (235, 235, 235), (150, 150, 155)

Pictures = list[Image.Image]
Panel = tuple[str, Image.Image]  # caption, and what stands above it


def main() -> None:
    people = draw_photos(SEED, PEOPLE)
    drawn = [photo for photos in people for photo in photos]
    tiles(drawn, len(people[0]), drawn[0].width).save(PHOTOS, optimize=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        scene, pair = draw_scene(server), draw_pair(server)
        for name in sys.argv[1:] or NAMES:
            workflow = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
            is_toy = name == FIRST or name.startswith("toy_")
            drawn = run(server, workflow if is_toy else as_toy(workflow))
            drawn |= {"scene": [scene], "pair": [pair]}
            photos = [people[person] for person in SHOWN_IN.get(name, SHOWN)]
            rows = panels(name, photos, drawn)
            foot = "" if is_toy else FEET.get(name, FOOTNOTE)
            sheet(rows, foot).save(WORKFLOWS / f"{name}.jpg", quality=90)
            print(WORKFLOWS / f"{name}.jpg")


def draw_scene(server: ComfyServer) -> Image.Image:
    """A picture of somebody, in ComfyUI's input folder with the head painted over; here as seen."""
    workflow = json.loads((WORKFLOWS / "api" / f"{FIRST}.json").read_text())
    for node in workflow.values():
        if node["class_type"] == "FlashFaceTinyPhotos":
            node["inputs"]["person"] = 4
    (picture,) = run(server, as_drawn(workflow))["Save Image"]
    opaque = Image.new("L", picture.size, 255)
    ImageDraw.Draw(opaque).ellipse((32, 24, 96, 96), fill=0)
    picture.putalpha(opaque)
    picture.save(server.base / "input" / SCENE)
    shown = Image.new("RGB", picture.size, (120, 120, 124))
    shown.paste(picture, mask=opaque)
    return shown


def draw_pair(server: ComfyServer) -> Image.Image:
    """A picture of two people, in ComfyUI's input folder; here as seen."""
    workflow = json.loads((WORKFLOWS / "api" / "toy_two_people.json").read_text())
    photos = [n for n in workflow.values() if n["class_type"] == "FlashFaceTinyPhotos"]
    for node, person in zip(photos, (4, 6), strict=True):
        node["inputs"]["person"] = person
    (picture,) = run(server, as_drawn(workflow))["Save Image"]
    picture.save(server.base / "input" / PAIR)
    return picture


def as_drawn(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same with pictures of their own size."""
    for node in workflow.values():
        if node["class_type"] == "ImageScaleBy":
            node["inputs"]["scale_by"] = 1.0
    return workflow


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
    faces = [("Photos", tiles(first, 2, 74))]
    small, others = tiles(saved[:1], 1, 149), tiles(second[1:2], 1, 149)
    if name == "toy_several_photos":
        old = first[0].convert("L").convert("RGB")
        return [
            [
                ("Four photos", tiles([old, *first[1:]], 2, 72)),
                ("of the first alone", tiles(drawn["From one photo"], 1, 152)),
                ("of all four", tiles(drawn["From four photos"], 1, 152)),
            ]
        ]
    if name == "toy_two_people":
        strips = [("Photos of A", tiles(first, 4, 58)), ("Photos of B", tiles(second, 4, 58))]
        (picture,) = saved
        return [strips, [("A and B", picture.resize((480, 240), Image.Resampling.LANCZOS))]]
    if name == "toy_mixing":
        titles = {"A": "A", "The mix": "half of each", "B": "B"}
        return [[(text, tiles(drawn[title], 1, 149)) for title, text in titles.items()]]
    if name == "toy_save_identity":
        return [[("Four photos, kept as toy_person.safetensors", tiles(drawn["Faces"], 4, 120))]]
    if name == "toy_saved_identity":
        return [[("toy_person.safetensors", tiles(first, 2, 116)), ("an elder", tiles(saved, 1))]]
    if name == "toy_best_of_n":
        every, best = drawn["All eight"], drawn["The best"]
        return [[("Eight pictures", tiles(every, 4, 78)), ("the best one", tiles(best, 1, 152))]]
    if name == "toy_style_portrait":
        style = ("style image", tiles(drawn["Style image"], 1, 148))
        return [[("Four photos", tiles(first, 2, 74)), style, ("both", tiles(saved, 1, 148))]]
    if name == "toy_style_two_people":
        strips = [("Photos of A", tiles(first, 4, 58)), ("Photos of B", tiles(second, 4, 58))]
        style, (picture,) = tiles(drawn["Style image"], 1, 150), saved
        both = picture.resize((300, 150), Image.Resampling.LANCZOS)
        return [strips, [("style image", style), ("A and B", both)]]
    if name == "03_child_and_elder":
        ages = [(title, tiles(drawn[title], 1, 149)) for title in ("The child", "The elder")]
        return [[("Photos", tiles(first, 2, 74)), *ages]]
    if name == "04_face_into_picture":
        return [[*faces, ("a picture", tiles(drawn["scene"], 1, 149)), ("with her", small)]]
    if name == "05_two_people":
        (picture,) = saved
        strips = [("Photos of A", tiles(first, 4, 56)), ("Photos of B", tiles(second, 4, 56))]
        return [strips, [("A and B", picture.resize((464, 232), Image.Resampling.LANCZOS))]]
    if name == "06_mixing":
        return [[("A", tiles(first[1:2], 1, 149)), ("half of each", small), ("B", others)]]
    if name == "09_best_of_four":
        best = ("the most like", tiles(drawn["The best"], 1, 149))
        return [[*faces, ("four pictures", tiles(drawn["All four"], 2, 74)), best]]
    if name == "10_face_pass":
        before, after = (
            picture.resize((300, 150), Image.Resampling.LANCZOS)
            for picture in (drawn["pair"][0], saved[0])
        )
        photo = tiles(first[:1], 1, 149)
        return [[("a picture", before), ("a photo", photo)], [("with her face", after)]]
    if name == "11_character_sheet":
        four = [drawn[f"Picture {title}"][0] for title in POSES]
        return [[("Photos", tiles(first, 2, 116)), ("four scenes", tiles(four, 2, 116))]]
    if name == "12_save_identity":
        return [[("Four photos, kept as my_person.safetensors", tiles(first, 4, 116))]]
    if name == "13_saved_identity":
        return [[("my_person.safetensors", tiles(first, 2, 116)), ("a picture", tiles(saved, 1))]]
    if name == "14_lora_and_controlnet":
        lines = ("lines that count", tiles(drawn["Lines"], 1, 232))
        return [[("Photos", tiles(first, 2, 116)), lines]]
    if name == "16_face2diffusion":
        return [[("Photos", tiles(first, 2, 116)), ('"a portrait of f l, ..."', tiles(saved, 1))]]
    if name == "17_training_free":
        return [[("Photos", tiles(first, 2, 116)), ("any SDXL model", words_card("SDXL"))]]
    if name == FIRST:
        words = '"a child ... by the sea"'
        return [[("Four photos", tiles(first, 2, 116)), (words, tiles(saved, 1))]]
    return [[("Photos", tiles(first, 2, 116)), ("the picture", tiles(saved, 1))]]


def words_card(words: str) -> Image.Image:
    card = Image.new("RGB", (232, 232), (54, 56, 62))
    font = ImageFont.load_default(size=72)
    ImageDraw.Draw(card).text((116, 116), words, INK, font, anchor="mm")
    return card


def tiles(pictures: Pictures, columns: int, side: int = 232) -> Image.Image:
    """Square pictures, row after row."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * side, rows * side), "white")
    for n, picture in enumerate(pictures):
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        whole.paste(small, (n % columns * side, n // columns * side))
    return whole


def sheet(rows: Sequence[Sequence[Panel]], foot: str = "") -> Image.Image:
    """A square: the gallery cuts what is not."""
    widths = [sum(image.width + MARGIN for _, image in row) for row in rows]
    heights = [max(image.height for _, image in row) + MARGIN + FOOT for row in rows]
    side = max(max(widths) + MARGIN, sum(heights) + MARGIN + FOOT * bool(foot))
    assert side <= LARGEST, side
    whole = Image.new("RGB", (side, side), BACK)
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=14)
    top = (side - sum(heights)) // 2
    pen.text((MARGIN, side - FOOT), foot, FAINT, font)
    for row, height, width in zip(rows, heights, widths, strict=True):
        left = (side - width + MARGIN) // 2
        for caption, image in row:
            whole.paste(image, (left, top))
            pen.text((left, top + height - FOOT - MARGIN + 7), caption, INK, font)
            left += image.width + MARGIN
        top += height
    return whole


if __name__ == "__main__":
    main()
