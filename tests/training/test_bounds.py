"""The ceilings that systems are read against: that they are measured, on people who are unseen."""

import json

import pytest
import torch

from flashface_core.comfy_adapter.flashface.tiny import FOLDER
from training.batches import Sampling, draw_batch
from training.tiny import bounds
from training.tiny.base_file import read_models
from training.tiny.bounds import BOUNDS
from training.tiny.ceilings import DRAWINGS, Words, measure, people_to_learn
from training.tiny.described import WHO
from training.tiny.evaluation import ToyEvaluation
from training.tiny.text import ToyText


@pytest.fixture(scope="module")
def evaluation():
    return ToyEvaluation(2, 1)


def test_words_are_learned_from_drawings_that_the_evaluation_does_not_have(evaluation):
    people = people_to_learn(evaluation, FOLDER, 3)
    assert len(people) == 2 and people.count(1) == 3
    assert people.seen[WHO][:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert not set(people.captions) & set(evaluation.cast.captions)
    assert DRAWINGS >= 20


def test_only_the_words_of_those_in_a_batch_are_changed(evaluation):
    people = people_to_learn(evaluation, FOLDER, 3)
    networks = Words(read_models(FOLDER), ToyText(), 2)
    networks.freeze_all_but(networks.parts)
    sampling = Sampling(drop_references=0, drop_text=0, drop_both=0)
    batch = draw_batch(people, sampling, 0, 0, range(1))
    batch = batch._replace(seen={WHO: torch.ones(1, 1)})
    predicted, target = networks(batch, batch.latents, torch.empty(0))
    (predicted - target).square().mean().backward()
    (trained,) = (p for p in networks.parameters() if p.requires_grad)
    assert trained is networks.words
    assert not trained.grad[0].any() and trained.grad[1].any()


@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_is_measured(evaluation, monkeypatch, tmp_path, name):
    monkeypatch.setattr(ToyEvaluation, "settings", evaluation.settings._replace(steps=1))
    found = measure(name, evaluation, FOLDER, 1, tmp_path)
    assert 0 <= found["identification"] <= 1 and 0 <= found["text_accuracy"] <= 1


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyEvaluation, "settings", ToyEvaluation.settings._replace(steps=1))
    file = tmp_path / "bounds.json"
    bounds.main(["--people", "1", "--bounds", "names", "--json", str(file)])
    (found,) = json.loads(file.read_text()).values()
    assert {"identification", "text_accuracy"} <= found.keys()
