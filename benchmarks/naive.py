"""FlashFace's guided step as the official code computes it, written plainly: the baseline.

Every row has two whole attentions, over [own; references] and over its own tokens, and all photos
go through the ReferenceNet with every step (FLASHFACE.md sections 2 and 3).
"""

from collections.abc import Sequence

import torch
from torch import nn

from flashface_core.capture import feature_maps
from flashface_core.flashface.reference_attention import ReferenceAttention
from flashface_core.flashface.reference_net import ReferenceNetwork
from flashface_core.softmax import join_heads, split_heads


def naive_rows(
    unet: nn.Module,
    network: ReferenceNetwork,
    photos: torch.Tensor,
    negative: torch.Tensor,
    x: torch.Tensor,
    timestep: float,
    context: torch.Tensor,
    strengths: Sequence[float],
    position: torch.Tensor | None = None,
) -> torch.Tensor:
    """Raw outputs of the UNet, (B, 4, H, W).

    photos: reference latents (N, 4, h, w). negative: (1, 77, 768). x: network inputs (B, 4, H, W).
    context: (B, 77, 768). strengths: s of every row. position: mask (B, 1, H, W).
    """
    maps = feature_maps(network.unet, photos, timestep, negative, network.sites)
    s = torch.tensor(strengths, device=x.device, dtype=x.dtype)[:, None, None]
    kept = {}

    def keep(n, context, value, extra_options):
        kept["y"] = n
        return n, context, value

    def add_both(h, extra_options):
        site = (*extra_options["block"], extra_options["block_index"])
        if site not in maps:
            return h
        y, attention = kept["y"], network.attention_at(site)
        references = maps[site].flatten(0, 1).expand(len(y), -1, -1)
        seen = torch.cat([y, references], 1)
        return h + s * _attend(attention, y, seen) + (1 - s) * _attend(attention, y, y)

    def add_position(h, transformer_options):
        if position is None or transformer_options["block"] != ("input", 0):
            return h
        return h + network.position(position.to(h))

    patches = {
        "attn1_patch": [keep],
        "middle_patch": [add_both],
        "input_block_patch": [add_position],
    }
    timesteps = torch.full((len(x),), timestep, device=x.device)
    return unet(x, timesteps, context=context, transformer_options={"patches": patches})


def _attend(attention: ReferenceAttention, y: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    q, k, v = (
        split_heads(part, attention.heads)
        for part in (attention.q(y), attention.k(seen), attention.v(seen))
    )
    return attention.o(join_heads(nn.functional.scaled_dot_product_attention(q, k, v)))
