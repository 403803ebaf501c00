"""A real ComfyUI over HTTP with what the shipped workflows name, and the larger one made small."""

import copy
import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface import tiny
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.flashface_core.people.identity_file import save_identity
from flashface_pack.flashface_core.tiny_text import clip_state_dict
from flashface_pack.flashface_core.weights_file import write_safetensors
from PIL import Image
from safetensors.torch import load_file, save_file

from .control import controlnet_state, lora_state
from .face2diffusion import write_published
from .photographs import astronaut
from .tools import ROOT, load_tool

WORKFLOWS = ROOT / "workflows"
UNLISTED_FOLDER = Path(__file__).parent / "toy_workflows"
TINY, PORTRAIT = "01_start_here", "02_portrait_from_photos"
# For photographs and the published checkpoint.
PUBLISHED = (
    PORTRAIT,
    "03_child_and_elder",
    "04_face_into_picture",
    "05_two_people",
    "06_mixing",
    "07_hires_fix",
    "08_drawing_to_person",
    "09_best_of_four",
    "10_face_pass",
    "11_character_sheet",
    "12_save_identity",
    "13_saved_identity",
    "14_lora_and_controlnet",
    "15_other_base",
    "16_face2diffusion",
    "17_training_free",
)
# These load whole checkpoints of other models, which only made_small replaces.
OTHER_MODELS = PUBLISHED[-3:]
# These run as they are, on the tiny models.
TOY = (
    TINY,
    "toy_several_photos",
    "toy_two_people",
    "toy_mixing",
    "toy_save_identity",
    "toy_saved_identity",
    "toy_best_of_n",
    "toy_style_portrait",
    "toy_style_two_people",
)
SHIPPED = (*PUBLISHED, *TOY)
# Not in the gallery, as their pictures hardly show the person: support/toy_workflows/.
UNLISTED = ("toy_face2diffusion", "toy_face_fusion")
PHOTO = "example.png"  # that the workflows for photographs name: it comes with ComfyUI
SIDE = 256  # of what stands there in these tests
# Identities that one workflow leaves and the next one takes.
SAVED, SAVED_PERSON = "toy_person", "my_person"
LORA, CONTROLNET = "your_style", "control_v11p_sd15_canny_fp16"
CHECKPOINTS = ("v1-5-pruned-emaonly-fp16", "your_base", "sd_xl_base_1.0")

# Widgets that say how many pixels are drawn.
SIZES = {
    "EmptyLatentImage": ("width", "height"),
    "ImageScale": ("width", "height"),
    "FlashFaceCropFace": ("size",),
    "GrowMask": ("expand",),
}

# What FlashFaceIdentity's widgets say at first, but for reference_weight.
IDENTITY = dict(
    select="largest",
    index=0,
    crop_margin=0.0,
    no_face="error",
    weight=1.0,
    reference_weight="as given",
    name="",
)

Workflow = dict[str, dict[str, Any]]


@contextmanager
def rule_server(base: Path) -> Iterator:
    """A ComfyServer on the CPU with everything that the shipped workflows name."""
    pytest.importorskip("skimage.data", reason="the photo comes with scikit-image")
    make_models(base / "models")
    make_identity(base / "models" / "identities")
    (base / "input").mkdir()
    make_photo().save(base / "input" / PHOTO)
    with start_server(base) as server:
        yield server


def make_models(models: Path) -> None:
    """The files that workflows for photographs name: FlashFace by rule, as it is published and as
    safetensors, a LoRA and a ControlNet for it, and Face2Diffusion by rule; VAE and CLIP are the
    tiny ones. Checkpoints are names alone."""
    folders = ("flashface", "vae", "text_encoders", "face2diffusion", "loras", "controlnet")
    for folder in (*folders, "checkpoints"):
        (models / folder).mkdir(parents=True)
    rule_weights = load_tool("rule_weights")
    converted = models / "flashface" / "flashface.safetensors"
    rule_weights.write_rule_checkpoint(converted, "mini", aliases=True)
    torch.save(load_file(converted), converted.with_suffix(".ckpt"))
    vae = models / "vae" / "vae-ft-mse-840000-ema-pruned.safetensors"
    shutil.copy(tiny.FOLDER / tiny.VAE, vae)
    state = clip_state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    clip = models / "text_encoders" / "clip_l.safetensors"
    write_safetensors(clip, shapes, state.items(), torch.float16)
    model = load_flashface(converted)[0]
    save_file(lora_state(model, ""), models / "loras" / f"{LORA}.safetensors")
    save_file(controlnet_state(model), models / "controlnet" / f"{CONTROLNET}.safetensors")
    mapping, encoder = write_published(models / "face2diffusion")
    torch.save(load_file(encoder), mapping.with_name("msid.pt"))
    for name in CHECKPOINTS:
        (models / "checkpoints" / f"{name}.safetensors").touch()


def make_photo() -> Image.Image:
    """A photograph of a person, her face painted over with the mask editor."""
    photo = astronaut().resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    opaque = Image.new("L", photo.size, 255)
    opaque.paste(0, (88, 30, 138, 90))
    photo.putalpha(opaque)
    return photo


def make_identity(folder: Path) -> None:
    """The files that toy_saved_identity and 13_saved_identity name."""
    photos = (tiny.load_tiny_photos(0) * 255).round().to(torch.uint8)
    references = tuple(FaceReference.from_crop(photo) for photo in photos)
    for name in (SAVED, SAVED_PERSON):
        save_identity(Identity(references, "Toy person"), folder, name)


@contextmanager
def start_server(base: Path) -> Iterator:
    # Networks this small gain nothing from threads, and lose much where others use the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with load_tool("comfy_server").ComfyServer(base, cpu=True) as server:
        yield server


def api_workflow(name: str) -> Workflow:
    folder = UNLISTED_FOLDER if name in UNLISTED else WORKFLOWS / "api"
    return json.loads((folder / f"{name}.json").read_text())


def ui_workflow(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def made_small(name: str, sizes: Mapping[str, Sequence[str]] = SIZES) -> Workflow:
    """A workflow with an eighth of its pixels' width and height, and two steps.

    sizes: widgets by class of node.
    """
    workflow = api_workflow(name)
    for node in workflow.values():
        given = node["inputs"]
        for size in sizes.get(node["class_type"], ()):
            given[size] //= 8
        if node["class_type"] == "KSampler":
            given["steps"] = 2
    return workflow


def without_checkpoints(workflow: Workflow) -> Workflow:
    """The same on the small FlashFace, its CLIP and VAE, in place of other models' checkpoints."""
    workflow = copy.deepcopy(workflow)
    loaders = [key for key, n in workflow.items() if n["class_type"] == "CheckpointLoaderSimple"]
    parts = [
        add_node(
            workflow, "FlashFaceLoader", model_name="flashface.safetensors", weight_dtype="default"
        ),
        add_node(workflow, "CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion"),
        add_node(workflow, "VAELoader", vae_name="vae-ft-mse-840000-ema-pruned.safetensors"),
    ]
    for node in workflow.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in loaders:
                node["inputs"][name] = [parts[value[1]], 0]
            elif name == "model_name":  # of the same values, so that a merge fits
                node["inputs"][name] = "flashface.safetensors"
    return {key: node for key, node in workflow.items() if key not in loaders}


def small_workflow(seed: int = 1) -> Workflow:
    """The portrait of one photo, whose face is cut out by hand, 64 x 64 pixels."""
    workflow = made_small(PORTRAIT)
    inputs(workflow, "EmptyLatentImage").update(width=64, height=64)
    inputs(workflow, "KSampler").update(seed=seed)
    inputs(workflow, "FlashFaceLoader").update(model_name="flashface.safetensors")
    people, photos = (
        [key for key, node in workflow.items() if node["class_type"] == class_type]
        for class_type in ("FlashFaceIdentity", "LoadImage")
    )
    for key in (*people[1:], *photos[1:], node_id(workflow, "FlashFaceDetectorLoader")):
        del workflow[key]
    for node in workflow.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in people:
                node["inputs"][name] = [people[0], value[1]]
    box = dict(width=45, height=55, x=90, y=36)
    crop = add_node(workflow, "ImageCrop", image=[photos[0], 0], **box)
    del workflow[people[0]]["inputs"]["detector"]
    workflow[people[0]]["inputs"]["image"] = [crop, 0]
    return workflow


def node_id(workflow: Workflow, class_type: str) -> str:
    (found,) = (key for key, node in workflow.items() if node["class_type"] == class_type)
    return found


def inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    return workflow[node_id(workflow, class_type)]["inputs"]


def add_node(workflow: Workflow, class_type: str, **given: Any) -> str:
    """Id of a node put into the workflow; links are [node id, number of the output]."""
    key = str(1 + max(map(int, workflow)))
    workflow[key] = {"class_type": class_type, "inputs": given, "_meta": {"title": class_type}}
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
