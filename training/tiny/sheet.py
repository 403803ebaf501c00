"""A contact sheet of the toy world: python -m training.tiny.sheet --seed 7 --out sheet.png."""

import argparse
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from toy_world.draw import draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.command_line import file_to_write
from training.pictures import to_image

LABEL = 50  # pixels below a picture


def cast(seed: int, split: str, rows: int, columns: int) -> tuple[People, Scenes]:
    """rows people in columns scenes each: a child, an adult, an elder, and around again."""
    people = People.draw_from(seed, split, rows)
    people = people[torch.arange(rows).repeat_interleave(columns)]
    scenes = Scenes.draw_from(seed, split, rows * columns)
    ages = torch.arange(rows * columns) % columns % 3
    styles = (torch.arange(rows * columns) % columns) % 4
    return people, scenes.with_values(age=ages, style=styles)


def contact_sheet(seed: int, split: str, rows: int, columns: int, size: int) -> Image.Image:
    """A row per person: the reference crop of the first scene, then every scene."""
    people, scenes = cast(seed, split, rows, columns)
    pictures, boxes = draw(people, scenes, size)
    crops = face_crop(pictures, boxes)
    sheet = Image.new("RGB", (72 + columns * (size + 6), rows * (size + LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    told = captions(scenes)
    for n, picture in enumerate(pictures):
        row, column = divmod(n, columns)
        x, y = 72 + column * (size + 6), row * (size + LABEL)
        sheet.paste(to_image(picture), (x, y))
        text = "\n".join(textwrap.wrap(told[n].removeprefix("a portrait of "), size // 4)[:4])
        pen.text((x, y + size + 1), text, fill="black", font_size=8)
        if column == 0:
            sheet.paste(to_image(crops[n]), (4, y))
    return sheet


def picture_to_write(text: str) -> Path:
    path = file_to_write(text)
    if path.suffix.lower() not in Image.registered_extensions():
        raise argparse.ArgumentTypeError(f"{text} is no picture; let it end in .png or .jpg")
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=picture_to_write, required=True)
    options = parser.parse_args(arguments)
    sheet = contact_sheet(options.seed, options.split, options.people, options.scenes, options.size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out)


if __name__ == "__main__":
    main()
