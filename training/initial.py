"""Fresh networks of any size, initialised the way the official ones were."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.sites import Site


def fresh_checkpoint(
    name: str,
    width: int = 64,
    multipliers: Sequence[int] = (1, 2),
    residual_blocks: int = 1,
    heads: int = 2,
    context_width: int = 768,
    reference_size: int = 64,
    picture_size: int = 128,
    seed: int = 0,
    attention: Sequence[bool] | None = None,
) -> Checkpoint:
    """Attention at every level (or those that `attention` says, the finest first) and in the
    middle; all parts as a published file holds them.

    The ReferenceNet begins as a copy of the target, RA as a copy of the self-attention beside it,
    and the position channel at zero (FLASHFACE.md section 1.4).
    """
    torch.manual_seed(seed)
    depths = [int(is_there) for is_there in attention or [True] * len(multipliers)]
    config: dict[str, Any] = dict(
        image_size=32,
        in_channels=4,
        model_channels=width,
        out_channels=4,
        num_res_blocks=[residual_blocks] * len(multipliers),
        channel_mult=list(multipliers),
        num_heads=heads,
        use_spatial_transformer=True,
        transformer_depth=[depth for depth in depths for _ in range(residual_blocks)],
        transformer_depth_output=[depth for depth in depths for _ in range(residual_blocks + 1)],
        transformer_depth_middle=1,
        context_dim=context_width,
        legacy=False,
    )
    unet = UNetModel(**config)
    initialise(unet)
    state = {key: value.detach() for key, value in unet.state_dict().items()}
    return with_new_references(
        name, state, heads=heads, reference_size=reference_size, picture_size=picture_size
    )


def with_new_references(
    name: str, target: dict[str, torch.Tensor], position: torch.Tensor | None = None, **sizes: int
) -> Checkpoint:
    """A trained UNet's weights as a FlashFace that has not seen a reference yet: the ReferenceNet
    and RA are copies (FLASHFACE.md section 1.4), and the position channel is zero if not given.

    sizes: heads, reference_size and picture_size of the Checkpoint.
    """
    target = {key: value.float() for key, value in target.items()}
    if position is None:
        position = torch.zeros(target["input_blocks.0.0.weight"].shape[0], 1, 3, 3)
    return Checkpoint(
        name,
        target=target,
        reference={key: value.clone() for key, value in target.items()},
        reference_attention=_copies_of_self_attention(target),
        position=position.float(),
        **sizes,
    )


def initialise(unet: UNetModel) -> None:
    """PyTorch's own initialisation, which core's layers leave out; what ends a residual branch, and
    the head, at zero, as in the latent diffusion models that SD1.5 comes from."""
    kinds: tuple[Any, ...] = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)
    for module in unet.modules():
        for kind in kinds:
            if isinstance(module, kind):
                kind.reset_parameters(module)
    ends = ("out_layers.3.", "proj_out.", "out.2.")
    for name, parameter in unet.named_parameters():
        if any(f".{end}" in f".{name}" for end in ends):
            nn.init.zeros_(parameter)


def _copies_of_self_attention(state: dict[str, torch.Tensor]) -> dict[Site, dict]:
    copies: dict[Site, dict] = {}
    for key, value in state.items():
        block, _, rest = key.partition(".")
        if ".attn1.to_" not in key or block == "input_blocks":
            continue
        path, _, part = rest.partition(".attn1.to_")
        numbers = [int(number) for number in path.split(".") if number.isdecimal()]
        depth = numbers[-1]
        site = ("middle", 0, depth) if block == "middle_block" else ("output", numbers[0], depth)
        name = part.replace("out.0.", "o.")
        copies.setdefault(site, {})[name] = value.clone()
    return copies
