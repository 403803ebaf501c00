"""ComfyUI's UNet: its transformer blocks, and patches on them."""

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from comfy.ldm.modules.attention import attention_pytorch

from ..sites import Site
from .untraced import Action, run_action

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "flashface"
UNET = "flashface_unet"  # the module that runs
ATTENTION = "transformer_blocks"  # of a SpatialTransformer


def put_first(
    model: "ModelPatcher", patches: Mapping[str, Callable], replaced: Mapping[str, Callable]
) -> None:
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


def attention_options(device: torch.device) -> dict[str, Any]:
    """transformer_options for passes that only we make: on a CPU core computes attention in
    pieces, several times slower than torch's kernel."""

    def by_torch(_function, *args, **kwargs):
        return attention_pytorch(*args, **kwargs)

    return {"optimized_attention_override": by_torch} if device.type == "cpu" else {}


def site_of(extra_options: Mapping[str, Any]) -> Site:
    return (*extra_options["block"], extra_options.get("block_index", 0))


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
    """Those of the text, in all blocks with an attention of core's. The run of another MODEL may
    have left one of its own in the UNet that both share."""
    layers = [getattr(block.attn2, "to_k", None) for block in blocks.values()]
    return {layer.in_features for layer in layers if layer is not None}


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
