"""Photographs as people have them: a folder per person, one flat folder, webdataset shards, or
MultiID-2M."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flashface_core.errors import FlashFaceError

from .shards import Blob, read_shard

PICTURES = ("jpg", "jpeg", "png", "webp")


Box = tuple[float, float, float, float]


class Photo(NamedTuple):
    """name: unique in the source, with / between folders. person: None where nobody says.

    text: the caption, or a JSON object that has it as `label`. apart: a face, and those of others
    in the same picture, of whom nothing is to be seen: boxes x1, y1, x2, y2 in pixels.
    """

    name: str
    person: str | None
    picture: Blob
    text: Blob | None
    label: str = ""
    apart: tuple[Box, tuple[Box, ...]] | None = None

    def caption(self) -> str:
        text = decoded(self.text.read()) if self.text else ""
        return str(json.loads(text).get(self.label) or "").strip() if self.label else text.strip()


def decoded(text: bytes) -> str:
    """As editors write it: UTF-8 or, with its mark, UTF-16."""
    is_wide = text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return text.decode("utf-16" if is_wide else "utf-8-sig", "replace")


class Source(NamedTuple):
    """photos in the order of their names; broken: (shard, why it stops early)."""

    photos: list[Photo]
    broken: list[tuple[str, str]]


def open_source(path: Path) -> Source:
    """Lists a folder or one shard. Captions are .txt files, or entries, beside the pictures. A
    folder in MultiID-2M's layout is read as that (see multiid).

    Raises FlashFaceError where there are no photographs.
    """
    from .multiid import is_multiid, open_multiid

    if not path.exists():
        raise FlashFaceError(
            f"There is no {path}; give a folder with photographs, or webdataset shards (.tar)."
        )
    if path.is_dir() and is_multiid(path):
        return open_multiid(path)
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    photos, broken = [] if path.is_file() else _in_folder(path), []
    for shard in shards:
        found, trouble = _in_shard(shard)
        photos += found
        if trouble:
            broken.append((shard.name, trouble))
    if not photos:
        reason = f"; {broken[0][0]} is broken: {broken[0][1]}" if broken else ""
        raise FlashFaceError(
            f"{path} has no photographs{reason}; expected {', '.join(PICTURES)} in a folder per "
            "person or in one folder, or uncompressed .tar shards of them."
        )
    return Source(photos, broken)


def _in_folder(folder: Path) -> list[Photo]:
    """Those below a sub-folder belong to the person it is named after."""
    photos = []
    for file in _files_below(folder):
        if file.suffix.lower().lstrip(".") not in PICTURES:
            continue
        place = file.relative_to(folder)
        if any(part.startswith(".") for part in place.parts):  # hidden, like macOS's ._ files
            continue
        person = place.parts[0] if len(place.parts) > 1 else None
        text = file.with_suffix(".txt")
        caption = Blob.whole(text) if text.is_file() else None
        photos.append(Photo(place.as_posix(), person, Blob.whole(file), caption))
    return sorted(photos)


def _files_below(folder: Path, inside: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Also through links, as large sets lie on other disks; never into a folder that it is in."""
    inside = (*inside, folder.resolve())
    try:
        paths = sorted(folder.iterdir())
    except PermissionError:
        return
    for path in paths:
        if path.is_file():
            yield path
        elif path.is_dir() and path.resolve() not in inside:
            yield from _files_below(path, inside)


def _in_shard(shard: Path) -> tuple[list[Photo], str]:
    samples, trouble = read_shard(shard)
    photos = []
    for key, parts in samples:
        extension = next((one for one in PICTURES if one in parts), None)
        if extension is None:
            continue
        person = _person(parts["json"]) if "json" in parts else None
        photos.append(
            Photo(f"{shard.name}/{key}.{extension}", person, parts[extension], parts.get("txt"))
        )
    return photos, trouble


def _person(blob: Blob) -> str | None:
    try:
        value = json.loads(blob.read())
    except ValueError:
        return None
    person = value.get("person") if isinstance(value, dict) else None
    return None if person is None else str(person)
