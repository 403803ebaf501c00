"""A tiny Face2Diffusion, FaceStudio or Face Fusion, with one command.

    python -m training.tiny.make_system SYSTEM --work FOLDER --out FOLDER

SYSTEM: face2diffusion, facestudio or face_fusion; face2diffusion-without-cgdr is the same recipe
without class-guided denoising, to compare with. --work holds what the runs share (encoders, drawn
people, what the encoders saw) and what a killed run goes on from; what is there is not made again.
--begin-with FILE trains an earlier run's weights further; give it another --seed, or it sees the
pictures of that run again.
"""

import argparse
import dataclasses
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
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cpu = not torch.cuda.is_available()
    find_comfyui(cpu)
    PartialState(cpu=cpu)

    from flashface_core.comfy_adapter.flashface.tiny import FOLDER

    from .systems import TRAIN, SystemRecipe, run

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=tuple(TRAIN))
    parser.add_argument("--work", type=folder_to_write, required=True)
    parser.add_argument("--out", type=folder_to_write, required=True)
    parser.add_argument("--steps", type=int, help="of the system; default: the recipe's")
    parser.add_argument(
        "--models", type=folder_to_read, help="of tiny models; default: the shipped"
    )
    told = "of the identity loss by the shipped MSID; default: 0"
    parser.add_argument("--identity-weight", type=float, default=0.0, help=told)
    parser.add_argument("--begin-with", type=Path, help="weights of the system to train further")
    parser.add_argument("--seed", type=int, default=0, help="of the order of pictures")
    parser.add_argument("--precision", choices=PRECISIONS, default="no")
    options = parser.parse_args(arguments)
    if options.begin_with is not None and not options.begin_with.is_file():
        parser.error(f"--begin-with is {options.begin_with}, which is not a file of weights")
    weight = options.identity_weight
    train = dataclasses.replace(
        TRAIN[options.system],
        identity_weight=weight,
        precision=options.precision,
        seed=options.seed,
    )
    if options.steps is not None:
        train = dataclasses.replace(train, steps=options.steps)
    models = options.models or FOLDER
    recipe = SystemRecipe(options.system, train)
    try:
        run(recipe, options.work, options.out, models, options.begin_with)
    except FlashFaceError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
