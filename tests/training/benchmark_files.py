"""Weights in the published layouts, made by rule, and the benchmarks' command on them."""

from pathlib import Path

from safetensors.torch import save_file
from support.face2diffusion import write_small
from support.facestudio import write_facestudio
from support.tools import load_tool

from flashface_core.comfy_adapter.flashface.tiny import FOLDER, VAE
from flashface_core.tiny_text import clip_state_dict
from training.clip import load_text_encoder
from training.photos.encode import load_vae
from training.photos.systems import Shared

SIZE = 64


def write_models(folder: Path) -> Path:
    load_tool("rule_weights").write_rule_checkpoint(folder / "flashface.safetensors", "mini")
    state = {key: value.half().contiguous() for key, value in clip_state_dict().items()}
    save_file(state, folder / "clip_l.safetensors")
    write_small(folder)
    write_facestudio(folder / "facestudio.safetensors")
    return folder


def weights_of(name: str, models: Path) -> list[Path]:
    names = {
        "face2diffusion": ["mapping_small.safetensors", "msid_small.safetensors"],
        "facestudio": ["facestudio.safetensors"],
    }
    return [models / file for file in names.get(name, [])]


def share(models: Path, detector) -> Shared:
    text = load_text_encoder(models / "clip_l.safetensors")
    return Shared(models / "flashface.safetensors", text, load_vae(FOLDER / VAE), detector)


def small(system):
    return system._replace(size=SIZE, settings=system.settings._replace(steps=1))


def arguments(models: Path, *more) -> list[str]:
    checkpoint, clip = models / "flashface.safetensors", models / "clip_l.safetensors"
    files = ("--checkpoint", checkpoint, "--clip", clip, "--vae", FOLDER / VAE, "--device", "cpu")
    return [str(one) for one in (*files, "--size", SIZE, "--steps", 1, *more)]
