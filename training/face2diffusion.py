"""Training Face2Diffusion's mapping network, with and without class-guided denoising (CGDR)."""

from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from flashface_core.face2diffusion.denoising import class_guided_target
from flashface_core.face2diffusion.files import load_mapping
from flashface_core.face2diffusion.mapping import EXPRESSION, MappingNetwork
from flashface_core.flashface.checkpoint import Checkpoint

from .base import OnFrozenUNet
from .data import FACE_VECTOR
from .publish import write_weights

MAPPING = "mapping"
FACE, EXPRESSION_SEEN = FACE_VECTOR, "expression"
# "a photo" is what the drawn people's captions call a portrait (SYSTEMS.md section B.6).
PROMPT, CLASS_PROMPT = "a portrait of f l", "a portrait"
DROP_EXPRESSION = 0.2


class WordEncoder(Protocol):
    """A text encoder that takes S* as well; gradients flow to it."""

    def with_word(self, caption: str, word: torch.Tensor) -> torch.Tensor:
        """A caption with one placeholder and S* (B, 2, width): (B, 77, width)."""
        ...


class Face2DiffusionNetworks(OnFrozenUNet):
    """The mapping network before a frozen UNet.

    face_width: of the face vectors. hidden: of the mapping network. class_guided: CGDR; without,
    the noise is the target everywhere. prompts: with S*, and of the class.
    """

    parts = (MAPPING,)

    def __init__(
        self,
        checkpoint: Checkpoint,
        text: WordEncoder,
        face_width: int,
        hidden: int,
        expression_width: int = EXPRESSION,
        class_guided: bool = True,
        prompts: tuple[str, str] = (PROMPT, CLASS_PROMPT),
    ) -> None:
        super().__init__(checkpoint)
        self.mapping = MappingNetwork(face_width, expression_width, hidden)
        self._text, self._class_guided = text, class_guided
        self._prompt, self._class_prompt = prompts

    def part_parameters(self, part: str) -> list[nn.Parameter]:
        return list(self.mapping.parameters())

    def texts(self, batch) -> list[str]:
        return [self._class_prompt]

    def forward(self, batch, noisy, texts):
        told = (batch.chances[:, 0] >= DROP_EXPRESSION).to(noisy)
        # Without an encoder for expressions the learned vector stands in for all of them.
        word = self.mapping(batch.seen[FACE], batch.seen.get(EXPRESSION_SEEN), told)
        predicted = self.predict(noisy, batch.timesteps, self._text.with_word(self._prompt, word))
        if not self._class_guided:
            return predicted, batch.noise
        with torch.no_grad():
            of_class = self.predict(noisy, batch.timesteps, texts.expand(len(noisy), -1, -1))
        return predicted, class_guided_target(batch.noise, of_class, batch.region)

    def rows_with_face(self, batch) -> list[int]:
        return list(range(len(batch.latents)))

    def load(self, path: Path) -> None:
        """A mapping network. Raises FlashFaceError, and RuntimeError for other widths."""
        self.mapping.load_state_dict(load_mapping(path).state_dict())

    def save(self, path: Path, dtype: torch.dtype = torch.float16) -> None:
        """In the published layout."""
        write_weights(path, self.mapping.state_dict(), dtype, {})
