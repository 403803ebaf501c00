"""Prompts with a person: the placeholder in text, and its tokens in one chunk of 77."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.prompt import (
    END,
    START,
    find_word,
    keep_together,
    put_word,
    with_placeholder,
)

F, L, CAT = 325, 331, 2368
ROOM = 75


def chunks_of(ids: list[int], weight: float = 1.0):
    """As ComfyUI's tokenizer cuts a long stretch of text."""
    bodies = [ids[i : i + ROOM] for i in range(0, len(ids), ROOM)] or [[]]
    return [
        [(START, 1.0), *((i, weight) for i in body), *[(END, 1.0)] * (ROOM + 1 - len(body))]
        for body in bodies
    ]


def text_ids(chunks) -> list[int]:
    return [token for chunk in chunks for token, _ in chunk if token not in (START, END)]


@pytest.mark.parametrize(
    ("text", "placeholder", "expected"),
    [
        ("a photo of sks, smiling", "sks", "a photo of f l, smiling"),
        ("SKS and (sks:1.2)", "sks", "f l and (f l:1.2)"),
        ("he asks sks_2 for sks's sks", "sks", "he asks sks_2 for f l's f l"),
        ("a photo of S*.", "S*", "a photo of f l."),
        ("my  old\nfriend", " My old friend ", "f l"),
        ("F L by the sea, half life", "f l", "f l by the sea, half life"),
        ("a photo of f l", "sks", "a photo of f l"),
        ("a photo", "sks", "a photo"),
    ],
)
def test_whole_words_become_the_published_placeholder(text, placeholder, expected):
    assert with_placeholder(text, placeholder) == expected


@pytest.mark.parametrize("placeholder", ["", "  \n"])
def test_an_empty_placeholder_is_an_error(placeholder):
    with pytest.raises(FlashFaceError, match="placeholder is empty; write the word"):
        with_placeholder("a photo", placeholder)


@pytest.mark.parametrize("before", [0, 10, 73, 75, 140])
def test_prompts_without_a_split_are_left_as_they_are(before):
    chunks = chunks_of([CAT] * before + [F, L, CAT])
    assert keep_together(chunks) is chunks


SPLIT = {
    "at the first border": [CAT] * 74 + [F, L, CAT],
    "at the second border": [CAT] * 149 + [F, L, CAT],
    "with a full chunk after it": [CAT] * 74 + [F, L] + [CAT] * 74,
    "pushed over the next border": [CAT] * 74 + [F, L] + [CAT] * 71 + [F, L] + [CAT] * 74,
    "split by what was pushed": [CAT] * 74 + [F, L] + [CAT] * 72 + [F, L] + [CAT] * 80,
    "everywhere": [CAT] + [F, L] * 200,
    "repeated letters": [CAT] * 73 + [F, F, L, L],
}


@pytest.mark.parametrize("case", SPLIT)
def test_a_split_placeholder_moves_to_the_next_chunk(case):
    ids = SPLIT[case]
    before, after = chunks_of(ids), keep_together(chunks_of(ids))
    pairs = sum(pair == (F, L) for pair in zip(ids, ids[1:], strict=False))
    assert len(find_word(before)) < pairs == len(find_word(after))
    assert text_ids(after) == ids
    for chunk in after:
        assert len(chunk) == 77 and chunk[0] == (START, 1.0) and chunk[-1] == (END, 1.0)


def test_moved_tokens_keep_their_weights_and_embeddings_of_others_stay():
    own = torch.ones(16)
    (first, second) = chunks_of([CAT] * 74 + [F, L, CAT], 1.3)
    first[1] = (own, 0.7)
    moved = keep_together([first, second])
    assert moved[0][1] == (own, 0.7)
    assert moved[0][75:] == [(END, 1.0), (END, 1.0)]
    assert moved[1][:5] == [(START, 1.0), (F, 1.3), (L, 1.3), (CAT, 1.3), (END, 1.0)]


def test_every_placeholder_is_replaced_for_its_own_place_and_the_input_stays():
    word, places = torch.randn(2, 16), torch.randn(77, 16)
    chunks = chunks_of([CAT, F, L, CAT, F, L], 1.2)
    result = put_word(chunks, word, places)
    assert chunks == chunks_of([CAT, F, L, CAT, F, L], 1.2)
    for at in (2, 5):
        for k in range(2):
            embedding, weight = result[0][at + k]
            assert torch.equal(embedding, word[k] - places[at + k]) and weight == 1.2
    others = [i for i in range(77) if i not in (2, 3, 5, 6)]
    assert [result[0][i] for i in others] == [chunks[0][i] for i in others]
