"""A small VAE for the toy world, in TAESD's single-file layout, which core's VAELoader reads."""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import reduce
from safetensors.torch import load_file
from torch import Tensor, nn

from flashface_core.weights_file import save_whole
from toy_world.draw import draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes
from training.muon import Muon

log = logging.getLogger("flashface.training")

# A latent of core's SD1.5 format is the encoder's output times this.
SD15_LATENT_SCALE = 0.18215
PATCH = 64
CHANNELS = 4
NOISE = 0.05
KEEP_EVERY = 250
# From the full size to an eighth: channels, and blocks used of those that TAESD has room for.
WIDTHS = (32, 64, 64, 64)
ENCODER_BLOCKS = (1, 2, 3, 3)
DECODER_BLOCKS = (1, 3, 3, 3)
ROOM = (1, 3, 3, 3)


def patches(
    seed: int, batch: int, process: int, processes: int, device, done: int = 0
) -> Iterator[Tensor]:
    """Endless (3 batch, 3, 64, 64): of every drawing two windows, one of them at the face, and its
    face crop. done: steps whose drawings are left out."""
    random = torch.Generator()
    first = (process + processes * done) * batch
    while True:
        rows = range(first, first + batch)
        random.manual_seed(seed + first)
        people = People.draw_from(seed, "train", rows).to(device)
        pictures, boxes = draw(people, Scenes.draw_from(seed, "train", rows).to(device))
        room = pictures.shape[-1] - PATCH
        y, x = torch.randint(room + 1, (2,), generator=random).tolist()
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2 * pictures.shape[-1]
        corners = (middles - PATCH / 2).round().long().clamp(0, room).tolist()
        at_face = [
            picture[:, top : top + PATCH, left : left + PATCH]
            for picture, (left, top) in zip(pictures, corners, strict=True)
        ]
        crops = face_crop(pictures, boxes, PATCH)
        yield torch.cat([crops, pictures[:, :, y : y + PATCH, x : x + PATCH], torch.stack(at_face)])
        first += batch * processes


class Block(nn.Module):
    """TAESD's residual block of any width, under its names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = (_conv(width, width) for _ in range(3))
        nn.init.zeros_(third.weight)  # residual blocks begin as the identity
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class SlimAutoencoder(nn.Module):
    """A TAESD with fewer channels and blocks at the large sizes, where a CPU spends its time.

    Its layers stand where TAESD's stand, so that padded with zeros it is one: a missing block is
    one of zeros, which passes on what a ReLU has left.
    """

    def __init__(self) -> None:
        super().__init__()
        encoder: list[nn.Module] = [_conv(3, WIDTHS[0])]
        for level, (width, used) in enumerate(zip(WIDTHS, ENCODER_BLOCKS, strict=True)):
            if level:
                encoder.append(_conv(WIDTHS[level - 1], width, stride=2, bias=False))
            encoder += _blocks(width, used, ROOM[level])
        decoder: list[nn.Module] = [Clamp(), _conv(CHANNELS, WIDTHS[-1]), nn.ReLU()]
        for level in reversed(range(len(WIDTHS))):
            decoder += _blocks(WIDTHS[level], DECODER_BLOCKS[level], ROOM[level])
            if level:
                decoder.append(nn.Upsample(scale_factor=2))
                decoder.append(_conv(WIDTHS[level], WIDTHS[level - 1], bias=False))
        self.taesd_encoder = nn.Sequential(*encoder, _conv(WIDTHS[-1], CHANNELS))
        self.taesd_decoder = nn.Sequential(*decoder, _conv(WIDTHS[0], 3))
        self._begin_with_mean_colours()

    @torch.no_grad()
    def _begin_with_mean_colours(self) -> None:
        """Three latents are the mean colour of their 8x8 pixels, and the decoder smooths them.

        From random values alone the first thousand steps go into finding colours.
        """
        same, mean, smooth = torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor([0.25, 0.5, 0.25])
        same[1, 1], mean[1:, 1:] = 1, 1 / 4
        for layer in (*self.taesd_encoder, *self.taesd_decoder):
            if not isinstance(layer, nn.Conv2d):
                continue
            kernel = same
            if layer.bias is None:
                kernel = mean if layer.stride[0] == 2 else smooth[:, None] * smooth
            layer.weight.mul_(0.5)  # what else the channels carry, at first
            layer.weight[:3] = 0
            for colour in range(3):
                layer.weight[colour, colour] = kernel
        # Colours 0..1 are latents -2..2.
        last, first = self.taesd_encoder[-1], self.taesd_decoder[1]
        assert isinstance(last, nn.Conv2d) and isinstance(first, nn.Conv2d)
        last.weight[:3] *= 4
        first.weight[:3] /= 4
        assert last.bias is not None and first.bias is not None
        last.bias[:3], first.bias[:3] = -2, 0.5


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _blocks(width: int, used: int, room: int) -> list[nn.Module]:
    return [Block(width) if index < used else nn.Identity() for index in range(room)]


def taesd_state_dict(model: SlimAutoencoder) -> dict[str, Tensor]:
    """The same function as weights of core's TAESD, which gives latents of the SD1.5 scale."""
    from comfy.taesd.taesd import TAESD

    slim, whole = model.state_dict(), {}
    for name, value in TAESD().state_dict().items():
        whole[name] = torch.zeros_like(value)
        if name in slim:
            whole[name][tuple(slice(size) for size in slim[name].shape)] = slim[name]
    whole["vae_scale"].fill_(SD15_LATENT_SCALE)
    return whole


def save_autoencoder(model: SlimAutoencoder, path: str | Path) -> None:
    """In half precision, as TAESD."""
    whole = taesd_state_dict(model)
    save_whole({name: value.half() for name, value in whole.items()}, path)


def load_autoencoder(path: str | Path, device: str = "cpu") -> SlimAutoencoder:
    """What `save_autoencoder` wrote, without the zeros."""
    model, whole = SlimAutoencoder(), load_file(path)
    slim = {
        name: whole[name][tuple(slice(size) for size in value.shape)]
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(slim)
    return model.to(device).eval()


def reconstruct(model, pictures: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Decoded pictures and scaled latents, both as the diffusion model has them."""
    latents = model.taesd_encoder(pictures)
    return model.taesd_decoder(latents + noise * torch.randn_like(latents)), latents


def loss_of(decoded: Tensor, pictures: Tensor, latents: Tensor) -> Tensor:
    """L1 and squares of pixels and of their differences (edges of thin marks), and latents of
    spread 1. What may be a little to the side is drawn faintly, where L1 alone leaves it out."""
    absolute, squared = (decoded - pictures).abs().mean(), (decoded - pictures).square().mean()
    for dim in (2, 3):
        edges = decoded.diff(dim=dim) - pictures.diff(dim=dim)
        absolute = absolute + 0.5 * edges.abs().mean()
        squared = squared + 0.75 * edges.square().mean()
    means, spreads = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    usual = means.square().mean() + (spreads - 1).square().mean()
    return 0.5 * absolute + 4 * squared + 0.01 * usual


def train(
    steps: int,
    seed: int,
    batch: int = 4,
    rate: float = 1e-3,
    start: Path | None = None,
    precision: str = "no",
    kept: Path | None = None,
) -> SlimAutoencoder:
    """start: a file to go on from; None: from nothing. kept: what a killed run goes on from, as if
    it had not been killed.

    Every process of `accelerate launch` adds `batch` drawings to a step: on a CPU two processes of
    one thread do twice the work of one with two. Latents get a little noise, as those of a sampler
    have some.
    """
    state = PartialState()
    device = torch.device(state.device or "cpu")
    torch.manual_seed(seed)
    model = (SlimAutoencoder() if start is None else load_autoencoder(start)).to(device).train()
    trained = list(model.parameters())
    # From nothing a quarter of a decibel ahead of AdamW after six minutes.
    optimizer = Muon(trained, rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / 100) * min(1.0, 2 * (1 - n / steps))
    )
    learned = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if kept is not None and kept.exists():
        before = torch.load(kept, map_location=device, weights_only=True)
        done = before["step"]
        for name, part in learned.items():
            part.load_state_dict(before[name])
        log.info("the VAE goes on from step %d", done)
    windows = patches(seed, batch, state.process_index, state.num_processes, device, done)
    for step, pictures in zip(range(done + 1, steps + 1), windows, strict=False):
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        torch.manual_seed(seed + state.process_index + state.num_processes * step)  # of the noise
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            decoded, latents = reconstruct(model, pictures, NOISE)
        loss = loss_of(decoded.float(), pictures, latents.float())
        model.zero_grad()
        loss.backward()
        for parameter in trained:
            gradient = reduce(parameter.grad, reduction="mean")
            assert isinstance(gradient, Tensor)
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if not state.is_main_process:
            continue
        if step % (steps // 50 or 1) == 0:
            error = F.mse_loss(decoded.detach().float(), pictures)
            log.info(
                "step %d of %d  loss %.4f  %.2f dB", step, steps, loss.detach(), -10 * error.log10()
            )
        if kept is not None and step % KEEP_EVERY == 0:
            now = {name: part.state_dict() for name, part in learned.items()}
            unfinished = kept.with_suffix(".part")
            torch.save({"step": step, **now}, unfinished)
            unfinished.replace(kept)
    return model.eval()


@torch.no_grad()
def score(model, seed: int, people: int = 200) -> dict[str, float]:
    """PSNR in dB on unseen people, of whole pictures and of face crops, and the latents' spread."""
    squared: dict[str, list[Tensor]] = {"pictures": [], "face crops": []}
    spreads = []
    for first in range(0, people, 20):
        rows = range(first, min(first + 20, people))
        drawn, boxes = draw(
            People.draw_from(seed, "test", rows), Scenes.draw_from(seed, "test", rows)
        )
        for name, pictures in (("pictures", drawn), ("face crops", face_crop(drawn, boxes))):
            decoded, latents = reconstruct(model, pictures)
            squared[name].append(F.mse_loss(decoded.clamp(0, 1), pictures))
            spreads.append(latents.std())
    scores = {
        f"PSNR of {name}": float(-10 * torch.stack(values).mean().log10())
        for name, values in squared.items()
    }
    return scores | {"spread of latents": float(torch.stack(spreads).mean())}
