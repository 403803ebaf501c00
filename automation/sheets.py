"""A contact sheet per person: the photos, and every picture with its prompt and seed.

index.txt beside them says whose each is, in letters that the font of the sheets may lack.
"""

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .jobs import PROMPT, SEED, Job, by_person
from .pictures import upright
from .results import Results

SIDE, GAP, ACROSS = 192, 8, 6
LINES, LETTERS, LINE_HEIGHT = 3, 34, 13
MOST = 300  # pictures on a sheet
PAPER, INK = "white", "black"
OWN_FILE = re.compile(r"\d{3,}_[^/\\]+\.jpg")
INDEX, HEADER = "index.txt", "file\tperson\trows"
UNKNOWN = "?"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Sheet(NamedTuple):
    """number: of the person."""

    name: str
    number: int
    jobs: list[Job]

    @property
    def told(self) -> str:
        person = " ".join(self.jobs[0].person.split())
        return f"{self.name}\t{person}\t{_ranges(job.row for job in self.jobs)}"


def draw_sheets(jobs: Iterable[Job], results: Results) -> list[Path]:
    """Those of an earlier list, or of more pages, are taken away."""
    folder = results.folder / "sheets"
    folder.mkdir(exist_ok=True)
    sheets = list(_sheets(jobs))
    kept = {_alike(sheet.name) for sheet in sheets}
    for name in _earlier(folder / INDEX):
        if OWN_FILE.fullmatch(name) and _alike(name) not in kept:
            (folder / name).unlink(missing_ok=True)
    text = "\n".join([HEADER, *(sheet.told for sheet in sheets)]) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")
    for sheet in sheets:
        _draw(sheet.jobs, sheet.number, results).save(folder / sheet.name, quality=88)
    return [folder / sheet.name for sheet in sheets]


def _sheets(jobs: Iterable[Job]) -> Iterator[Sheet]:
    for number, own in enumerate(by_person(jobs).values(), 1):
        for page, first in enumerate(range(0, len(own), MOST), 1):
            name = f"{number:03d}_{slug(own[0].person)}" + (f"_{page}" if page > 1 else "")
            yield Sheet(f"{name}.jpg", number, own[first : first + MOST])


def _earlier(index: Path) -> list[str]:
    if not index.is_file():
        return []
    lines = index.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return [line.split("\t")[0] for line in lines]


def _alike(name: str) -> str:
    """Some file systems keep another spelling of the same name."""
    return unicodedata.normalize("NFC", name).casefold()


def slug(name: str) -> str:
    """A person's name as a part of a file's name: letters and digits of any script."""
    letters = unicodedata.normalize("NFC", name)
    kept = (one if one == "-" or unicodedata.category(one)[0] in "LMN" else "_" for one in letters)
    return re.sub("_+", "_", "".join(kept))[:40].strip("_") or "person"


def _ranges(numbers: Iterable[int]) -> str:
    """1, 2, 3, 5 as 1-3, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _draw(jobs: Sequence[Job], number: int, results: Results) -> Image.Image:
    every = (photo.path for job in jobs for own in job.photos for photo in own)
    photos = list(dict.fromkeys(every))[:ACROSS]  # a person's rows may each have their own
    cells = [(path, "photo") for path in photos]
    font, varied = _font(11), _varied(jobs)
    cells += [(results.path(job), _caption(job, varied, font)) for job in jobs]
    across = min(ACROSS, max(len(photos), len(jobs)))
    breaks = across - len(photos) if photos else 0  # pictures begin on a line of their own
    places = [*range(len(photos)), *range(len(photos) + breaks, len(cells) + breaks)]
    high, wide = SIDE + LINES * LINE_HEIGHT + GAP, SIDE + GAP
    rows = places[-1] // across + 1
    title = 2 * LINE_HEIGHT
    sheet = Image.new("RGB", (across * wide + GAP, rows * high + GAP + title), PAPER)
    draw = ImageDraw.Draw(sheet)
    large = _font(16)
    draw.text((GAP, GAP), f"{number:03d}  {_drawable(jobs[0].person, large)}", INK, large)
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


def _caption(job: Job, names: Sequence[str], font: Font) -> str:
    prompt = _drawable(str(job.values.get(PROMPT, "")), font)
    lines = textwrap.wrap(prompt, LETTERS)[: LINES - 1]
    told = (f"{name} {job.values[name]}" for name in names if name in job.values)
    return "\n".join([*lines, _drawable(", ".join(told), font)[:LETTERS]])


@cache
def _font(size: int) -> Font:
    """Pillow below 10.1, or without FreeType, has one of one size."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):
        return ImageFont.load_default()


def _drawable(text: str, font: Font) -> str:
    """Letters that the font lacks lose their accents, or are question marks."""
    return "".join(_letter(one, font) for one in unicodedata.normalize("NFC", text))


@cache
def _letter(letter: str, font: Font) -> str:
    plain = unicodedata.normalize("NFKD", letter)[:1]
    return next((one for one in (letter, plain) if one <= "~" or _has(font, one)), UNKNOWN)


def _has(font: Font, letter: str) -> bool:
    try:
        drawn = _drawn(letter, font)
        return isinstance(font, ImageFont.ImageFont) or drawn != _drawn("\uffff", font)
    except UnicodeEncodeError:  # of the font of one size
        return False


def _drawn(letter: str, font: Font) -> bytes:
    paper = Image.new("L", (32, 32))
    ImageDraw.Draw(paper).text((0, 0), letter, "white", font)
    return paper.tobytes()


def _thumbnail(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            picture = upright(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture if max(picture.size) >= SIDE else ImageOps.contain(picture, (SIDE, SIDE))
