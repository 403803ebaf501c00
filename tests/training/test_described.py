"""What captions of the base model tell of a face, in words and by names."""

import re

import pytest
import torch
from people import random_people

from toy_world import scenes
from toy_world.identity_words import LENGTHS, WORDS, describe
from toy_world.people import People
from toy_world.scenes import Scenes, captions
from training.batches import Sampling, draw_batch
from training.initial import fresh_checkpoint
from training.tiny.described import (
    NAME,
    WORDS_SHARE,
    DescribedNetworks,
    Describer,
    know_who,
    name_vectors,
)
from training.tiny.text import ToyText, with_person

NAMED = with_person("a portrait of ")


@pytest.fixture(scope="module")
def text():
    return ToyText()


def test_no_value_of_a_face_or_a_scene_is_told_by_words_of_others_alone():
    told = {
        (factor, value): words
        for factor, table in WORDS.items()
        for value, words in table.items()
        if words
    }
    told |= {(factor, n): words for factor, pair in LENGTHS.items() for n, words in enumerate(pair)}
    for table in (
        "AGES",
        "EXPRESSIONS",
        "CLOTHES",
        "BACKGROUNDS",
        "STYLES",
        "LIGHTS",
        "LEANS",
    ):
        told |= {(table, value): words for value, words in getattr(scenes, table).items()}
    words = {key: set(re.findall(r"\w+", one)) for key, one in told.items()}
    for key, own in words.items():
        others = set().union(*(words[other] for other in words if other != key))
        assert own - others, told[key]


def test_what_a_person_does_not_have_is_not_told():
    person = People.draw_from(3, "train", [0]).with_values(
        hair_style="bald", mark="none", glasses="none", facial_hair="beard", jaw=2.4
    )
    (told,) = describe(person)
    assert told["hair_style"] == "bald" and told["facial_hair"] == "a beard"
    absent = {"hair_colour", "mark", "mark_colour", "mark_place", "glasses", "frame_colour", "jaw"}
    assert not absent & told.keys()


def test_a_caption_has_words_a_name_or_neither_and_always_fits(text):
    describer = Describer(text, 0)
    plain = captions(Scenes.draw_from(0, "train", 200))
    kinds = torch.linspace(0, 0.999, 200).tolist()
    for index, (caption, kind) in enumerate(zip(plain, kinds, strict=True)):
        told = describer.told(caption, index, (kind, (index * 0.37) % 1))
        text([told])  # raises if it does not fit
        if kind < WORDS_SHARE:
            assert told.startswith("a portrait of ") and NAMED not in told
            parts, known = set(told.split(", ")), set(describer.words(index).values())
            assert parts > set(caption.split(", ")) and parts - set(caption.split(", ")) <= known
        elif kind < WORDS_SHARE + NAME:
            assert told == NAMED + caption.removeprefix("a portrait of ")
        else:
            assert told == caption
    assert describer.told("", 0, (0.0, 0.5)) == ""
    orders = {describer.told(plain[0], 0, (0.0, n / 50)) for n in range(50)}
    assert len(orders) > 25


def test_a_name_is_the_words_for_a_face_all_at_once(text):
    person = People.draw_from(3, "train", [0]).with_values(hair_style="curly", mark="none")
    other = person.with_values(hair_colour=(person.hair_colour + 1) % 8)
    marked = person.with_values(mark="star")
    first, second, third = (name_vectors(one, text)[0] for one in (person, other, marked))
    assert not torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(first[0], third[0]) and not torch.equal(first[1], third[1])
    near = torch.cosine_similarity(first[0], text.word("curly hair"), dim=0)
    far = torch.cosine_similarity(first[0], text.word("wavy hair"), dim=0)
    assert near > far + 0.15
    torch.testing.assert_close(first.std(dim=1), torch.ones(2))


def test_those_whose_photos_are_seen_are_not_described_and_names_reach_the_unet(text):
    people = random_people(count=4)
    know_who(people, torch.tensor([[n // 3, n] for n in range(12)]))
    networks = DescribedNetworks(
        fresh_checkpoint("fresh", 32, (1,), heads=1), text, Describer(text, 0)
    )
    sampling = Sampling(targets_per_group=2, drop_references=0.5, drop_text=0, drop_both=0)
    batch = draw_batch(people, sampling, 0, 0, range(12))
    seen = set(batch.references.rows)
    assert 0 < len(seen) < len(batch.captions)
    batch = batch._replace(
        captions=captions(Scenes.draw_from(0, "train", len(batch.captions))),
        chances=torch.full_like(batch.chances, WORDS_SHARE + 0.01),
    )
    told = networks.texts(batch)
    assert told[0] == ""
    for row, caption in enumerate(told[1:]):
        assert (NAMED in caption) == (row not in seen)
    given = {}

    def note(*inputs):
        given["text"] = inputs[2]
        return torch.zeros_like(inputs[0])

    networks.predict = note
    plain = text(told)
    networks(batch, batch.latents, plain)
    for row, (sent, before) in enumerate(zip(given["text"], plain[1:], strict=True)):
        assert torch.equal(sent, before) == (row in seen)
