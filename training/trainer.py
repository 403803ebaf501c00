"""The one trainer: accelerate around the networks that the nodes run.

One process, many, or many machines are the same run: samples follow from (seed, step, group), and
`accelerate launch` decides who draws which groups.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
import torch.utils.checkpoint
from accelerate.utils import send_to_device, set_seed
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from .batches import Batch, Sampling, draw_batch
from .data import People, TextEncoder
from .diffusion import add_noise, noise_loss
from .ema import Ema
from .identity_loss import IdentityLoss
from .muon import Muon
from .networks import PARTS, Networks
from .progress import Progress, note_row
from .sharded import make_accelerator, whole

log = logging.getLogger("flashface.training")

STATE, OLD, CSV = "state", "state.old", "losses.csv"
PROGRESS = "custom_checkpoint_1.pkl"  # accelerate's name for what is registered second
LOSSES = ["step", "loss", "learning_rate", "gradient_norm"]
OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}
Trained = TypeVar("Trained", bound=Networks)


@dataclass(frozen=True)
class Recipe:
    """What a run is; written beside its results.

    groups: per step, over all processes and accumulations. accumulate: parts in which a process
    does its groups. decay_from: fraction of the steps after which the learning rate falls to 0
    (cosine). ema: decay of the average that is saved; 0 saves memory, and what was trained. train:
    which parts of the networks are trained. precision: no, bf16 or fp16. identity_weight: of
    the identity loss beside the noise's; identity_below: timesteps under which it is taken.
    optimizer: adamw or muon.
    """

    steps: int = 10_000
    groups: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-4
    warmup_steps: int = 100
    decay_from: float = 0.5
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    ema: float = 0.999
    train: tuple[str, ...] = PARTS
    precision: str = "no"
    gradient_checkpointing: bool = False
    min_snr_gamma: float | None = None
    region_weight: float = 1.0
    identity_weight: float = 0.0
    identity_below: int = 400
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    optimizer: str = "adamw"
    sampling: Sampling = field(default_factory=Sampling)


class Trainer(Generic[Trained]):
    """Trains in `folder`, which holds the state, losses.csv and TensorBoard files.

    A folder with a saved state is continued; the numbers are those of a run never interrupted.
    on_save: called on every process with (step, networks) holding the averaged weights.
    identity_loss: added with the recipe's weight. trained_on: what a run that goes on must have
    as before, beside its recipe.
    """

    def __init__(
        self,
        networks: Trained,
        people: People,
        encode_text: TextEncoder,
        recipe: Recipe,
        folder: Path,
        on_save: Callable[[int, Trained], None] | None = None,
        identity_loss: IdentityLoss | None = None,
        trained_on: Mapping[str, Any] | None = None,
    ) -> None:
        self.identity_loss = identity_loss
        self.recipe, self.people, self.encode_text = recipe, people, encode_text
        self.folder, self.on_save = Path(folder), on_save
        set_seed(recipe.seed)
        self.accelerator = make_accelerator(recipe.precision, self.folder)
        self._check_groups()
        networks.freeze_all_but(recipe.train)
        networks.train()
        if recipe.gradient_checkpointing:
            checkpoint_blocks(networks)
        optimizer = OPTIMIZERS[recipe.optimizer](
            parameter_groups(networks, recipe), weight_decay=recipe.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate, recipe))
        # The schedule counts steps of the run, not of a process, so it is not prepared.
        self.networks, self.gradient_norm, self.rate = networks, float("nan"), 0.0
        self.model, self.optimizer = self.accelerator.prepare(networks, optimizer)
        self.schedule = schedule
        self.ema = Ema(networks, recipe.ema)
        self.progress = Progress({**asdict(recipe), **(trained_on or {})}, self.folder)
        self.accelerator.register_for_checkpointing(self.ema, self.progress, self.schedule)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Killed between two renamings, a run has the state before alone.
        saved = [self.folder / name for name in (STATE, OLD) if (self.folder / name).is_dir()]
        if saved:
            # First: what was trained by another recipe may not even fit.
            told = torch.load(saved[0] / PROGRESS, weights_only=True)
            self.progress.load_state_dict(told)
            self.accelerator.load_state(str(saved[0]))
            self._set_rates()
            log.info("continuing at step %d", self.progress.step)

    def _set_rates(self) -> None:
        """Those of the recipe as it is now; the state has them for the steps that there were."""
        factor = learning_rate(self.recipe, self.progress.step)
        groups = self.optimizer.param_groups
        for group, base in zip(groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * factor

    def _check_groups(self) -> None:
        parts = self.accelerator.num_processes * self.recipe.accumulate
        if self.recipe.groups % parts:
            raise ValueError(
                f"{self.recipe.groups} groups cannot be shared by "
                f"{self.accelerator.num_processes} processes in {self.recipe.accumulate} parts."
            )

    def run(self, until: int | None = None) -> None:
        """Train to the end of the recipe, or to step `until`; saves at the end."""
        recipe, last = self.recipe, min(self.recipe.steps, until or self.recipe.steps)
        self.accelerator.init_trackers("tensorboard")
        bar = tqdm(
            total=recipe.steps,
            initial=self.progress.step,
            desc="Training",
            disable=not self.accelerator.is_main_process,
        )
        total, count = 0.0, 0
        while self.progress.step < last:
            total, count = total + self.step(), count + 1
            bar.update()
            is_saved = self.progress.step % recipe.save_every == 0 or self.progress.step == last
            # At saves as well: a run that goes on does not know the losses of steps before.
            if is_saved or self.progress.step % recipe.log_every == 0:
                self._log(total / count)
                bar.set_postfix(loss=f"{total / count:.4f}")
                total, count = 0.0, 0
            if is_saved:
                self.save()
        bar.close()
        # Not end_training(), after which the processes could not train anything else.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def step(self) -> float:
        """One optimizer step; the mean loss over all processes."""
        recipe, accelerator = self.recipe, self.accelerator
        parts = accelerator.num_processes * recipe.accumulate
        size = recipe.groups // parts
        losses = []
        for part in range(recipe.accumulate):
            first = (accelerator.process_index * recipe.accumulate + part) * size
            groups = range(first, first + size)
            batch = draw_batch(
                self.people, recipe.sampling, recipe.seed, self.progress.step, groups
            )
            is_last = part == recipe.accumulate - 1
            together = nullcontext() if is_last else accelerator.no_sync(self.model)
            # Dropout is every part's own, and that of a run never interrupted.
            torch.manual_seed(_seed_of(recipe.seed, self.progress.step, first))
            with together, self._attention():
                sent = cast(Batch, send_to_device(batch, accelerator.device))
                # Of groups, not of targets: parts have as many of them, and so weigh the same.
                loss = (self._loss(sent) * sent.share).sum() / size
                accelerator.backward(loss / recipe.accumulate)
            losses.append(loss.detach())
        norm = accelerator.clip_grad_norm_(self.networks.parameters(), recipe.max_gradient_norm)
        self.gradient_norm = float(whole(norm)) if norm is not None else float("nan")
        self.rate = recipe.learning_rate * learning_rate(recipe, self.progress.step)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.ema.update(self.networks)
        self.progress.step += 1
        mean = accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
        assert isinstance(mean, torch.Tensor)
        return mean.item()

    def _attention(self):
        """PyTorch's flash attention for CPUs is very slow where heads are small. Around forward and
        backward pass, for gradient checkpointing computes parts of the first in the second."""
        plain = self.accelerator.device.type == "cpu"
        return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()

    def _loss(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            told = self.networks.texts(batch)
            texts = self.encode_text(told) if told else torch.empty(0)
            noisy = add_noise(batch.latents, batch.noise, batch.timesteps)
            texts = texts.to(noisy)
        with self.accelerator.autocast():
            predicted, target = self.model(batch, noisy, texts)
        recipe = self.recipe
        weights = (recipe.min_snr_gamma, batch.region, recipe.region_weight)
        loss = noise_loss(predicted, target, batch.timesteps, *weights)
        if self.identity_loss is None:
            return loss
        rows = self.networks.rows_with_face(batch)
        return loss + recipe.identity_weight * self.identity_loss(predicted, noisy, batch, rows)

    def _log(self, loss: float) -> None:
        step, rate, norm = self.progress.step, self.rate, self.gradient_norm
        self.accelerator.log(
            {"loss": loss, "learning_rate": rate, "gradient_norm": norm}, step=step
        )
        if not self.accelerator.is_main_process:
            return
        row = [step, f"{loss:.6f}", f"{rate:.3e}", f"{norm:.4f}"]
        note_row(self.folder / CSV, LOSSES, row)

    def save(self) -> None:
        """What is published, then the whole state to continue from; a run killed meanwhile keeps
        the state before, and publishes when it is here again."""
        unfinished, state = self.folder / "state.part", self.folder / STATE
        if self.accelerator.is_main_process and unfinished.exists():
            shutil.rmtree(unfinished)
        self.accelerator.wait_for_everyone()
        # Not as safetensors, which would drop the names under which tensors are shared.
        self.accelerator.save_state(str(unfinished), safe_serialization=False)
        self.publish()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            previous = self.folder / OLD
            if state.exists():
                shutil.rmtree(previous, ignore_errors=True)  # of a run killed while it removed it
                state.rename(previous)
            unfinished.rename(state)
            shutil.rmtree(previous, ignore_errors=True)

    def publish(self) -> None:
        if self.on_save is not None:
            with self.ema.in_place(self.networks):
                self.on_save(self.progress.step, self.networks)


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def parameter_groups(networks: Networks, recipe: Recipe) -> list[dict]:
    """What is trained, by the factor of its learning rate."""
    slowed = {
        id(p): rate for part, rate in networks.rates.items() for p in networks.part_parameters(part)
    }
    groups: dict[float, list] = {}
    for parameter in networks.parameters():
        if parameter.requires_grad:
            groups.setdefault(slowed.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": same, "lr": rate * recipe.learning_rate} for rate, same in groups.items()]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Factor of a step: linear warm-up, then constant, then a cosine to 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    start = recipe.decay_from * recipe.steps
    if step <= start:
        return 1.0
    done = min(1.0, (step - start) / max(1.0, recipe.steps - start))
    return 0.5 * (1 + math.cos(done * math.pi))


def checkpoint_blocks(networks: Networks) -> None:
    """Compute the blocks again in the backward pass instead of keeping what is in them."""
    blocks = {
        module
        for unet in networks.unets()
        for module in unet.modules()
        if isinstance(module, (BasicTransformerBlock, ResBlock))
    }
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward, *args, **kwargs):
    if "transformer_options" in kwargs:  # core goes on writing into it
        kwargs["transformer_options"] = dict(kwargs["transformer_options"])
    return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)
