"""FACE_FEATURES: encoded people, and the bounded cache for what was computed of them."""

import threading
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar

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


class _Kept(NamedTuple):
    value: Any
    bytes: int
    run: int  # in which it was used last


class FeatureCache(Generic[_Value]):
    """Tensors by content, bounded in bytes, safe in threads.

    Values are mappings and tuples of tensors (what else they hold counts nothing), stored whole
    or not at all. A run of sampling asks for its steps in the same order as the run before. Where
    the least recently used went first, a run that is a step too large would find nothing: each
    step would have gone just before it is asked for. So what the current run has used stays, and
    what finds no room is left out; of older runs the oldest goes first, its last step first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.has_left_out = False  # something of the current run
        self._run = 0
        self._entries: OrderedDict[Hashable, _Kept] = OrderedDict()  # by last use, so by run
        self._lock = threading.Lock()

    def begin_run(self) -> None:
        """What was used until now may go."""
        with self._lock:
            self._run += 1
            self.has_left_out = False

    def get(self, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        """A run of its own, so that the least recently used goes first."""
        self.begin_run()
        return self.get_all([key], lambda _: [compute()])[0]

    def get_all(
        self, keys: Sequence[Hashable], compute: Callable[[list[Hashable]], Iterable[_Value]]
    ) -> list[_Value]:
        """One value per key; those that are missing by one call of compute(their keys)."""
        found: dict[Hashable, _Value] = {}
        with self._lock:
            for key in keys:
                if (kept := self._entries.pop(key, None)) is not None:
                    self._entries[key] = kept._replace(run=self._run)
                    found[key] = kept.value
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            for key, value in zip(missing, compute(missing), strict=True):
                found[key] = value
                self._keep(key, value)
        return [found[key] for key in keys]

    def _keep(self, key: Hashable, value: _Value) -> None:
        size = bytes_of(value)
        with self._lock:
            if key in self._entries:
                return
            if size > self.max_bytes:
                self.has_left_out = True
                return
            self._entries[key] = _Kept(value, size, self._run)
            self.bytes += size
            while self.bytes > self.max_bytes:
                out = self._entries.pop(self._next_out())
                self.bytes -= out.bytes
                self.has_left_out |= out.run == self._run

    def _next_out(self) -> Hashable:
        oldest = next(iter(self._entries.values())).run
        of_it = takewhile(lambda entry: entry[1].run == oldest, self._entries.items())
        return deque(of_it, maxlen=1)[0][0]


def bytes_of(value: Any) -> int:
    """Of the tensors in mappings and tuples."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sum(map(bytes_of, value)) if isinstance(value, tuple) else 0
