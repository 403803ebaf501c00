"""People for the trainer, read from encoded shards one picture at a time.

The trainer draws by (seed, step, group); an index of where every picture lies keeps that, at any
size of the data, where a stream of shards could not.
"""

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from tqdm import tqdm

from flashface_core.errors import FlashFaceError
from training.buckets import make_buckets
from training.data import PeopleInMemory, Picture

from .frame import frame
from .look import look_at
from .select import DEFAULT_LIMITS, Limits, select
from .shards import Blob, read_shard
from .sources import open_source

log = logging.getLogger("flashface.training")

LATENTS, INDEX = "latents-*.tar", "index.npz"
SEEN = "seen-*"  # of every system
PARTS = ("picture.npy", "face.npy", "txt")


class Sizes(NamedTuple):
    """Pixels of the square pictures and of the square faces."""

    picture: int
    face: int


def seen_file(shard: str, system: str) -> str:
    """What a system's encoders saw in the photographs of a shard, "00000" (or "*")."""
    return SEEN.replace("*", f"{system}-{shard}.safetensors")


def encoders_told(folder: Path, system: str) -> Path:
    return folder / f"seen-{system}.json"


def encoders_file(folder: Path, system: str) -> Path:
    """Encoders that go into the trained file."""
    return folder / f"{system}-encoders.safetensors"


class PeopleInShards:
    """folder: made by prepare and encode. system: whose encoders' view of the pictures is read too.
    Raises FlashFaceError for a folder that is not finished, or that changed since."""

    def __init__(self, folder: Path, system: str | None = None) -> None:
        path = folder / INDEX
        if not path.is_file():
            raise FlashFaceError(
                f"{folder} holds no {INDEX}; run python -m training.photos.encode {folder} --vae "
                "FILE, which finishes with it."
            )
        with np.load(path, allow_pickle=False) as index:
            self._shards = [folder / name for name in index["shards"].tolist()]
            bytes_then = index["shard_bytes"].tolist()
            self._shard, self._places = index["shard"], index["places"]
            self._boxes, self._starts = index["boxes"], index["starts"]
            # Indexes of earlier versions have none: all pictures are squares of one size.
            self._shapes = index.get("shapes")
            self.names: list[str] = index["people"].tolist()
        for shard, size in zip(self._shards, bytes_then, strict=True):
            if not shard.is_file() or shard.stat().st_size != size:
                raise FlashFaceError(
                    f"{shard.name} is missing or has changed since {INDEX} was written; delete "
                    f"both and run python -m training.photos.encode {folder} --vae FILE."
                )
        told = hashlib.sha256(json.dumps(self.names).encode())
        told.update(np.ascontiguousarray(self._boxes).tobytes())
        if self._shapes is not None:
            told.update(np.ascontiguousarray(self._shapes).tobytes())
        self.digest = told.hexdigest()[:16]  # of who is in the pictures, where, and their shapes
        self._first = np.searchsorted(self._shard, np.arange(len(self._shards)))
        self._seen = self._seen_files(folder, system) if system else []
        is_mixed = self._shapes is not None and (self._shapes != self._shapes[0]).any()
        self.buckets = make_buckets(self) if is_mixed else []

    def _seen_files(self, folder: Path, system: str) -> list[Path]:
        files = [folder / seen_file(shard_number(shard), system) for shard in self._shards]
        if missing := [path.name for path in files if not path.is_file()]:
            raise FlashFaceError(
                f"{folder} lacks what the encoders of {system} see ({missing[0]}); run python -m "
                f"training.photos.encode {folder} --vae FILE --system {system} with its encoders."
            )
        return files

    def __len__(self) -> int:
        return len(self.names)

    def count(self, person: int) -> int:
        return int(self._starts[person + 1] - self._starts[person])

    def shape(self, person: int, index: int) -> tuple[int, int]:
        if self._shapes is None:
            height, width = self.picture(person, index).latent.shape[-2:]
        else:
            height, width = self._shapes[int(self._starts[person]) + index].tolist()
        return height, width

    def picture(self, person: int, index: int) -> Picture:
        row = int(self._starts[person]) + index
        number = int(self._shard[row])
        shard = self._shards[number]
        blobs = (Blob(shard, int(offset), int(size)) for offset, size in self._places[row])
        latent, face, text = (blob.read() for blob in blobs)
        x1, y1, x2, y2 = self._boxes[row].tolist()
        seen = self._see(number, row - int(self._first[number])) if self._seen else {}
        return Picture(_tensor(latent), _tensor(face), text.decode(), (x1, y1, x2, y2), seen)

    def _see(self, number: int, row: int) -> dict[str, torch.Tensor]:
        with safetensors.safe_open(self._seen[number], framework="pt") as file:
            return {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118


def shard_number(path: Path) -> str:
    """00000 of latents-00000.tar."""
    return path.stem.rpartition("-")[2]


def write_index(folder: Path) -> None:
    """Where every picture of every person lies; written when all latents are there.

    People follow each other in the shards. Raises FlashFaceError for a damaged shard.
    """
    shards = sorted(folder.glob(LATENTS))
    people, starts = [], []
    rows = {"shard": [], "places": [], "boxes": [], "shapes": []}
    for number, path in enumerate(tqdm(shards, desc="Indexing", unit="shard")):
        samples, trouble = read_shard(path)
        if trouble:
            raise FlashFaceError(f"{path.name} is damaged ({trouble}); delete it and encode again.")
        for sample in samples:
            about = json.loads(sample.parts["json"].read())
            if not people or people[-1] != about["person"]:
                people.append(about["person"])
                starts.append(len(rows["shard"]))
            rows["shard"].append(number)
            rows["places"].append([sample.parts[name][1:] for name in PARTS])
            rows["boxes"].append(about["box"])
            rows["shapes"].append(_shape(sample.parts["picture.npy"]))
    unfinished = folder / f"{INDEX}.part"
    with open(unfinished, "wb") as file:
        np.savez(
            file,
            shards=np.array([path.name for path in shards]),
            shard_bytes=np.array([path.stat().st_size for path in shards]),
            people=np.array(people),
            starts=np.array([*starts, len(rows["shard"])]),
            shard=np.array(rows["shard"]),
            places=np.array(rows["places"]),
            boxes=np.array(rows["boxes"]),
            shapes=np.array(rows["shapes"]),
        )
    unfinished.replace(folder / INDEX)


def people_in_folder(
    source: Path, detector, encoder, sizes: Sizes, limits: Limits = DEFAULT_LIMITS
) -> PeopleInMemory:
    """A few people straight from their photographs, with nothing written; what prepare would keep.
    What is left out is logged.

    Raises FlashFaceError where no person has two usable photographs.
    """
    photos, broken = open_source(source)
    for shard, why in broken:
        log.warning("%s is left out: %s.", shard, why)
    looks = [look_at(photo, detector) for photo in tqdm(photos, desc="Finding faces")]
    people, dropped = select(looks, [photo.person for photo in photos], limits)
    if not people:
        reasons = ", ".join(sorted({one.reason for one in dropped}))
        raise FlashFaceError(
            f"No person in {source} has two usable photographs ({reasons}); run python -m "
            "training.photos.prepare, whose report.csv lists why."
        )
    for one in dropped:
        log.info("%s is left out: %s.", one.name, " ".join(filter(None, (one.reason, one.detail))))
    by_name = {photo.name: photo for photo in photos}
    latents, faces, boxes, captions, persons = [], [], [], [], []
    for own in tqdm(people.values(), desc="Encoding", unit="person"):
        persons.append(list(range(len(captions), len(captions) + len(own))))
        for look in own:
            photo = by_name[look.name]
            framed = frame(photo, look, (sizes.picture, sizes.picture), sizes.face)
            picture = torch.from_numpy(np.array(framed.picture))
            latents.append(encoder(picture[None].float() / 255)[0])
            faces.append(encoder(framed.face[None].float() / 255)[0])
            boxes.append(framed.box)
            captions.append(photo.caption())
    made = PeopleInMemory(
        torch.stack(latents), torch.stack(faces), torch.tensor(boxes), captions, persons
    )
    used = [(look.name, look.size) for own in people.values() for look in own]
    made.digest = hashlib.sha256(json.dumps([sizes, used]).encode()).hexdigest()[:16]
    return made


def _shape(latent: Blob) -> tuple[int, int]:
    """H and W, of the first bytes."""
    header = io.BytesIO(latent._replace(size=min(latent.size, 1024)).read())
    np.lib.format.read_magic(header)
    shape, _, _ = np.lib.format.read_array_header_1_0(header)
    return shape[-2], shape[-1]


def _tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))
