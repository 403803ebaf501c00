"""Pictures of several shapes: a step has one, and all have their turn."""

from collections import Counter

import numpy as np
import pytest
import torch
from people import random_people

from training.batches import Sampling, draw_batch
from training.buckets import draw_bucket, make_buckets
from training.data import Picture
from training.held_out import hold_out

WIDE, HIGH = (4, 8), (8, 4)
# Shapes of the pictures of four people.
OF = [[WIDE, WIDE, HIGH, HIGH], [WIDE, HIGH], [WIDE, WIDE], [HIGH, WIDE, WIDE]]


class PeopleOfShapes:
    def __init__(self) -> None:
        self.buckets = make_buckets(self)

    def __len__(self) -> int:
        return len(OF)

    def count(self, person):
        return len(OF[person])

    def shape(self, person, index):
        return OF[person][index]

    def picture(self, person, index):
        """Which one it is stands in its latent and its reference."""
        which = float(10 * person + index)
        latent = torch.full((4, *OF[person][index]), which)
        return Picture(latent, torch.full((4, 2, 2), which), f"{which:.0f}", (0.2, 0.2, 0.8, 0.8))


SAMPLING = Sampling(targets_per_group=2, drop_references=0, drop_text=0, drop_both=0)


def test_people_of_one_shape_have_no_buckets():
    people = random_people()
    assert not people.buckets and make_buckets(people) == []


def test_a_step_has_one_shape_and_its_photos_are_others_of_the_person():
    people, met = PeopleOfShapes(), Counter()
    for step in range(60):
        batch = draw_batch(people, SAMPLING, 0, step, range(3))
        met[tuple(batch.latents.shape[-2:])] += 1
        assert batch.region.shape[-2:] == batch.position.shape[-2:] == batch.latents.shape[-2:]
        references = batch.references.latents[:, 0, 0, 0]
        for row, slots in zip(batch.references.rows, batch.references.slots, strict=True):
            target = float(batch.latents[row, 0, 0, 0])
            shown = set(references[slots].tolist())
            assert target not in shown and {int(one) // 10 for one in shown} == {int(target) // 10}
    assert met.keys() == {WIDE, HIGH}


def test_every_picture_is_drawn_as_often_as_without_buckets():
    """A person, and then one of their pictures."""
    people, rng, met = PeopleOfShapes(), np.random.default_rng(0), Counter()
    for _ in range(20_000):
        bucket = draw_bucket(people.buckets, rng)
        met[bucket.draw_person(rng), bucket.shape] += 1
    for person, shapes in enumerate(OF):
        for shape in (WIDE, HIGH):
            expected = shapes.count(shape) / len(shapes) / len(OF)
            assert met[person, shape] / 20_000 == pytest.approx(expected, abs=0.01)


def test_samples_do_not_depend_on_who_draws_which_groups():
    whole = draw_batch(PeopleOfShapes(), SAMPLING, 0, 5, range(4))
    parts = [draw_batch(PeopleOfShapes(), SAMPLING, 0, 5, range(n, n + 2)) for n in (0, 2)]
    assert torch.equal(whole.latents, torch.cat([part.latents for part in parts]))
    assert torch.equal(whole.timesteps, torch.cat([part.timesteps for part in parts]))


def test_people_held_out_have_buckets_of_their_own():
    rest, others = hold_out(PeopleOfShapes(), 2)
    assert [bucket.people.tolist() for bucket in rest.buckets] == [[0, 1], [0, 1]]
    assert [bucket.shape for bucket in others.buckets] == [WIDE, HIGH]
    assert [bucket.people.tolist() for bucket in others.buckets] == [[0, 1], [1]]
    only, _ = hold_out(PeopleOfShapes(), 3)
    assert len(only.buckets) == 2
