"""Pictures of several shapes: a step draws one shape, each as often as it has pictures."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Bucket(NamedTuple):
    """All pictures of one shape (H, W) of latents.

    people: who has some, ascending. limits: running sums of the share of their pictures that they
    have here, by which people are drawn; the last one is what the bucket weighs.
    """

    shape: tuple[int, int]
    people: np.ndarray
    limits: np.ndarray

    def draw_person(self, rng: np.random.Generator) -> int:
        at = np.searchsorted(self.limits, rng.random() * self.limits[-1], side="right")
        return int(self.people[min(at, len(self.people) - 1)])


class WithShapes(Protocol):
    def __len__(self) -> int: ...

    def count(self, person: int) -> int: ...

    def shape(self, person: int, index: int) -> tuple[int, int]: ...


def make_buckets(people: WithShapes) -> list[Bucket]:
    """By shape; none where all pictures have the same one.

    A shape and then a person drawn from it is a person and then one of their pictures, each with
    the same chance as the others.
    """
    shares: dict[tuple[int, int], dict[int, float]] = {}
    for person in range(len(people)):
        count = people.count(person)
        for index in range(count):
            own = shares.setdefault(people.shape(person, index), {})
            own[person] = own.get(person, 0.0) + 1 / count
    if len(shares) < 2:
        return []
    return [
        Bucket(shape, np.array(list(own)), np.cumsum(list(own.values())))
        for shape, own in sorted(shares.items())
    ]


def draw_bucket(buckets: Sequence[Bucket], rng: np.random.Generator) -> Bucket:
    limits = np.cumsum([bucket.limits[-1] for bucket in buckets])
    at = np.searchsorted(limits, rng.random() * limits[-1], side="right")
    return buckets[min(int(at), len(buckets) - 1)]
