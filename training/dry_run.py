"""Two steps of every recipe at SD1.5's size: that it runs, what memory it needs, and how long.

    python -m training.dry_run [--recipe FILE] [--checkpoint FILE] [--size 512] [more options]

Pictures are noise and, without --checkpoint (an SD1.5 or FlashFace checkpoint), weights are fresh
ones in SD1.5's shape; a step has one target. Without --recipe all those in training/recipes, each
in a process of its own. Nothing is saved. A recipe whose gradients and optimizer do not fit into
memory is not begun.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from accelerate.utils import set_seed

from flashface_core.errors import FlashFaceError
from flashface_core.flashface.checkpoint import Checkpoint
from training.comfyui import find_comfyui
from training.data import FACE_VECTOR, FACELESS_STYLE, UNIT_FACE
from training.options import add_recipe_options, make_recipe, system_of
from training.systems import FLASHFACE, Given, build

RECIPES = Path(__file__).parent / "recipes"
STEPS, PICTURES = 2, 3
SD15: dict[str, Any] = dict(
    multipliers=(1, 2, 4, 4), residual_blocks=2, attention=(True, True, True, False)
)
# Of MSID and ArcFace, and of CLIP ViT-L/14.
WIDTHS = {FACE_VECTOR: 1536, UNIT_FACE: 512, FACELESS_STYLE: 768}
TRAINED_BYTES = 4 + 8 + 4  # per trained value: gradient, Adam, average


class Measured(NamedTuple):
    """million: values that are trained. peak: GB of main memory, of the whole process. gpu: the
    same of the GPU. seconds: of each step."""

    million: float
    losses: list[float]
    seconds: list[float]
    peak: float
    gpu: float

    def __str__(self) -> str:
        on_gpu = f" and {self.gpu:.1f} GB on the GPU" if self.gpu else ""
        told = ", ".join(f"{loss:.4f}" for loss in self.losses)
        return (
            f"{self.million:.1f} million values trained, {self.peak:.1f} GB{on_gpu}, "
            f"{self.seconds[-1]:.1f} s a step, losses {told}"
        )


def dry_run(system: str, recipe, networks, people, text) -> Measured:
    """Raises FlashFaceError where there is too little memory to begin."""
    from training.trainer import Trainer

    recipe = replace(recipe, steps=STEPS, groups=1, accumulate=1)
    recipe = replace(recipe, sampling=replace(recipe.sampling, targets_per_group=1))
    networks.freeze_all_but(recipe.train)
    million = sum(p.numel() for p in networks.parameters() if p.requires_grad) / 1e6
    if not torch.cuda.is_available():
        check_memory(system, million, bool(recipe.ema))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(networks, people, text, recipe, Path(folder))
        losses, seconds = [], []
        for _ in range(STEPS):
            start = time.monotonic()
            losses.append(trainer.step())
            seconds.append(time.monotonic() - start)
    gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return Measured(million, losses, seconds, peak_memory(), gpu)


def peak_memory() -> float:
    """GB of main memory, the most that this process has had."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def check_memory(system: str, million: float, has_average: bool) -> None:
    """Raises FlashFaceError."""
    needed = million * (TRAINED_BYTES - 4 * (not has_average)) / 1e3
    free = psutil.virtual_memory().available / 1e9
    if needed > free:
        raise FlashFaceError(
            f"{system} needs {needed:.1f} GB for gradients, optimizer and average of "
            f"{million:.0f} million values, and {free:.1f} GB are free; train less (--train), "
            "give up the average (--ema 0), or use a larger machine."
        )


def noise_people(size: int, face_size: int):
    """One person of PICTURES pictures, with what encoders see."""
    from training.data import PeopleInMemory

    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(PICTURES, *shape, generator=generator)

    seen = {name: random(width) for name, width in WIDTHS.items()}
    boxes = torch.tensor([0.3, 0.2, 0.7, 0.6]).expand(PICTURES, 4)
    latents, faces = (random(4, side // 8, side // 8) for side in (size, face_size))
    told = ["a photo of a person"] * PICTURES
    return PeopleInMemory(latents, faces, boxes, told, [list(range(PICTURES))], seen)


def fresh_start(system: str) -> Checkpoint:
    from training.initial import fresh_checkpoint

    start = fresh_checkpoint("fresh", width=320, heads=8, reference_size=224, **SD15)
    return start if system == FLASHFACE else Checkpoint(start.name, target=start.target)


def one(options: argparse.Namespace) -> Measured:
    """Of options.recipe. Raises FlashFaceError."""
    from training.clip import rule_text_encoder
    from training.train import load_start

    system = system_of(options.recipe)
    recipe = make_recipe(system, options)
    set_seed(recipe.seed)
    given = options.checkpoint
    start = load_start(given, system) if given else fresh_start(system)
    text = rule_text_encoder()
    networks = build(system, start, Given(text, WIDTHS))
    people = noise_people(options.size, start.reference_size)
    del start
    return dry_run(system, recipe, networks, people, text)


def main(arguments: list[str] | None = None) -> int:
    find_comfyui(cpu=not torch.cuda.is_available())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--size", type=int, default=512, help="pixels of the pictures")
    add_recipe_options(parser)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    logging.basicConfig(level=logging.WARNING)
    if options.recipe is None:
        command = [sys.executable, "-m", "training.dry_run", *given]
        codes = [
            subprocess.run([*command, "--recipe", str(path)]).returncode
            for path in sorted(RECIPES.glob("*.json"))
        ]
        return max(codes)
    try:
        result = str(one(options))
    except FlashFaceError as error:
        sys.stdout.write(f"{options.recipe.stem}: {error}\n")
        return 1
    sys.stdout.write(f"{options.recipe.stem}: {result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
