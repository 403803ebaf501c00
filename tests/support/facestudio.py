"""FaceStudio files with random weights, in the layout of tiny_models/facestudio."""

import json
from pathlib import Path

import comfy.clip_vision
import comfy.ops
import torch
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import build_style_encoder
from flashface_pack.flashface_core.face2diffusion.encoder import MSID, Topology
from flashface_pack.flashface_core.facestudio.condition import HybridCondition, TextPrior
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.nodes.facestudio import FaceStudioEncode
from safetensors.torch import save_file

from .control import seeded_like

STYLE, WIDTH, TOKENS, ARCFACE = 24, 768, 3, 512
FACES = Topology(size=32, patch=8, width=24, depth=2, heads=4, scales=(0, 1))
CONFIG = {
    "model_type": "clip_vision_model",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "hidden_act": "quick_gelu",
    "num_channels": 3,
    "patch_size": 16,
    "image_size": 64,
    "projection_dim": STYLE,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}
METADATA = {
    "tokens": str(TOKENS),
    "face_encoder.num_heads": str(FACES.heads),
    "face_encoder.face": "crop",
    "style_encoder.config": json.dumps(CONFIG),
}


def facestudio_state(model=None, own_encoders: bool = True) -> dict[str, torch.Tensor]:
    """Every tensor of a file; without own encoders the face width is ArcFace's.

    model: whose attn2 keys and values, and one bias, the file brings others of.
    """
    networks = {"linear": HybridCondition(STYLE, ARCFACE, WIDTH, TOKENS).linear}
    networks["prior"] = TextPrior(WIDTH, 32, STYLE)
    if own_encoders:
        networks["linear"] = HybridCondition(STYLE, FACES.vector_width, WIDTH, TOKENS).linear
        networks["face_encoder"] = MSID(FACES, "crop")
        networks["style_encoder"] = build_style_encoder(CONFIG, comfy.ops.manual_cast)
    if model is not None:
        networks["unet"] = model.model.diffusion_model
    state = {}
    for seed, (name, network) in enumerate(networks.items()):
        like = {
            key: value
            for key, value in network.state_dict().items()
            if name != "unet" or "attn2.to_k" in key or "attn2.to_v" in key or key == "out.2.bias"
        }
        for key, value in seeded_like(like, 10 + seed).items():
            kind = "num_batches_tracked" in key
            state[f"{name}.{key}"] = torch.tensor(0) if kind else value
        for key in state:
            if key.endswith("running_var"):
                state[key] = 1 + state[key].abs()
    return state


def write_facestudio(path: Path, model=None, own_encoders: bool = True, **changed) -> Path:
    """changed: keys of the metadata with __ for a dot."""
    metadata = METADATA if own_encoders else {"tokens": str(TOKENS)}
    metadata = metadata | {key.replace("__", "."): value for key, value in changed.items()}
    save_file(facestudio_state(model, own_encoders), path, metadata)
    return path


def face(seed: int, size: int = 48) -> torch.Tensor:
    """uint8 (size, size, 3)"""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (fine[0].movedim(0, -1).clamp(0, 1) * 255).to(torch.uint8)


def person(*seeds: int, weights=None, name: str = "", place=None) -> Identity:
    weights = weights or [1.0] * len(seeds)
    pairs = zip(seeds, weights, strict=True)
    made = (FaceReference.from_crop(face(s), w, aligned=face(s, 112)) for s, w in pairs)
    return Identity(tuple(made), name, as_four_photos=False, place=place)


def style(seed: int = 50, count: int = 1, size: int = 96) -> torch.Tensor:
    """IMAGE"""
    return torch.stack([face(seed + i, size) for i in range(count)]).float() / 255


def encode(facestudio, identity=None, alpha=1.0, mask_face=False, style_image=None, **given):
    """Tensors of the node's positive and negative CONDITIONING."""
    style_image = style() if style_image is None else style_image
    out = FaceStudioEncode.execute(
        facestudio, identity or person(1), alpha, mask_face, style_image, **given
    )
    (((positive, _),), ((negative, _),)) = out.args
    return positive, negative


def clip_vision(width: int, seed: int, tmp_path):
    """CLIP_VISION with values of its own."""
    config = tmp_path / f"{width}.json"
    config.write_text(json.dumps({**CONFIG, "projection_dim": width}))
    model = comfy.clip_vision.ClipVisionModel(config)
    model.load_sd(seeded_like(model.get_sd(), seed))
    return model
