"""Photos that a manifest names: found in the given folders only, and known by their bytes."""

import glob
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
SUFFIXES = {*FORMATS.values(), ".jpeg", ".tiff"}
SUBFOLDER = "flashface_automation"  # of the servers' input folders
WILD = re.compile(r"[*?\[]")
# What systems leave in folders of pictures; a pattern does not mean it, nor what is hidden.
LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
ID_FILE = re.compile(r"[0-9a-f]{32}(_\d+)?\.(png|part)")  # of a list's results


class Photo(NamedTuple):
    """path: resolved. sha256: of the bytes. suffix: of its format, whatever the file is called."""

    path: Path
    sha256: str
    suffix: str

    @property
    def file(self) -> str:
        return f"{self.sha256[:32]}{self.suffix}"

    @property
    def name(self) -> str:
        """What a server is asked for; it tells nothing of where the photo came from."""
        return f"{SUBFOLDER}/{self.file}"

    def read(self) -> bytes:
        """Raises PhotoError where the file is another one by now: its rows have another id."""
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PhotoError(f"{self.path.name} changed since the manifest was checked")
        return data


class PhotoError(Exception):
    """What is wrong with a cell."""


class PhotoFolders:
    """home: where relative paths begin. folders: nothing outside of them is read."""

    def __init__(self, home: Path, folders: Sequence[Path] = ()) -> None:
        self.home = home.resolve()
        self.folders = [folder.resolve() for folder in folders] or [self.home]
        self._read = lru_cache(maxsize=None)(_read)

    def find(self, cell: Any) -> list[Photo]:
        """A path, a glob, several of them with `;` between, or a list. Raises PhotoError."""
        try:
            found = [path for part in _parts(cell) for path in self._paths(part)]
            return [self._read(path) for path in found]
        except (OSError, ValueError) as error:  # a name too long, a pattern that is none
            why = getattr(error, "strerror", None) or error
            raise PhotoError(f"{str(cell)[:60]} cannot be looked up: {why}") from None

    def _paths(self, part: str) -> Iterator[Path]:
        """A folder means its pictures."""
        if WILD.search(part) is None or _as_it_is_there(self.home / part).exists():
            path = self._inside(part)
            if path.is_dir():
                yield from self._paths(f"{glob.escape(part.rstrip('/'))}/*")
            else:
                yield path
            return
        # What is there is meant, also with signs of a pattern in its name.
        head, names = [], part.split("/")
        while len(names) > 1 and self._is_name([*head, names[0]]):
            head.append(names.pop(0))
        start, pattern = "/".join(head), "/".join(names)
        if ".." in Path(pattern).parts:
            raise PhotoError(f"{part} climbs out of a folder with `..`; name the folder itself")
        folder = self._inside(start or ("/" if part.startswith("/") else "."))
        hits = [hit for hit in meant(folder, pattern) if hit.is_file()]
        if not hits:
            raise PhotoError(f"no file matches {part}")
        for hit in hits:
            yield self._inside(str(hit))

    def _is_name(self, names: list[str]) -> bool:
        path = self.home / "/".join(names)
        return not WILD.search(names[-1]) or _as_it_is_there(path).is_dir()

    def _inside(self, part: str) -> Path:
        path = _as_it_is_there(self.home / part).resolve()  # links are followed first
        if not any(path.is_relative_to(folder) for folder in self.folders):
            names = ", ".join(map(str, self.folders))
            raise PhotoError(f"{part} lies outside of {names}; --photos allows another folder")
        if not path.exists():
            raise PhotoError(f"there is no file {part}")
        return path


def meant(folder: Path, pattern: str) -> list[Path]:
    """What a pattern finds, but for what is hidden, litter, or results of a list. What it names
    without a wildcard is meant in any case."""
    for spelled in _spellings(pattern):
        hits = sorted(folder.glob(spelled))
        if hits:
            named = spelled.split("/")
            return [hit for hit in hits if not _is_passed_over(folder, hit, named)]
    return []


def _is_passed_over(folder: Path, hit: Path, named: Sequence[str]) -> bool:
    path = folder
    for name in hit.relative_to(folder).parts:
        path /= name
        if name not in named and (
            name.startswith(".") or name.lower() in LITTER or _holds_results(path)
        ):
            return True
    return False


@cache
def _holds_results(folder: Path) -> bool:
    """A list may lie beside its results, whose pictures are no photos."""
    pictures = folder / "pictures"
    if not pictures.is_dir() or any(one.suffix.lower() in SUFFIXES for one in folder.iterdir()):
        return False
    return all(ID_FILE.fullmatch(one.name) for one in pictures.iterdir())


def _spellings(text: str) -> list[str]:
    """Macs write accents as letters of their own, which look the same."""
    return list(dict.fromkeys((text, *(unicodedata.normalize(f, text) for f in ("NFC", "NFD")))))


def _as_it_is_there(path: Path) -> Path:
    if path.exists():
        return path
    found = Path()
    for name in path.parts:
        there = (found / one for one in _spellings(name) if (found / one).exists())
        found = next(there, found / name)
    return found


def _parts(cell: Any) -> list[str]:
    given = cell if isinstance(cell, list) else str(cell).split(";")
    parts = [str(part).strip() for part in given if str(part).strip()]
    if not parts or any(not isinstance(part, str) for part in given):
        raise PhotoError(f"{cell!r} names no photo; give paths or globs")
    if any("\0" in part for part in parts):
        raise PhotoError(f"{cell!r} is no path")
    return parts


def _read(path: Path) -> Photo:
    if not path.is_file():
        raise PhotoError(f"{path.name} is no file")
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            # MPO: a JPEG with a second picture in it, as phones save them.
            suffix = FORMATS["JPEG" if image.format == "MPO" else str(image.format)]
            image.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise PhotoError(f"{path.name} is no picture of {', '.join(FORMATS)}") from None
    return Photo(path, hashlib.sha256(path.read_bytes()).hexdigest(), suffix)
