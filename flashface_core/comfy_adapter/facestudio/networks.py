"""FACESTUDIO: the networks of FaceStudio under ComfyUI's memory management, and CONDITIONINGs."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comfy.conds
import torch
from torch.nn.functional import normalize

from ...errors import FlashFaceError
from ...face2diffusion.encoder_inputs import counted_photos, encoder_inputs
from ...faces.crop import check_numbers, photo_to_uint8
from ...faces.face import Detector
from ...facestudio.condition import HybridCondition, TextPrior, join_tokens, mix_faces, paint_out
from ...facestudio.file import MSID, STYLE_ENCODER, FaceStudioFile, load_part, read_facestudio
from ...likeness.embedders import Recognition
from ...people.identity import Identity, IdentityGroup, people_of
from ..networks import ManagedNetworks
from .needs_apply import mark_as_needing_apply
from .people import PEOPLE, make_people
from .style import (
    MODEL_TYPE,
    StyleEncoder,
    build_style_encoder,
    connected_embedding,
    style_embedding,
)

__all__ = ["FaceStudio", "build_style_encoder", "load_facestudio", "style_embedding"]

SOURCE = "facestudio_source"  # in a CONDITIONING's options


class Source(NamedTuple):
    """The file that a CONDITIONING or a MODEL's tensors are of. fingerprint: of its weights."""

    name: str
    fingerprint: str


class Networks(torch.nn.Module):
    """The frozen networks, float32, so that they are moved as one. None where the file has none."""

    def __init__(
        self,
        condition: HybridCondition,
        prior: TextPrior | None,
        face_encoder: MSID | None,
        style_encoder: StyleEncoder | None,
    ) -> None:
        super().__init__()
        self.condition, self.prior = condition, prior
        self.face_encoder, self.style_encoder = face_encoder, style_encoder


class FaceStudio(ManagedNetworks[Networks]):
    """Makes CONDITIONINGs of people and a style; FaceStudioApply sets its UNet's tensors.

    name: of the file. unet: tensors by the names of core's UNetModel. tokens: T per person.
    """

    def __init__(self, name: str, networks: Networks, unet: Mapping[str, torch.Tensor]) -> None:
        super().__init__(networks)
        self.name, self.unet = name, dict(unet)
        self.source = Source(name, _fingerprint(networks.condition))
        self.tokens = networks.condition.tokens
        self.context_width = networks.condition.linear.out_features // self.tokens

    @torch.inference_mode()
    def encode(
        self,
        identity: Identity | IdentityGroup,
        alpha: float = 1.0,
        mask_face: bool = False,
        style_image: torch.Tensor | None = None,
        text=None,
        clip_vision: Sequence[Any] = (),
        detector: Detector | None = None,
    ) -> tuple[list, list]:
        """Positive and negative CONDITIONING; the negative is the null condition, Linear(0 || 0).

        Both have T tokens for every person, one person after another, and know where each is.
        alpha: 1 is the style image alone and 0 the text alone. style_image: IMAGE; of several
        pictures the mean embedding. mask_face: FACELESS over the largest face of each of them.
        clip_vision: CLIP_VISION objects in order, for a file without a style encoder. detector:
        for mask_face, and ArcFace for a file without a face encoder.
        Raises FlashFaceError for everything that is missing or does not fit.
        """
        alpha = min(max(alpha, 0.0), 1.0)
        if self._networks.style_encoder is not None and clip_vision:
            raise FlashFaceError(
                f"{self.name} has a style encoder of its own, and {len(clip_vision)} CLIP_VISION "
                "models are connected; disconnect them."
            )
        people = people_of(identity)
        where = make_people(people, self.tokens)
        face = torch.cat([self._face(person, detector) for person in people])
        style = prior = None
        if style_image is not None and alpha > 0:
            style = self._style(style_image, mask_face, clip_vision, detector)
        if text is not None and alpha < 1:
            prior = self._text(text)
        condition = self._loaded().condition
        device = self.patcher.load_device
        given = [None if one is None else one.to(device) for one in (face, style, prior)]
        guidance = condition(*given, alpha).cpu()
        null = condition.branch(None, None).cpu().expand_as(guidance)
        options: dict[str, Any] = {SOURCE: self.source}
        mark_as_needing_apply(options, self.name)
        if where is not None:
            options["model_conds"][PEOPLE] = comfy.conds.CONDConstant(where)
        return [[join_tokens(guidance), options]], [[join_tokens(null), dict(options)]]

    def _face(self, person: Identity, detector: Detector | None) -> torch.Tensor:
        """e_f (1, F); zeros for a person without weight."""
        if not person.references:
            raise FlashFaceError(
                f"The identity{f' {person.name}' * bool(person.name)} has no photo left (0 "
                "references); give FlashFace Identity a photo in which a face is found. For the "
                "style without a face set its weight to 0."
            )
        if not any(photo.weight > 0 for photo in person.references):
            return torch.zeros(1, self._networks.condition.face_width)
        encoder = self._networks.face_encoder
        if encoder is None:
            photos = counted_photos(person, "FaceStudio")
            faces = self._arcface(photos, detector)
            return mix_faces(faces, [photo.weight for photo in photos])
        seen, shares = encoder_inputs(encoder, person, "FaceStudio")
        vectors = self._loaded().face_encoder(seen.to(self.patcher.load_device))  # pyright: ignore
        return mix_faces(normalize(vectors).cpu(), shares.tolist())

    def _arcface(self, photos, detector: Detector | None) -> torch.Tensor:
        if detector is None or not detector.can_embed:
            found = "no detector is connected" if detector is None else f"{detector.name} has none"
            raise FlashFaceError(
                f"{self.name} was trained with ArcFace embeddings, and {found}; connect a "
                "FlashFace Detector Loader with an InsightFace model pack that has a recognition "
                "model (such as buffalo_l) to FaceStudio Encode."
            )
        arcface = Recognition(detector)
        known = [vector for photo in photos if (vector := arcface.reference(photo)) is not None]
        if missing := len(photos) - len(known):
            raise FlashFaceError(
                f"{detector.name} finds no face in {missing} of the identity's {len(photos)} "
                "photos; leave them out, or connect the detector to FlashFace Identity too."
            )
        faces = torch.stack([torch.from_numpy(vector).float() for vector in known])
        width = self._networks.condition.face_width
        if faces.shape[1] != width:
            raise FlashFaceError(
                f"{detector.name} makes face embeddings of {faces.shape[1]} values, {self.name} "
                f"was trained with {width}; use a model pack with the ArcFace of buffalo_l."
            )
        return faces

    def _style(self, images, mask_face: bool, clip_vision, detector) -> torch.Tensor:
        """e_h (1, S)."""
        images = images[..., :3].detach().float().cpu()
        check_numbers(images, "The style image")
        if images.shape[-1] == 1:  # grey
            images = images.expand(-1, -1, -1, 3)
        if mask_face:
            images = _without_faces(images, detector)
        width = self._networks.condition.style_width
        if self._networks.style_encoder is not None:
            encoder = self._loaded().style_encoder
            style = style_embedding(encoder, images.to(self.patcher.load_device))  # pyright: ignore
        elif clip_vision:
            style = connected_embedding(clip_vision, images)
        else:
            raise FlashFaceError(
                f"{self.name} has no style encoder of its own, and no CLIP_VISION model is "
                f"connected; connect those it was trained with, {width} values in all."
            )
        if style.ndim != 2 or style.shape[1] != width:
            raise FlashFaceError(
                f"The CLIP_VISION models make style embeddings of {tuple(style.shape)[1:]} "
                f"values, {self.name} was trained with {width}; connect the models it was trained "
                "with, in their order."
            )
        return style.mean(0, keepdim=True)

    def _text(self, text) -> torch.Tensor:
        """e_T (1, S)."""
        prior = self._networks.prior
        if prior is None:
            raise FlashFaceError(
                f"{self.name} has no prior, which makes a style of a text; set alpha to 1 for the "
                "style image alone."
            )
        if len(text) != 1 or len(text[0][0]) != 1:
            raise FlashFaceError(
                f"The text has {sum(len(tokens) for tokens, _ in text)} entries, FaceStudio takes "
                "exactly one; connect a plain CLIP Text Encode."
            )
        tokens = text[0][0].detach().float()
        if tokens.shape[-1] != prior.text_width:
            raise FlashFaceError(
                f"The text is {tokens.shape[-1]} wide, {self.name} takes {prior.text_width}; "
                "encode it with the CLIP of an SD1.5 checkpoint (not SDXL's)."
            )
        self._loaded()
        return prior(tokens.to(self.patcher.load_device))


def _without_faces(images: torch.Tensor, detector: Detector | None) -> torch.Tensor:
    if detector is None:
        raise FlashFaceError(
            "mask_face is on and no detector is connected, which finds the face of the style "
            "image; connect a FlashFace Detector Loader to FaceStudio Encode, or turn "
            "mask_face off."
        )
    masked = []
    for number, image in enumerate(images):
        faces = detector.find(photo_to_uint8(image))
        if not faces:
            raise FlashFaceError(
                f"mask_face is on and there is no face in the style image (picture {number} of "
                f"{len(images)}, {detector.name}); use another one, or turn mask_face off."
            )
        masked.append(paint_out(image, faces[0].box))  # the largest
    return torch.stack(masked)


def load_facestudio(path: str | Path) -> FaceStudio:
    """Raises FlashFaceError for any other file, saying what it is."""
    file = read_facestudio(path)
    networks = Networks(file.condition, file.prior, file.face_encoder, _style_encoder(file))
    return FaceStudio(file.name, networks, file.unet)


def _fingerprint(condition: HybridCondition) -> str:
    """What tells two files apart, whatever their names: the layer of all conditions."""
    digest = hashlib.sha256()
    for tensor in (condition.linear.weight, condition.linear.bias):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _style_encoder(file: FaceStudioFile) -> StyleEncoder | None:
    if file.style_config is None:
        return None
    kind = file.style_config.get("model_type", MODEL_TYPE)
    try:
        encoder = build_style_encoder(file.style_config)
    except (KeyError, TypeError, ValueError) as error:
        encoder, kind = None, f"{kind} ({type(error).__name__}: {error})"
    if encoder is None or kind != MODEL_TYPE:
        raise FlashFaceError(
            f"{file.name} has a style encoder that this pack cannot build, {kind}; expected the "
            "configuration of core's clip_vision_model in the metadata style_encoder.config."
        )
    width = encoder.style_width
    if width != file.condition.style_width:
        raise FlashFaceError(
            f"{file.name} has a style encoder that makes {width} values and a linear.weight that "
            f"takes {file.condition.style_width}; use a whole file of FaceStudio's weights."
        )
    load_part(file.name, encoder, file.style_state, STYLE_ENCODER)
    return encoder
