"""FACE_FUSION and its features: photos, and the sampled UNet that looks at them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import comfy.ops
import torch
from torch import nn

from ...errors import FlashFaceError
from ...face_fusion.file import CLEAN, CURRENT_STEP, FaceFusionFile, read_face_fusion
from ...face_fusion.fusion import FaceProjection, face_tokens
from ...faces.crop import pad_to_square
from ...features import KeysValues, Person, ReferenceLatent
from ...people.identity import FaceReference, Identity, IdentityGroup
from ...sites import Site, site_name
from ..flashface.from_model import LiveReferenceNet
from ..model_shape import FAMILIES, Shape
from ..patcher import loaded_by, make_patcher
from ..photo_encoder import EncoderSettings, LatentCaches, Reader, check_inputs
from ..unet import transformer_block
from ..untraced import plain_unet

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.sd import VAE

TRAINING_FREE = "none (training-free)"
AS_TRAINED = "as trained"
REFERENCE_NOISES = [AS_TRAINED, CURRENT_STEP, CLEAN]
CALLED = {"system": "Face Fusion", "prompt": "The text"}  # in messages


class FaceFusion:
    """W'_k and W'_v of a file, under ComfyUI's memory management, or of the sampled UNet itself.

    patcher and widths (channels by site): None where its own self-attention stands in for them
    (training-free). reference_size, reference_noise: as in FaceFusionFile.
    """

    def __init__(self, file: FaceFusionFile | None = None) -> None:
        self.name, self.reference_size, self.reference_noise = TRAINING_FREE, None, CURRENT_STEP
        self.widths = self.patcher = self._projections = None
        if file is not None:
            self.name, self.widths = file.name, file.widths
            self.reference_size, self.reference_noise = file.reference_size, file.reference_noise
            # The file itself is not kept: its tensors are the modules' from here on.
            self._projections = _projections(file)
            self.patcher = make_patcher(self._projections)
        self._latents: dict[tuple, LatentCaches] = {}

    def latents(self, size: int, latent_format: str) -> LatentCaches:
        """Of photos of this size in pixels, for all MODELs of the format."""
        return self._latents.setdefault((size, latent_format), LatentCaches())

    def project(self, unet, site: Site, features: torch.Tensor):
        """Hidden states (N, L, C) before a site's cross-attention to keys and values of them."""
        if self._projections is None:
            attn1 = transformer_block(unet, site).attn1
            return attn1.to_k(features), attn1.to_v(features)
        return self._projections[site_name(site)](features)


def _projections(file: FaceFusionFile) -> nn.ModuleDict:
    modules = {}
    for site, width in file.widths.items():
        module = FaceProjection(width, comfy.ops.manual_cast, file.k[site].dtype)
        weights = {"k.weight": file.k[site], "v.weight": file.v[site]}
        # The file is mapped into memory: its tensors are not copied.
        module.load_state_dict(weights, assign=True)
        modules[site_name(site)] = module
    return nn.ModuleDict(modules).eval().requires_grad_(False)


def load_face_fusion(path: str | Path) -> FaceFusion:
    """Raises FlashFaceError for any other file."""
    fusion = FaceFusion(read_face_fusion(path))
    loaded_by(fusion.patcher, _load_patcher, path)
    return fusion


def _load_patcher(path: str | Path, disable_dynamic: bool = False):
    return make_patcher(_projections(read_face_fusion(path)), disable_dynamic)


@dataclass(frozen=True, eq=False)
class FusionPhotos:
    """FACE_FUSION_FEATURES: what FaceFusionApply needs beside the MODEL.

    Photos become latents there: their size and the latents' scale are the MODEL's.
    """

    fusion: FaceFusion
    identity: Identity | IdentityGroup
    vae: "VAE"
    text: list

    def get_models(self) -> list:
        """The ModelPatchers that FaceFusionApply will need; newer cores keep them meanwhile."""
        return [p for p in (self.fusion.patcher, self.vae.patcher) if p is not None]


def collect_photos(
    fusion: FaceFusion, identity: Identity | IdentityGroup, vae, text
) -> FusionPhotos:
    """Raises FlashFaceError for an identity without photos, a VAE without four latent channels
    and a text that is not one entry of SD1.5's or SDXL's width."""
    width = text[0][0].shape[-1] if text else 0
    if width not in FAMILIES:
        raise FlashFaceError(
            f"The text is {width} wide, and Face Fusion works with SD1.5 (768) and SDXL (2048); "
            "encode it with the CLIP of the MODEL that is sampled."
        )
    reader = Reader(fusion.name, width, FAMILIES[width].name, **CALLED)
    check_inputs(reader, identity, vae, text)
    return FusionPhotos(fusion, identity, vae, text)


@dataclass(frozen=True, eq=False)
class FusionPhoto(ReferenceLatent):
    """face: bool (1, H, W), where the padded square shows the photo."""

    face: torch.Tensor


class FusionNet(LiveReferenceNet):
    """The sampled UNet's hidden states of the photos, at every cross-attention.

    noise: CURRENT_STEP: photos are noised to the step's noise level; CLEAN: they are not, and are
    looked at once per run; AS_TRAINED: what the file says, CURRENT_STEP without one.
    """

    reads = "attn2"

    def __init__(
        self, fusion: FaceFusion, noise: str, shape: Shape, settings: EncoderSettings
    ) -> None:
        super().__init__(shape, settings, fusion.latents(settings.reference_size, shape.latents))
        self.fusion = fusion
        self.noise = fusion.reference_noise if noise == AS_TRAINED else noise

    def reference_timestep(self, timestep: float) -> float:
        return timestep if self.noise == CURRENT_STEP else 0.0

    def _person(self, identity: Identity, vae: "VAE") -> Person:
        """The strength of a place is a factor of the photos' weights here."""
        person = super()._person(identity, vae)
        weighed = (replace(r, weight=r.weight * person.strength) for r in person.references)
        return replace(person, references=tuple(r for r in weighed if r.weight > 0))

    def _reference_latent(self, reference: FaceReference, weight: float, vae: "VAE") -> FusionPhoto:
        found = super()._reference_latent(reference, weight, vae)
        white = pad_to_square(torch.full_like(reference.crop, 255), self.reference_size)
        # Content is that of the crop: the noise must not follow the VAE's last bit.
        return FusionPhoto(found.latent, reference.content, weight, white[None, ..., 0] > 127)

    def _keys_values(
        self, features, photos, timestep, device, model: "BaseModel"
    ) -> list[KeysValues]:
        photos = cast(Sequence[FusionPhoto], photos)
        latents, timestep = self._network_input(photos, timestep, model.model_sampling)
        maps = self._feature_maps(features, latents, timestep, device, model)
        return [
            self._of_face(photo, {site: seen[i : i + 1] for site, seen in maps.items()}, model)
            for i, photo in enumerate(photos)
        ]

    def _of_face(self, photo: FusionPhoto, maps, model: "BaseModel") -> KeysValues:
        """Of the tokens that show the photo; maps: (1, L, C) by site."""
        tokens: dict[int, torch.Tensor] = {}
        keys_values: KeysValues = {}
        for site, seen in maps.items():
            side = math.isqrt(seen.shape[1])
            if side not in tokens:
                face = face_tokens(photo.face, (side, side))[0]
                tokens[side] = face.nonzero()[:, 0].to(seen.device)
            chosen = seen.index_select(1, tokens[side])
            keys_values[site] = self.fusion.project(plain_unet(model), site, chosen)
        return keys_values

    def _network_input(self, photos: Sequence[FusionPhoto], timestep: float, sampling):
        """As core makes it of noisy latents, and the timestep that goes with it."""
        latents = torch.cat([photo.latent for photo in photos])
        if self.noise == CLEAN:
            sigma = torch.zeros(1)
            timestep = float(sampling.timestep(sampling.sigma_min))
            return sampling.calculate_input(sigma, latents), timestep
        sigma = sampling.sigma(torch.tensor([timestep]))
        noise = torch.cat([noise_of(photo) for photo in photos])
        noisy = sampling.noise_scaling(sigma, noise, latents)
        return sampling.calculate_input(sigma, noisy), timestep


def noise_of(photo: ReferenceLatent) -> torch.Tensor:
    """Always the same for a photo, whichever its neighbours are."""
    generator = torch.Generator().manual_seed(int(photo.content[:15], 16))
    return torch.randn(photo.latent.shape, generator=generator)
