"""How much the references help: one batch of noisy targets, with different references each time.

The loss of a step says little, for most of it is the noise of timesteps and pictures; here only
the references differ.
"""

from typing import NamedTuple

import torch

from .batches import Sampling, draw_batch
from .data import People, TextEncoder
from .diffusion import add_noise, noise_loss
from .networks import FlashFaceNetworks


class PairedLosses(NamedTuple):
    """Mean squared error of the noise inside the face's region: with four photos of the person,
    with no photo, and with photos of somebody else."""

    own: float
    none: float
    other: float


@torch.no_grad()
def paired_losses(
    networks: FlashFaceNetworks,
    people: People,
    encode_text: TextEncoder,
    timestep: int = 600,
    count: int = 64,
    seed: int = 0,
) -> PairedLosses:
    """On `count` targets of people that should be unseen; the same ones at every call."""
    device = next(networks.parameters()).device
    sampling = Sampling(drop_references=0, drop_text=0, drop_both=0, give_position=1)
    batch = draw_batch(people, sampling, seed, 0, range(count))
    timesteps = torch.full_like(batch.timesteps, timestep)
    own = batch.references
    own = own._replace(
        latents=own.latents.to(device), timesteps=torch.full_like(own.timesteps, timestep)
    )
    other = own._replace(slots=own.slots.roll(1, dims=0))
    texts = encode_text(["", *batch.captions]).to(device)
    noisy = add_noise(batch.latents, batch.noise, timesteps).to(device)
    was_training = networks.training
    networks.eval()
    losses = []
    for references in (own, None, other):
        predicted = networks.predict(
            noisy, timesteps.to(device), texts[1:], texts[:1], references, batch.position.to(device)
        )
        loss = noise_loss(
            predicted.cpu(), batch.noise, timesteps, region=batch.region, region_weight=1e6
        )
        losses.append(loss.mean().item())
    networks.train(was_training)
    return PairedLosses(*losses)
