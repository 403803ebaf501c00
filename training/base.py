"""The UNet that Face2Diffusion, FaceStudio and Face Fusion start from: a FlashFace without faces.

Its reference attention looks at the picture alone, as in the loader's MODEL with Apply bypassed.
"""

from typing import cast

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from flashface_core.comfy_adapter.flashface.attach import make_reference_attention
from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.flashface.checkpoint import Checkpoint

from .networks import Networks


class OnFrozenUNet(Networks):
    """Networks around a UNet that stays as it is unless `part_parameters` gives it out."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        model, net = build_flashface(checkpoint, "fp32")
        self.unet = cast(UNetModel, model.model.diffusion_model)
        self.reference_size = checkpoint.reference_size
        self.own_attention = net.network.attention
        attention = make_reference_attention(net.network)
        self.patches = {name: [patch] for name, patch in attention.patches.items()}

    def predict(
        self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, **options
    ) -> torch.Tensor:
        """Predicted noise (B, 4, H, W). options: more of ComfyUI's transformer_options."""
        given = {"patches": self.patches, **options}
        return self.unet(x, timesteps, context=context, transformer_options=given)

    def unets(self) -> list[nn.Module]:
        return [self.unet]
