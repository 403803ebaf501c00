"""How well people are drawn who are not trained on: the loss on the same samples at every save."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import cast

import torch
from accelerate.utils import send_to_device

from flashface_core.errors import FlashFaceError

from .batches import Batch, Sampling, draw_batch
from .buckets import make_buckets
from .data import People, Picture, TextEncoder
from .diffusion import add_noise, noise_loss
from .networks import Networks
from .progress import note_row

CSV = "held_out.csv"
TIMESTEPS = (100, 300, 500, 700, 900)
# Shown by other photos, with nothing left out and no place given.
SAMPLING = Sampling(drop_references=0, drop_text=0, drop_both=0, give_position=0, own_face=0.0)


class SomePeople:
    """Those from `start` to `stop` (without) of others."""

    def __init__(self, people: People, start: int, stop: int) -> None:
        self._people, self._start, self._count = people, start, stop - start
        self.buckets = make_buckets(self) if people.buckets else ()

    def __len__(self) -> int:
        return self._count

    def count(self, person: int) -> int:
        return self._people.count(self._start + person)

    def shape(self, person: int, index: int) -> tuple[int, int]:
        return self._people.shape(self._start + person, index)

    def picture(self, person: int, index: int) -> Picture:
        return self._people.picture(self._start + person, index)


def hold_out(people: People, count: int) -> tuple[People, People]:
    """Those to train on, and the last `count`. Raises FlashFaceError where nobody would be left."""
    rest = len(people) - count
    if count < 0 or rest < 1:
        raise FlashFaceError(
            f"{count} of {len(people)} people are to be held out; leave one at least to train on."
        )
    return SomePeople(people, 0, rest), SomePeople(people, rest, len(people))


@torch.no_grad()
def held_out_losses(
    networks: Networks, people: People, encode_text: TextEncoder
) -> tuple[float, float]:
    """Mean squared error of the noise in the whole picture, and inside the face's region: of a
    picture of everybody at each of the timesteps."""
    device = next(networks.parameters()).device
    was_training = networks.training
    networks.eval()
    whole, face = [], []
    for person, (number, timestep) in product(range(len(people)), enumerate(TIMESTEPS)):
        sampling = replace(SAMPLING, favoured=(timestep, timestep + 1, 1.0))
        own = SomePeople(people, person, person + 1)
        drawn = draw_batch(own, sampling, 0, person, range(number, number + 1))
        drawn = drawn._replace(chances=torch.ones_like(drawn.chances))
        batch = cast(Batch, send_to_device(drawn, device))
        noisy = add_noise(batch.latents, batch.noise, batch.timesteps)
        told = networks.texts(batch)
        texts = encode_text(told).to(noisy) if told else torch.empty(0)
        predicted, target = networks(batch, noisy, texts)
        given = (predicted, target, batch.timesteps)
        whole.append(noise_loss(*given).mean())
        face.append(noise_loss(*given, region=batch.region, region_weight=1e6).mean())
    networks.train(was_training)
    return torch.stack(whole).mean().item(), torch.stack(face).mean().item()


def record(folder: Path, step: int, losses: tuple[float, float]) -> None:
    """A line more in held_out.csv, after those of earlier steps."""
    note_row(folder / CSV, ["step", "loss", "loss_of_face"], [step, *(f"{x:.6f}" for x in losses)])
