"""Captions that also tell who somebody is, in words or by a name, where no photo shows it.

Stable Diffusion's text space can name faces, and Face2Diffusion and FaceStudio speak to the UNet
through that space. A name is two tokens, as those of a person whom a text encoder has met are: the
words for this face, all at once.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flashface_core.flashface.checkpoint import Checkpoint
from flashface_core.tiny_text import WIDTH
from toy_world.identity_words import LENGTHS, describe
from toy_world.people import People
from training.batches import Batch
from training.data import PeopleInMemory
from training.networks import FlashFaceNetworks

from .text import ToyText, with_person

WHO = "who"  # the person's index in the stream, as batches carry it
# Shares of the samples whose caption has words for the face, and a name; the rest tells nothing.
WORDS_SHARE, NAME = 0.25, 0.6
MOST_WORDS = 6  # with more a caption may not fit into 77 tokens
# What the second token of a name holds; all else is in the first.
SECOND = ("facial_hair", "glasses", "frame_colour", "mark", "mark_colour", "mark_place")


def know_who(people: PeopleInMemory, which: Tensor) -> None:
    """which: indexes of person and scene (N, 2), as encode_people gives them."""
    people.seen[WHO] = which[:, :1].float()


def is_named(caption: str, kind: float) -> bool:
    """kind: a number in 0..1, of a sample that shows no photos."""
    return bool(caption) and WORDS_SHARE <= kind < WORDS_SHARE + NAME


class Describer:
    """Of the people of a stream, by their index."""

    def __init__(self, text: ToyText, seed: int, split: str = "train") -> None:
        self._text, self._stream = text, (seed, split)
        self.words = lru_cache(maxsize=None)(self._words)
        self.name = lru_cache(maxsize=None)(self._name)

    def _words(self, index: int) -> dict[str, str]:
        return describe(People.draw_from(*self._stream, [index]))[0]

    def _name(self, index: int) -> Tensor:
        """(2, 768), as long as words are."""
        return name_vectors(People.draw_from(*self._stream, [index]), self._text)[0]

    def told(self, caption: str, index: int, chances: tuple[float, float]) -> str:
        """A caption with some of the words, in any order; with the placeholder of a name; or as it
        is. chances: two numbers in 0..1."""
        kind, seed = chances
        if not caption or kind >= WORDS_SHARE + NAME:
            return caption
        if is_named(caption, kind):
            return with_person(caption)
        rng = np.random.default_rng(int(seed * 2**24))
        words = list(self.words(index).values())
        count = int(rng.integers(1, min(MOST_WORDS, len(words)) + 1))
        chosen = [words[i] for i in rng.permutation(len(words))[:count]]
        subject, *scene = caption.split(", ")
        rest = [*scene, *chosen]
        return ", ".join([subject, *(rest[i] for i in rng.permutation(len(rest)))])


def name_vectors(people: People, text: ToyText) -> Tensor:
    """(B, 2, 768): sums of what the words' tokens are; lengths between their two words."""
    names = []
    for row, words in enumerate(describe(people)):
        tokens = torch.zeros(2, WIDTH)
        for factor, said in words.items():
            if factor not in LENGTHS:
                tokens[int(factor in SECOND)] += text.word(said)
        for factor, (low, high) in LENGTHS.items():
            start, end = People.__dataclass_fields__[factor].metadata["range"]
            part = (float(getattr(people, factor)[row]) - start) / (end - start)
            tokens[1] += (2 * part - 1) * (text.word(high) - text.word(low)) / 2
        names.append(tokens / tokens.std(dim=1, keepdim=True))
    return torch.stack(names)


class DescribedNetworks(FlashFaceNetworks):
    """FlashFace's networks on captions that tell who is there, for people whom `know_who` knows."""

    def __init__(self, checkpoint: Checkpoint, text: ToyText, describer: Describer) -> None:
        super().__init__(checkpoint)
        self._text, self._describer = text, describer

    def texts(self, batch: Batch) -> list[str]:
        """Who has references is never described: they alone tell who it is."""
        shown = set(batch.references.rows)
        told = [
            caption if row in shown else self._describer.told(caption, index, tuple(chances))
            for row, (caption, index, chances) in enumerate(
                zip(batch.captions, _indexes(batch), batch.chances.tolist(), strict=True)
            )
        ]
        return ["", *told]

    def forward(self, batch, noisy, texts):
        texts, shown, indexes = texts.clone(), set(batch.references.rows), _indexes(batch)
        for row, (caption, kind) in enumerate(
            zip(batch.captions, batch.chances[:, 0].tolist(), strict=True)
        ):
            if row not in shown and is_named(caption, kind):
                name = self._describer.name(indexes[row])[None].to(texts)
                texts[row + 1] = self._text.with_word(with_person(caption), name)[0]
        return super().forward(batch, noisy, texts)


def _indexes(batch: Batch) -> list[int]:
    return batch.seen[WHO][:, 0].long().tolist()
