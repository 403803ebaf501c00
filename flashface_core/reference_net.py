"""The Face ReferenceNet: clean reference latents and a timestep to feature maps (section 2)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .checkpoint import Site
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
        self, latent: torch.Tensor, timestep: float | torch.Tensor, context: torch.Tensor
    ) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (N, L, C) of RA at every site for reference latents (N, 4, h, w)."""
        maps = feature_maps(self.unet, latent, timestep, context, self.sites)
        return {site: self.attention_at(site).project(maps[site]) for site in self.sites}


def site_name(site: Site) -> str:
    return "_".join(str(part) for part in site)


class _AllCaptured(Exception):
    """Ends the pass: nothing after the last site's norm1 is needed."""


def feature_maps(
    unet: nn.Module,
    latent: torch.Tensor,
    timestep: float | torch.Tensor,
    context: torch.Tensor,
    sites: Iterable[Site],
    y: torch.Tensor | None = None,
    patches: Mapping[str, Iterable[Callable]] | None = None,
    reads: str = "attn1",
) -> dict[Site, torch.Tensor]:
    """The norm1 output, before self-attention, of every site's transformer block; with reads
    "attn2" the norm2 output, before cross-attention, and encoder sites too.

    latent: reference latents (N, 4, h, w), scaled by the latent format; FlashFace's are clean.
    timestep: the target's current model timestep (0..999), one for all or (N,). context: the
    negative prompt's embedding, (1, 77 k, width) or one per latent. y: (N, D) for networks that
    have such an input (SDXL). patches: ComfyUI's, of this pass. Returns (N, L, C) per site
    (official reference_unet.py).
    """
    missing, captured = set(sites), {}

    def capture(n, context, value, extra_options):
        site = (*extra_options["block"], extra_options["block_index"])
        if site in missing:
            captured[site] = n
            missing.discard(site)
            if not missing:
                raise _AllCaptured
        return n, context, value

    count = len(latent)
    patches = {name: list(listed) for name, listed in (patches or {}).items()}
    patches[f"{reads}_patch"] = [*patches.get(f"{reads}_patch", []), capture]
    timesteps = torch.as_tensor(timestep, dtype=torch.float32, device=latent.device).expand(count)
    try:
        unet(
            latent,
            timesteps,
            context=context.expand(count, -1, -1),
            y=y,
            transformer_options={"patches": patches},
        )
    except _AllCaptured:
        return captured
    raise RuntimeError(f"The ReferenceNet never reached the attention sites {sorted(missing)}.")
