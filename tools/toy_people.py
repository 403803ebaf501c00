"""Photos of drawn people: what the demo and the tiny workflow show FlashFace."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from toy_world.draw import draw, face_crop  # noqa: E402
from toy_world.people import People  # noqa: E402
from toy_world.scenes import Scenes  # noqa: E402
from training.tiny.sheet import to_image  # noqa: E402

PHOTOS = 4  # of each person
SPLIT = "test"  # nobody in it was ever trained on


def draw_photos(seed: int, people: int) -> list[list[Image.Image]]:
    """Face crops (64 x 64) of the first `people` people of a seed, four each, as adults."""
    drawn = People.draw_from(seed, SPLIT, people)
    rows = drawn[torch.arange(people).repeat_interleave(PHOTOS)]
    scenes = Scenes.draw_from(seed, SPLIT, people * PHOTOS).with_values(age="adult")
    crops = [to_image(crop) for crop in face_crop(*draw(rows, scenes))]
    return [crops[first : first + PHOTOS] for first in range(0, len(crops), PHOTOS)]


def save_photos(path: Path, photos: Sequence[Image.Image]) -> None:
    """One PNG with a frame per photo, which LoadImage gives as one batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = photos
    first.save(path, save_all=True, append_images=others, duration=1000, loop=0)
