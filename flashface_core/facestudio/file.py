"""A FaceStudio file: everything that was trained, and the encoders it was trained with.

    linear.*          style || face to T tokens (metadata `tokens`, 4 when absent)
    unet.<key>        tensors of the diffusion model, named as in core's UNetModel
    prior.*           a text to a style embedding; may be absent
    face_encoder.*    an MSID (metadata `face_encoder.num_heads`, `face_encoder.face`), whose
                      vectors at unit length are e_f; absent: ArcFace
    style_encoder.*   core's CLIP vision network (metadata `style_encoder.config`, JSON); absent:
                      CLIP vision models that the user connects

No weights are published (SYSTEMS.md section A.6); the layout is this pack's own.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from ..errors import FlashFaceError
from ..face2diffusion.encoder import MSID
from ..face2diffusion.files import build_encoder
from ..flashface.checkpoint import REFERENCE
from ..weights_file import Difference, load_strictly, read_state_dict, shorten
from .condition import TOKENS, HybridCondition, TextPrior

ARCFACE_WIDTH = 512
# In a style encoder's configuration.
COUNTS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "num_channels",
    "patch_size",
    "image_size",
    "projection_dim",
)
LINEAR, UNET, PRIOR = "linear.", "unet.", "prior."
FACE_ENCODER, STYLE_ENCODER = "face_encoder.", "style_encoder."
PARTS = (LINEAR, UNET, PRIOR, FACE_ENCODER, STYLE_ENCODER)
WHOLE = "use a whole file of FaceStudio's weights"
_Network = TypeVar("_Network", bound=nn.Module)


class FaceStudioFile(NamedTuple):
    """Networks are float32 on the CPU, frozen, in eval mode.

    unet: by the names of core's UNetModel, as they lie in the file. style_config: of core's CLIP
    vision network, and style_state its tensors; None and {} without one.
    """

    name: str
    condition: HybridCondition
    unet: dict[str, torch.Tensor]
    prior: TextPrior | None
    face_encoder: MSID | None
    style_config: dict[str, Any] | None
    style_state: dict[str, torch.Tensor]


def read_facestudio(path: str | Path) -> FaceStudioFile:
    """No code in the file is run. Raises FlashFaceError for any other file, and says what it is."""
    state, metadata = read_state_dict(path, published="facestudio_tiny.safetensors")
    return build_facestudio(Path(path).name, state, metadata)


def build_facestudio(
    name: str, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> FaceStudioFile:
    """As read_facestudio, of what was read from the file called `name`."""
    if kind := _foreign(state):
        raise FlashFaceError(
            f"{name} is {kind}, expected FaceStudio's weights (linear.weight, unet.*); choose "
            "another file."
        )
    if unknown := [key for key in state if not key.startswith(PARTS)]:
        raise FlashFaceError(
            f"{name} has tensors that do not belong into FaceStudio's weights, {shorten(unknown)}; "
            f"expected {', '.join(f'{part}*' for part in PARTS)}."
        )
    parts = {
        part: {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
        for part in PARTS
    }
    face_encoder = None
    if parts[FACE_ENCODER]:
        face_encoder = build_encoder(
            name, state, metadata, FACE_ENCODER, "a face encoder (MSID)", WHOLE
        )
    face_width = face_encoder.vector_width if face_encoder else ARCFACE_WIDTH
    condition = _condition(name, parts[LINEAR], metadata, face_width)
    prior = _prior(name, parts[PRIOR], condition.style_width) if parts[PRIOR] else None
    config = _style_config(name, metadata, bool(parts[STYLE_ENCODER]))
    return FaceStudioFile(
        name, condition, parts[UNET], prior, face_encoder, config, parts[STYLE_ENCODER]
    )


def load_part(
    name: str, network: _Network, state: Mapping[str, torch.Tensor], part: str
) -> _Network:
    """The network, frozen and in eval mode, with the tensors of one part of the file.

    name: of the file. Raises FlashFaceError for what is missing, unexpected or of another shape.
    """

    def explain(difference: Difference) -> str:
        problem = ""
        if difference.missing:
            problem = f"lacks {shorten(part + key for key in difference.missing)}"
        elif difference.unexpected:
            unknown = shorten(part + key for key in difference.unexpected)
            problem = f"has tensors that do not belong there, {unknown}"
        elif difference.shapes:
            key, got, wanted = difference.shapes[0]
            problem = f"has {part}{key} of the shape {got}, expected {wanted}"
        else:
            key, dtype = difference.whole_numbers[0]
            problem = f"holds {dtype} in {part}{key}"
        return f"{name} {problem}; {WHOLE}."

    load_strictly(network, state, explain)
    return network.requires_grad_(False).eval()


def _condition(
    name: str, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str], face_width: int
) -> HybridCondition:
    weight = state.get("weight")
    if weight is None or weight.ndim != 2:
        found = "is not there" if weight is None else f"has the shape {tuple(weight.shape)}"
        raise FlashFaceError(
            f"{name} is not a file of FaceStudio's weights: linear.weight {found}, expected "
            "(tokens x context width, style width + face width)."
        )
    rows, inputs = weight.shape
    given = metadata.get("tokens", str(TOKENS))
    tokens = int(given) if given.isdecimal() else 0
    if tokens == 0 or rows % tokens:
        raise FlashFaceError(
            f"{name} says that it makes {given} tokens, which does not divide the {rows} rows of "
            "linear.weight; write the number that it was trained with into its metadata `tokens`."
        )
    if inputs <= face_width:
        raise FlashFaceError(
            f"{name} has a linear.weight of {inputs} inputs, expected more than the {face_width} "
            "of the face embedding; the rest of them is the style embedding."
        )
    network = HybridCondition(inputs - face_width, face_width, rows // tokens, tokens)
    return load_part(name, network, {f"linear.{k}": v for k, v in state.items()}, "")


def _prior(name: str, state: Mapping[str, torch.Tensor], style_width: int) -> TextPrior:
    first = state.get("0.weight")
    hidden, text_width = first.shape if first is not None and first.ndim == 2 else (1, 1)
    return load_part(name, TextPrior(text_width, hidden, style_width), state, PRIOR)


def _style_config(name: str, metadata: Mapping[str, str], has_tensors: bool) -> dict | None:
    text = metadata.get(f"{STYLE_ENCODER}config")
    if (text is not None) != has_tensors:
        lacks = "no tensors style_encoder.*" if text else "no style_encoder.config in its metadata"
        raise FlashFaceError(
            f"{name} has a style encoder of which a part is missing ({lacks}); {WHOLE}."
        )
    if text is None:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        config = error
    if not isinstance(config, dict):
        raise FlashFaceError(
            f"{name} has a style_encoder.config in its metadata that is not a JSON object "
            f"({config}); {WHOLE}."
        )
    if problem := _wrong_setting(config):
        raise FlashFaceError(
            f"{name} has a style_encoder.config in its metadata with {problem}; {WHOLE}."
        )
    return config


def _wrong_setting(config: Mapping[str, Any]) -> str | None:
    """What no CLIP vision network has. Names that it lacks are reported where it is built."""
    for key in COUNTS:
        if key in config and (type(config[key]) is not int or config[key] < 1):
            return f"{key} {config[key]!r}, expected a whole number above 0"
    width, heads = (config.get(key, 1) for key in ("hidden_size", "num_attention_heads"))
    if "hidden_size" in config and width % heads:
        return f"num_attention_heads {heads}, expected a divisor of hidden_size {width}"
    for key in ("image_mean", "image_std"):
        values = config.get(key, (1, 1, 1))
        if not isinstance(values, Sequence) or len(values) != 3 or not all(map(_is_number, values)):
            return f"{key} {values!r}, expected three numbers"
    if 0 in config.get("image_std", ()):
        return "a 0 in image_std, expected the spread of every colour"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _foreign(state: Mapping[str, torch.Tensor]) -> str | None:
    """What a file of another kind is."""
    groups = {key.partition(".")[0] for key in state}
    if "linear" in groups:
        return None
    if any(re.fullmatch(r"(input|middle|output)\.\d+\.\d+\.[kv]\.weight", key) for key in state):
        return "a file of Face Fusion's weights"
    kinds = {
        "Face2Diffusion's face encoder": {"cls_token"},
        "Face2Diffusion's mapping network": {"null_exp"},
        "a FlashFace checkpoint": {*REFERENCE},
        "a Stable Diffusion checkpoint": {"model", "input_blocks", "down_blocks"},
        "a CLIP vision model": {"vision_model", "visual"},
    }
    return next((kind for kind, names in kinds.items() if groups & names), None)
