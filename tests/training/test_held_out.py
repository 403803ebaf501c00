"""People held out are not trained on, and measured with the same samples every time."""

import csv

import pytest
import torch
from people import encode_text, make_networks, random_people
from support.models import write_flashface

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

from flashface_core.errors import FlashFaceError
from training.held_out import CSV, held_out_losses, hold_out, record


def test_people_are_either_trained_on_or_held_out():
    people = random_people(count=5)
    rest, others = hold_out(people, 2)
    assert (len(rest), len(others)) == (3, 2) and others.count(1) == 3
    assert torch.equal(others.picture(1, 2).latent, people.picture(4, 2).latent)
    assert torch.equal(rest.picture(2, 0).latent, people.picture(2, 0).latent)
    assert len(hold_out(people, 0)[1]) == 0
    with pytest.raises(FlashFaceError, match="5 of 5 people are to be held out; leave one"):
        hold_out(people, 5)


def test_losses_are_the_same_every_time_and_change_with_the_networks(tmp_path):
    networks = make_networks(write_flashface(tmp_path / "small.safetensors"))
    networks.freeze_all_but(networks.parts)
    networks.train()
    _, others = hold_out(random_people(count=5), 3)
    first, again = (held_out_losses(networks, others, encode_text) for _ in range(2))
    assert first == again and all(0 < loss < 10 for loss in first) and first[0] != first[1]
    assert networks.training
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.mul_(0.9)
    assert held_out_losses(networks, others, encode_text) != first


def test_everybody_held_out_is_measured(tmp_path):
    class Seen(type(random_people())):
        def picture(self, person, index):
            looked_at.add(person)
            return super().picture(person, index)

    looked_at: set[int] = set()
    people = random_people(count=12)
    people.__class__ = Seen
    networks = make_networks(write_flashface(tmp_path / "small.safetensors"))
    held_out_losses(networks, hold_out(people, 9)[1], encode_text)
    assert looked_at == set(range(3, 12))


def test_a_line_for_every_save(tmp_path):
    for step in (10, 20, 30, 20):  # killed before it was saved at 20
        record(tmp_path, step, (0.5, 0.25))
    with open(tmp_path / CSV) as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["10", "20"]
    assert rows[1]["loss_of_face"] == "0.250000"
