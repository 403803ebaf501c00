"""Training FaceStudio: reconstruction of pictures from themselves with the face painted out, and
from the face. The whole UNet learns, and the one linear layer that both branches share."""

from pathlib import Path

import torch
from torch import nn

from flashface_core.checkpoint import Checkpoint
from flashface_core.checkpoint_file import write_safetensors
from flashface_core.systems.facestudio import TOKENS, HybridCondition

from .base import OnFrozenUNet

LINEAR, UNET = "linear", "unet"
FACE, STYLE = "unit face", "style without face"
DROP_STYLE, DROP_FACE = 0.64, 0.1  # as published, independent of each other


class FaceStudioNetworks(OnFrozenUNet):
    """style_width, face_width: of the embeddings; width: of the UNet's context."""

    parts = (LINEAR, UNET)

    def __init__(
        self,
        checkpoint: Checkpoint,
        style_width: int,
        face_width: int,
        tokens: int = TOKENS,
        width: int = 768,
    ) -> None:
        super().__init__(checkpoint)
        self.linear = HybridCondition(style_width, face_width, width, tokens)

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        return list((self.linear if part == LINEAR else self.unet).parameters())

    def texts(self, batch) -> list[str]:
        return []

    def forward(self, batch, noisy, texts):
        kept = (batch.chances >= batch.chances.new_tensor([DROP_STYLE, DROP_FACE])).to(noisy)
        style, face = batch.seen[STYLE] * kept[:, :1], batch.seen[FACE] * kept[:, 1:]
        context = self.linear.branch(style, face)
        return self.predict(noisy, batch.timesteps, context), batch.noise

    def save(
        self,
        path: Path,
        encoders: dict[str, torch.Tensor],
        metadata: dict[str, str],
        dtype: torch.dtype = torch.float16,
    ) -> None:
        """encoders: the frozen networks that go into the file, with their prefixes."""
        state = {f"linear.{key}": value for key, value in self.linear.linear.state_dict().items()}
        trained = [name for name, value in self.unet.named_parameters() if value.requires_grad]
        unet = dict(self.unet.named_parameters())
        state |= {f"unet.{name}": unet[name] for name in trained}
        state |= encoders
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        tensors = ((key, value.detach().cpu()) for key, value in state.items())
        metadata = {"tokens": str(self.linear.tokens), **metadata}
        write_safetensors(path, shapes, tensors, dtype, metadata)
