"""What the frozen encoders of Face2Diffusion and FaceStudio see in prepared photographs, once for
all steps.

For every photos-*.tar there is a seen-SYSTEM-*.safetensors with a row per photograph, in the same
order, and seen-SYSTEM.json says which encoders made them. What belongs into the trained file too
lies in SYSTEM-encoders.safetensors.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flashface_core.comfy_adapter.facestudio.style import (
    build_style_encoder,
    connected_embedding,
    style_embedding,
)
from flashface_core.errors import FlashFaceError
from flashface_core.face2diffusion.encoder import CROP, MSID, network_input
from flashface_core.face2diffusion.files import EXPRESSION, build_encoders
from flashface_core.faces.align import align_face
from flashface_core.faces.crop import pad_to_square
from flashface_core.faces.face import Detector
from flashface_core.facestudio.condition import paint_out
from flashface_core.facestudio.file import FACE_ENCODER, STYLE_ENCODER, build_facestudio, load_part
from flashface_core.likeness.embedders import ALIGNED_FACE
from flashface_core.weights_file import read_state_dict, save_whole
from training.clip import in_transformers_names
from training.face2diffusion import EXPRESSION_SEEN
from training.face2diffusion import FACE as FACE_VECTOR
from training.facestudio import FACE as UNIT_FACE
from training.facestudio import STYLE
from training.systems import FACE2DIFFUSION, FACESTUDIO

from .dataset import encoders_file, encoders_told, seen_file
from .frame import by_shape

BATCH = 16


class Shown(NamedTuple):
    """A stored photograph: picture uint8 (H, W, 3), face uint8 (s, s, 3); box (4,) and points
    (5, 2) of the face as fractions of the picture."""

    picture: Tensor
    face: Tensor
    box: Sequence[float]
    points: Sequence[Sequence[float]]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.picture.shape[1], self.picture.shape[0]

    def aligned(self) -> Tensor:
        """As Face2Diffusion and ArcFace see it, uint8 (112, 112, 3)."""
        if len(self.points) != 5:
            raise FlashFaceError(
                f"A prepared photograph has {len(self.points)} key points of its face, expected "
                "5; run training.photos.prepare again, with a detector that finds them."
            )
        return align_face(self.picture, np.array(self.points) * self.size)


See = Callable[[list[Shown]], Tensor]
Kept = tuple[dict[str, Tensor], dict[str, str]]


class Encoders(NamedTuple):
    """see: photographs to (N, W) by name. told: which files, for a later run to compare. kept: of
    the trained file, tensors and metadata."""

    see: Callable[[list[Shown]], dict[str, Tensor]]
    told: dict[str, str]
    kept: Kept = ({}, {})


def load_encoders(
    system: str,
    face: Path | None,
    styles: Sequence[Path],
    detector: Detector | None,
    file_hash: Callable[[Path], str],
) -> Encoders:
    """face: an MSID file. styles: CLIP vision models, side by side, or one file of FaceStudio's
    weights with an encoder of its own. detector: whose ArcFace FaceStudio has without an MSID.

    Raises FlashFaceError for files that are missing or of another kind.
    """
    told = {} if face is None else {"face": file_hash(face)}
    if system == FACE2DIFFUSION:
        if face is None:
            raise FlashFaceError(
                "Face2Diffusion's face encoder is missing; give msid.pt, or a copy of it, with "
                "--face-encoder."
            )
        identity, expression = (_moved(one) for one in _read_encoders(face)[0])
        assert identity is not None
        return Encoders(lambda shown: _see_word(identity, expression, shown), told)
    assert system == FACESTUDIO
    if not styles:
        raise FlashFaceError(
            "FaceStudio's style encoder is missing; give one or more CLIP vision models with "
            "--clip-vision, in the order in which they will be connected."
        )
    told |= {f"style {n}": file_hash(path) for n, path in enumerate(styles, 1)}
    see_face, of_face = _face_of_studio(face, detector)
    see_style, of_style = _style_of_studio(styles)
    if face is None and detector is not None:
        told["face"] = f"{detector.recognition} of {detector.name}"
    kept = (of_face[0] | of_style[0], of_face[1] | of_style[1])
    return Encoders(lambda shown: {UNIT_FACE: see_face(shown), STYLE: see_style(shown)}, told, kept)


def _face_of_studio(face: Path | None, detector: Detector | None) -> tuple[See, Kept]:
    if face is not None:
        (identity, _), state, metadata = _read_encoders(face)
        own = {FACE_ENCODER + k: v for k, v in state.items() if not k.startswith(EXPRESSION)}
        about = {"num_heads": str(identity.topology.heads), "face": identity.face}
        identity = _moved(identity)
        return (
            lambda shown: F.normalize(_vectors(identity, shown), dim=1),
            (own, {FACE_ENCODER + key: value for key, value in about.items()}),
        )
    if detector is None or not detector.can_embed:
        raise FlashFaceError(
            "FaceStudio's face encoder is missing; give an InsightFace model pack with "
            "--model-pack, or an MSID with --face-encoder."
        )

    def arcface(shown: list[Shown]) -> Tensor:
        vectors = [detector.embed(one.aligned(), ALIGNED_FACE) for one in shown]
        return torch.from_numpy(np.stack(vectors)).float()

    return arcface, ({}, {})


def _style_of_studio(paths: Sequence[Path]) -> tuple[See, Kept]:
    """Core's CLIP vision models, or the one that lies in a file of FaceStudio's weights."""
    state, metadata = read_state_dict(paths[0])
    if len(paths) == 1 and any(key.startswith(STYLE_ENCODER) for key in state):
        file = build_facestudio(paths[0].name, state, metadata)
        assert file.style_config is not None
        network = build_style_encoder(file.style_config)
        network = _moved(load_part(file.name, network, file.style_state, STYLE_ENCODER))
        own = {STYLE_ENCODER + key: value for key, value in file.style_state.items()}
        about = {k: v for k, v in metadata.items() if k.startswith(STYLE_ENCODER)}
        device = comfy.model_management.get_torch_device()
        return _of_faceless(lambda image: style_embedding(network, image.to(device))), (own, about)
    visions = [_load_vision(path) for path in paths]
    return _of_faceless(lambda image: connected_embedding(visions, image)), ({}, {})


def see_shard(encoders: Encoders, shown: Callable[[int], Shown], count: int, path: Path) -> None:
    """All `count` photographs of a shard; the file appears under its name when it is complete."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, count, BATCH):
        batch = [shown(n) for n in range(start, min(start + BATCH, count))]
        with torch.no_grad():
            for name, values in encoders.see(batch).items():
                parts.setdefault(name, []).append(values.cpu().half())
    save_whole({name: torch.cat(values) for name, values in parts.items()}, path)


def begin(folder: Path, system: str, encoders: Encoders) -> None:
    """Raises FlashFaceError where other encoders have begun."""
    told, path = json.dumps(encoders.told, indent=2) + "\n", encoders_told(folder, system)
    if not any(folder.glob(seen_file("*", system))):
        path.write_text(told, newline="\n")
    elif not path.is_file() or path.read_text() != told:
        raise FlashFaceError(
            f"What {system} sees in {folder} was made by other encoders; delete its "
            f"{seen_file('*', system)}, or use those encoders."
        )
    tensors, metadata = encoders.kept
    if tensors:
        save_whole(tensors, encoders_file(folder, system), metadata)
    else:
        encoders_file(folder, system).unlink(missing_ok=True)  # of those that looked before


def _read_encoders(path: Path) -> tuple[tuple[MSID, MSID | None], Mapping, Mapping[str, str]]:
    state, metadata = read_state_dict(path, published="msid.pt")
    return build_encoders(path.name, state, metadata), state, metadata


def _moved(network: Any) -> Any:
    device = comfy.model_management.get_torch_device()
    return None if network is None else network.to(device)


def _see_word(identity: MSID, expression: MSID | None, shown: list[Shown]) -> dict[str, Tensor]:
    seen = {FACE_VECTOR: _vectors(identity, shown)}
    if expression is not None:
        seen[EXPRESSION_SEEN] = _vectors(expression, shown)
    return seen


def _vectors(encoder: MSID, shown: list[Shown]) -> Tensor:
    size = encoder.topology.size
    is_crop = encoder.face == CROP
    faces = [pad_to_square(one.face, size) if is_crop else one.aligned() for one in shown]
    return encoder(network_input(torch.stack(faces)).to(encoder.cls_token.device))


def _of_faceless(embed: Callable[[Tensor], Tensor]) -> See:
    """embed: of an IMAGE (B, H, W, 3)."""
    return lambda shown: torch.stack(by_shape(embed, [_faceless(one) for one in shown]))


def _faceless(shown: Shown) -> Tensor:
    """(H, W, 3)"""
    box = [value * side for value, side in zip(shown.box, shown.size * 2, strict=True)]
    return paint_out(shown.picture.float() / 255, box)


def _load_vision(path: Path) -> Any:
    import comfy.clip_vision

    state = in_transformers_names(read_state_dict(path)[0])
    vision = comfy.clip_vision.load_clipvision_from_sd(dict(state))
    if vision is None:
        raise FlashFaceError(
            f"{path.name} is not a CLIP vision model that ComfyUI knows; give one that Load CLIP "
            "Vision reads, such as clip_vision_vit_l.safetensors."
        )
    return vision
