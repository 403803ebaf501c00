"""How far a run is, and that it goes on as what it was."""

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
            if name not in MAY_CHANGE and before[name] != self._recipe.get(name):
                raise FlashFaceError(
                    f"{self._folder} holds a run whose {name} is {before[name]}, and now it is "
                    f"{self._recipe.get(name)}; begin in another folder, or with what it was."
                )
        self.step = state["step"]
