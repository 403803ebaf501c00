"""Training FlashFace, Face2Diffusion, FaceStudio or Face Fusion on photographs.

    python -m training.train --data FOLDER --checkpoint FILE --clip FILE --out FOLDER [options]

--data: what training.photos.prepare and encode made, or, for a few people, a folder with a folder
of photographs per person (then --vae is needed too; not for systems with encoders of their own).
--checkpoint: an SD1.5 checkpoint to start from the beginning, or a FlashFace checkpoint to go on
with or to put another --system on. --clip and --vae take a file of their own or a whole SD1.5
checkpoint. The averaged weights go to OUT, under the system's name, in the published layout. A run
that was killed goes on where it last saved. `accelerate launch -m training.train ...` runs the same
on many GPUs.
"""

import argparse
import hashlib
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from flashface_core.errors import FlashFaceError
from flashface_core.faces.detect import load_detector
from flashface_core.flashface.checkpoint import Checkpoint, read_checkpoint
from flashface_core.weights_file import read_state_dict
from training.clip import load_text_encoder, without_prefix
from training.comfyui import find_comfyui
from training.command_line import folder_to_read, folder_to_write, goes_on
from training.data import People
from training.options import add_recipe_options, make_recipe
from training.systems import (
    FACESTUDIO,
    FLASHFACE,
    SYSTEMS,
    WEIGHTS,
    WITH_ENCODERS,
    Given,
    build,
    go_on_from,
    save,
)

log = logging.getLogger("flashface.training")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
UNET_PREFIX = "model.diffusion_model."
RECIPE = "recipe.json"


def load_start(path: Path, system: str = FLASHFACE) -> Checkpoint:
    """A FlashFace checkpoint, or SD1.5: with a fresh ReferenceNet, RA and position channel, and for
    other systems as it is.

    Raises FlashFaceError for any other file.
    """
    state, metadata = read_state_dict(path)
    if any(key.startswith(UNET_PREFIX) for key in state):
        return from_sd15(path.name, without_prefix(state, UNET_PREFIX), system)
    return read_checkpoint(path.name, state, metadata)


def from_sd15(name: str, unet: dict[str, torch.Tensor], system: str = FLASHFACE) -> Checkpoint:
    """Raises FlashFaceError for a UNet with other inputs."""
    from training.initial import with_new_references

    first = unet.get("input_blocks.0.0.weight")
    if first is None or first.shape[1] != 4:
        found = "none" if first is None else tuple(first.shape)
        raise FlashFaceError(
            f"{name} is not an SD1.5 checkpoint: its first convolution is {found}, expected four "
            "input channels (inpainting and SD2 depth models have more)."
        )
    if system != FLASHFACE:
        return Checkpoint(name, target=unet)
    return with_new_references(name, unet)


def load_people(options: argparse.Namespace, checkpoint: Checkpoint) -> People:
    """Raises FlashFaceError for data that is not finished, or has other sizes than the networks."""
    from training.photos.dataset import PeopleInShards, Sizes, people_in_folder
    from training.photos.encode import load_encoder
    from training.photos.prepare import REPORT_JSON

    sizes = Sizes(checkpoint.picture_size, checkpoint.reference_size)
    sees = options.system if options.system in WITH_ENCODERS else None
    if not (options.data / REPORT_JSON).is_file():  # photographs as they are
        if sees:
            raise FlashFaceError(
                f"{options.data} was not made by training.photos.prepare; prepare it, and encode "
                f"it with --system {sees}, whose encoders look at the pictures once."
            )
        if options.vae is None:
            raise FlashFaceError(
                f"{options.data} was not made by training.photos.prepare; prepare and encode it, "
                "or give --vae to read a few people's photographs into memory."
            )
        detector = load_detector(options.detector, options.model_pack)
        return people_in_folder(options.data, detector, load_encoder(options.vae), sizes)
    people = PeopleInShards(options.data, sees)
    told = json.loads((options.data / REPORT_JSON).read_text())
    found = Sizes(told["picture_size"], told["face_size"])
    if not checkpoint.reference:  # a plain UNet has no size that it was trained with
        checkpoint.reference_size = found.face
    elif found.face != sizes.face:
        raise FlashFaceError(
            f"The faces in {options.data} are of {found.face} pixels, {checkpoint.name} takes "
            f"{sizes.face}; prepare them with --face-size {sizes.face}."
        )
    if found.picture != sizes.picture:
        log.info("Pictures of %d pixels; %s had %d.", found.picture, checkpoint.name, sizes.picture)
    checkpoint.picture_size = found.picture
    return people


def pictures_of(people: People) -> str:
    """By which a run tells its people from others."""
    counts = [people.count(person) for person in range(len(people))]
    digest = hashlib.sha256(json.dumps(counts).encode()).hexdigest()[:8]
    return f"{len(counts)} with {sum(counts)} pictures ({digest})"


def files_of(options: argparse.Namespace) -> dict[str, str]:
    """Those that a state does not hold, by their contents; a run goes on with the same ones."""
    from training.photos.encode import file_hash

    given = {"clip": options.clip, "identity embedder": options.identity_embedder}
    given["vae of the identity loss"] = options.identity_embedder and options.vae
    if options.system == FACESTUDIO:  # whose UNet keeps what an earlier stage trained of it
        given["go on from"] = options.go_on_from
    return {name: file_hash(path)[:16] if path else "none" for name, path in given.items()}


def load_encoders_to_keep(folder: Path, system: str):
    """Tensors and metadata of the frozen encoders that go into the trained file."""
    from training.photos.dataset import encoders_file

    path = encoders_file(folder, system)
    return read_state_dict(path) if path.is_file() else ({}, {})


def load_identity_loss(options: argparse.Namespace, recipe, device):
    """None without a weight. Raises FlashFaceError for a weight without the networks that it needs,
    and for these without a weight."""
    from training.identity_loss import with_msid
    from training.photos.encode import load_decoder

    embedder, weight = options.identity_embedder, recipe.identity_weight
    if embedder is None and not weight:
        return None
    if embedder is None or not weight or options.vae is None:
        raise FlashFaceError(
            f"The identity loss has the weight {weight}, the embedder {embedder} and the VAE "
            f"{options.vae}; give --identity-weight above 0, --identity-embedder and --vae, or "
            "neither weight nor embedder."
        )
    return with_msid(embedder, load_decoder(options.vae, device), recipe.identity_below, device)


@goes_on
def main(arguments: list[str] | None = None) -> None:
    cpu = not torch.cuda.is_available()
    find_comfyui(cpu)
    from training.held_out import held_out_losses, hold_out, record
    from training.photos.prepare import add_detector_options
    from training.trainer import Trainer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=folder_to_read, required=True)
    for name in ("checkpoint", "clip"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--out", type=folder_to_write, required=True)
    parser.add_argument(
        "--vae", type=Path, help="for photographs not encoded, and the identity loss"
    )
    told = "an MSID (msid.pt); with --vae and an identity weight, faces must look alike to it"
    parser.add_argument("--identity-embedder", type=Path, help=told)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the saved weights")
    add_detector_options(parser)
    parser.add_argument("--system", choices=SYSTEMS, default=FLASHFACE)
    parser.add_argument("--held-out", type=int, default=0, help="people to measure with, at saves")
    parser.add_argument("--go-on-from", type=Path, help="what an earlier run of a system made")
    add_recipe_options(parser)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    system = options.system
    process = PartialState(cpu=cpu)  # chooses this process's GPU, which core then uses too
    try:
        recipe = make_recipe(system, options)
        checkpoint = load_start(options.checkpoint, system)
        people = load_people(options, checkpoint)
        photographs = getattr(people, "digest", "")
        people, others = hold_out(people, options.held_out)
        widths = {name: len(value) for name, value in people.picture(0, 0).seen.items()}
        encode_text = load_text_encoder(options.clip)
        kept = load_encoders_to_keep(options.data, system)
        given = Given(encode_text, widths, kept)
        set_seed(recipe.seed)  # fresh weights follow from it
        networks = build(system, checkpoint, given)
        del checkpoint  # as large as the networks
        identity = load_identity_loss(options, recipe, process.device)
        if options.go_on_from is not None:
            go_on_from(system, networks, options.go_on_from)
    except FlashFaceError as error:
        sys.exit(str(error))

    def on_save(step: int, networks) -> None:
        path = options.out / WEIGHTS[system]
        save(system, networks, given, path, DTYPES[options.dtype])
        losses = held_out_losses(networks, others, encode_text) if len(others) else None
        if not process.is_main_process:
            return
        log.info("Step %d is saved in %s.", step, path)
        if losses is not None:
            record(options.out, step, losses)
            log.info("Loss on people held out: %.4f, inside the face %.4f.", *losses)

    try:
        told = {"system": system, "held out": len(others), "people": pictures_of(people)}
        told |= {"photographs": photographs, **files_of(options)}
        given_too = (options.out, on_save, identity, told)
        trainer = Trainer(networks, people, encode_text, recipe, *given_too)
    except ValueError as error:
        sys.exit(str(error))
    # The file may have been lost since, or is wanted as another --dtype.
    is_finished = trainer.progress.step >= recipe.steps
    if process.is_main_process:
        told = {"system": system, **asdict(recipe)}
        (options.out / RECIPE).write_text(json.dumps(told, indent=2) + "\n")
    trainer.run()
    if is_finished:
        trainer.publish()


if __name__ == "__main__":
    main()
