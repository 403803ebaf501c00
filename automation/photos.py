"""Photos that a manifest names: found in the given folders only, and known by their bytes."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
SUBFOLDER = "flashface_automation"  # of the servers' input folders
WILD = re.compile(r"[*?\[]")


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
        found = [path for part in _parts(cell) for path in self._paths(part)]
        return [self._read(path) for path in found]

    def _paths(self, part: str) -> Iterator[Path]:
        if WILD.search(part) is None or (self.home / part).is_file():
            yield self._inside(part)
            return
        # What is there is meant, also with signs of a pattern in its name.
        head, names = [], part.split("/")
        while len(names) > 1 and self._is_name([*head, names[0]]):
            head.append(names.pop(0))
        start, pattern = "/".join(head), "/".join(names)
        if ".." in Path(pattern).parts:
            raise PhotoError(f"{part} climbs out of a folder with `..`; name the folder itself")
        folder = self._inside(start or ("/" if part.startswith("/") else "."))
        hits = sorted(hit for hit in folder.glob(pattern) if hit.is_file())
        pictures = [hit for hit in hits if not hit.name.startswith(".")]
        if not pictures:
            raise PhotoError(f"no file matches {part}")
        for hit in pictures:
            yield self._inside(str(hit))

    def _is_name(self, names: list[str]) -> bool:
        return not WILD.search(names[-1]) or (self.home / "/".join(names)).is_dir()

    def _inside(self, part: str) -> Path:
        path = (self.home / part).resolve()  # links are followed first
        if not any(path.is_relative_to(folder) for folder in self.folders):
            names = ", ".join(map(str, self.folders))
            raise PhotoError(f"{part} lies outside of {names}; --photos allows another folder")
        if not path.exists():
            raise PhotoError(f"there is no file {part}")
        return path


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
