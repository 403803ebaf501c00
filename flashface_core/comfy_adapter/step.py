"""What one sampling step and one sampling run of an Apply node consist of."""

import logging
from collections.abc import Callable, Hashable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ..flashface.guidance import StepPlan
from ..row_references import StepReferences, covered_tokens
from .unet import KEY

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider

log = logging.getLogger("flashface")

_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class System:
    """What one Apply node's data is called on its way, so that two of them fit on one MODEL.

    key: of wrappers and attachments, and what all other names begin with. node: for messages.
    counts_text: whether rows bring along how long their own text is.
    """

    key: str
    node: str
    counts_text: bool = False

    @property
    def run(self) -> str:
        """In transformer_options: the Run."""
        return f"{self.key}_run"

    @property
    def step(self) -> str:
        """In transformer_options: the Step."""
        return f"{self.key}_step"

    @property
    def unmoved(self) -> str:
        """In transformer_options: True where nobody but us and core can have moved the rows."""
        return f"{self.key}_unmoved"

    @property
    def role(self) -> str:
        """In a cond dict: the name of the guider's list that it is in, or "reference"."""
        return f"{self.key}_role"

    @property
    def per_row(self) -> tuple[str, str, str]:
        """In model_conds: strength, position mask and regions of every row."""
        return f"{self.key}_strength", f"{self.key}_position", f"{self.key}_region"

    @property
    def text(self) -> str:
        """In model_conds, if it counts: the tokens of every row's own text."""
        return f"{self.key}_text"


FLASHFACE = System(KEY, "FlashFace Apply")


@dataclass(eq=False)
class Branches:
    """What the wrapper around a step and the one around its cond lists tell each other.

    shape: of the whole picture; a node may have pieces of it computed first, whose y is none.
    is_pending: y and y_ref are still to come. Context windows cut the picture inside of
    calc_cond_batch, where y is a piece of it; they are never pending.
    """

    is_pending: bool
    shape: torch.Size
    reference_conds: list[dict] | None = None
    y: torch.Tensor | None = None
    y_ref: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """Of the whole picture at latent size, M being 1 or one per sample.

    position: mask (M, 1, H, W), the union of all places; None where nobody has one. regions:
    (M, people, H, W) of 0 and 1; None where nobody is bound to one. unbound: (1, people, 1, 1), 0
    for everybody who is bound to a region and 1 for all others; None without regions.
    """

    position: torch.Tensor | None = None
    regions: torch.Tensor | None = None
    unbound: torch.Tensor | None = None
    _covered: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict)

    def covered(self, size: tuple[int, int]) -> list[torch.Tensor]:
        """Per person, the tokens that a region covers in any sample, at h x w of them."""
        if size not in self._covered:
            assert self.regions is not None
            self._covered[size] = covered_tokens(self.regions, size)
        return self._covered[size]


@dataclass(frozen=True, eq=False)
class Step:
    """What every UNet call of one sampling step reads."""

    plan: StepPlan
    references: StepReferences | None
    places: Places
    branches: Branches

    def strengths_of(self, twins: list[int] | None, count: int) -> list[float] | None:
        """Of `count` rows; None where they differ and nobody tells them apart.

        twins: what `mark_twins` gave them.
        """
        plan = self.plan
        strengths = {plan.positive, plan.other, plan.reference} - {None}
        if len(strengths) == 1:
            return [plan.other] * count
        if twins is None or plan.reference is None:
            return None
        by_role = {-1: plan.reference, 0: plan.other, 1: plan.positive}
        return [by_role[(twin > 0) - (twin < 0)] for twin in twins]


@dataclass(eq=False)
class Run:
    """One sampling run: whether the steps came by, and what is the same from step to step.

    Samplers of higher order ask for most noise levels twice in a row. needed: some step is to show
    a face, or a region. called: the UNet was. face: y_ref - y, as the network's output, where it
    was computed last beside EasyCache.
    """

    reached: bool = False
    needed: bool = False
    called: bool = False
    face: torch.Tensor | None = None
    _kept: dict[Hashable, tuple[Any, Any]] = field(default_factory=dict)

    def keep(self, what: Hashable, key: Any, compute: Callable[[], _Kept]) -> _Kept:
        """What compute() gives, computed again only when `key` is another than last time."""
        if what not in self._kept or self._kept[what][0] != key:
            self._kept.pop(what, None)  # before there are two of them
            self._kept[what] = key, compute()
        return self._kept[what][1]


def say_bypassed(run: Run, lost: str) -> None:
    """At the end of a run in which the UNet was to show something and never was called by core."""
    if run.needed and not run.called:
        log.warning(
            "%s: a node on this MODEL runs the UNet in its own way, without ComfyUI's apply_model "
            "(as DeepCache does); remove it.",
            lost,
        )


@contextmanager
def entries(options: dict, given: Mapping[str, Any]):
    """`given` in a dictionary of others for a while; what they write into it meanwhile stays."""
    missing = object()
    before = {name: options.get(name, missing) for name in given}
    options.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                options.pop(name, None)
            else:
                options[name] = value


@contextmanager
def swapped_conds(guider: "CFGGuider", conds: dict):
    before, guider.conds = guider.conds, conds
    try:
        yield
    finally:
        guider.conds = before
