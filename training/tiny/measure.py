"""What pictures of toy people show: who, how old, wearing what, where, and with which mark."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from toy_world.draw import CROP, draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.identity_measures import bootstrap_interval, copy_paste, means

from .probes import Probes, overlap, true_values

GALLERY = 50  # people among whom one is identified
REFERENCES = 4
AGES = ("adult", "adult", "adult", "adult", "child", "child", "elder", "elder")
TEXT = ("background", "clothes", "expression")
NO_MARK = People.names("mark").index("none")


@dataclass(frozen=True)
class Cast:
    """N people of a test stream: adult reference photos, and P scenes each to be drawn.

    crops: (N, 4, 3, 64, 64). scenes, captions, boxes, truth, drawings, embeddings: of the N * P
    pictures as they should be, person by person. photos: unit embeddings (N, 4, D) of the crops.
    gallery: the same (G, D) of N people and others, in blocks of 50.
    """

    people: People
    crops: Tensor
    scenes: Scenes
    captions: list[str]
    boxes: Tensor
    truth: dict[str, Tensor]
    drawings: Tensor
    embeddings: Tensor
    photos: Tensor
    gallery: Tensor

    @property
    def owner(self) -> Tensor:
        """The person of every picture, long (N * P,)."""
        each = len(self.scenes) // len(self.crops)
        return torch.arange(len(self.crops)).repeat_interleave(each)


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
    of_photos = embedding.unflatten(0, (blocks, REFERENCES))

    wanted = first[:count, None] + REFERENCES + torch.arange(len(ages))
    scenes = Scenes.draw_from(seed, "test", wanted.flatten().tolist())
    named = torch.tensor([Scenes.names("age").index(age) for age in ages]).repeat(count)
    scenes = scenes.with_values(age=named)
    models = people[torch.arange(count).repeat_interleave(len(ages))]
    drawn = [draw(*part) for part in _parts(models, scenes)]
    true = [probes.look(face_crop(*part, CROP))[0] for part in drawn]
    return Cast(
        models,
        crops.unflatten(0, (blocks, REFERENCES))[:count],
        scenes,
        captions(scenes),
        torch.cat([boxes for _, boxes in drawn]),
        true_values(models, scenes),
        torch.cat([pictures for pictures, _ in drawn]),
        torch.cat(true),
        of_photos[:count],
        torch.nn.functional.normalize(of_photos.mean(dim=1), dim=1),
    )


def _crops(people: People, scenes: Scenes) -> Tensor:
    return face_crop(*draw(people, scenes), CROP)


def _parts(people: People, scenes: Scenes, size: int = 32):
    for start in range(0, len(people), size):
        yield people[start : start + size], scenes[start : start + size]


class Readings(NamedTuple):
    """Per picture of a cast: unit embedding, cosine to the own person's photos, whether that person
    is the nearest of 50, attributes read, and IoU of the face found with the box asked for."""

    embedding: Tensor
    similarity: Tensor
    identified: Tensor
    values: dict[str, Tensor]
    overlap: Tensor


@torch.no_grad()
def read(pictures: Tensor, people: Cast, probes: Probes) -> Readings:
    """pictures: (N * P, 3, H, W) in 0..1, in the order of the cast's scenes."""
    found = probes.find(pictures)
    embedding, values = probes.read(pictures, found)
    owner = people.owner
    cosine = embedding @ people.gallery.T
    block = torch.arange(len(people.gallery)) // GALLERY
    cosine = cosine.masked_fill(block[None] != (owner // GALLERY)[:, None], -2)
    return Readings(
        embedding,
        cosine.gather(1, owner[:, None])[:, 0],
        cosine.argmax(1) == owner,
        values,
        overlap(found, people.boxes),
    )


def outcomes(readings: Readings, people: Cast) -> dict[str, Tensor]:
    """Float (N * P,) per measure, a picture each; NaN where a picture does not count."""
    truth, values = people.truth, readings.values
    right = {name: (value == truth[name]).float() for name, value in values.items()}
    mark = right["mark_colour"] * right["mark_place"] * (values["mark"] != NO_MARK)
    is_identified = readings.identified.float()
    found = {
        "identification": is_identified,
        "similarity": readings.similarity,
        "similarity_to_truth": (readings.embedding * people.embeddings).sum(1),
        "text_accuracy": sum((right[name] for name in TEXT), torch.zeros(())) / len(TEXT),
        **{name: right[name] for name in (*TEXT, "lean")},
        "mark_recovery": _where(people.people.mark != NO_MARK, mark),
        "box_iou": readings.overlap,
    }
    for age in Scenes.names("age"):
        rows = people.scenes.age == Scenes.names("age").index(age)
        found[f"{age}_age"] = _where(rows, right["age"])
        found[f"{age}_identification"] = _where(rows, is_identified)
    return found


def summary(readings: Readings, people: Cast) -> dict[str, float]:
    """Fractions of 1. Where there is nothing to count (nobody with a mark), NaN."""
    result = {name: value.nanmean().item() for name, value in outcomes(readings, people).items()}
    return result | means(result["identification"], result["text_accuracy"])


def intervals(readings: Readings, people: Cast) -> dict[str, tuple[float, float]]:
    """Of the means of `summary`, with 95 %: people drawn again, each with all of their pictures."""
    found = {}
    for name, value in outcomes(readings, people).items():
        counts = ~value.isnan()
        if counts.any():
            found[name] = bootstrap_interval(value[counts], people.owner[counts])
    return found


class Copying(NamedTuple):
    """Of pictures made from one photo each. expression, pose: of those whose text asks for another
    than the photo has, how many show the photo's. photo, truth: cosine to the photo and to the true
    drawing. NaN where no text asks for another. copy_paste: MultiID-Bench's, 1 is the photo again.
    """

    expression: float
    pose: float
    photo: float
    truth: float
    copy_paste: float


@torch.no_grad()
def copying(pictures: Tensor, rows: Tensor, people: Cast, probes: Probes) -> Copying:
    """pictures: (R, 3, H, W) of the cast's rows, each made from its person's first photo."""
    embedding, values = probes.read(pictures, probes.find(pictures))
    _, logits = probes.look(people.crops[:, 0])
    owner = people.owner[rows]
    copied = {}
    for name in ("expression", "lean"):
        photo = logits[name].argmax(1)[owner]
        differ = photo != people.truth[name][rows]
        copied[name] = (values[name] == photo)[differ].float().mean().item()
    photo, truth = people.photos[owner, 0], people.embeddings[rows]
    to_photo, to_truth = (embedding * photo).sum(1), (embedding * truth).sum(1)
    return Copying(
        copied["expression"],
        copied["lean"],
        to_photo.mean().item(),
        to_truth.mean().item(),
        copy_paste(to_truth, to_photo, (photo * truth).sum(1)).mean().item(),
    )


def _where(rows: Tensor, values: Tensor) -> Tensor:
    return torch.where(rows, values, values.new_tensor(float("nan")))
