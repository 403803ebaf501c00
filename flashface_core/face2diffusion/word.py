"""S* in a prompt: two tokens whose place in the sentence is part of them.

The network was trained to give what a text model computes with after it has added position
embeddings. Text models, ComfyUI's among them, add a position embedding to every token that they
are given, so it is subtracted first: added twice, the outputs differ by 0.2 (SYSTEMS.md section
B.5).
"""

from collections.abc import Sequence

import torch

from ..errors import FlashFaceError

PLACEHOLDER = "f l"  # of the official prompts: two words that are one token each
PLACEHOLDER_TOKENS = (325, 331)
TOKENS = len(PLACEHOLDER_TOKENS)


def placeholder_positions(ids: Sequence[int]) -> list[int]:
    """Where the placeholder begins in the token ids of a prompt, empty when it is not there."""
    pairs = zip(ids, ids[1:], strict=False)
    return [i for i, pair in enumerate(pairs) if tuple(map(int, pair)) == PLACEHOLDER_TOKENS]


def word_tokens(
    word: torch.Tensor, position_embedding: torch.Tensor, position: int
) -> torch.Tensor:
    """S* (..., 2, C) to what a text model must be given as embeddings of these two tokens.

    position_embedding: of the text model, (77, C). position: of the first of the two among its
    77 tokens, start token included; in a long prompt, among those of its own 77. Both must lie
    there. Raises FlashFaceError for another width or a place outside.
    """
    length, width = position_embedding.shape
    if word.shape[-2:] != (TOKENS, width):
        raise FlashFaceError(
            f"S* has shape {tuple(word.shape[-2:])}, but this text model needs {(TOKENS, width)}; "
            "use the text model that the mapping network was trained with, CLIP-L of SD1.5."
        )
    if not 0 <= position <= length - TOKENS:
        raise FlashFaceError(
            f"The {TOKENS} tokens of S* cannot begin at {position} of {length} tokens; "
            "move the person nearer to the beginning of the prompt."
        )
    return word - position_embedding[position : position + TOKENS].to(word)


def inject(
    tokens: torch.Tensor, word: torch.Tensor, position_embedding: torch.Tensor, position: int
) -> torch.Tensor:
    """Token embeddings (B, 77, C) with S* in place of the two at `position`.

    word: (1 or B, 2, C). The text model then adds position embeddings to all, as it always does.
    Gradients flow to `word`. Raises FlashFaceError as word_tokens does.
    """
    given = word_tokens(word, position_embedding, position).to(tokens)
    given = given.expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :position], given, tokens[:, position + TOKENS :]], dim=1)
