"""Webdataset shards: uncompressed tar files, written to the same bytes every time and read at any
place."""

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from webdataset.tariterators import base_plus_ext
from webdataset.writer import TarWriter

MODIFIED = 0  # a time of their own would make two equal shards differ
BLOCK = 512


class Blob(NamedTuple):
    """Bytes of a file: `size` of them from `offset` on."""

    file: Path
    offset: int
    size: int

    @classmethod
    def whole(cls, file: Path) -> "Blob":
        return cls(file, 0, file.stat().st_size)

    def read(self) -> bytes:
        """Raises OSError where the file is shorter."""
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"{self.file.name} ends within an entry")
        return data


class Sample(NamedTuple):
    """Entries of a shard that share a key; parts by extension."""

    key: str
    parts: dict[str, Blob]


def read_shard(path: Path) -> tuple[list[Sample], str]:
    """The whole samples of a shard, and why it stops early ("" when it does not).

    The sample at which a damaged shard stops may lack parts, and is left out.
    """
    samples: list[Sample] = []
    trouble = ""
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                key, extension = base_plus_ext(member.name)
                if not member.isreg() or key is None or extension is None:
                    continue
                if not samples or samples[-1].key != key:
                    samples.append(Sample(key, {}))
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                blob = Blob(path, member.offset_data, member.size)
                samples[-1].parts[extension.lower()] = blob
            # The loop ends alike at the end mark, at a damaged header and where a file is cut.
            end = tar.offset  # type: ignore[attr-defined]
        with open(path, "rb") as file:
            file.seek(end)
            block = file.read(BLOCK)
        if block != bytes(BLOCK):
            trouble = f"neither an entry nor the end mark at byte {end}"
    except (tarfile.TarError, OSError, EOFError) as error:
        trouble = str(error) or type(error).__name__
    return samples[: -1 if trouble else None], trouble


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> None:
    """(key, bytes by extension) to a shard, which appears under its name when it is complete."""
    unfinished = path.with_name(path.name + ".part")
    with open(unfinished, "wb") as file:
        with TarWriter(file, encoder=False, mtime=MODIFIED) as writer:
            for key, parts in samples:
                writer.write({"__key__": key, **parts})
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
