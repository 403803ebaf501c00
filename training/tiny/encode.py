"""Drawn people to what the trainer reads: latents of pictures and of face crops, encoded once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from toy_world.draw import CROP, draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.data import PeopleInMemory

BATCH = 32


def encode_people(
    autoencoder, seed: int, split: str, first: int, count: int, scenes_each: int, device="cpu"
) -> dict[str, Tensor]:
    """`count` people of a stream from index `first`, each in `scenes_each` scenes; as
    `encode_pictures` gives them."""
    rows = torch.arange(first, first + count).repeat_interleave(scenes_each)
    which = torch.stack([rows, torch.arange(first * scenes_each, (first + count) * scenes_each)], 1)
    return encode_pictures(autoencoder, seed, split, which, device)


@torch.no_grad()
def encode_pictures(
    autoencoder, seed: int, split: str, which: Tensor, device="cpu"
) -> dict[str, Tensor]:
    """which: the indexes of person and scene (N, 2).

    autoencoder: its encoder gives scaled latents. Kept in half precision: 5000 people in 10 scenes
    take 130 MB. Returned are latents (N, 4, 16, 16), references (N, 4, 8, 8), boxes (N, 4), and
    `which`.
    """
    latents, references, boxes = [], [], []
    for part in tqdm(which.split(BATCH), desc="Drawing", unit="batch"):
        known, places = part[:, 0].unique(return_inverse=True)
        people = People.draw_from(seed, split, known.tolist())[places].to(device)
        scenes = Scenes.draw_from(seed, split, part[:, 1].tolist()).to(device)
        pictures, where = draw(people, scenes)
        latents.append(_encode(autoencoder, pictures))
        references.append(_encode(autoencoder, face_crop(pictures, where, CROP)))
        boxes.append(where.cpu())
    return {
        "latents": torch.cat(latents),
        "references": torch.cat(references),
        "boxes": torch.cat(boxes),
        "which": which,
    }


def _encode(autoencoder, pictures: Tensor) -> Tensor:
    return autoencoder.taesd_encoder(pictures).half().cpu()


def join_people(seed: int, split: str, parts: Sequence[dict[str, Tensor]]) -> PeopleInMemory:
    """What several calls of `encode_people` gave."""
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    texts = captions(Scenes.draw_from(seed, split, whole["which"][:, 1].tolist()))
    owner = whole["which"][:, 0].tolist()
    pictures: dict[int, list[int]] = {}
    for index, person in enumerate(owner):
        pictures.setdefault(person, []).append(index)
    return PeopleInMemory(
        whole["latents"], whole["references"], whole["boxes"], texts, list(pictures.values())
    )
