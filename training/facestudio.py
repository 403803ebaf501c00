"""Training FaceStudio: reconstruction of pictures from themselves with the face painted out, and
from the face. The one linear layer that both branches share learns, and the UNet: all of it, as
published, or its transformer blocks alone, for a smaller file."""

from pathlib import Path

import torch
from torch import nn

from flashface_core.facestudio.condition import TOKENS, HybridCondition
from flashface_core.facestudio.file import read_facestudio
from flashface_core.flashface.checkpoint import Checkpoint

from .base import OnFrozenUNet
from .data import FACELESS_STYLE, UNIT_FACE
from .publish import write_weights

LINEAR, TRANSFORMERS, RESIDUALS = "linear", "transformers", "residuals"
FACE, STYLE, WHOLE, TOLD = UNIT_FACE, FACELESS_STYLE, "style", "style of the text"
DROP_STYLE, DROP_FACE = 0.64, 0.1  # as published, independent of each other
# Where WHOLE was seen: the shares of samples whose style is that of the whole picture, and is never
# dropped. OTHER_PICTURES have no face: they stand for the published mixture's pictures of other
# things (a part of LAION). WHOLE_PEOPLE have one, and so have TOLD_PEOPLE, whose style is what the
# prior makes of the picture's caption. The paper has neither: it relies on a prior whose styles
# cannot be told from those of pictures, and a small prior's can.
OTHER_PICTURES, WHOLE_PEOPLE, TOLD_PEOPLE = 0.15, 0.15, 0.3


class FaceStudioNetworks(OnFrozenUNet):
    """style_width, face_width: of the embeddings, which are about as long as unit vectors; width:
    of the UNet's context."""

    parts = (LINEAR, TRANSFORMERS, RESIDUALS)
    # Its inputs are small numbers, so its weights are large ones.
    rates = {LINEAR: 10.0}

    def __init__(
        self,
        checkpoint: Checkpoint,
        style_width: int,
        face_width: int,
        tokens: int = TOKENS,
        width: int = 768,
    ) -> None:
        super().__init__(checkpoint)
        self.loaded: set[str] = set()  # of the UNet, by an earlier run
        self.linear = HybridCondition(style_width, face_width, width, tokens)
        nn.init.normal_(self.linear.linear.weight, std=0.5)

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        if part == LINEAR:
            return list(self.linear.parameters())
        is_in = part == TRANSFORMERS
        return [p for n, p in self.unet.named_parameters() if ("transformer_blocks" in n) == is_in]

    def texts(self, batch) -> list[str]:
        return []

    def forward(self, batch, noisy, texts):
        has_face, is_whole, is_told = _parts(batch)
        has_style = batch.chances[:, :1] >= DROP_STYLE
        style, face = batch.seen[STYLE] * has_style, batch.seen[FACE] * has_face
        if WHOLE in batch.seen:
            style = torch.where(is_whole, batch.seen[WHOLE], style)
            style = torch.where(is_told, batch.seen.get(TOLD, batch.seen[WHOLE]), style)
        context = self.linear.branch(style, face)
        return self.predict(noisy, batch.timesteps, context), batch.noise

    def rows_with_face(self, batch) -> list[int]:
        has_face, *_ = _parts(batch)
        return torch.nonzero(has_face[:, 0]).flatten().tolist()

    def load(self, path: Path) -> None:
        """What `save` wrote, but for the encoders. Raises FlashFaceError, and RuntimeError for
        other widths and another UNet."""
        file = read_facestudio(path)
        self.linear.load_state_dict(file.condition.state_dict())
        own = self.unet.state_dict()
        self.unet.load_state_dict({**own, **file.unet})
        self.loaded |= file.unet.keys()

    def save(
        self,
        path: Path,
        encoders: dict[str, torch.Tensor],
        metadata: dict[str, str],
        dtype: torch.dtype = torch.float16,
    ) -> None:
        """encoders: the frozen networks that go into the file, with their prefixes."""
        state = {f"linear.{key}": value for key, value in self.linear.linear.state_dict().items()}
        # Also what an earlier stage has trained and this one leaves as it is.
        state |= {
            f"unet.{name}": value
            for name, value in self.unet.named_parameters()
            if value.requires_grad or name in self.loaded
        }
        state |= encoders
        metadata = {"tokens": str(self.linear.tokens), **metadata}
        write_weights(path, state, dtype, metadata)


def _parts(batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which samples have their face, the style of the whole picture, that of its text: bool (B, 1)
    each."""
    chance = batch.chances[:, 1:]
    if WHOLE not in batch.seen:
        nowhere = torch.zeros_like(chance, dtype=torch.bool)
        return chance >= DROP_FACE, nowhere, nowhere
    # Beside those that have nothing; a chance of 1 leaves nothing out.
    alone = DROP_FACE + OTHER_PICTURES
    whole = alone + WHOLE_PEOPLE
    is_whole = (chance >= DROP_FACE) & (chance < whole)
    return chance >= alone, is_whole, (chance >= whole) & (chance < whole + TOLD_PEOPLE)
