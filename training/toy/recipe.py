"""The tiny models from nothing: VAE, yardsticks, drawn people, FlashFace."""

import csv
import dataclasses
import json
import logging
import shutil
import time
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from training.batches import Sampling
from training.data import PeopleInMemory
from training.trainer import CSV, Recipe

from .curve import PAIRED, plot_curve

log = logging.getLogger("flashface.training")

FLASHFACE, VAE, YARDSTICKS = (
    "flashface_tiny.safetensors",
    "vae_tiny.safetensors",
    "yardsticks.safetensors",
)
RECIPE = "recipe.json"
UNSEEN = 64  # people of the test split, on whom progress is measured


@dataclasses.dataclass(frozen=True)
class ToyRecipe:
    """Everything that decides what comes out; written beside it.

    people, scenes: of the train split that FlashFace learns from, encoded once.
    """

    seed: int = 0
    autoencoder_steps: int = 4400
    yardstick_steps: int = 2400
    yardstick_people: int = 9000
    people: int = 3600
    scenes: int = 8
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    heads: int = 2
    # References help most at t = 600 to 800, and the face is where they help.
    train: Recipe = dataclasses.field(
        default_factory=lambda: Recipe(
            steps=4800,
            groups=10,
            learning_rate=1e-3,
            decay_from=0.5,
            ema=0.998,
            precision="bf16",
            min_snr_gamma=1.0,
            region_weight=3.0,
            log_every=20,
            save_every=1000,
            sampling=Sampling(
                targets_per_group=4,
                drop_references=0.08,
                drop_text=0.06,
                drop_both=0.04,
                give_position=0.7,
                favoured=(300, 900, 0.6),
            ),
        )
    )


def make_vae(recipe: ToyRecipe, path: Path) -> None:
    from .autoencoder import save_autoencoder, train

    model = train(recipe.autoencoder_steps, recipe.seed)
    if PartialState().is_main_process:
        save_autoencoder(model, path)


def make_yardsticks(recipe: ToyRecipe, path: Path) -> None:
    from .yardsticks import Pool, save_yardsticks, train

    if PartialState().is_main_process:
        device = str(PartialState().device)
        pool = Pool(recipe.seed, recipe.yardstick_people, 2, device, compiled=False)
        save_yardsticks(train(pool, recipe.yardstick_steps, recipe.seed, device), path)
    PartialState().wait_for_everyone()


def encode(recipe: ToyRecipe, vae: Path, folder: Path) -> PeopleInMemory:
    """The train people as latents; every process draws its share, and all read all."""
    from .autoencoder import load_autoencoder
    from .encode import encode_people, join_people

    state = PartialState()
    folder.mkdir(parents=True, exist_ok=True)
    share = recipe.people // state.num_processes
    own = folder / f"people-{state.process_index}-of-{state.num_processes}.safetensors"
    if not own.exists():
        autoencoder = load_autoencoder(vae).to(state.device, memory_format=torch.channels_last)
        first = share * state.process_index
        tensors = encode_people(
            autoencoder, recipe.seed, "train", first, share, recipe.scenes, state.device
        )
        save_file(tensors, own.with_suffix(".part"))
        own.with_suffix(".part").rename(own)
    state.wait_for_everyone()
    pattern = f"people-*-of-{state.num_processes}.safetensors"
    return join_people(
        recipe.seed, "train", [load_file(path) for path in sorted(folder.glob(pattern))]
    )


def train_flashface(recipe: ToyRecipe, people, vae: Path, folder: Path, out: Path) -> None:
    from training.initial import fresh_checkpoint
    from training.networks import FlashFaceNetworks
    from training.paired import paired_losses
    from training.publish import publish
    from training.trainer import Trainer

    from .autoencoder import load_autoencoder
    from .encode import encode_people, join_people
    from .grid import Grid
    from .text import ToyText

    fresh = fresh_checkpoint(
        "tiny", recipe.width, recipe.multipliers, heads=recipe.heads, seed=recipe.seed
    )
    encode_text = ToyText(str(PartialState().device))
    grid = Grid(vae, encode_text, recipe.seed)
    unseen = encode_people(load_autoencoder(vae), recipe.seed, "test", 0, UNSEEN, 5)
    unseen = join_people(recipe.seed, "test", [unseen])
    started = time.monotonic()

    def on_save(step: int, networks: FlashFaceNetworks) -> None:
        log.info("step %d after %.1f minutes", step, (time.monotonic() - started) / 60)
        publish(networks, out)
        losses = paired_losses(networks, unseen, encode_text)
        with open(folder / PAIRED, "a", newline="") as file:
            writer = csv.writer(file)
            if step == recipe.train.save_every:
                writer.writerow(["step", *losses._fields])
            writer.writerow([step, *(f"{loss:.5f}" for loss in losses)])
        grid.save(networks, folder / f"step-{step:06d}.png")

    Trainer(FlashFaceNetworks(fresh), people, encode_text, recipe.train, folder, on_save).run()


def run(recipe: ToyRecipe, out: Path, work: Path) -> None:
    """Make what is missing in `out`; `work` holds what a killed run goes on from."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / VAE).exists():
        make_vae(recipe, out / VAE)
    PartialState().wait_for_everyone()
    if not (out / YARDSTICKS).exists():
        make_yardsticks(recipe, out / YARDSTICKS)
    people = encode(recipe, out / VAE, work)
    train_flashface(recipe, people, out / VAE, work, out / FLASHFACE)
    if PartialState().is_main_process:
        for name in (CSV, PAIRED):
            shutil.copy(work / name, out / name)
        plot_curve(out)
        text = json.dumps(dataclasses.asdict(recipe), indent=2)
        (out / RECIPE).write_text(text + "\n")


def read_recipe(path: Path) -> ToyRecipe:
    values = json.loads(path.read_text())
    train = values.pop("train")
    train["sampling"]["favoured"] = tuple(train["sampling"]["favoured"])
    train["train"] = tuple(train["train"])
    train["sampling"] = Sampling(**train["sampling"])
    values["multipliers"] = tuple(values["multipliers"])
    return ToyRecipe(**values, train=Recipe(**train))
