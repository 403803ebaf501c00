"""Factors of the toy world: named columns that a hash of (seed, split, index) fills."""

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

SPLITS = ("train", "test")
Batch = TypeVar("Batch", bound="Factors")


def one_of(names: Iterable[str], weights: Sequence[float] | None = None) -> Any:
    """A categorical factor: long (B,), an index into `names`."""
    names = tuple(names)
    return field(metadata={"names": names, "weights": weights or (1,) * len(names)})


def between(low: float, high: float) -> Any:
    """A continuous factor: float (B,) in low..high."""
    return field(metadata={"range": (low, high)})


def uniforms(kind: str, seed: int, split: str, indexes: Iterable[int], count: int) -> Tensor:
    """Float64 (N, count) strictly inside 0..1; row n depends on kind, seed, split, indexes[n] only.

    The digest of an extendable hash: the same on every machine and version of torch, any index is
    reached at once, splits never meet, and a column added at the end leaves the others as they are.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}'; the toy world has {' and '.join(SPLITS)}.")
    rows = [hashlib.shake_256(f"{kind}/{seed}/{split}/{i}".encode()) for i in indexes]
    data = bytearray(b"".join(row.digest(4 * count) for row in rows))
    words = torch.frombuffer(data, dtype=torch.int32).reshape(-1, count)
    return (words.double() + 2**31 + 0.5) / 2**32


@dataclass(frozen=True)
class Factors:
    """A batch of people or scenes: one tensor (B,) per factor."""

    @classmethod
    def draw_from(cls: type[Batch], seed: int, split: str, indexes: int | Iterable[int]) -> Batch:
        """The rows at `indexes` (or at 0..indexes-1) of the stream (seed, split)."""
        indexes = range(indexes) if isinstance(indexes, int) else indexes
        columns = fields(cls)
        table = uniforms(cls.__name__, seed, split, indexes, len(columns))
        return cls(*(_fill(c.metadata, u) for c, u in zip(columns, table.T, strict=True)))

    @classmethod
    def names(cls, factor: str) -> tuple[str, ...]:
        """The values of a categorical factor."""
        return cls.__dataclass_fields__[factor].metadata["names"]

    @classmethod
    def categories(cls) -> list[str]:
        return [f.name for f in fields(cls) if "names" in f.metadata]

    @classmethod
    def join(cls: type[Batch], parts: Sequence[Batch]) -> Batch:
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self: Batch, rows: slice | Tensor | Sequence[int]) -> Batch:
        """The named rows, still a batch; repeats are allowed."""
        return self._map(lambda column: column[rows])

    def to(self: Batch, device: torch.device | str) -> Batch:
        return self._map(lambda column: column.to(device))

    def with_values(self: Batch, **values: str | float | Tensor) -> Batch:
        """The same rows with some factors set: a name, a number, or a tensor (B,)."""
        return replace(self, **{name: self._column(name, v) for name, v in values.items()})

    def _map(self: Batch, change) -> Batch:
        return type(self)(*(change(getattr(self, f.name)) for f in fields(self)))

    def _column(self, name: str, value: str | float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value
        number = self.names(name).index(value) if isinstance(value, str) else value
        return torch.full_like(getattr(self, name), number)


def _fill(metadata, u: Tensor) -> Tensor:
    """Float64 (N,) in 0..1 to the values of one factor."""
    if "range" in metadata:
        low, high = metadata["range"]
        return (low + (high - low) * u).float()
    bounds = list(accumulate(metadata["weights"]))
    values = [bisect.bisect_right(bounds, x * bounds[-1]) for x in u.tolist()]
    return torch.tensor(values, dtype=torch.long)
