"""A real ComfyUI over HTTP with what the shipped workflows name, and the larger one made small."""

import copy
import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface import tiny
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.flashface_core.people.identity_file import save_identity
from flashface_pack.flashface_core.tiny_text import clip_state_dict
from flashface_pack.flashface_core.weights_file import write_safetensors
from PIL import Image, ImageSequence

from .tools import ROOT, load_tool

WORKFLOWS = ROOT / "workflows"
LARGE, TINY = "photo_to_portrait", "tiny_models"
# All but LARGE run as they are, on the tiny models.
SHIPPED = (
    LARGE,
    TINY,
    "several_photos",
    "two_people",
    "mixing",
    "save_identity",
    "saved_identity",
    "best_of_n",
    "face2diffusion",
    "style_portrait",
    "style_two_people",
    "face_fusion",
)
PHOTOS = ("toy_person.png", "toy_person_2.png")
SAVED = "toy_person"  # the identity that save_identity leaves and saved_identity takes

Workflow = dict[str, dict[str, Any]]


@contextmanager
def rule_server(base: Path) -> Iterator:
    """A ComfyServer on the CPU with everything that the shipped workflows name."""
    data = pytest.importorskip("skimage.data", reason="the photo comes with scikit-image")
    make_models(base / "models")
    make_identity(base / "models" / "identities")
    (base / "input").mkdir()
    astronaut = Path(data.__file__).parent / "astronaut.png"
    for photo in (astronaut, *(WORKFLOWS / name for name in PHOTOS)):
        shutil.copy(photo, base / "input")
    with start_server(base) as server:
        yield server


def make_models(models: Path) -> None:
    """The files that photo_to_portrait names: FlashFace by rule; VAE and CLIP are the tiny ones."""
    for folder in ("flashface", "vae", "text_encoders"):
        (models / folder).mkdir(parents=True)
    rule_weights = load_tool("rule_weights")
    rule_weights.write_rule_checkpoint(models / "flashface" / "flashface.safetensors", "mini")
    vae = models / "vae" / "vae-ft-mse-840000-ema-pruned.safetensors"
    shutil.copy(tiny.FOLDER / tiny.VAE, vae)
    state = clip_state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    clip = models / "text_encoders" / "clip_l.safetensors"
    write_safetensors(clip, shapes, state.items(), torch.float16)


def make_identity(folder: Path) -> None:
    """The file that saved_identity names."""
    with Image.open(WORKFLOWS / PHOTOS[0]) as photos:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(photos)]
    references = tuple(FaceReference.from_crop(torch.from_numpy(frame)) for frame in frames)
    save_identity(Identity(references, "Toy person"), folder, SAVED)


@contextmanager
def start_server(base: Path) -> Iterator:
    # Networks this small gain nothing from threads, and lose much where others use the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with load_tool("comfy_server").ComfyServer(base, cpu=True) as server:
        yield server


def api_workflow(name: str) -> Workflow:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def ui_workflow(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def small_workflow(seed: int = 1) -> Workflow:
    """photo_to_portrait at 64 x 64 pixels and two steps."""
    workflow = api_workflow(LARGE)
    inputs(workflow, "EmptyLatentImage").update(width=64, height=64)
    inputs(workflow, "KSampler").update(steps=2, seed=seed)
    return workflow


def node_id(workflow: Workflow, class_type: str) -> str:
    (found,) = (key for key, node in workflow.items() if node["class_type"] == class_type)
    return found


def inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    return workflow[node_id(workflow, class_type)]["inputs"]


def add_node(workflow: Workflow, class_type: str, **given: Any) -> str:
    """Id of a node put into the workflow; links are [node id, number of the output]."""
    key = str(1 + max(map(int, workflow)))
    workflow[key] = {"class_type": class_type, "inputs": given}
    return key


def bare(workflow: Workflow) -> dict[str, tuple]:
    """What two forms of a workflow must agree in: classes, links and values."""
    plain = copy.deepcopy(workflow)
    return {key: (node["class_type"], node["inputs"]) for key, node in plain.items()}


def fetch(server, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.url + path, timeout=60) as response:
        return response.read()


def complaint(server, workflow: Workflow) -> str:
    """What the user reads of a workflow that cannot run: the one line that names a node."""
    with pytest.raises(RuntimeError) as caught:
        server.prompt(workflow, timeout=60)
    (line,) = re.findall(r"^node \d+ \(.*$", str(caught.value), re.MULTILINE)
    return line
