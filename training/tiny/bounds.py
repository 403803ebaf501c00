"""What each method could reach at best on this base UNet: ceilings to read its results against.

    python -m training.tiny.bounds --people 10 --seed 1 --json FILE [--models FOLDER]

words: the two tokens of S* of every person learned directly, from 24 drawings (textual inversion);
no mapping network gives better ones. names: the words for a face, all at once, as the base model
heard them. fusion: Face Fusion's projections learned on the very people that are drawn. attributes:
FaceStudio on these people, told all that is true of face and scene instead of what encoders see. A
low bound condemns the world or the base model, a high one the training.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import torch

from training.comfyui import find_comfyui
from training.command_line import file_to_write, folder_to_read, write_json

log = logging.getLogger("flashface.training")

BOUNDS = ("words", "names", "fusion", "attributes")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="of 40 pictures")
    parser.add_argument("--bounds", nargs="+", choices=BOUNDS, default=BOUNDS)
    parser.add_argument(
        "--models", type=folder_to_read, help="of tiny models; default: the shipped"
    )
    parser.add_argument("--json", type=file_to_write)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    find_comfyui(cpu=not torch.cuda.is_available())

    from flashface_core.comfy_adapter.flashface.tiny import FOLDER

    from .ceilings import measure
    from .evaluation import ToyEvaluation

    folder = options.models or FOLDER
    evaluation = ToyEvaluation(options.people, options.seed, folder)
    found = {}
    for name in options.bounds:
        with tempfile.TemporaryDirectory() as work:
            found[name] = measure(name, evaluation, folder, options.steps, Path(work))
        told = ", ".join(f"{key} {value:.3f}" for key, value in found[name].items())
        log.info("%s: %s", name, told)
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
