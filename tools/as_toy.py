"""A workflow for photographs as the same graph with the tiny models, and drawn people."""

from __future__ import annotations

import copy
from typing import Any

# In ComfyUI's input folder: a picture whose head is painted over, and one of two people.
SCENE, PAIR = "scene.png", "pair.png"
# Which outputs of the tiny models stand for theirs.
MODELS = {
    "FlashFaceLoader": (0, 1),
    "CLIPLoader": (2,),
    "VAELoader": (3,),
    "CheckpointLoaderSimple": (0, 2, 3),
    "ControlNetLoader": (),
}
BYPASSED = {"LoraLoader": ("model", "clip"), "ControlNetApplyAdvanced": ("positive", "negative")}
SIZE, STEPS, CFG = 128, 20, 5.0
ENLARGED = 88  # pixels that hires fix makes 128 of
REST = "smiling, wearing a red sweater, in a forest, flat colours, soft light, upright"
OF_SCENE = (
    "a portrait of a child, smiling, wearing a yellow raincoat, by the sea, flat colours, "
    "morning sun, upright"
)
WORDS = {
    "Positive prompt": f"a portrait of an adult, {REST}",
    "A child": f"a portrait of a child, {REST}",
    "An elder": f"a portrait of an elder, {REST}",
    "Negative prompt": "",
    "smiling": f"a portrait of an adult, {REST}",
    "from the side": "a portrait of an adult, surprised, wearing a blue hoodie, by the sea, flat "
    "colours, soft light, upright",
    "at work": "a portrait of an adult, smiling, wearing a black suit, in a city, flat colours, "
    "soft light, upright",
    "in a coat": "a portrait of an adult, smiling, wearing a yellow raincoat, in the mountains, "
    "flat colours, soft light, upright",
}
HEAD_OF_B = dict(x=154, y=15, width=77, height=77)  # in PAIR, of 256 x 128 pixels
OF_FACE2DIFFUSION = f"a portrait of f l, {REST}"
PLACE = dict(x=0.19, y=0.2, width=0.62, height=0.62)
PLACES = {
    "Place of A": dict(x=0.1, y=0.12, width=0.3, height=0.6),
    "Place of B": dict(x=0.6, y=0.12, width=0.3, height=0.6),
}


def _bypassed(
    workflow: dict[str, Any], outputs: dict[tuple[str, int], list[Any]]
) -> dict[tuple[str, int], list[Any]]:
    """What stands for the outputs of nodes whose files do not fit the tiny models."""
    found: dict[tuple[str, int], list[Any]] = {}
    for key, node in workflow.items():
        for slot, name in enumerate(BYPASSED.get(node["class_type"], ())):
            source, at = node["inputs"][name]
            found[key, slot] = outputs.get((source, at), [source, at])
    return found


def as_toy(workflow: dict[str, Any]) -> dict[str, Any]:
    """workflow: in API form; one of tools/draw_workflows.py."""
    workflow = copy.deepcopy(workflow)
    tiny = {"class_type": "FlashFaceTinyModels", "inputs": {}, "_meta": {"title": "Tiny models"}}
    outputs = {
        (key, slot): ["tiny", output]
        for key, node in workflow.items()
        for slot, output in enumerate(MODELS.get(node["class_type"], ()))
    }
    outputs |= _bypassed(workflow, outputs)
    gone = {*MODELS, *BYPASSED, "FlashFaceDetectorLoader"}
    workflow = {key: node for key, node in workflow.items() if node["class_type"] not in gone}
    is_enlarged = any(node["class_type"] == "LatentUpscaleBy" for node in workflow.values())
    side = ENLARGED if is_enlarged else SIZE
    is_wide = any(node["class_type"] == "FlashFaceIdentityGroup" for node in workflow.values())
    crops = any(node["class_type"] == "FlashFaceCropFace" for node in workflow.values())
    has_scene = any(node["class_type"] == "VAEEncode" for node in workflow.values())
    for node in workflow.values():
        given, title = node["inputs"], node["_meta"]["title"]
        given.pop("detector", None)
        for name, value in given.items():
            if isinstance(value, list):
                given[name] = outputs.get((value[0], value[1]), value)
        match node["class_type"]:
            case "LoadImage" if title.startswith("Photo"):
                person = 2 if title.endswith(" B") else 0
                node.update(class_type="FlashFaceTinyPhotos", inputs={"person": person})
            case "LoadImage":
                given["image"] = PAIR if crops else SCENE
            case "FlashFaceCropFace":
                given.update(boxes=HEAD_OF_B, margin=0.3, size=SIZE)
            case "GrowMask":
                given["expand"] //= 6
            case "Face2DiffusionLoader":
                given.update(mapping_name="mapping_tiny.safetensors")
                given.update(encoder_name="msid_tiny.safetensors")
            case "Face2DiffusionTextEncode":
                given["text"] = OF_FACE2DIFFUSION
            case "CLIPTextEncode":
                words = WORDS[title]
                given["text"] = OF_SCENE if words and has_scene and not crops else words
            case "EmptyLatentImage":
                given.update(width=side * (1 + is_wide), height=side)
            case "ImageScale":
                given.update(width=SIZE, height=SIZE)
            case "KSampler":
                given.update(steps=STEPS, cfg=7.5 if is_wide else CFG, sampler_name="euler")
                given.update(seed=3)
            case "FlashFaceIdentityPlace":
                given.update(PLACES.get(title, PLACE) if "mask" not in given else {})
    return {**workflow, "tiny": tiny}
