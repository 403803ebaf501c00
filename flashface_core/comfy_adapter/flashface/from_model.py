"""The training-free REFERENCE_NET: a MODEL's own UNet, and its own self-attention with extra keys.

The network that looks at the photos is the one that is being sampled, at that moment: with the
LoRA that lie on it, and never a second copy. What is kept here is its shape.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP

from ...capture import feature_maps
from ...errors import FlashFaceError
from ...features import FaceFeatures, KeysValues, ReferenceLatent
from ...flashface.reference_attention import SelfAttention, add_extra_keys
from ...row_references import (
    RowReferences,
    StepReferences,
    add_to_rows,
    gather_references,
    take_rows,
)
from ...sites import Site, levels_of
from ..model_shape import FAMILIES, Shape, shape_of
from ..photo_encoder import (
    ROWS_PER_PASS,
    EncoderSettings,
    LatentCaches,
    PhotoEncoder,
    Reader,
    batched,
)
from ..unet import (
    KEY,
    UNET,
    PatchSet,
    attention_options,
    make_middle_patches,
    put_first,
    site_of,
    transformer_block,
)
from ..untraced import make_announcement, plain_unet, uncompiled
from .attachment import Attachment

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

log = logging.getLogger("flashface")

ROWS = "flashface_extra_rows"
Y = "flashface_extra_y"
NO_EFFECT = (
    "FlashFace Encode: %s has no effect with FlashFace ReferenceNet from Model, whose feature maps "
    "come from the model that is being sampled."
)


class LiveReferenceNet(PhotoEncoder):
    """A REFERENCE_NET that is whichever network of this shape is being sampled."""

    reads = "attn1"

    def __init__(
        self, shape: Shape, settings: EncoderSettings, latents: LatentCaches | None = None
    ) -> None:
        super().__init__(settings, latents)
        self.shape = shape

    def check_fit(self, model: "ModelPatcher") -> None:
        """Raises FlashFaceError when MODEL is not of the shape that features were made for."""
        check_shape(model, self)

    def attach(self, model: "ModelPatcher", features: FaceFeatures) -> "ModelPatcher":
        """A clone of MODEL whose self-attention sees the references."""
        return attach_extra_keys(model, self, features)

    @staticmethod
    def attach_rows(options: dict, rows: RowReferences, unet: Any) -> dict:
        """transformer_options of one UNet call for these patches."""
        return {**options, ROWS: rows, UNET: unet}

    def encode(self, identity, vae: "VAE", negative, sigmas=None, anchors=()) -> FaceFeatures:
        """As every REFERENCE_NET does; SDXL's takes the pooled part of the negative prompt too."""
        if anchors:
            log.warning(NO_EFFECT, "reference_steps")
        features = super().encode(identity, vae, negative, sigmas)
        if not self.shape.has_pooled:
            return features
        pooled = negative[0][1].get("pooled_output")
        if pooled is None:
            reader = self.settings.reader
            raise FlashFaceError(
                f"{reader.prompt} has no pooled output, which {reader.family} needs; encode it "
                f"with CLIP Text Encode and an {reader.family} CLIP."
            )
        return replace(features, pooled=pooled.detach().float().cpu())

    def _precompute(self, features, sigmas) -> None:
        log.warning(NO_EFFECT, "sigmas")

    def keys_values_bytes(self, tokens: int) -> int:
        shape = self.shape
        values = sum(width * tokens / 4 ** shape.depths[s] for s, width in shape.widths.items())
        return int(2 * values * self.compute_dtype.itemsize)

    def step_references(
        self, features: FaceFeatures, timestep: float, device: torch.device, model=None
    ) -> StepReferences:
        """Keys and values of everybody at one model timestep, by the sampled BaseModel."""
        assert model is not None
        patcher = model.current_patcher
        # A LoRA that one prompt brings along is for the rows of that prompt.
        patcher.apply_hooks(None)
        people = [person for person in features.people if person.references]
        photos = {r.content: r for person in people for r in person.references}
        done: dict[str, KeysValues] = {}
        for some in batched(photos.values(), ROWS_PER_PASS):
            comfy.model_management.throw_exception_if_processing_interrupted()
            found = self._keys_values(features, some, timestep, device, model)
            done |= zip((photo.content for photo in some), found, strict=True)
        entries = [[done[r.content] for r in person.references] for person in people]
        return gather_references(people, entries)

    def _keys_values(
        self,
        features: FaceFeatures,
        photos: Sequence[ReferenceLatent],
        timestep: float,
        device: torch.device,
        model: "BaseModel",
    ) -> list[KeysValues]:
        latents = torch.cat([photo.latent for photo in photos])
        maps = self._feature_maps(features, latents, timestep, device, model)
        unet = plain_unet(model)
        attention = {site: transformer_block(unet, site).attn1 for site in maps}
        pairs = {
            site: (attention[site].to_k(y).split(1), attention[site].to_v(y).split(1))
            for site, y in maps.items()
        }
        return [{site: (k[i], v[i]) for site, (k, v) in pairs.items()} for i in range(len(photos))]

    def _feature_maps(self, features, latents, timestep, device, model: "BaseModel"):
        """One pass over latents (N, 4, h, w), with the MODEL's reference attention on the photo
        itself where the MODEL was trained with it."""
        attachment: Attachment | None = model.current_patcher.get_attachment(KEY)
        patches = {} if attachment is None else attachment.patches
        dtype = model.manual_cast_dtype or model.get_dtype()
        y = None
        if features.pooled is not None:
            encode_pooled: Any = model.encode_adm
            y = encode_pooled(
                pooled_output=features.pooled.to(device),
                width=self.reference_size,
                height=self.reference_size,
                prompt_type="negative",
                device=device,
            ).to(device, dtype)
            y = y.expand(len(latents), -1)
        unet = plain_unet(model)
        with uncompiled(unet):
            return feature_maps(
                unet,
                latents.to(device, dtype),
                timestep,
                features.context.to(device, dtype),
                self.shape.widths,
                y,
                {name: [patch] for name, patch in patches.items()},
                self.reads,
                attention_options(device),
            )


def reference_net_from_model(model: "ModelPatcher") -> LiveReferenceNet:
    """Raises FlashFaceError for a MODEL that is neither SD1.5 nor SDXL."""
    shape = shape_of(model)
    return LiveReferenceNet(shape, live_settings(model, shape, "FlashFace ReferenceNet from Model"))


def live_settings(model: "ModelPatcher", shape: Shape, name: str) -> EncoderSettings:
    """Of a LiveReferenceNet for MODEL.

    reference_size: that of the reference attention that MODEL carries, or its family's.
    """
    family = FAMILIES[shape.context_width]
    attachment: Attachment | None = model.get_attachment(KEY)
    carried = None if attachment is None else attachment.net
    latent_format: Any = model.get_model_object("latent_format")
    return EncoderSettings(
        Reader(f"{name} ({family.name})", shape.context_width, family.name),
        levels_of(shape.depths),
        model.model.manual_cast_dtype or model.model.get_dtype(),
        family.reference_size if carried is None else carried.reference_size,
        latent_format,
    )


def check_shape(model: "ModelPatcher", net: LiveReferenceNet) -> None:
    """Raises FlashFaceError when MODEL is not of the shape that the features were made for."""
    found, wanted = shape_of(model), net.shape
    different = {
        "context width": (found.context_width, wanted.context_width),
        "latent format": (found.latents, wanted.latents),
        "number of attention blocks": (len(found.widths), len(wanted.widths)),
        "channels": (sorted(set(found.widths.values())), sorted(set(wanted.widths.values()))),
        "attention blocks": (sorted(found.widths), sorted(wanted.widths)),
    }
    for what, (got, expected) in different.items():
        if got != expected:
            raise FlashFaceError(
                f"MODEL ({type(model.model).__name__}) and features ({net.name}) do not fit: "
                f"{what} {got} and {expected}; give FlashFace ReferenceNet from Model the "
                f"MODEL that is "
                "sampled."
            )


def attach_extra_keys(model: "ModelPatcher", net: LiveReferenceNet, features: FaceFeatures):
    """A clone of MODEL whose self-attention sees the references; its RA, if any, stays."""
    model = model.clone()
    previous: Attachment | None = model.get_attachment(KEY)
    extra_keys = make_extra_keys(net.shape.widths)
    put_first(model, extra_keys.patches, {})
    announcement = make_announcement(extra_keys.actions)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, announcement)
    attachment = Attachment(None, {}, features)
    if previous is not None:
        attachment = replace(previous, features=features)
    model.set_attachments(KEY, attachment)
    return model


def make_extra_keys(sites: Mapping[Site, Any]) -> PatchSet:
    """The patches that give self-attention the references of each row as extra keys."""

    def see_references(tensors, extra_options):
        x, y = tensors
        rows: RowReferences | None = extra_options.get(ROWS)
        if rows is None:
            return x
        site = site_of(extra_options)
        size = tuple(extra_options["activations_shape"][-2:])
        seen = rows.at(site, size)
        if seen is None:
            return x
        references, strength, index = seen
        attn1 = transformer_block(extra_options[UNET], site).attn1
        attention = SelfAttention(
            attn1.to_q, attn1.to_k, attn1.to_v, attn1.to_out, heads=attn1.heads
        )
        change = add_extra_keys(attention, take_rows(y, index), references, strength)
        return add_to_rows(x, index, change)

    return make_middle_patches("flashface_extra_keys", Y, sites, see_references)
