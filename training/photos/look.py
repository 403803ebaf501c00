"""What is seen in a photograph: its face, and what tells it from others."""

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps

from flashface_core.faces.crop import crop_face
from flashface_core.faces.face import Detector

from .sources import Box, Photo

HASH_SIDE = 16  # 256 bits: of faces of two people at least 20 % differ, on 100 people of LFW


@dataclass(frozen=True)
class PhotoScan:
    """One line of the progress file.

    size: bytes of the picture file. error: why it cannot be read. faces: how many were found; the
    rest is given when it is one. box (x1, y1, x2, y2) and points (Face.points, () without): pixels
    of the upright photograph.
    picture_hash, face_hash: difference hashes in hex. embedding: base64 of float16, "" without.
    """

    name: str
    size: int
    error: str = ""
    faces: int = 0
    width: int = 0
    height: int = 0
    box: tuple[float, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    score: float = 0.0
    picture_hash: str = ""
    face_hash: str = ""
    embedding: str = ""

    def crop(self, pixels: torch.Tensor) -> torch.Tensor:
        """The levelled face of the upright photograph, uint8 (H, W, 3) to (h, w, 3)."""
        (x1, y1, x2, y2), (left, right) = self.box, self.points[:2]
        return crop_face(pixels, (x1, y1, x2, y2), ((left[0], left[1]), (right[0], right[1])))


def look_at(photo: Photo, detector: Detector) -> PhotoScan:
    """Never raises for a bad picture: the result says what is wrong with it."""
    name, size = photo.name, photo.picture.size
    try:
        picture = read_photo(photo)
    except Exception as error:  # Pillow's formats raise errors of every kind for damaged data
        return PhotoScan(name, size, error=_reason(error))
    pixels = torch.from_numpy(np.array(picture))
    found = detector.find(pixels)
    if len(found) != 1:
        return PhotoScan(name, size, faces=len(found))
    (face,) = found
    crop = crop_face(pixels, face.box, face.eyes)
    embedding = ""
    if detector.can_embed:
        values = detector.embed(pixels, face).astype("<f2")
        embedding = base64.b64encode(values.tobytes()).decode("ascii")
    return PhotoScan(
        name,
        size,
        faces=1,
        width=picture.width,
        height=picture.height,
        box=face.box,
        points=() if face.points is None else tuple(map(tuple, face.points.tolist())),
        score=face.score,
        picture_hash=difference_hash(picture),
        face_hash=difference_hash(Image.fromarray(crop.numpy())),
        embedding=embedding,
    )


class Readable(Protocol):
    """A Blob, or bytes in memory."""

    def read(self) -> bytes: ...


def read_picture(file: Readable) -> Image.Image:
    """Upright RGB; transparency falls on black. Raises whatever Pillow does for damaged data."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file.read())))
    if picture.mode.startswith("I"):  # 16 bits, which Pillow cuts off at 255
        picture = Image.fromarray((np.asarray(picture) / 257).clip(0, 255).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return picture.convert("RGB")


def damage(data: bytes) -> str:
    """Why a picture file cannot be read; "" where it can."""
    try:
        read_picture(io.BytesIO(data))
    except Exception as error:  # Pillow's formats raise errors of every kind
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    # An address in memory would make two runs differ.
    return re.sub(r" <[^>]* at 0x[0-9a-f]+>", "", f"{type(error).__name__}: {error}")


def pixels_of(data: bytes) -> torch.Tensor:
    """A picture file as uint8 (H, W, 3)."""
    return torch.from_numpy(np.array(read_picture(io.BytesIO(data))))


def read_photo(photo: Photo) -> Image.Image:
    """As read_picture; the part without the faces of others where there are any."""
    picture = read_picture(photo.picture)
    return picture if photo.apart is None else picture.crop(alone(*photo.apart, *picture.size))


def alone(face: Box, others: Iterable[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the largest part of a picture that holds the face and no other, found by
    one cut beside each of the others. Raises ValueError where two faces overlap."""
    part = (0, 0, width, height)
    x1, y1, x2, y2 = face
    for left, top, right, bottom in others:
        cuts = []
        if right <= x1:
            cuts.append((max(part[0], ceil(right)), *part[1:]))
        if left >= x2:
            cuts.append((*part[:2], min(part[2], int(left)), part[3]))
        if bottom <= y1:
            cuts.append((part[0], max(part[1], ceil(bottom)), *part[2:]))
        if top >= y2:
            cuts.append((*part[:3], min(part[3], int(top))))
        if not cuts:
            raise ValueError("the face overlaps another one")
        part = max(cuts, key=lambda cut: (cut[2] - cut[0]) * (cut[3] - cut[1]))
    return part


def difference_hash(picture: Image.Image) -> str:
    """Whether brightness rises from each cell of a 17 x 16 grid to the next, as hex (256 bits).

    Survives compression, resizing and changes of brightness (dHash).
    """
    size = (HASH_SIDE + 1, HASH_SIDE)
    grid = np.asarray(picture.convert("L").resize(size, Image.Resampling.BILINEAR), dtype=np.int16)
    return np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes().hex()


def hash_bits(hashes: list[str]) -> np.ndarray:
    """(N, 256) of 0 and 1."""
    rows = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8)
    return np.unpackbits(rows.reshape(len(hashes), -1), axis=1)


def embeddings(looks: list[PhotoScan]) -> np.ndarray:
    """Unit vectors, float32 (N, D)."""
    values = np.stack(
        [np.frombuffer(base64.b64decode(look.embedding), dtype="<f2") for look in looks]
    ).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12)


def read_looks(path: Path) -> dict[tuple[str, int], PhotoScan]:
    """The looks of an earlier run by name and size; a line that a kill cut short is removed.

    Those of versions that kept the eyes alone are left out: their photographs are looked at again.
    """
    if not path.exists():
        return {}
    looks, whole = {}, 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            values = json.loads(line)
            whole += len(line)
            if "points" not in values:
                continue
            values["box"] = tuple(values["box"])
            values["points"] = tuple(tuple(point) for point in values["points"])
            look = PhotoScan(**values)
            looks[look.name, look.size] = look
    if whole != path.stat().st_size:
        with open(path, "r+b") as file:
            file.truncate(whole)
    return looks


def look_at_all(photos: Iterable[Photo], detector: Detector, progress: Path) -> Iterator[PhotoScan]:
    """Looks in the order of the photos; each new one is added to the file `progress` at once."""
    known = read_looks(progress)
    with open(progress, "a", encoding="utf-8", newline="\n", buffering=1) as file:
        for photo in photos:
            look = known.get((photo.name, photo.picture.size))
            if look is None:
                look = look_at(photo, detector)
                file.write(json.dumps(asdict(look)) + "\n")
            yield look
