"""A prompt with a person in it, as lists of tokens: where S* goes, also in long prompts.

A prompt is tokens as ComfyUI's tokenizer gives them: one list of (token, weight) per 77, each
with its start token, its end token and padding.
"""

import re

import torch

from ..errors import FlashFaceError
from .word import PLACEHOLDER, PLACEHOLDER_TOKENS, placeholder_positions, word_tokens

Chunk = list[tuple]
START, END = 49406, 49407


def with_placeholder(text: str, placeholder: str) -> str:
    """The text with the user's placeholder as the published one, whatever its case and spaces.

    Only whole words count. Raises FlashFaceError for an empty placeholder.
    """
    words = placeholder.split()
    if not words:
        raise FlashFaceError(
            f"The placeholder is empty; write the word that stands for the person, {PLACEHOLDER!r} "
            "as in the published prompts."
        )
    words = r"\s+".join(map(re.escape, words))
    return re.sub(rf"(?<!\w){words}(?!\w)", PLACEHOLDER, text, flags=re.IGNORECASE)


def keep_together(chunks: list[Chunk]) -> list[Chunk]:
    """The same tokens with no placeholder across two chunks: it begins the later one instead."""
    bodies, carried = [_body(chunk) for chunk in chunks], []
    if not any(map(_is_split, bodies, bodies[1:])):
        return chunks
    room = len(chunks[0]) - 2
    kept = []
    for i, body in enumerate(bodies):
        body = carried + body
        following = bodies[i + 1] if i + 1 < len(bodies) else []
        end = min(room, len(body))
        if _is_split(body[:end], body[end:] or following):
            end -= 1
        kept.append(body[:end])
        carried = body[end:]
    if carried:  # fewer than a chunk: only single tokens of placeholders were pushed on
        kept.append(carried)
    return [_chunk(body, room) for body in kept]


def find_word(chunks: list[Chunk]) -> list[tuple[int, int]]:
    """Chunk, and place of the first token in it, of every placeholder."""
    ids = [[_id(token) for token, *_ in chunk] for chunk in chunks]
    return [(i, at) for i, chunk in enumerate(ids) for at in placeholder_positions(chunk)]


def put_word(
    chunks: list[Chunk], word: torch.Tensor, position_embedding: torch.Tensor
) -> list[Chunk]:
    """S* (2, C) in place of every placeholder, as embeddings for the text model; weights stay.

    The input is left as it is. Raises FlashFaceError for a text model of another width.
    """
    result = [list(chunk) for chunk in chunks]
    for i, at in find_word(chunks):
        for k, embedding in enumerate(word_tokens(word, position_embedding, at)):
            result[i][at + k] = (embedding, *result[i][at + k][1:])
    return result


def _id(token) -> int:
    """Embeddings that textual inversion has put among the tokens are no placeholder."""
    return -1 if isinstance(token, torch.Tensor) else int(token)


def _body(chunk: Chunk) -> Chunk:
    ids = [_id(token) for token, *_ in chunk]
    return chunk[1 : ids.index(END) if END in ids else len(chunk)]


def _chunk(body: Chunk, room: int) -> Chunk:
    return [(START, 1.0), *body, *[(END, 1.0)] * (room + 1 - len(body))]


def _is_split(before: Chunk, after: Chunk) -> bool:
    ids = tuple(_id(token) for token, *_ in before[-1:] + after[:1])
    return ids == PLACEHOLDER_TOKENS
