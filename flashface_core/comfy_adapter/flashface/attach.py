"""The patches that make a MODEL carry reference attention, and the check that they fit it."""

from functools import partial
from typing import TYPE_CHECKING, Any

from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP

from ...errors import FlashFaceError
from ...features import FaceFeatures
from ...flashface.reference_net import ReferenceNetwork
from ...row_references import RowReferences
from ..devices import check_device, refuse_other_devices
from ..shared_encoder import SHARED, SharedRows
from ..unet import (
    KEY,
    PatchSet,
    attention_options,
    context_widths,
    make_middle_patches,
    put_first,
    site_of,
    transformer_blocks,
)
from ..untraced import make_announcement, run_action
from .attachment import Attachment, AttentionOwner

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

ROWS = "flashface_rows"
Y = "flashface_y"


def attach_reference_net(
    model: "ModelPatcher", net: AttentionOwner, features: FaceFeatures | None = None
):
    """A clone of MODEL with the reference attention of `net` (in place of another set of it)."""
    model = model.clone()
    previous: Attachment | None = model.get_attachment(KEY)
    attention = make_reference_attention(net.network)
    put_first(model, attention.patches, {} if previous is None else previous.patches)
    actions = attention.actions
    if features is not None and features.has_effect:
        position = make_position(net.network)
        put_first(model, position.patches, {})
        actions = {**actions, **position.actions}
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, make_announcement(actions))
    model.set_additional_models(KEY, [net.patcher])
    refuse_other_devices(model, KEY)
    model.set_attachments(KEY, Attachment(net, attention.patches, features))
    return model


def make_reference_attention(network: ReferenceNetwork) -> PatchSet:
    """The patches that add RA to the blocks that have it."""

    def add_reference_attention(tensors, extra_options):
        x, y = tensors
        site = site_of(extra_options)
        attention = network.attention_at(site)
        rows: RowReferences | None = extra_options.get(ROWS)
        size = tuple(extra_options["activations_shape"][-2:])
        seen = None if rows is None else rows.at(site, size)
        if seen is not None:
            return x + attention(y, *seen)
        options = {**attention_options(y.device), **extra_options}
        return x + attention(y, attention=partial(optimized_attention, transformer_options=options))

    return make_middle_patches("flashface_attention", Y, network.sites, add_reference_attention)


def attach_rows(options: dict, rows: RowReferences, unet: Any) -> dict:
    """transformer_options of one UNet call for these patches."""
    return {**options, ROWS: rows}


def make_position(network: ReferenceNetwork) -> PatchSet:
    """The fifth input channel of the first convolution, which is linear."""
    name = "flashface_position"

    def add_position(tensors, transformer_options):
        (h,) = tensors
        rows: RowReferences | None = transformer_options.get(ROWS)
        if rows is None or rows.position is None:
            return h
        shared: SharedRows | None = transformer_options.get(SHARED)
        position = rows.position if shared is None else rows.position[shared.start]
        return h + network.position(position.to(h))

    def act(h, transformer_options):
        if transformer_options["block"] != ("input", 0):
            return h
        return run_action(name, add_position, [h], transformer_options)

    return PatchSet({"input_block_patch": act}, {name: add_position})


def check_fit(model: "ModelPatcher", net: AttentionOwner) -> None:
    """Raises FlashFaceError when the reference attention does not fit MODEL's UNet, or when MODEL
    has that of other weights."""
    unet = model.model.diffusion_model
    kind = type(model.model).__name__
    check_device(model, net)
    blocks = transformer_blocks(unet)
    context = context_widths(blocks)
    if context != {net.context_width}:
        found = f"context width {', '.join(map(str, sorted(context)))}" if context else "no UNet"
        raise FlashFaceError(
            f"MODEL ({kind}, {found}) and features ({net.name}, context width "
            f"{net.context_width}) do not fit; use FlashFace Loader's MODEL or another SD1.5 one."
        )
    for site in net.levels:
        width = net.network.attention_at(site).q.in_features
        block = blocks.get(site)
        found = None if block is None else block.norm1.normalized_shape[0]
        if found != width:
            name = " ".join(map(str, site[:2]))
            raise FlashFaceError(
                f"MODEL ({kind}) has {f'{found} channels' if found else 'no attention'} at block "
                f"{name}, the features of {net.name} have {width}; use the MODEL of the same "
                "FlashFace Loader or another one of its size."
            )
    attachment: Attachment | None = model.get_attachment(KEY)
    carried = None if attachment is None else attachment.net
    if carried is not None and carried.fingerprint != net.fingerprint:
        raise FlashFaceError(
            f"MODEL carries the reference attention of {carried.name}, the features were "
            f"made with {net.name}; use both outputs of one FlashFace Loader."
        )
