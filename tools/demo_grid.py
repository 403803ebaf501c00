"""Photos and pictures of several people as one labelled picture."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, MARGIN = 256, 16, 24
HEAD, FOOT = 84, 22  # of the whole, with the prompts, and below every row
PHOTOS, WITHOUT = "Four photos of person {}", "Without FlashFace"
NOBODY = "The same model,\nprompts and noise,\nwithout photos."


def draw_grid(
    rows: Sequence[Sequence[Image.Image]],
    photos: Sequence[Sequence[Image.Image]],
    prompts: Sequence[str],
) -> Image.Image:
    """A row of pictures per person beside the photos, the last row of nobody; prompts on top."""
    size = (2 * MARGIN + (len(prompts) + 1) * (CELL + GAP) - GAP,)
    size += (MARGIN + HEAD + len(rows) * (CELL + FOOT + GAP),)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    for column, prompt in enumerate(prompts, 1):
        text = textwrap.fill(prompt, 36)
        pen.text((_left(column), MARGIN), text, "black", font)
    for number, row in enumerate(rows):
        top = _top(number)
        person = photos[number] if number < len(photos) else ()
        for n, photo in enumerate(person):
            place = (_left(0) + n % 2 * CELL // 2, top + n // 2 * CELL // 2)
            sheet.paste(_fit(photo, CELL // 2), place)
        if not person:
            large = ImageFont.load_default(size=20)
            pen.multiline_text((_left(0), top + 90), NOBODY, "black", large, spacing=8)
        below = PHOTOS.format(number + 1) if person else WITHOUT
        pen.text((_left(0), top + CELL + 3), below, "black", font)
        for column, picture in enumerate(row, 1):
            sheet.paste(_fit(picture, CELL), (_left(column), top))
    return sheet


def _left(column: int) -> int:
    return MARGIN + column * (CELL + GAP)


def _top(row: int) -> int:
    return MARGIN + HEAD + row * (CELL + FOOT + GAP)


def _fit(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.LANCZOS)
