"""The Face ReferenceNet: clean reference latents and a timestep to feature maps (FLASHFACE.md
section 2)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..capture import feature_maps
from ..sites import Site, site_name
from .reference_attention import ReferenceAttention


class ReferenceNetwork(nn.Module):
    """What FlashFace adds to a target UNet: the ReferenceNet, RA, and the position channel.

    unet: ComfyUI's UNetModel with ref_encoder, ori_middle (its own copy) and ref_decoder.
    widths: channels of every attention site, in forward order.
    """

    def __init__(
        self,
        unet: nn.Module,
        widths: Mapping[Site, int],
        heads: int,
        position_width: int,
        operations: Any = nn,
        dtype=None,
        device=None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.sites: tuple[Site, ...] = tuple(widths)
        self.attention = nn.ModuleDict(
            {
                site_name(site): ReferenceAttention(width, heads, operations, dtype, device)
                for site, width in widths.items()
            }
        )
        self.position = operations.Conv2d(
            1, position_width, 3, padding=1, bias=False, dtype=dtype, device=device
        )

    def attention_at(self, site: Site) -> ReferenceAttention:
        """Raises KeyError for a block that is none of `sites`."""
        attention = self.attention[site_name(site)]
        assert isinstance(attention, ReferenceAttention)
        return attention

    def keys_values(
        self,
        latent: torch.Tensor,
        timestep: float | torch.Tensor,
        context: torch.Tensor,
        options: Mapping[str, Any] | None = None,
    ) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (N, L, C) of RA at every site for reference latents (N, 4, h, w).

        options: ComfyUI's transformer_options of this pass."""
        maps = feature_maps(self.unet, latent, timestep, context, self.sites, options=options)
        return {site: self.attention_at(site).project(maps[site]) for site in self.sites}
