"""Recipes as files: those that are shipped fit, others are refused in one sentence."""

import argparse
import json

import pytest
import torch
from people import random_people
from support.tools import ROOT

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

from flashface_core.errors import FlashFaceError
from training.batches import Sampling, draw_batch
from training.data import FACE_VECTOR, PeopleInMemory
from training.options import add_recipe_options, make_recipe
from training.systems import SYSTEMS, parts_of
from training.trainer import Recipe

SHIPPED = sorted((ROOT / "training" / "recipes").glob("*.json"))
STAGES = ("pretrain", "paired", "fine")


def parsed(system, *arguments):
    parser = argparse.ArgumentParser()
    add_recipe_options(parser)
    return make_recipe(system, parser.parse_args(list(map(str, arguments))))


def written(path, **values):
    path.write_text(json.dumps(values))
    return path


def test_every_system_has_every_stage():
    names = {path.stem for path in SHIPPED}
    assert names == {f"{system}-{stage}" for system in SYSTEMS for stage in STAGES}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_fit_their_system(path):
    system, stage = path.stem.rsplit("-", 1)
    recipe = parsed(system, "--recipe", path)
    assert set(recipe.train) <= set(parts_of(system)) and recipe.groups % recipe.accumulate == 0
    assert recipe.gradient_checkpointing and recipe.precision == "bf16"
    assert recipe.sampling.own_face == (1.0 if stage == "pretrain" else 0.0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_stage_sees_the_noise_of_another(system):
    """They have other numbers of groups, of which they would share the first."""
    values = []
    for stage in STAGES:
        path = next(path for path in SHIPPED if path.stem == f"{system}-{stage}")
        recipe = parsed(system, "--recipe", path)
        drawn = (
            draw_batch(random_people(), recipe.sampling, recipe.seed, step, range(2)).noise
            for step in range(5)
        )
        values.append(torch.cat([noise.flatten() for noise in drawn]))
    together = torch.cat(values)
    assert len(together.unique()) > 0.98 * len(together)


def test_options_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = written(
        tmp_path / "a.json",
        system="face_fusion",
        steps=7,
        learning_rate=1,
        train=["keys"],
        sampling={"favoured": [1, 2, 0.5], "drop_text": 0.3},
    )
    recipe = parsed("face_fusion", "--recipe", path, "--steps", 3, "--drop-text", 0.2)
    assert (recipe.steps, recipe.learning_rate, recipe.train) == (3, 1, ("keys",))
    assert recipe.sampling == Sampling(favoured=(1, 2, 0.5), drop_text=0.2)
    assert recipe.groups == Recipe().groups
    assert parsed("facestudio").train == parts_of("facestudio")


def test_a_run_can_be_repeated_from_its_own_recipe(tmp_path):
    from dataclasses import asdict

    recipe = parsed("flashface", "--steps", 3, "--own-face", 0.5)
    path = written(tmp_path / "recipe.json", system="flashface", **asdict(recipe))
    assert parsed("flashface", "--recipe", path) == recipe


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"system": "facestudio"}, "is a recipe of facestudio, and --system is face_fusion; give"),
        ({}, "is a recipe of no system, and --system is face_fusion"),
        ({"system": "face_fusion", "lr": 1}, "sets 'lr', which Recipe does not have; it has steps"),
        ({"system": "face_fusion", "sampling": {"steps": 1}}, "'steps', which Sampling does not"),
        ({"system": "face_fusion", "steps": "many"}, "sets steps to 'many', expected a value like"),
        ({"system": "face_fusion", "precision": "fp8"}, "sets precision to 'fp8', expected"),
        (
            {"system": "face_fusion", "sampling": {"favoured": [1]}},
            "sets favoured to .1., expected",
        ),
        ({"system": "face_fusion", "sampling": 3}, "sets sampling to 3, expected an object"),
        ({"system": "face_fusion", "train": ["mapping"]}, "face_fusion has no part 'mapping' to"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_in_one_sentence(tmp_path, values, sentence):
    path = written(tmp_path / "a.json", **values)
    with pytest.raises(FlashFaceError, match=sentence):
        parsed("face_fusion", "--recipe", path)


def test_what_is_no_recipe_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "a.json"
    for text in ("steps: 3", "[]"):
        path.write_text(text)
        with pytest.raises(FlashFaceError, match="a.json (cannot be read as|is) a recipe"):
            parsed("face_fusion", "--recipe", path)


def people_with_faces() -> PeopleInMemory:
    people = random_people(count=3, pictures=4)
    faces = torch.arange(12.0)[:, None]
    people.seen = {FACE_VECTOR: faces, "expression": faces}
    return people


def drawn(own_face, step=0):
    people = people_with_faces()
    batch = draw_batch(people, Sampling(0 + 2, 0, 0, 0, own_face=own_face), 3, step, range(20))
    own = [int(v) for v in batch.seen["expression"]]
    return people, batch, own


def test_faces_are_the_targets_own_or_another_photos_as_asked():
    people, batch, own = drawn(1.0)
    assert batch.seen[FACE_VECTOR].flatten().tolist() == own
    for latent in batch.references.latents:
        index = next(i for i in range(12) if torch.equal(people.references[i], latent))
        assert index in own
    people, batch, own = drawn(0.0)
    for face, target in zip(batch.seen[FACE_VECTOR].flatten().tolist(), own, strict=True):
        assert face != target and int(face) // 4 == target // 4  # the same person


def test_without_a_chance_of_own_faces_samples_are_what_they_were():
    _, before, _ = drawn(None)
    _, paired, _ = drawn(0.0)
    assert torch.equal(before.noise, paired.noise)
    assert torch.equal(before.references.latents, paired.references.latents)
    assert torch.equal(before.seen[FACE_VECTOR], before.seen["expression"])
    assert not torch.equal(before.seen[FACE_VECTOR], paired.seen[FACE_VECTOR])
