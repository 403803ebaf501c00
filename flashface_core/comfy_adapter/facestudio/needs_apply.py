"""A FaceStudio CONDITIONING refuses a MODEL without FaceStudioApply, which would draw nonsense."""

from typing import Any

import comfy.conds

from ...errors import FlashFaceError

NEEDS_APPLY = "facestudio_needs_apply"  # among the model_conds of a CONDITIONING


class NeedsApply(comfy.conds.CONDRegular):
    """Core asks it for its share of a row in every call; FaceStudioApply takes it away before."""

    def __init__(self, file: str) -> None:
        super().__init__(None)
        self.file = file

    def process_cond(self, batch_size, **kwargs):
        raise FlashFaceError(
            f"A condition of FaceStudio ({self.file}) met a MODEL that does not understand it; "
            "put FaceStudio Apply between the MODEL and this sampler."
        )


def mark_as_needing_apply(options: dict[str, Any], file: str) -> None:
    """options: of a CONDITIONING."""
    options["model_conds"] = {**options.get("model_conds", {}), NEEDS_APPLY: NeedsApply(file)}


def without_mark(cond: dict[str, Any]) -> dict[str, Any]:
    """The same cond dict, or a copy of one that has the mark."""
    model_conds = cond.get("model_conds", {})
    if NEEDS_APPLY not in model_conds:
        return cond
    kept = {name: value for name, value in model_conds.items() if name != NEEDS_APPLY}
    return {**cond, "model_conds": kept}
