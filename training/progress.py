"""How far a run is, and that it goes on as what it was."""

import csv
import json
from pathlib import Path
from typing import Any

from flashface_core.errors import FlashFaceError

# What a run may go on with otherwise; all else lies in its state, or makes another run of it.
MAY_CHANGE = (
    "steps",
    "accumulate",
    "precision",
    "gradient_checkpointing",
    "log_every",
    "save_every",
)


class Progress:
    """How many steps of a recipe are done; saved with the rest."""

    def __init__(self, recipe: dict[str, Any], folder: Path) -> None:
        self.step = 0
        self._recipe, self._folder = json.loads(json.dumps(recipe)), folder  # no tuples

    def state_dict(self) -> dict:
        return {"step": self.step, "recipe": self._recipe}

    def load_state_dict(self, state: dict) -> None:
        """Raises FlashFaceError for the state of another recipe, such as that of another stage."""
        before = state.get("recipe", {})  # earlier versions saved none
        for name in before:
            if before[name] != self._recipe.get(name) and not self._may_change(name, before):
                raise FlashFaceError(
                    f"{self._folder} holds a run whose {name} is {before[name]}, and now it is "
                    f"{self._recipe.get(name)}; begin in another folder, or with what it was."
                )
        self.step = state["step"]

    def _may_change(self, name: str, before: dict[str, Any]) -> bool:
        # Only fp16 has a gradient scaler, with a state of its own.
        scaled = name == "precision" and "fp16" in (before[name], self._recipe.get(name))
        return name in MAY_CHANGE and not scaled


def note_row(path: Path, header: list[str], row: list) -> None:
    """A row, the step first, in a CSV file; those of later steps, and of this, are of a run that
    was killed before it saved, and go."""
    kept = []
    if path.exists():
        with open(path, newline="") as file:
            kept = [old for old in list(csv.reader(file))[1:] if int(old[0]) < row[0]]
    unfinished = path.with_suffix(".part")
    with open(unfinished, "w", newline="") as file:
        csv.writer(file).writerows([header, *kept, row])
    unfinished.replace(path)
