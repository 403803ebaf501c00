"""Everything of a portrait that is not identity, and the caption that tells it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from .factors import Factors, between, one_of

# No word that carries meaning is shared by two values, of one part or of two: even a bag of
# frozen token embeddings tells all scenes apart.
AGES = {"child": "a child", "adult": "an adult", "elder": "an elder"}
EXPRESSIONS = {
    "neutral": "neutral",
    "smiling": "smiling",
    "surprised": "surprised",
    "sad": "sad",
}
CLOTHES = {
    "sweater": "wearing a red sweater",
    "hoodie": "wearing a blue hoodie",
    "shirt": "wearing a white shirt",
    "raincoat": "wearing a yellow raincoat",
    "dungarees": "wearing green dungarees",
    "suit": "wearing a black suit",
    "jersey": "wearing a striped jersey",
    "turtleneck": "wearing a purple turtleneck",
}
BACKGROUNDS = {
    "forest": "in a forest",
    "sea": "by the sea",
    "city": "in a city",
    "mountains": "in the mountains",
    "stars": "under the stars",
    "bricks": "in front of a brick wall",
    "library": "in a library",
    "flowers": "in a field of flowers",
}
STYLES = {
    "flat": "flat colours",
    "watercolour": "watercolour",
    "pencil": "pencil sketch",
    "neon": "neon night",
}
LIGHTS = {"soft": "soft light", "morning": "morning sun", "evening": "evening sun"}
LEANS = {"left": "leaning left", "upright": "upright", "right": "leaning right"}
PARTS = ("age", "expression", "clothes", "background", "style", "light", "lean")
UPRIGHT = 2.5  # degrees: less is called upright


@dataclass(frozen=True)
class Scenes(Factors):
    """A batch of scenes. The order of the factors is the order of the hash's columns: append."""

    age: Tensor = one_of(AGES)
    expression: Tensor = one_of(EXPRESSIONS)
    clothes: Tensor = one_of(CLOTHES)
    background: Tensor = one_of(BACKGROUNDS)
    style: Tensor = one_of(STYLES)
    light: Tensor = one_of(LIGHTS)
    light_strength: Tensor = between(0.6, 1.0)
    tilt: Tensor = between(-8.0, 8.0)  # degrees, positive leans to the right of the picture
    size: Tensor = between(0.55, 0.70)  # chin to crown over the height of the picture
    centre_x: Tensor = between(-0.24, 0.24)  # of the head; the picture is -1..1
    centre_y: Tensor = between(0.0, 1.0)  # top .. bottom of where a head of this size may be
    scenery: Tensor = between(0.0, 1.0)  # which piece of the background, and where the paint runs

    @property
    def lean(self) -> Tensor:
        """What `tilt` is called: long (B,), an index into LEANS."""
        return 1 + (self.tilt > UPRIGHT).long() - (self.tilt < -UPRIGHT).long()

    @classmethod
    def names(cls, factor: str) -> tuple[str, ...]:
        return tuple(LEANS) if factor == "lean" else super().names(factor)


def captions(
    scenes: Scenes, told: Sequence[Collection[str]] | Collection[str] = PARTS
) -> list[str]:
    """B captions: "a portrait of a child, smiling, wearing a red sweater, in a forest, ...".

    told: the parts to tell, for all rows or one collection per row. Identity is never told.
    """
    per_row = [told] * len(scenes) if all(isinstance(part, str) for part in told) else told
    words = [_words(scenes, part) for part in PARTS]
    return [
        _sentence({part: words[n][row] for n, part in enumerate(PARTS) if part in parts})
        for row, parts in enumerate(per_row)
    ]


def _words(scenes: Scenes, part: str) -> list[str]:
    table = {
        "age": AGES,
        "expression": EXPRESSIONS,
        "clothes": CLOTHES,
        "background": BACKGROUNDS,
        "style": STYLES,
        "light": LIGHTS,
        "lean": LEANS,
    }[part]
    values = list(table.values())
    return [values[index] for index in getattr(scenes, part).tolist()]


def _sentence(parts: dict[str, str]) -> str:
    subject = "a portrait of " + parts.pop("age") if "age" in parts else "a portrait"
    return ", ".join([subject, *parts.values()])
