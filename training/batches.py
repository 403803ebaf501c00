"""Which pictures, timesteps, noise and omissions make up a training step.

Everything is drawn from (seed, step, group) alone: a resumed run, or one spread over more
processes, sees the same samples. A group is a few targets of one person that share references and
timestep, so that the ReferenceNet runs once for all of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from flashface_core.people.place import position_mask

from .buckets import draw_bucket
from .data import OF_THE_PERSON, People, Picture
from .diffusion import TIMESTEPS

SLOTS = 4  # the number of references that FlashFace was trained with


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn.

    targets_per_group: targets that share references. drop_references, drop_text, drop_both:
    chances of omitting the references, the caption, or both of a sample; they exclude each other.
    give_position: chance that the face-position mask is given.
    favoured: (low, high, chance): with this chance the timestep is drawn from low..high only.
    own_face: chance that a group's faces are those of its own targets (reconstruction) and not of
    other photos; None: as published, which is never for references, always for what encoders saw.
    """

    targets_per_group: int = 1
    drop_references: float = 0.1
    drop_text: float = 0.05
    drop_both: float = 0.05
    give_position: float = 0.7
    favoured: tuple[int, int, float] = (300, 900, 0.0)
    own_face: float | None = None


class References(NamedTuple):
    """The references of a batch of B targets.

    latents: clean scaled latents (M, 4, h, w) of all distinct references. timesteps: (M,), that
    of the target each belongs to. slots: (R, S) indexes into them for the R rows that see
    references; a row with fewer than S photos repeats some, as the official padding does.
    rows: the R rows of the batch; the others train without a face.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    slots: torch.Tensor
    rows: list[int]


class Batch(NamedTuple):
    """B targets: latents and noise (B, 4, H, W), timesteps (B,), captions, position masks and face
    regions (B, 1, H, W), and their references.

    share: (B,), of its group that each is: those of people with few photos have fewer targets.
    seen: what encoders saw in the targets, (B, W) by name. chances: (B, 2) in 0..1, by which
    systems decide what else they omit.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    captions: list[str]
    position: torch.Tensor
    region: torch.Tensor
    share: torch.Tensor
    references: References
    seen: dict[str, torch.Tensor]
    chances: torch.Tensor


def draw_batch(people: People, sampling: Sampling, seed: int, step: int, groups: range) -> Batch:
    """The samples of the given groups of a step, all of one shape."""
    bucket = None
    if people.buckets:
        bucket = draw_bucket(people.buckets, _generator(seed, step, 0, 3))
    targets, captions, positions, regions, timesteps, noises = [], [], [], [], [], []
    latents, reference_timesteps, slots, rows = [], [], [], []
    seen, chances, shares = [], [], []
    for group in groups:
        # The later ones leave the first as it was.
        rng, other_rng, own_rng = (_generator(seed, step, group, stream) for stream in range(3))
        person = bucket.draw_person(rng) if bucket else int(rng.integers(len(people)))
        order = rng.permutation(people.count(person)).tolist()
        wanted = min(sampling.targets_per_group, len(order) - 1)
        if bucket:
            fits = [i for i in order if people.shape(person, i) == bucket.shape]
            order = fits + [i for i in order if i not in fits]
            wanted = min(wanted, len(fits))
        timestep = draw_timestep(rng, sampling)
        is_own = None if sampling.own_face is None else own_rng.random() < sampling.own_face
        shown = order[:wanted] if is_own else order[wanted:]
        photos = shown[: 1 + int(rng.integers(SLOTS))]
        first = len(latents)
        shares += [1 / wanted] * wanted
        latents += [people.picture(person, index).reference for index in photos]
        reference_timesteps += [timestep] * len(photos)
        for index in order[:wanted]:
            picture = people.picture(person, index)
            height, width = picture.latent.shape[-2:]
            without = rng.random()
            both = without < sampling.drop_both
            no_text = both or 0 <= without - sampling.drop_both < sampling.drop_text
            gone = sampling.drop_both + sampling.drop_text
            no_face = both or 0 <= without - gone < sampling.drop_references
            # Every photo once, and the remaining slots at random, as the official padding does.
            repeated = rng.integers(len(photos), size=SLOTS - len(photos)).tolist()
            if not no_face:
                rows.append(len(targets))
                slots.append([first + i for i in (*range(len(photos)), *repeated)])
            region = position_mask(picture.box, height, width)
            given = rng.random() < sampling.give_position
            positions.append(region if given else torch.zeros_like(region))
            regions.append(region)
            captions.append("" if no_text else picture.caption)
            noise = rng.standard_normal(picture.latent.shape, dtype=np.float32)
            noises.append(torch.from_numpy(noise))
            timesteps.append(timestep)
            targets.append(picture.latent)
            other = people.picture(person, order[wanted]) if is_own is False else picture
            seen.append(_seen(picture, other))
            chances.append(torch.from_numpy(other_rng.random(2, dtype=np.float32)))
    references = References(
        torch.stack(latents).float(),
        torch.tensor(reference_timesteps),
        torch.tensor(slots, dtype=torch.long).reshape(-1, SLOTS),
        rows,
    )
    return Batch(
        torch.stack(targets).float(),
        torch.stack(noises),
        torch.tensor(timesteps),
        captions,
        torch.stack(positions)[:, None],
        torch.stack(regions)[:, None],
        torch.tensor(shares),
        references,
        {name: torch.stack([one[name] for one in seen]).float() for name in seen[0]},
        torch.stack(chances),
    )


def _generator(seed: int, step: int, group: int, stream: int) -> np.random.Generator:
    # The first word counts what is drawn: were it the step, a step would draw the numbers of the
    # one before, moved by a few places.
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, step, group, stream]))


def _seen(picture: Picture, other: Picture) -> dict[str, torch.Tensor]:
    """What encoders saw in a picture, with the face of another one."""
    faces = {name: other.seen[name] for name in OF_THE_PERSON if name in other.seen}
    return {**picture.seen, **faces}


def draw_timestep(rng: np.random.Generator, sampling: Sampling) -> int:
    low, high, chance = sampling.favoured
    if rng.random() < chance:
        return int(rng.integers(low, high))
    return int(rng.integers(TIMESTEPS))
