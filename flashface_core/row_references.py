"""Which rows and picture tokens of one UNet call see which references, and how strongly."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import interpolate

from .features import KeysValues, Person
from .sites import Site
from .softmax import ReferenceKeys


class Covered(NamedTuple):
    """What the regions are at one size of h x w = L tokens; the same for all blocks of that size.

    tokens: bool (R, people, L). indexes: per person, at least those tokens that any row covers.
    strength: (R, L), the weighted mean of the people's strengths.
    """

    tokens: torch.Tensor
    indexes: list[torch.Tensor]
    strength: torch.Tensor


class ReferenceGroup(NamedTuple):
    """References of one person that weigh the same, at one site.

    person: their number. keys, values: (1, L, C), of all of them.
    """

    person: int
    keys: torch.Tensor
    values: torch.Tensor
    weight: float


@dataclass(frozen=True, eq=False)
class StepReferences:
    """The references of all people at one timestep, by site."""

    people: tuple[Person, ...]
    groups: dict[Site, list[ReferenceGroup]]


class SiteReferences(NamedTuple):
    """What the rows of one UNet call see at one site.

    strength: s of every picture token, (R, L, 1) or (R, 1, 1). index: (R,), the rows that see
    references.
    """

    references: list[ReferenceKeys]
    strength: torch.Tensor
    index: torch.Tensor


def gather_references(
    people: Sequence[Person], keys_values: Sequence[Sequence[KeysValues]]
) -> StepReferences:
    """keys_values: one entry per person and reference, in their order, where they are needed."""
    groups: dict[Site, list[ReferenceGroup]] = {}
    for index, (person, entries) in enumerate(zip(people, keys_values, strict=True)):
        by_weight: dict[float, list[KeysValues]] = {}
        pairs = zip(person.references, entries, strict=True)
        # In an order of their own: that in which photos were given does not affect the result.
        for reference, entry in sorted(pairs, key=lambda pair: pair[0].content):
            by_weight.setdefault(reference.weight, []).append(entry)
        for weight, same in by_weight.items():
            for site in same[0]:
                keys, values = (
                    torch.cat([entry[site][part] for entry in same], 1) for part in (0, 1)
                )
                groups.setdefault(site, []).append(ReferenceGroup(index, keys, values, weight))
    return StepReferences(tuple(people), groups)


class Known(NamedTuple):
    """What a UNet call need not ask its rows: to ask a tensor on a GPU is to wait for it.

    strengths: of every row. covered: per person, the tokens that any row can cover at a size. keep:
    what the last call of the same run computed under a name and a key, or what the function gives.
    """

    strengths: Sequence[float] | None = None
    covered: Callable[[tuple[int, int]], list[torch.Tensor]] | None = None
    keep: Callable[[Hashable, Any, Callable[[], Any]], Any] = lambda _name, _key, compute: compute()


NOTHING_KNOWN = Known()


class RowReferences:
    """One UNet call: strength, position mask and regions of every row.

    strengths: feature strength per row, float (B,); rows of strength 0 never compute with
    references.
    position: face-position mask (B, 1, H, W) at latent size, or None.
    regions: float (B, people, H, W) of 0 and 1, or None when every person is everywhere.
    level_strengths: what multiplies the strength at every site.
    text_copies: how many times a row's context repeats its text, float (B,); None is once.
    """

    def __init__(
        self,
        strengths: torch.Tensor,
        position: torch.Tensor | None,
        regions: torch.Tensor | None,
        references: StepReferences | None,
        level_strengths: Mapping[Site, float],
        known: Known = NOTHING_KNOWN,
        text_copies: torch.Tensor | None = None,
    ) -> None:
        self.position = position
        self.text_copies = text_copies
        self.count = len(strengths)
        self._references = references
        self._level_strengths = level_strengths
        self._known = known
        self._index: torch.Tensor | None = None
        if references is None:
            return
        values = strengths.tolist() if known.strengths is None else known.strengths
        active = [i for i, strength in enumerate(values) if strength != 0]
        if not active:
            return
        device = strengths.device
        index: torch.Tensor = known.keep(
            "rows", (active, device), lambda: torch.tensor(active, device=device)
        )
        self._index = index
        self._strength = take_rows(strengths, index).float()[:, None, None]  # (R, 1, 1)
        self._regions = None if regions is None else take_rows(regions, index)
        self._covered: dict[tuple[int, int], Covered] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no row sees anybody."""
        return self._index is None

    @property
    def has_effect(self) -> bool:
        """Whether what the rows see changes the picture: not where all is set to 0."""
        return (
            self._index is not None
            and self._references is not None
            and any(self._level_strengths.values())
            and any(person.strength for person in self._references.people)
        )

    def at(self, site: Site, size: tuple[int, int]) -> SiteReferences | None:
        """For a site of h x w tokens; None where nobody is seen."""
        level = self._level_strengths[site]
        if self._index is None or self._references is None or level == 0:
            return None
        strength = self._strength * level
        people = self._references.people
        groups = self._references.groups[site]
        if self._regions is None:
            keys = [ReferenceKeys(group.keys, group.values, group.weight) for group in groups]
            total = sum(person.weight for person in people)
            mean = sum(person.weight * person.strength for person in people) / total
            return SiteReferences(keys, strength * mean, self._index)
        covered = self._covered_at(size, people)
        keys = [
            ReferenceKeys(k, v, weight, covered.tokens[:, person], covered.indexes[person])
            if people[person].inside_region
            else ReferenceKeys(k, v, weight)
            for person, k, v, weight in groups
        ]
        return SiteReferences(keys, strength * covered.strength[..., None], self._index)

    def _covered_at(self, size: tuple[int, int], people: Sequence[Person]) -> Covered:
        """Nearest sampling keeps disjoint regions disjoint at every site."""
        if size not in self._covered:
            assert self._regions is not None
            tokens = region_tokens(self._regions, size)
            if self._known.covered is None:
                indexes = covered_tokens(self._regions, size)
            else:
                indexes = self._known.covered(size)
            given = [(p.weight, p.strength) for p in people]
            shares, strengths = self._known.keep(
                "people",
                (given, tokens.device),
                lambda: torch.tensor(given, device=tokens.device).T[..., None],
            )
            weights = tokens * shares
            mean = (weights * strengths).sum(1) / weights.sum(1).clamp(min=1e-12)
            self._covered[size] = Covered(tokens, indexes, mean)
        return self._covered[size]


def region_tokens(regions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Regions (M, people, H, W) of 0 and 1 at h x w = L tokens: bool (M, people, L)."""
    return interpolate(regions.float(), size, mode="nearest-exact").flatten(2) > 0.5


def covered_tokens(regions: torch.Tensor, size: tuple[int, int]) -> list[torch.Tensor]:
    """Per person, the numbers of the tokens that any of the regions covers."""
    return [tokens.any(0).nonzero()[:, 0] for tokens in region_tokens(regions, size).unbind(1)]


def take_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows (R, ...) of x (B, ...) that an increasing index (R) names; x itself for all."""
    return x if len(index) == len(x) else x[index]


def add_to_rows(x: torch.Tensor, index: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """x (B, ...) with change (R, ...) added to the rows that `index` (R) names, in x's dtype."""
    change = change.to(x)  # a replaced attention may give another one
    return x + change if len(index) == len(x) else x.index_add(0, index, change)
