"""The patches that make a MODEL carry reference attention, and the check that they fit it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from comfy.ldm.modules.attention import optimized_attention

from ..checkpoint import Site
from ..errors import FlashFaceError
from ..features import FaceFeatures
from ..reference_net import ReferenceNetwork
from ..rows import RowReferences
from .reference import ReferenceNet

KEY = "flashface"
ROWS = "flashface_rows"
Y = "flashface_y"


@dataclass(frozen=True, eq=False)
class Attachment:
    """Marks the one set of attention patches of a MODEL; shared by its clones, never changed."""

    net: ReferenceNet
    patches: tuple
    features: FaceFeatures | None = None


def attach_reference_net(model, net: ReferenceNet, features: FaceFeatures | None = None):
    """A clone of MODEL with the reference attention of `net` (in place of another set of it)."""
    model = model.clone()
    previous: Attachment | None = model.get_attachment(KEY)
    keep_y, add_reference_attention = make_attention_patches(net.network)
    options = model.model_options["transformer_options"]
    patches = options["patches"] = dict(options.get("patches", {}))
    # First in their lists: y must be seen before HyperTile or ToMe cut it into pieces, and RA
    # belongs to the residual sum that other middle patches build on.
    for name, patch in (("attn1_patch", keep_y), ("middle_patch", add_reference_attention)):
        others = patches.get(name, [])
        if previous is not None:
            others = [other for other in others if other not in previous.patches]
        patches[name] = [patch, *others]
    model.set_additional_models(KEY, [net.patcher])
    attachment = Attachment(net, (keep_y, add_reference_attention), features)
    model.set_attachments(KEY, attachment)
    return model


def make_attention_patches(network: ReferenceNetwork):
    """(attn1_patch, middle_patch) that add RA to the blocks that have it."""

    def keep_y(n, context, value, extra_options):
        extra_options[Y] = n  # a dictionary of this one block call
        return n, context, value

    def add_reference_attention(x, extra_options):
        site = (*extra_options["block"], extra_options.get("block_index", 0))
        y = extra_options.pop(Y, None)
        if y is None or site not in network.sites:
            return x
        attention = network.attention_at(site)
        rows: RowReferences | None = extra_options.get(ROWS)
        core_attention = partial(optimized_attention, transformer_options=extra_options)
        if rows is None:
            return x + attention(y, attention=core_attention)
        size = tuple(extra_options["activations_shape"][-2:])
        references, strength, active = rows.at(site, size)
        return x + attention(y, references, strength, active, core_attention)

    return keep_y, add_reference_attention


def make_position_patch(network: ReferenceNetwork):
    """input_block_patch: the fifth input channel of the first convolution, which is linear."""

    def add_position(h, transformer_options):
        rows: RowReferences | None = transformer_options.get(ROWS)
        if transformer_options["block"] != ("input", 0) or rows is None or rows.position is None:
            return h
        return h + network.position(rows.position.to(h))

    return add_position


def check_fit(model, net: ReferenceNet) -> None:
    """Raises FlashFaceError when the reference attention does not fit MODEL's UNet."""
    unet = model.model.diffusion_model
    kind = type(model.model).__name__
    blocks = _transformer_blocks(unet)
    context = {b.attn2.to_k.in_features for b in blocks.values() if b.attn2 is not None}
    if context != {net.context_width}:
        found = f"context width {', '.join(map(str, sorted(context)))}" if context else "no UNet"
        raise FlashFaceError(
            f"MODEL ({kind}, {found}) and features ({net.name}, context width "
            f"{net.context_width}) do not fit; use FlashFaceLoader's MODEL or another SD1.5 one."
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
                "FlashFaceLoader or another one of its size."
            )


def _transformer_blocks(unet: Any) -> dict[Site, Any]:
    """The transformer blocks of the middle and the decoder of a core UNet; {} for others."""
    if getattr(unet, "middle_block", None) is None or not hasattr(unet, "output_blocks"):
        return {}
    parts = [("middle", 0, unet.middle_block)]
    parts += [("output", i, block) for i, block in enumerate(unet.output_blocks)]
    return {
        (name, index, depth): block
        for name, index, layers in parts
        for layer in layers
        for depth, block in enumerate(getattr(layer, "transformer_blocks", ()))
    }
