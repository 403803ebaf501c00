"""The tiny models from nothing: VAE, probes, drawn people, base UNet, FlashFace."""

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file

from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE, VAE
from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.weights_file import save_whole
from training.batches import Sampling
from training.data import PeopleInMemory
from training.initial import fresh_checkpoint, with_new_references
from training.networks import REFERENCE_ATTENTION, TARGET, FlashFaceNetworks
from training.paired import paired_losses
from training.progress import note_row
from training.publish import publish
from training.trainer import CSV, Recipe, Trainer

from .autoencoder import load_autoencoder, save_autoencoder, score
from .autoencoder import train as train_autoencoder
from .base_file import BASE, load_base, read_flashface, read_models, save_base
from .curve import PAIRED, plot_curve
from .described import DescribedNetworks, Describer, know_who
from .encode import encode_people, join_people
from .grid import Grid
from .identity import drawn_identity_loss
from .probes import PROBES, Pool, save_probes
from .probes import train as train_probes
from .text import ToyText

log = logging.getLogger("flashface.training")

RECIPE = "recipe.json"
BEGUN_WITH = "begun_with_sha256"
UNFINISHED_VAE = "vae.pt"
# In order; each leaves a file, from which the next goes on.
STAGES = ("vae", "probes", "base", "flashface")

# References help most at t = 600 to 800, and the face is where they help.
SAMPLING = Sampling(
    targets_per_group=2,
    drop_references=0.16,  # of whom captions tell who it is
    drop_text=0.06,
    drop_both=0.04,
    give_position=0.7,
    favoured=(300, 900, 0.6),
)
# Without photos, every sample is of another person, and at noise where nothing else tells who.
ALONE = dataclasses.replace(
    SAMPLING,
    targets_per_group=1,
    drop_references=0.9,
    drop_text=0,
    drop_both=0.1,
    favoured=(400, 1000, 0.7),
)
COMMON = Recipe(
    steps=3300,
    groups=20,
    learning_rate=6e-4,
    decay_from=0.5,
    # Usual ones are 0.1 to 0.2; without a limit a single batch undid all that references had done.
    max_gradient_norm=0.2,
    ema=0.998,
    min_snr_gamma=1.0,
    region_weight=3.0,
    log_every=20,
    save_every=500,
    sampling=SAMPLING,
)


@dataclasses.dataclass(frozen=True)
class ToyRecipe:
    """Everything that decides what comes out; written beside it.

    people, scenes: of the train split that FlashFace learns from, encoded once. pretrain: the UNet
    without references, which is to FlashFace what SD1.5 was; train: everything. unseen: people of
    the test split, on whom progress is measured.
    """

    seed: int = 0
    autoencoder_steps: int = 9000
    probe_steps: int = 2400
    probe_people: int = 9000
    people: int = 3600
    scenes: int = 8
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    heads: int = 2
    unseen: int = 64
    pretrain: Recipe = dataclasses.field(
        default_factory=lambda: dataclasses.replace(
            COMMON,
            steps=3000,
            groups=40,
            learning_rate=8e-4,
            optimizer="muon",
            save_every=250,
            train=(TARGET, REFERENCE_ATTENTION),
            sampling=ALONE,
        )
    )
    # Another seed than that before, whose noise it would see again.
    train: Recipe = dataclasses.field(default_factory=lambda: dataclasses.replace(COMMON, seed=1))

    def at_precision(self, precision: str) -> "ToyRecipe":
        """That of VAE, base and FlashFace."""
        pretrain = dataclasses.replace(self.pretrain, precision=precision)
        train = dataclasses.replace(self.train, precision=precision)
        return dataclasses.replace(self, pretrain=pretrain, train=train)


def make_vae(recipe: ToyRecipe, path: Path, work: Path, start: Path | None) -> None:
    before = start / VAE if start else None
    work.mkdir(parents=True, exist_ok=True)
    model = train_autoencoder(
        recipe.autoencoder_steps,
        recipe.seed,
        start=before,
        precision=recipe.pretrain.precision,
        kept=work / UNFINISHED_VAE,
    )
    if PartialState().is_main_process:
        save_autoencoder(model, path)
        (work / UNFINISHED_VAE).unlink(missing_ok=True)
        for name, value in score(
            load_autoencoder(path), recipe.seed, min(200, recipe.people)
        ).items():
            log.info("%20s %.2f", name, value)


def make_probes(recipe: ToyRecipe, path: Path) -> None:
    if PartialState().is_main_process:
        device = str(PartialState().device)
        pool = Pool(recipe.seed, recipe.probe_people, 2, device, compiled=False)
        save_probes(train_probes(pool, recipe.probe_steps, recipe.seed, device), path)
    PartialState().wait_for_everyone()


def encode(recipe: ToyRecipe, vae: Path, folder: Path) -> PeopleInMemory:
    """The train people as latents; every process draws its share, and all read all."""
    state = PartialState()
    folder.mkdir(parents=True, exist_ok=True)
    share = recipe.people // state.num_processes
    own = folder / f"people-{state.process_index}-of-{state.num_processes}.safetensors"
    if not own.exists():
        device = str(state.device)
        first = share * state.process_index
        tensors = encode_people(
            load_autoencoder(vae, device), recipe.seed, "train", first, share, recipe.scenes, device
        )
        save_whole(tensors, own)
    state.wait_for_everyone()
    pattern = f"people-*-of-{state.num_processes}.safetensors"
    parts = [load_file(path) for path in sorted(folder.glob(pattern))]
    people = join_people(recipe.seed, "train", parts)
    know_who(people, torch.cat([part["which"] for part in parts]))
    return people


def described(recipe: ToyRecipe, start: Checkpoint) -> tuple[DescribedNetworks, ToyText]:
    text = ToyText(str(PartialState().device))
    return DescribedNetworks(start, text, Describer(text, recipe.seed)), text


def make_base(
    recipe: ToyRecipe, people: PeopleInMemory, folder: Path, path: Path, start: Path | None
) -> None:
    """The UNet that can draw whom it is told about, and the position channel."""
    if start is None:
        begun = fresh_checkpoint(
            "tiny", recipe.width, recipe.multipliers, heads=recipe.heads, seed=recipe.seed
        )
    else:
        drawn = read_models(start)
        sizes = ("heads", "reference_size", "picture_size")
        same = {name: getattr(drawn, name) for name in sizes}
        begun = with_new_references("tiny", drawn.target, drawn.position, **same)
    networks, text = described(recipe, begun)

    # What is there of it can be measured (training.tiny.bounds) before it is finished.
    unfinished = folder / BASE

    def on_save(step: int, networks: FlashFaceNetworks) -> None:
        if PartialState().is_main_process:
            save_base(networks.checkpoint(), unfinished)

    Trainer(networks, people, text, recipe.pretrain, folder / "pretrain", on_save).run()
    if PartialState().is_main_process:
        shutil.copy(unfinished, path)


def train_flashface(
    recipe: ToyRecipe, start: Checkpoint, people: PeopleInMemory, vae: Path, folder: Path, out: Path
) -> None:
    networks, encode_text = described(recipe, start)
    grid = Grid(vae, encode_text, recipe.seed, min(4, recipe.unseen))
    unseen = encode_people(load_autoencoder(vae), recipe.seed, "test", 0, recipe.unseen, 5)
    unseen = join_people(recipe.seed, "test", [unseen])
    started = time.monotonic()

    def on_save(step: int, networks: FlashFaceNetworks) -> None:
        if not PartialState().is_main_process:
            return
        log.info("step %d after %.1f minutes", step, (time.monotonic() - started) / 60)
        publish(networks, out)
        losses = paired_losses(networks, unseen, encode_text)
        row = [step, *(f"{loss:.5f}" for loss in losses)]
        note_row(folder / PAIRED, ["step", *losses._fields], row)
        grid.save(networks, folder / f"step-{step:06d}.png")

    identity = drawn_identity_loss(recipe.train, vae)
    Trainer(networks, people, encode_text, recipe.train, folder, on_save, identity).run()


def run(
    recipe: ToyRecipe,
    out: Path,
    work: Path,
    until: str = STAGES[-1],
    start: Path | None = None,
    begin_with: Path | None = None,
) -> None:
    """Make what is missing in `out`, up to a stage; `work` holds what a killed run goes on from.

    start: a folder of tiny models; VAE and UNet (of FlashFace, or of the base alone) go on from
    its, and not from nothing. begin_with: weights of a FlashFace, in place of one whose networks
    are copies of the base; then no base is made.
    """
    out.mkdir(parents=True, exist_ok=True)
    wanted = STAGES[: STAGES.index(until) + 1]
    if "vae" in wanted and not (out / VAE).exists():
        make_vae(recipe, out / VAE, work, start)
    PartialState().wait_for_everyone()
    if "probes" in wanted and not (out / PROBES).exists():
        make_probes(recipe, out / PROBES)
    if "base" not in wanted:
        return
    people = encode(recipe, out / VAE, work)
    if begin_with is None and not (out / BASE).exists():
        make_base(recipe, people, work, out / BASE, start)
    PartialState().wait_for_everyone()
    if "flashface" not in wanted:
        return
    begun = load_base(out / BASE) if begin_with is None else read_flashface(begin_with)
    train_flashface(recipe, begun, people, out / VAE, work, out / FLASHFACE)
    if PartialState().is_main_process:
        for name in (CSV, PAIRED):
            shutil.copy(work / name, out / name)
        plot_curve(out)
        write_recipe(recipe, out, begin_with)


def write_recipe(recipe: Any, folder: Path, begin_with: Path | None) -> None:
    """A dataclass as recipe.json, with the hash of the weights that its run went on from."""
    values = dataclasses.asdict(recipe)
    if begin_with is not None:
        values[BEGUN_WITH] = hashlib.sha256(begin_with.read_bytes()).hexdigest()
    (folder / RECIPE).write_text(json.dumps(values, indent=2) + "\n")


def read_recipe(path: Path) -> ToyRecipe:
    values = json.loads(path.read_text())
    values.pop(BEGUN_WITH, None)  # what was, no part of what is to be done
    values["multipliers"] = tuple(values["multipliers"])
    for stage in ("pretrain", "train"):
        fields = values.pop(stage)
        sampling = fields.pop("sampling")
        sampling["favoured"] = tuple(sampling["favoured"])
        fields["train"] = tuple(fields["train"])
        values[stage] = Recipe(**fields, sampling=Sampling(**sampling))
    return ToyRecipe(**values)
