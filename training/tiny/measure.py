"""What pictures of toy people show: who, how old, wearing what, where, and with which mark."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from toy_world.draw import CROP, draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.evaluation import means

from .probes import Probes, overlap, true_values

GALLERY = 50  # people among whom one is identified
REFERENCES = 4
AGES = ("adult", "adult", "adult", "adult", "child", "child", "elder", "elder")
TEXT = ("background", "clothes", "expression")
NO_MARK = People.names("mark").index("none")


@dataclass(frozen=True)
class Cast:
    """N people of a test stream: adult reference photos, and P scenes each to be drawn.

    crops: (N, 4, 3, 64, 64). scenes, captions, boxes, truth: of the N * P pictures, person by
    person. gallery: unit embeddings (G, D) of N people and others, in blocks of 50.
    """

    people: People
    crops: Tensor
    scenes: Scenes
    captions: list[str]
    boxes: Tensor
    truth: dict[str, Tensor]
    drawings: Tensor
    gallery: Tensor


@torch.no_grad()
def cast(seed: int, count: int, probes: Probes, ages: tuple[str, ...] = AGES) -> Cast:
    """Person n is always the same one, whatever `count` is."""
    blocks = -(-count // GALLERY) * GALLERY
    people = People.draw_from(seed, "test", blocks)
    each = REFERENCES + len(AGES)
    first = torch.arange(blocks) * each
    references = first[:, None] + torch.arange(REFERENCES)
    photos = Scenes.draw_from(seed, "test", references.flatten().tolist()).with_values(age="adult")
    sitters = people[torch.arange(blocks).repeat_interleave(REFERENCES)]
    crops = torch.cat([_crops(*part) for part in _parts(sitters, photos)])
    embedding, _ = probes.look(crops)
    gallery = embedding.unflatten(0, (blocks, REFERENCES)).mean(dim=1)

    wanted = first[:count, None] + REFERENCES + torch.arange(len(ages))
    scenes = Scenes.draw_from(seed, "test", wanted.flatten().tolist())
    named = torch.tensor([Scenes.names("age").index(age) for age in ages]).repeat(count)
    scenes = scenes.with_values(age=named)
    models = people[torch.arange(count).repeat_interleave(len(ages))]
    drawn = [draw(*part) for part in _parts(models, scenes)]
    return Cast(
        models,
        crops.unflatten(0, (blocks, REFERENCES))[:count],
        scenes,
        captions(scenes),
        torch.cat([boxes for _, boxes in drawn]),
        true_values(models, scenes),
        torch.cat([pictures for pictures, _ in drawn]),
        torch.nn.functional.normalize(gallery, dim=1),
    )


def _crops(people: People, scenes: Scenes) -> Tensor:
    return face_crop(*draw(people, scenes), CROP)


def _parts(people: People, scenes: Scenes, size: int = 32):
    for start in range(0, len(people), size):
        yield people[start : start + size], scenes[start : start + size]


class Readings(NamedTuple):
    """Per picture of a cast: cosine to the own person's photos, whether that person is the nearest
    of 50, attributes read, and IoU of the face found with the box asked for."""

    similarity: Tensor
    identified: Tensor
    values: dict[str, Tensor]
    overlap: Tensor


@torch.no_grad()
def read(pictures: Tensor, people: Cast, probes: Probes) -> Readings:
    """pictures: (N * P, 3, H, W) in 0..1, in the order of the cast's scenes."""
    found = probes.find(pictures)
    embedding, values = probes.read(pictures, found)
    each = len(pictures) // len(people.crops)
    owner = torch.arange(len(people.crops)).repeat_interleave(each)
    cosine = embedding @ people.gallery.T
    block = torch.arange(len(people.gallery)) // GALLERY
    cosine = cosine.masked_fill(block[None] != (owner // GALLERY)[:, None], -2)
    return Readings(
        cosine.gather(1, owner[:, None])[:, 0],
        cosine.argmax(1) == owner,
        values,
        overlap(found, people.boxes),
    )


def summary(readings: Readings, people: Cast) -> dict[str, float]:
    """Fractions of 1. Where there is nothing to count (nobody with a mark), NaN."""
    truth, values = people.truth, readings.values
    right = {name: (values[name] == truth[name]).float() for name in truth}
    marked = people.people.mark != NO_MARK
    mark = right["mark_colour"] * right["mark_place"] * (values["mark"] != NO_MARK)
    result = {
        "identification": _mean(readings.identified),
        "similarity": _mean(readings.similarity),
        "text_accuracy": sum(_mean(right[name]) for name in TEXT) / len(TEXT),
        **{name: _mean(right[name]) for name in TEXT},
        "mark_recovery": _mean(mark[marked]),
        "box_iou": _mean(readings.overlap),
    }
    for age in Scenes.names("age"):
        rows = people.scenes.age == Scenes.names("age").index(age)
        result[f"{age}_age"] = _mean(right["age"][rows])
        result[f"{age}_identification"] = _mean(readings.identified[rows])
    return result | means(result["identification"], result["text_accuracy"])


def _mean(values: Tensor) -> float:
    return values.float().mean().item()
