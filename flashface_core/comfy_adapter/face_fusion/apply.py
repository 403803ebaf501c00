"""FaceFusionApply: cross-attention of a clone of MODEL sees the photos beside the text.

Nothing is patched but the steps: each UNet call gets patches of its own, behind all others, and
none where nobody is seen. So the plain MODEL is the plain MODEL to the bit.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from comfy.patcher_extension import WrappersMP

from ...errors import FlashFaceError
from ...face_fusion.fusion import fusion_change
from ...flashface.guidance import StepPlan, check_percents
from ...row_references import RowReferences, add_to_rows, take_rows
from ..cross_attention import check_attention, make_cross_attention_patches
from ..flashface.from_model import live_settings
from ..model_shape import Shape, shape_of
from ..patcher import make_memory_estimate
from ..row_conds import AttachRows, make_piece_conds, make_row_data
from ..sampling import check_timesteps, make_predict_noise, make_run
from ..step import System
from ..unet import PatchSet, site_of, transformer_block
from ..untraced import with_actions
from .photos import AS_TRAINED, CALLED, TRAINING_FREE, FusionNet, FusionPhotos

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NODE = "Face Fusion Apply"
FACE_FUSION = System("face_fusion", NODE, counts_text=True)
SEEN = "face_fusion_seen"


def apply_fusion(
    model,
    photos: FusionPhotos,
    strength: float = 1.0,
    reference_noise: str = AS_TRAINED,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
):
    """A clone of MODEL whose positive rows see the photos; the given MODEL is left as it is.

    Raises FlashFaceError when photos, file and MODEL do not fit, or MODEL has Face Fusion already.
    """
    if model.get_attachment(FACE_FUSION.key) is not None:
        raise FlashFaceError(
            f"MODEL already carries photos from another {NODE}; for several people join their "
            "identities with FlashFace Identity Group and apply once."
        )
    if not 0 <= strength < math.inf:
        raise FlashFaceError(f"Face Fusion's strength is {strength:g}; it must be 0 or more.")
    check_percents(start_percent, end_percent)
    fusion = photos.fusion
    shape = shape_of(model, NODE, with_encoder=True)
    _check_fit(model, shape, photos)
    settings = live_settings(model, shape, fusion.name)
    size = fusion.reference_size or settings.reference_size
    reader = replace(settings.reader, **CALLED)
    settings = replace(settings, reader=reader, reference_size=size)
    net = FusionNet(fusion, reference_noise, shape, settings)
    features = net.encode(photos.identity, photos.vae, photos.text)
    model = model.clone()
    if strength == 0 or not features.has_effect:
        return model
    check_timesteps(NODE, model.get_model_object("model_sampling"))
    sites = dict.fromkeys(shape.widths, 1.0)
    steps = make_predict_noise(FACE_FUSION, features, _plan, (start_percent, end_percent), False)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, make_run(FACE_FUSION)),
        (WrappersMP.PREPARE_SAMPLING, make_memory_estimate(features, branches=2)),
        (WrappersMP.PREDICT_NOISE, steps),
        (WrappersMP.CALC_COND_BATCH, make_piece_conds(FACE_FUSION)),
        (WrappersMP.APPLY_MODEL, make_row_data(FACE_FUSION, sites, make_attach_rows(strength))),
    ):
        # Outside of FlashFaceApply's, whose third branch is made of rows that are marked by then.
        model.wrappers[kind] = {FACE_FUSION.key: [wrapper], **model.wrappers.get(kind, {})}
    if fusion.patcher is not None:
        model.set_additional_models(FACE_FUSION.key, [fusion.patcher])
    model.set_attachments(FACE_FUSION.key, features)
    return model


def _plan(timestep: float, is_inside: bool) -> StepPlan:
    """The positive prompt sees the faces, all others none, and there is no branch more."""
    return StepPlan(float(is_inside), other=0.0, reference=None, face_guidance=0.0, rescale=0.0)


def _check_fit(model: "ModelPatcher", shape: Shape, photos: FusionPhotos) -> None:
    kind, name = type(model.model).__name__, photos.fusion.name
    width = photos.text[0][0].shape[-1]
    if width != shape.context_width:
        raise FlashFaceError(
            f"MODEL ({kind}, context width {shape.context_width}) and features (of a text that is "
            f"{width} wide) do not fit; encode Face Fusion Encode's text with the MODEL's own CLIP."
        )
    if photos.fusion.widths is None:
        return
    found, wanted = shape.widths, photos.fusion.widths
    for site in sorted(found.keys() | wanted.keys()):
        if found.get(site) != wanted.get(site):
            here, there = (
                f"{widths[site]} channels" if site in widths else "no cross-attention"
                for widths in (found, wanted)
            )
            raise FlashFaceError(
                f"MODEL ({kind}) has {here} at block {' '.join(map(str, site))}, {name} has "
                f"{there}; load a file that was trained on this MODEL, or choose {TRAINING_FREE!r}."
            )


def make_attach_rows(strength: float) -> AttachRows:
    def attach_rows(options: dict, rows: RowReferences, unet) -> dict:
        """transformer_options of one UNet call, with the patches that let its rows see faces."""
        if rows.is_empty:
            return options
        patches = make_fusion_patches(rows, unet, strength)
        lists = dict(options.get("patches", {}))
        for name, patch in patches.patches.items():
            lists[name] = [*lists.get(name, ()), patch]
        return with_actions({**options, "patches": lists}, patches.actions)

    return attach_rows


def make_fusion_patches(rows: RowReferences, unet, strength: float) -> PatchSet:
    """Cross-attention with what other patches made of its inputs, and what the faces change."""

    def add_faces(tensors, extra_options):
        out, *inputs = tensors
        site = site_of(extra_options)
        size = tuple(extra_options["activations_shape"][-2:])
        seen = rows.at(site, size)
        if seen is None:
            return out
        references, _, index = seen
        check_attention(NODE, rows.count, inputs[0], inputs[1], out)
        n, context, value = (take_rows(tensor, index) for tensor in inputs)
        attn2 = transformer_block(unet, site).attn2
        q, k, v = attn2.to_q(n), attn2.to_k(context), attn2.to_v(value)
        copies = None if rows.text_copies is None else take_rows(rows.text_copies, index)
        change = fusion_change(q, k, v, references, strength, attn2.heads, copies)
        # The bias of the output projection is in the plain attention already.
        added = attn2.to_out(change) - attn2.to_out(torch.zeros_like(change[:1, :1]))
        return add_to_rows(out, index, added)

    return make_cross_attention_patches(FACE_FUSION.key, SEEN, add_faces)
