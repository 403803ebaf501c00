"""The tiny Face2Diffusion, FaceStudio and Face Fusion, on the tiny FlashFace's UNet."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import nn

from flashface_core.comfy_adapter.facestudio.style import build_style_encoder
from flashface_core.comfy_adapter.flashface.tiny import FOLDER, VAE
from flashface_core.face2diffusion.files import load_encoders
from flashface_core.facestudio.condition import TextPrior
from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.tiny_text import WIDTH
from flashface_core.weights_file import read_state_dict, save_whole
from training.data import PeopleInMemory
from training.face2diffusion import EXPRESSION_SEEN, FACE, MAPPING, Face2DiffusionNetworks
from training.face_fusion import KEYS, VALUES, FaceFusionNetworks
from training.facestudio import LINEAR, STYLE, TRANSFORMERS, FaceStudioNetworks
from training.systems import FACE2DIFFUSION, FACE_FUSION, FACESTUDIO
from training.trainer import CSV, Recipe, Trainer

from . import encoders
from .autoencoder import load_autoencoder
from .base_file import read_models
from .curve import plot_curve
from .encode import encode_people, join_people
from .identity import drawn_identity_loss
from .probes import Pool
from .recipe import COMMON, write_recipe
from .seen import see_people
from .text import ToyText

WITHOUT_CGDR = "face2diffusion-without-cgdr"
WEIGHTS = {
    FACE2DIFFUSION: "mapping_tiny.safetensors",
    WITHOUT_CGDR: "mapping_tiny.safetensors",
    FACESTUDIO: "facestudio_tiny.safetensors",
    FACE_FUSION: "face_fusion_tiny.safetensors",
}
FACES, STYLES = "msid_tiny.safetensors", "style_tiny.safetensors"
PEOPLE, SEEN = "people.safetensors", "seen.safetensors"
SystemNetworks = Face2DiffusionNetworks | FaceStudioNetworks | FaceFusionNetworks

# What encoders saw goes with every picture, so every sample can be of another person. Their faces
# are of another photo, whose age and expression are not the picture's: those are the text's.
_SEEN = dataclasses.replace(
    COMMON,
    steps=2500,
    groups=40,
    sampling=dataclasses.replace(COMMON.sampling, targets_per_group=1, own_face=0.0),
)
_MAPPING = dataclasses.replace(_SEEN, learning_rate=1e-3, train=(MAPPING,))
TRAIN = {
    FACE2DIFFUSION: _MAPPING,
    WITHOUT_CGDR: _MAPPING,
    FACESTUDIO: dataclasses.replace(
        _SEEN, learning_rate=7e-4, train=(LINEAR, TRANSFORMERS), max_gradient_norm=0.5
    ),
    FACE_FUSION: dataclasses.replace(COMMON, steps=2500, learning_rate=1e-2, train=(KEYS, VALUES)),
}


@dataclasses.dataclass(frozen=True)
class SystemRecipe:
    """What a run is; written beside its results.

    face_, style_, prior_: of the frozen encoders. people, scenes: of the train split, that the
    system learns from. hidden: of Face2Diffusion's mapping network.
    """

    system: str
    train: Recipe
    seed: int = 0
    face_people: int = 9000
    face_steps: int = 1600
    style_people: int = 3350
    style_steps: int = 1800
    prior_steps: int = 1500
    people: int = 3600
    scenes: int = 8
    hidden: int = 256


def make_encoders(recipe: SystemRecipe, work: Path) -> None:
    """What is missing of them; one process makes it."""
    device = str(PartialState().device)
    if PartialState().is_main_process:
        if not (work / FACES).exists():
            pool = Pool(recipe.seed, recipe.face_people, 2, device, compiled=False)
            expression = encoders.train_expression(pool, recipe.face_steps // 3, recipe.seed)
            identity = encoders.train_face(pool, recipe.face_steps, recipe.seed)
            encoders.save_face(identity, expression, work / FACES)
        if not (work / STYLES).exists():
            views = encoders.Views(recipe.seed, recipe.style_people, recipe.scenes, device)
            steps = (recipe.style_steps, recipe.prior_steps)
            network = encoders.train_style(views, *steps, recipe.seed)
            encoders.save_style(network, work / STYLES)
    PartialState().wait_for_everyone()


def draw_people(recipe: SystemRecipe, models: Path, work: Path, is_seen: bool) -> PeopleInMemory:
    """Latents, and with is_seen what the encoders see."""
    device = str(PartialState().device)
    if PartialState().is_main_process:
        if not (work / PEOPLE).exists():
            autoencoder = load_autoencoder(models / VAE, device)
            given = (recipe.seed, "train", 0, recipe.people, recipe.scenes, device)
            save_whole(encode_people(autoencoder, *given), work / PEOPLE)
        if is_seen and not (work / SEEN).exists():
            which = load_file(work / PEOPLE)["which"]
            identity, expression = load_encoders(work / FACES)
            assert expression is not None
            style, prior = load_style(work / STYLES)
            faces = identity.to(device), expression.to(device)
            styles = style.to(device), prior.to(device)
            seen = see_people(which, recipe.seed, "train", *faces, *styles, device)
            save_whole(seen, work / SEEN)
    PartialState().wait_for_everyone()
    people = join_people(recipe.seed, "train", [load_file(work / PEOPLE)])
    if is_seen:
        people.seen = load_file(work / SEEN)
    return people


def load_style(path: Path) -> tuple[Any, TextPrior]:
    """The vision network and the prior of a file of `save_style`."""
    state, metadata = read_state_dict(path)
    config = json.loads(metadata["style_encoder.config"])
    prior = TextPrior(WIDTH, encoders.PRIOR_HIDDEN, config["projection_dim"])
    networks = build_style_encoder(config, nn), prior
    for network, prefix in zip(networks, ("style_encoder.", "prior."), strict=True):
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        network.load_state_dict(own)
        network.requires_grad_(False).eval()
    return networks


def build(
    recipe: SystemRecipe, start: Checkpoint, people: PeopleInMemory, text: ToyText
) -> SystemNetworks:
    torch.manual_seed(recipe.seed)
    if recipe.system == FACE_FUSION:
        return FaceFusionNetworks(start)
    face = people.seen[FACE].shape[1]
    if recipe.system == FACESTUDIO:
        return FaceStudioNetworks(start, people.seen[STYLE].shape[1], face)
    expression = people.seen[EXPRESSION_SEEN].shape[1]
    is_guided = recipe.system == FACE2DIFFUSION
    return Face2DiffusionNetworks(start, text, face, recipe.hidden, expression, is_guided)


def save(networks: SystemNetworks, path: Path, work: Path) -> None:
    """FaceStudio's file holds its encoders too."""
    if not isinstance(networks, FaceStudioNetworks):
        networks.save(path)
        return
    state, metadata = read_state_dict(work / STYLES)
    faces, of_faces = read_state_dict(work / FACES)
    prefix = "face_encoder."
    identity = {k: v for k, v in faces.items() if not k.startswith("expression.")}
    state |= {prefix + key: value for key, value in identity.items()}
    metadata |= {prefix + key: of_faces[key] for key in ("num_heads", "face")}
    networks.save(path, state, metadata)


def run(
    recipe: SystemRecipe,
    work: Path,
    out: Path,
    models: Path = FOLDER,
    begin_with: Path | None = None,
) -> None:
    """models: the folder with the VAE, and the FlashFace or base whose UNet it is trained on.
    begin_with: weights of this system, in place of fresh ones."""
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    is_seen = recipe.system != FACE_FUSION
    if is_seen:
        make_encoders(recipe, work)
    people = draw_people(recipe, models, work, is_seen)
    text = ToyText(str(PartialState().device))
    start = read_models(models)
    networks = build(recipe, start, people, text)
    if begin_with is not None:
        networks.load(begin_with)
    path, folder = out / WEIGHTS[recipe.system], work / recipe.system

    def on_save(step: int, networks: SystemNetworks) -> None:
        save(networks, path, work)

    identity = drawn_identity_loss(recipe.train, models / VAE)
    Trainer(networks, people, text, recipe.train, folder, on_save, identity).run()
    if PartialState().is_main_process:
        if recipe.system == FACE2DIFFUSION:
            shutil.copy(work / FACES, out / FACES)
        shutil.copy(folder / CSV, out / CSV)
        plot_curve(out)
        write_recipe(recipe, out, begin_with)
