"""MultiID-2M, the data set of WithAnyone (arXiv 2510.14975), as photographs of people.

Its dataset card and its training code say:

    ref/tars/*.tar      reference photographs of every identifiable person
    train_cp/*.tar      photographs in which everybody is identifiable
    train_rec/*.tar     photographs in which some or all people are not

each a webdataset shard of jpg, npy and json; the json has caption_en, and for every face a box in
`bboxes` and an identity in `name` (or `names`), "none" where there is none. Boxes are pixels of the
original picture, of which the jpg is the part `crop` (x1, y1, x2, y2), where the json has that.

Assumed, for the data itself was not at hand: a reference without a name belongs to the person whose
folder it lies in within the tar; a single name may be a string. The npy, which repeats the boxes
and has ArcFace embeddings, is a pickle and is not read, so `bboxes` must be in the json.

From a picture of several people each one that is identifiable is taken apart: the largest part of
the picture that has no other face in it. It gets no caption, which would tell of the others.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .shards import Blob, Sample, read_shard
from .sources import Box, Photo, Source

PARTS = ("ref/tars", "train_cp", "train_rec")
CAPTION, NOBODY = "caption_en", ("none", "null", "")
NO_BOXES = "photographs of several people without `bboxes` and `name` of every face in their json"


def is_multiid(path: Path) -> bool:
    return any(any((path / part).glob("*.tar")) for part in PARTS)


def open_multiid(path: Path) -> Source:
    """Every identifiable face is a photograph; those of nobody are left out, for their people have
    no second photograph."""
    photos: list[Photo] = []
    broken = []
    for shard in (shard for part in PARTS for shard in sorted((path / part).glob("*.tar"))):
        samples, trouble = read_shard(shard)
        name, unusable = shard.relative_to(path).as_posix(), 0
        if trouble:
            broken.append((name, trouble))
        for sample in samples:
            about = _about(sample.parts.get("json"))
            if about is None or "jpg" not in sample.parts:
                continue
            found = list(_people_in(name, sample, about))
            unusable += not found and len(_names(about)) > 1
            photos += found
        if unusable:
            broken.append((name, f"{unusable} {NO_BOXES}"))
    return Source(photos, broken)


def _people_in(shard: str, sample: Sample, about: Mapping[str, Any]) -> Iterator[Photo]:
    names, boxes = _names(about), _boxes(about)
    picture, label = sample.parts["jpg"], sample.parts["json"]
    place = f"{shard}/{sample.key}"
    if len(names) <= 1 and len(boxes) <= 1:
        folder = sample.key.rpartition("/")[0] if shard.startswith(PARTS[0]) else ""
        if person := (names or [folder])[0]:
            yield Photo(f"{place}.jpg", person, picture, label, CAPTION)
    elif len(names) == len(boxes):
        for number, person in enumerate(names):
            if person:
                others = tuple(box for n, box in enumerate(boxes) if n != number)
                apart = (boxes[number], others)
                yield Photo(f"{place}.{number}.jpg", person, picture, None, apart=apart)


def _about(blob: Blob | None) -> dict[str, Any] | None:
    try:
        about = json.loads(blob.read()) if blob else None
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def _names(about: Mapping[str, Any]) -> list[str]:
    """One per face; "" for nobody."""
    given = about.get("name", about.get("names"))
    given = [given] if isinstance(given, str | int) else given or []
    names = [str(name) for name in given]
    return ["" if name.lower() in NOBODY else name for name in names]


def _boxes(about: Mapping[str, Any]) -> list[Box]:
    """In pixels of the jpg; none where a label is not as it should be."""
    try:
        left, top = (about.get("crop") or (0, 0))[:2]
        boxes = [tuple(map(float, box)) for box in about.get("bboxes") or ()]
        return [(x1 - left, y1 - top, x2 - left, y2 - top) for x1, y1, x2, y2 in boxes]
    except (TypeError, ValueError):
        return []
