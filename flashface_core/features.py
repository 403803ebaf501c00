"""FACE_FEATURES: encoded people, and the bounded cache for what was computed of them."""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from .people.place import Place
from .sites import Site

KeysValues = dict[Site, tuple[torch.Tensor, torch.Tensor]]
_Value = TypeVar("_Value")


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
    anchors: model timesteps, increasing, at which the ReferenceNet runs; keys and values of the
    others lie on the line between two of them. (): it runs at every step's own.
    """

    net: Any
    people: tuple[Person, ...]
    context: torch.Tensor
    context_content: str
    pooled: torch.Tensor | None = None
    anchors: tuple[float, ...] = ()

    @property
    def has_effect(self) -> bool:
        return any(person.references for person in self.people)

    def get_models(self) -> list:
        """The ModelPatchers that sampling needs beside the MODEL; newer cores keep them."""
        return self.net.get_models()


def between(anchors: Sequence[float], timestep: float) -> list[tuple[float, float]]:
    """The anchors around a timestep with the share of each; the timestep itself without any."""
    if not anchors:
        return [(timestep, 1.0)]
    inside = min(max(timestep, anchors[0]), anchors[-1])
    upper = bisect_left(anchors, inside)
    if anchors[upper] == inside:
        return [(anchors[upper], 1.0)]
    low, high = anchors[upper - 1], anchors[upper]
    share = (inside - low) / (high - low)
    return [(low, 1 - share), (high, share)]


def blended(shares: Sequence[float], entries: Sequence[KeysValues]) -> KeysValues:
    """The mean of keys and values, weighted by `shares`, which sum to 1."""
    if len(entries) == 1:
        return entries[0]
    (low, high), (_, share) = entries, shares
    return {
        site: (torch.lerp(k, high[site][0], share), torch.lerp(v, high[site][1], share))
        for site, (k, v) in low.items()
    }


class FeatureCache(Generic[_Value]):
    """Tensors by content, least recently used out, bounded in bytes, safe in threads.

    Values are mappings and tuples of tensors (what else they hold counts nothing), stored whole
    or not at all; one that is larger than the bound is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[Hashable, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        return self.get_all([key], lambda _: [compute()])[0]

    def get_all(
        self, keys: Sequence[Hashable], compute: Callable[[list[Hashable]], Iterable[_Value]]
    ) -> list[_Value]:
        """One value per key; those that are missing by one call of compute(their keys)."""
        found: dict[Hashable, _Value] = {}
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
                    found[key] = self._entries[key]
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            for key, value in zip(missing, compute(missing), strict=True):
                found[key] = value
                self._keep(key, value)
        return [found[key] for key in keys]

    def _keep(self, key: Hashable, value: _Value) -> None:
        size = _size(value)
        with self._lock:
            if key in self._entries or size > self.max_bytes:
                return
            self._entries[key] = value
            self.bytes += size
            while self.bytes > self.max_bytes:
                self.bytes -= _size(self._entries.popitem(last=False)[1])


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sum(map(_size, value)) if isinstance(value, tuple) else 0
