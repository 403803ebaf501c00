"""The UNet that Face2Diffusion, FaceStudio and Face Fusion start from: SD1.5's as it is, or a
FlashFace without faces.

FlashFace's reference attention looks at the picture alone, as in the loader's MODEL with Apply
bypassed.
"""

from typing import Any, cast

import comfy.model_detection
import comfy.ops
import comfy.supported_models
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from flashface_core.comfy_adapter.flashface.attach import make_reference_attention
from flashface_core.comfy_adapter.flashface.load import build_flashface
from flashface_core.errors import FlashFaceError
from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.weights_file import load_strictly

from .networks import Networks


class OnFrozenUNet(Networks):
    """Networks around a UNet that stays as it is unless `part_parameters` gives it out.

    checkpoint: a FlashFace, or one with a target alone, which is a plain UNet.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.reference_size = checkpoint.reference_size
        if not checkpoint.reference:
            self.unet, self.patches = plain_unet(checkpoint), {}
            return
        model, net = build_flashface(checkpoint, "fp32")
        self.unet = cast(UNetModel, model.model.diffusion_model)
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


def plain_unet(checkpoint: Checkpoint) -> UNetModel:
    """Core's own, float32, with the target's weights. Raises FlashFaceError where they make no
    whole SD1.5 UNet."""
    state, name = checkpoint.target, checkpoint.name
    try:
        found = comfy.model_detection.detect_unet_config(state, "")
        config = comfy.supported_models.SD15(found).unet_config
        config["num_heads"] = checkpoint.heads
        operations: Any = comfy.ops.disable_weight_init
        unet = UNetModel(**config, dtype=torch.float32, operations=operations)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise FlashFaceError(
            f"{name} holds no whole SD1.5 UNet ({type(error).__name__}: {error}); copy it again."
        ) from error
    load_strictly(
        unet, state, lambda _: f"{name} holds no whole SD1.5 UNet; copy or download it again."
    )
    return unet
