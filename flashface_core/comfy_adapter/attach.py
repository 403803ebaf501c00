"""The patches that make a MODEL carry reference attention, and the check that they fit it."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP

from ..checkpoint import Site
from ..errors import FlashFaceError
from ..features import FaceFeatures
from ..reference_net import ReferenceNetwork
from ..rows import RowReferences
from .devices import check_device, refuse_other_devices
from .reference import ReferenceNet
from .untraced import Action, make_announcement, run_action

KEY = "flashface"
ROWS = "flashface_rows"
Y = "flashface_y"
UNET = "flashface_unet"  # the module that runs
ATTENTION = "transformer_blocks"  # of a SpatialTransformer


@dataclass(frozen=True, eq=False)
class Attachment:
    """Marks the one set of attention patches of a MODEL; shared by its clones, never changed.

    net: whose reference attention it has; None: of nobody. patches: those of that attention, by
    their lists. features: what FlashFaceApply has put on it.
    """

    net: ReferenceNet | None
    patches: Mapping[str, Callable]
    features: FaceFeatures | None = None


def attach_reference_net(model, net: ReferenceNet, features: FaceFeatures | None = None):
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


def put_first(model, patches: Mapping[str, Callable], replaced: Mapping[str, Callable]) -> None:
    """Each patch at the head of its list, and those that it replaces out of it.

    y must be seen before HyperTile or ToMe cut it into pieces, and what is added to attention
    belongs to the residual sum that other middle patches build on.
    """
    options = model.model_options["transformer_options"]
    lists = options["patches"] = dict(options.get("patches", {}))
    for name, patch in patches.items():
        others = [other for other in lists.get(name, []) if other is not replaced.get(name)]
        lists[name] = [patch, *others]


class PatchSet(NamedTuple):
    """patches: by the lists they belong to. actions: what they do, by name, for `untraced`."""

    patches: Mapping[str, Callable]
    actions: Mapping[str, Action]


def make_reference_attention(network: ReferenceNetwork) -> PatchSet:
    """The patches that add RA to the blocks that have it."""

    def add_reference_attention(tensors, extra_options):
        x, y = tensors
        site = site_of(extra_options)
        attention = network.attention_at(site)
        rows: RowReferences | None = extra_options.get(ROWS)
        core_attention = partial(optimized_attention, transformer_options=extra_options)
        if rows is None:
            return x + attention(y, attention=core_attention)
        size = tuple(extra_options["activations_shape"][-2:])
        references, strength, index = rows.at(site, size)
        return x + attention(y, references, strength, index, core_attention)

    return make_middle_patches("flashface_attention", Y, network.sites, add_reference_attention)


def make_middle_patches(name: str, key: str, sites: Container[Site], action: Action) -> PatchSet:
    """Patches that call action([x, y], extra_options) right after self-attention's residual sum.

    x: (B, L, C), y: norm1's output, which is kept under `key`; for blocks at `sites` only.
    """

    def keep_y(n, context, value, extra_options):
        extra_options[key] = n  # a dictionary of this one block call
        return n, context, value

    def act(x, extra_options):
        y = extra_options.pop(key, None)
        if y is None or site_of(extra_options) not in sites:
            return x
        return run_action(name, action, [x, y], extra_options)

    return PatchSet({"attn1_patch": keep_y, "middle_patch": act}, {name: action})


def site_of(extra_options: Mapping[str, Any]) -> Site:
    return (*extra_options["block"], extra_options.get("block_index", 0))


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
        return h + network.position(rows.position.to(h))

    def act(h, transformer_options):
        if transformer_options["block"] != ("input", 0):
            return h
        return run_action(name, add_position, [h], transformer_options)

    return PatchSet({"input_block_patch": act}, {name: add_position})


def check_fit(model, net: ReferenceNet) -> None:
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


def transformer_block(unet: Any, site: Site) -> Any:
    """One of `transformer_blocks`."""
    name, index, depth = site
    if name == "middle":
        layers = unet.middle_block
    else:
        layers = (unet.input_blocks if name == "input" else unet.output_blocks)[index]
    (blocks,) = (layer.transformer_blocks for layer in layers if hasattr(layer, ATTENTION))
    return blocks[depth]


def context_widths(blocks: Mapping[Site, Any]) -> set[int]:
    return {block.attn2.to_k.in_features for block in blocks.values() if block.attn2 is not None}


def transformer_blocks(unet: Any, with_encoder: bool = False) -> dict[Site, Any]:
    """The transformer blocks of the middle and the decoder of a core UNet; {} for others."""
    if not hasattr(unet, "middle_block") or not hasattr(unet, "output_blocks"):
        return {}
    parts = [("input", i, block) for i, block in enumerate(unet.input_blocks) if with_encoder]
    parts += [("middle", 0, unet.middle_block or ())]  # some small SDXL have no middle
    parts += [("output", i, block) for i, block in enumerate(unet.output_blocks)]
    return {
        (name, index, depth): block
        for name, index, layers in parts
        for layer in layers
        for depth, block in enumerate(getattr(layer, ATTENTION, ()))
    }
