"""Training FlashFace on photographs.

    python -m training.train --data FOLDER --checkpoint FILE --clip FILE --out FOLDER [options]

--data: what training.photos.prepare and encode made, or, for a few people, a folder with a folder
of photographs per person (then --vae is needed too). --checkpoint: a FlashFace checkpoint, or an
SD1.5 checkpoint to start from the beginning. --clip and --vae take a file of their own or a whole
SD1.5 checkpoint. The averaged weights go to OUT/flashface.safetensors, in the published layout. A
run that was killed goes on where it last saved. `accelerate launch -m training.train ...` runs the
same on many GPUs.
"""

import argparse
import json
import logging
import sys
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import torch
from accelerate import PartialState

from flashface_core.errors import FlashFaceError
from flashface_core.faces.detect import load_detector
from flashface_core.flashface.checkpoint import Checkpoint, read_checkpoint
from flashface_core.weights_file import read_state_dict
from training.clip import load_text_encoder, without_prefix
from training.comfyui import find_comfyui
from training.data import People

log = logging.getLogger("flashface.training")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
UNET_PREFIX = "model.diffusion_model."
WEIGHTS, RECIPE = "flashface.safetensors", "recipe.json"


def load_start(path: Path) -> Checkpoint:
    """A FlashFace checkpoint, or SD1.5 with a fresh ReferenceNet, RA and position channel.

    Raises FlashFaceError for any other file.
    """
    state, metadata = read_state_dict(path)
    if any(key.startswith(UNET_PREFIX) for key in state):
        return from_sd15(path.name, without_prefix(state, UNET_PREFIX))
    return read_checkpoint(path.name, state, metadata)


def from_sd15(name: str, unet: dict[str, torch.Tensor]) -> Checkpoint:
    """Raises FlashFaceError for a UNet with other inputs."""
    from training.initial import with_new_references

    first = unet.get("input_blocks.0.0.weight")
    if first is None or first.shape[1] != 4:
        found = "none" if first is None else tuple(first.shape)
        raise FlashFaceError(
            f"{name} is not an SD1.5 checkpoint: its first convolution is {found}, expected four "
            "input channels (inpainting and SD2 depth models have more)."
        )
    return with_new_references(name, unet)


def load_people(options: argparse.Namespace, checkpoint: Checkpoint) -> People:
    """Raises FlashFaceError for data that is not finished, or has other sizes than the networks."""
    from training.photos.dataset import PeopleInShards, Sizes, people_in_folder
    from training.photos.encode import load_encoder
    from training.photos.prepare import REPORT_JSON

    sizes = Sizes(checkpoint.picture_size, checkpoint.reference_size)
    if not (options.data / REPORT_JSON).is_file():  # photographs as they are
        if options.vae is None:
            raise FlashFaceError(
                f"{options.data} was not made by training.photos.prepare; prepare and encode it, "
                "or give --vae to read a few people's photographs into memory."
            )
        detector = load_detector(options.detector, options.model_pack)
        return people_in_folder(options.data, detector, load_encoder(options.vae), sizes)
    people = PeopleInShards(options.data)
    first = people.picture(0, 0)
    found = Sizes(8 * first.latent.shape[-1], 8 * first.reference.shape[-1])
    if found.face != sizes.face:
        raise FlashFaceError(
            f"The faces in {options.data} are of {found.face} pixels, {checkpoint.name} takes "
            f"{sizes.face}; prepare them with --face-size {sizes.face}."
        )
    if found.picture != sizes.picture:
        log.info("Pictures of %d pixels; %s had %d.", found.picture, checkpoint.name, sizes.picture)
    checkpoint.picture_size = found.picture
    return people


def add_fields(parser, kind, choices: dict[str, tuple]) -> None:
    """An option for every field of a dataclass that is itself no dataclass."""
    for field in fields(kind):
        name, default = f"--{field.name.replace('_', '-')}", field.default
        if default is MISSING:
            continue
        if isinstance(default, bool):
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default)
        elif isinstance(default, tuple):
            count = "+" if field.name in choices else len(default)
            of = str if field.name in choices else float
            parser.add_argument(
                name, nargs=count, type=of, default=default, choices=choices.get(field.name)
            )
        else:
            of = float if default is None else type(default)
            parser.add_argument(name, type=of, default=default, choices=choices.get(field.name))


def main(arguments: list[str] | None = None) -> None:
    find_comfyui(cpu=not torch.cuda.is_available())
    from training.batches import Sampling
    from training.networks import PARTS, FlashFaceNetworks
    from training.photos.prepare import add_detector_options
    from training.publish import publish
    from training.trainer import Recipe, Trainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data", "checkpoint", "clip", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="only for photographs that were not encoded")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the saved weights")
    add_detector_options(parser)
    choices = {"train": PARTS, "precision": ("no", "bf16", "fp16")}
    add_fields(parser.add_argument_group("recipe", Recipe.__doc__), Recipe, choices)
    add_fields(parser.add_argument_group("sampling", Sampling.__doc__), Sampling, {})
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    low, high, chance = options.favoured
    options.favoured, options.train = (int(low), int(high), chance), tuple(options.train)
    sampling = Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})
    values = {f.name: getattr(options, f.name) for f in fields(Recipe) if f.name != "sampling"}
    recipe = Recipe(**values, sampling=sampling)
    process = PartialState()  # chooses this process's GPU, which core then uses too
    try:
        checkpoint = load_start(options.checkpoint)
        people = load_people(options, checkpoint)
        encode_text = load_text_encoder(options.clip)
        networks = FlashFaceNetworks(checkpoint)
    except FlashFaceError as error:
        sys.exit(str(error))

    def on_save(step: int, networks: FlashFaceNetworks) -> None:
        publish(networks, options.out / WEIGHTS, DTYPES[options.dtype])
        log.info("Step %d is saved in %s.", step, options.out / WEIGHTS)

    try:
        trainer = Trainer(networks, people, encode_text, recipe, options.out, on_save)
    except ValueError as error:
        sys.exit(str(error))
    if process.is_main_process:
        (options.out / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    trainer.run()


if __name__ == "__main__":
    main()
