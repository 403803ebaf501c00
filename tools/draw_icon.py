"""The icon and the banner that the registry shows: a face, and its feature maps.

    .comfy/venv/bin/python tools/draw_icon.py

Writes docs/icon.png and docs/banner.png.
"""

from __future__ import annotations

from comfy_server import REPO
from PIL import Image, ImageDraw, ImageFont

ICON, BANNER = (400, 400), (1260, 540)  # 21:9
FINE = 4  # times larger while it is drawn
BACK, INK, FAINT = (32, 33, 36), (240, 240, 240), (165, 165, 172)
SKIN, HAIR, LINE = (244, 196, 160), (138, 90, 168), (60, 44, 80)
MAPS = ((206, 147, 216), (255, 213, 79), (129, 199, 132))


def main() -> None:
    for name, size, draw in (("icon", ICON, icon), ("banner", BANNER, banner)):
        picture = Image.new("RGB", (size[0] * FINE, size[1] * FINE), BACK)
        draw(ImageDraw.Draw(picture))
        path = REPO / "docs" / f"{name}.png"
        picture.resize(size, Image.Resampling.LANCZOS).save(path, optimize=True)
        print(path)


def icon(pen: ImageDraw.ImageDraw) -> None:
    maps(pen, 214, 62, 150)
    face(pen, 150, 216, 118)


def banner(pen: ImageDraw.ImageDraw) -> None:
    maps(pen, 300, 130, 190)
    face(pen, 215, 300, 150)
    text(pen, (560, 170), "FlashFace", 104, INK)
    text(pen, (564, 300), "a person's face in any ComfyUI picture,", 34, FAINT)
    text(pen, (564, 350), "as feature maps instead of a few tokens", 34, FAINT)


def text(pen: ImageDraw.ImageDraw, where, words: str, height: int, colour) -> None:
    font = ImageFont.load_default(size=height * FINE)
    pen.text((where[0] * FINE, where[1] * FINE), words, colour, font)


def face(pen: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    """Around x, y; r is half of its width and hair."""
    ellipse(pen, x, y - 0.12 * r, r, 1.12 * r, HAIR)
    ellipse(pen, x, y + 0.1 * r, 0.78 * r, 0.94 * r, SKIN)
    box(pen, x - 0.78 * r, y - 0.9 * r, 1.56 * r, 0.42 * r, HAIR, 0.2 * r)
    for side in (-1, 1):
        ellipse(pen, x + side * 0.32 * r, y, 0.1 * r, 0.13 * r, LINE)
    ends = [(x + dx * r) * FINE for dx in (-0.3, 0.3)], [(y + dy * r) * FINE for dy in (0.2, 0.62)]
    (left, right), (top, bottom) = ends
    pen.arc((left, top, right, bottom), 20, 160, LINE, round(0.07 * r * FINE))


def maps(pen: ImageDraw.ImageDraw, x: float, y: float, side: float) -> None:
    """Three grids of cells, one behind the other; the coarsest in front."""
    for number, (colour, cells) in enumerate(zip(MAPS, (8, 4, 2), strict=True)):
        left, top = x + (2 - number) * 0.14 * side - 0.14 * side, y + number * 0.3 * side
        cell = side / cells
        box(pen, left - 4, top - 4, side + 8, side + 8, BACK, 10)
        for n in range(cells * cells):
            row, column = divmod(n, cells)
            share = 0.35 + 0.65 * ((row * 5 + column * 3 + number) % 7) / 6
            shade = tuple(round(share * value + (1 - share) * 40) for value in colour)
            gap = 0.06 * cell
            at = left + column * cell + gap, top + row * cell + gap
            box(pen, *at, cell - 2 * gap, cell - 2 * gap, shade, 0.12 * cell)


def ellipse(pen: ImageDraw.ImageDraw, x, y, across, up, colour) -> None:
    pen.ellipse([v * FINE for v in (x - across, y - up, x + across, y + up)], colour)


def box(pen: ImageDraw.ImageDraw, x, y, width, height, colour, radius) -> None:
    corners = [v * FINE for v in (x, y, x + width, y + height)]
    pen.rounded_rectangle(corners, radius * FINE, colour)


if __name__ == "__main__":
    main()
