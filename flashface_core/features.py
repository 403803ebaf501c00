"""FACE_FEATURES: encoded people, and the bounded cache of their keys and values."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint import Site
from .place import Place

KeysValues = dict[Site, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class ReferenceLatent:
    """One encoded photo: clean scaled latent (1, 4, h, w), its hash, and its key weight > 0."""

    latent: torch.Tensor
    content: str
    weight: float


@dataclass(frozen=True, eq=False)
class Person:
    """The photos of one person that count, and where the person goes (None: anywhere)."""

    references: tuple[ReferenceLatent, ...]
    place: Place | None

    @property
    def weight(self) -> float:
        return sum(reference.weight for reference in self.references)

    @property
    def strength(self) -> float:
        return 1.0 if self.place is None else self.place.strength

    @property
    def inside_region(self) -> bool:
        return self.place is not None and self.place.inside_region


@dataclass(frozen=True, eq=False)
class FaceFeatures:
    """Everything that FlashFaceApply needs from the photos.

    net: the REFERENCE_NET that computes (and keeps) the keys and values.
    context: negative prompt embedding (1, 77 k, width) on the CPU; context_content: its hash.
    pooled: the negative prompt's pooled embedding (1, D), for networks that want one (SDXL).
    """

    net: Any
    people: tuple[Person, ...]
    context: torch.Tensor
    context_content: str
    pooled: torch.Tensor | None = None

    @property
    def has_effect(self) -> bool:
        return any(person.references for person in self.people)


class FeatureCache:
    """Keys and values by content, least recently used out, bounded in bytes, safe in threads.

    Entries are stored whole or not at all; an entry larger than the bound is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[Hashable, KeysValues] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], KeysValues]) -> KeysValues:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        value = compute()
        size = _size(value)
        with self._lock:
            if key not in self._entries and size <= self.max_bytes:
                self._entries[key] = value
                self.bytes += size
                while self.bytes > self.max_bytes:
                    self.bytes -= _size(self._entries.popitem(last=False)[1])
        return value


def _size(value: KeysValues) -> int:
    return sum(tensor.nbytes for pair in value.values() for tensor in pair)
