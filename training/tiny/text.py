"""Captions of the toy world to text embeddings, without a CLIP of 123 million values."""

import functools

import torch
import torch.nn.functional as F

from flashface_core.face2diffusion.word import PLACEHOLDER, inject, placeholder_positions
from flashface_core.tiny_text import MIXTURE, WIDTH, embeddings

_embeddings = functools.cache(embeddings)  # half a second
START, END = 49406, 49407  # of CLIP's vocabulary; END fills up


def with_person(caption: str) -> str:
    """The same with Face2Diffusion's placeholder."""
    return caption.replace("a portrait of ", f"a portrait of {PLACEHOLDER}, ", 1)


class ToyText:
    """Captions (B,) to text embeddings (B, 77, 768), as core's CLIPTextEncode gives them."""

    def __init__(self, device: str = "cpu") -> None:
        from comfy.sd1_clip import SD1Tokenizer

        self._tokenizer = SD1Tokenizer()
        tokens, positions = _embeddings()
        self._tokens, self._positions = tokens.to(device), positions.to(device)

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """Raises ValueError for a caption longer than CLIP's 75 tokens."""
        index = torch.tensor([self._ids(text) for text in captions], device=self._tokens.device)
        return self._encode(self._tokens[index])

    def with_word(self, caption: str, word: torch.Tensor) -> torch.Tensor:
        """A caption with Face2Diffusion's placeholder and its S* (B, 2, 768): (B, 77, 768)."""
        ids = self._ids(caption)
        (position,) = placeholder_positions(ids)
        tokens = self._tokens[torch.tensor(ids, device=word.device)].expand(len(word), -1, -1)
        return self._encode(inject(tokens, word, self._positions, position))

    def _encode(self, tokens: torch.Tensor) -> torch.Tensor:
        states = tokens + self._positions
        seen = F.layer_norm(states, (WIDTH,)).cumsum(dim=1)
        counts = torch.arange(1, seen.shape[1] + 1, device=seen.device)
        return F.layer_norm(states + MIXTURE * seen / counts[:, None], (WIDTH,))

    def word(self, text: str) -> torch.Tensor:
        """The mean embedding (768,) of a text's tokens, without their places."""
        ids = [token for token in self._ids(text) if token not in (START, END)]
        return self._tokens[torch.tensor(ids)].mean(dim=0).cpu()

    def _ids(self, caption: str) -> list[int]:
        chunks = self._tokenizer.tokenize_with_weights(caption)["l"]
        if len(chunks) != 1:
            raise ValueError(f"The caption {caption!r} is longer than one chunk of CLIP.")
        return [token for token, _ in chunks[0]]
