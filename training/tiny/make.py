"""The tiny models from nothing, with one command.

    python -m training.tiny.make --out FOLDER

On CPUs two processes of one thread do about twice the work of one process with two threads:

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 2 -m training.tiny.make --out FOLDER

What is there already is not made again, so a killed run goes on where it was, and stages can be
made on days of their own. --begin-with FILE trains a FlashFace further, with the VAE and the probes
that are in --out; its recipe says which parts learn (`train.train`), and needs another `train.seed`
than the run before, or the same pictures come again, and a --work of its own.
"""

import argparse
import logging
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from flashface_core.errors import FlashFaceError
from training.comfyui import find_comfyui
from training.command_line import folder_to_read, folder_to_write, goes_on
from training.options import PRECISIONS


@goes_on
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=folder_to_write, required=True, help="folder of the finished files"
    )
    parser.add_argument("--work", type=folder_to_write, help="folder of the run; default OUT/work")
    parser.add_argument("--recipe", type=Path, help="a recipe.json; default: that of recipe.py")
    parser.add_argument("--until", help="the last stage: vae, probes, base or flashface")
    parser.add_argument(
        "--go-on-from",
        type=folder_to_read,
        metavar="FOLDER",
        help="finished tiny models to go on from",
    )
    told = "a FlashFace to train further, in place of the base"
    parser.add_argument("--begin-with", type=Path, metavar="FILE", help=told)
    told = (
        "of vae, base and flashface; default: the recipe's. bf16: 0.6 of the time on CPUs that "
        "have it"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help=told)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cpu = not torch.cuda.is_available()
    find_comfyui(cpu)
    PartialState(cpu=cpu)

    from .recipe import STAGES, ToyRecipe, read_recipe, run

    until = options.until or STAGES[-1]
    if until not in STAGES:
        parser.error(f"--until is {until}; the stages are {', '.join(STAGES)}")
    if options.begin_with is not None and not options.begin_with.is_file():
        parser.error(f"--begin-with is {options.begin_with}, which is not a file of weights")
    recipe = read_recipe(options.recipe) if options.recipe else ToyRecipe()
    if options.precision:
        recipe = recipe.at_precision(options.precision)
    work = options.work or options.out / "work"
    try:
        run(recipe, options.out, work, until, options.go_on_from, options.begin_with)
    except FlashFaceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
