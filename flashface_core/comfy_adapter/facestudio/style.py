"""The style embedding e_h: a style image through core's CLIP vision networks."""

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.clip_model
import comfy.ops
import torch
from comfy.clip_vision import clip_preprocess

# Core's own where a configuration names none, in which case they are CLIP's.
MODEL_TYPE = "clip_vision_model"
IMAGE_SIZE = 224
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class StyleEncoder(comfy.clip_model.CLIPVisionModelProjection):
    """The vision network of a FaceStudio file, keys as in core's ClipVisionModel(...).model.

    config: as core reads it from its JSON files, image_mean and image_std included.
    """

    def __init__(self, config: Mapping[str, Any], dtype, device, operations: Any) -> None:
        super().__init__({"model_type": MODEL_TYPE, **config}, dtype, device, operations)
        self.image_size: int = config.get("image_size", IMAGE_SIZE)
        self.image_mean = tuple(config.get("image_mean", IMAGE_MEAN))
        self.image_std = tuple(config.get("image_std", IMAGE_STD))
        self.style_width: int = config.get("projection_dim", config["hidden_size"])
        layers: Any = self.vision_model.encoder.layers
        for layer in layers:
            layer.layer_norm1.register_forward_pre_hook(_keep_for_the_gradient)
            layer.layer_norm2.register_forward_pre_hook(_keep_for_the_gradient)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), normalised, to image_embeds (B, S)."""
        return super().forward(pixels)[2]


def _keep_for_the_gradient(_, inputs: tuple[torch.Tensor, ...]):
    """Core adds to a layer's input in place, and the norm needs that input for its gradient."""
    return tuple(one.clone() for one in inputs) if torch.is_grad_enabled() else None


def build_style_encoder(
    config: Mapping[str, Any], operations: Any = comfy.ops.manual_cast
) -> StyleEncoder:
    """Untrained, float32 on the CPU. operations: a comfy.ops class."""
    return StyleEncoder(config, torch.float32, torch.device("cpu"), operations)


def style_embedding(encoder: StyleEncoder, images: torch.Tensor) -> torch.Tensor:
    """IMAGE (B, H, W, C) in 0..1 to (B, S), resized and normalised as core does it."""
    mean, std = list(encoder.image_mean), list(encoder.image_std)
    return encoder(clip_preprocess(images, encoder.image_size, mean, std).float())


def connected_embedding(encoders: Sequence[Any], images: torch.Tensor) -> torch.Tensor:
    """image_embeds of CLIP_VISION objects, one after another: (B, sum of their widths), float32."""
    return torch.cat([one.encode_image(images).image_embeds.float() for one in encoders], 1)
