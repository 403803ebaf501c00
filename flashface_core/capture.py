"""The feature maps of any of ComfyUI's UNets: what its attention reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .sites import Site


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
    options: Mapping[str, Any] | None = None,
) -> dict[Site, torch.Tensor]:
    """The norm1 output, before self-attention, of every site's transformer block; with reads
    "attn2" the norm2 output, before cross-attention, and encoder sites too.

    latent: reference latents (N, 4, h, w), scaled by the latent format; FlashFace's are clean.
    timestep: the target's current model timestep (0..999), one for all or (N,). context: the
    negative prompt's embedding, (1, 77 k, width) or one per latent. y: (N, D) for networks that
    have such an input (SDXL). patches, options: ComfyUI's patches and transformer_options of this
    pass. Returns (N, L, C) per site (official reference_unet.py).
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
            transformer_options={**(options or {}), "patches": patches},
        )
    except _AllCaptured:
        return captured
    raise RuntimeError(f"The ReferenceNet never reached the attention sites {sorted(missing)}.")
