"""A contact sheet per person: the photos, and every picture with its prompt and seed."""

import logging
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .jobs import PROMPT, SEED, Job, by_person
from .pictures import upright
from .results import Results

log = logging.getLogger("flashface.automation")

SIDE, GAP, ACROSS = 192, 8, 6
LINES, LETTERS, LINE_HEIGHT = 3, 34, 13
MOST = 300  # pictures on a sheet
PAPER, INK = "white", "black"


def draw_sheets(jobs: Iterable[Job], results: Results) -> list[Path]:
    folder = results.folder / "sheets"
    folder.mkdir(exist_ok=True)
    paths = []
    for number, own in enumerate(by_person(jobs).values(), 1):
        for page, first in enumerate(range(0, len(own), MOST), 1):
            name = f"{number:03d}_{slug(own[0].person)}" + (f"_{page}" if page > 1 else "")
            paths.append(folder / f"{name}.jpg")
            _draw(own[first : first + MOST], results).save(paths[-1], quality=88)
    return paths


def slug(name: str) -> str:
    """A person's name as a part of a file's name, whatever it holds."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)[:40].strip("_") or "person"


def _draw(jobs: Sequence[Job], results: Results) -> Image.Image:
    photos = [photo.path for own in jobs[0].photos for photo in own][:ACROSS]
    cells = [(path, "photo") for path in photos]
    cells += [(results.path(job), _caption(job, _varied(jobs))) for job in jobs]
    across = min(ACROSS, max(len(photos), len(jobs)))
    breaks = across - len(photos) if photos else 0  # pictures begin on a line of their own
    places = [*range(len(photos)), *range(len(photos) + breaks, len(cells) + breaks)]
    high, wide = SIDE + LINES * LINE_HEIGHT + GAP, SIDE + GAP
    rows = places[-1] // across + 1
    title = 2 * LINE_HEIGHT
    sheet = Image.new("RGB", (across * wide + GAP, rows * high + GAP + title), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), _latin(jobs[0].person), INK, ImageFont.load_default(16))
    font = ImageFont.load_default(11)
    for place, (path, caption) in zip(places, cells, strict=True):
        x, y = GAP + place % across * wide, GAP + title + place // across * high
        thumbnail = _thumbnail(path)
        if thumbnail is None:
            draw.rectangle((x, y, x + SIDE, y + SIDE), outline=INK)
            draw.text((x + GAP, y + GAP), "missing", INK, font)
        else:
            sheet.paste(thumbnail, (x, y))
        draw.multiline_text((x, y + SIDE + 1), caption, INK, font, spacing=1)
    return sheet


def _varied(jobs: Sequence[Job]) -> list[str]:
    """Columns that tell the pictures of a sheet apart, besides the prompt."""
    names = dict.fromkeys(name for job in jobs for name in job.values)
    values = {name: {repr(job.values.get(name)) for job in jobs} for name in names}
    return [name for name in names if name != PROMPT and (name == SEED or len(values[name]) > 1)]


def _caption(job: Job, names: Sequence[str]) -> str:
    lines = textwrap.wrap(_latin(str(job.values.get(PROMPT, ""))), LETTERS)[: LINES - 1]
    told = (f"{name} {job.values[name]}" for name in names if name in job.values)
    return "\n".join([*lines, _latin(", ".join(told))[:LETTERS]])


def _latin(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            picture = upright(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture if max(picture.size) >= SIDE else ImageOps.contain(picture, (SIDE, SIDE))
