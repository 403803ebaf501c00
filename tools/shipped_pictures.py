"""The pictures that ship beside workflows/tiny_models.json, from one real run of it.

    .comfy/venv/bin/python tools/shipped_pictures.py

Writes workflows/toy_person.png, the four photos that the workflow names, and the thumbnail
workflows/tiny_models.jpg. Run it again whenever the tiny models or the workflow change.
"""

import json
import os

from comfy_server import REPO, ComfyServer
from environment import PRIVATE
from PIL import Image, ImageDraw, ImageFont
from toy_people import draw_photos, save_photos

WORKFLOWS = REPO / "workflows"
PHOTOS = WORKFLOWS / "toy_person.png"
SEED = 5  # whose first person is shown

CELL, MARGIN, FOOT = 232, 16, 28


def main() -> None:
    (photos,) = draw_photos(SEED, 1)
    save_photos(PHOTOS, photos)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        save_photos(server.base / "input" / PHOTOS.name, photos)
        workflow = json.loads((WORKFLOWS / "api" / "tiny_models.json").read_text())
        (path,) = server.files(server.prompt(workflow))
        picture = Image.open(path).convert("RGB")
    thumbnail(photos, picture).save(WORKFLOWS / "tiny_models.jpg", quality=90)
    print(PHOTOS)
    print(WORKFLOWS / "tiny_models.jpg")


def thumbnail(photos: list[Image.Image], picture: Image.Image) -> Image.Image:
    size = (2 * CELL + 3 * MARGIN, CELL + 2 * MARGIN + FOOT)
    sheet, half = Image.new("RGB", size, "white"), CELL // 2
    for n, photo in enumerate(photos):
        place = (MARGIN + n % 2 * half, MARGIN + n // 2 * half)
        sheet.paste(photo.resize((half, half), Image.Resampling.LANCZOS), place)
    right = CELL + 2 * MARGIN
    sheet.paste(picture.resize((CELL, CELL), Image.Resampling.LANCZOS), (right, MARGIN))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for left, text in ((MARGIN, "Four photos"), (right, '"a child ... by the sea"')):
        pen.text((left, CELL + MARGIN + 7), text, "black", font)
    return sheet


if __name__ == "__main__":
    main()
