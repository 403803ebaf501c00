"""The identity loss: what it asks, of whom, and that it reaches the trainer."""

import dataclasses
import json

import pytest
import torch
from people import SIZE, encode_text, make_networks, random_people

from flashface_core.comfy_adapter.flashface.tiny import FOLDER, VAE
from flashface_core.errors import FlashFaceError
from training import train
from training.batches import Sampling, draw_batch
from training.diffusion import add_noise, clean_prediction, noise_levels
from training.identity_loss import IdentityLoss, bounds, with_msid
from training.tiny.autoencoder import load_autoencoder
from training.tiny.encode import encode_people, join_people
from training.tiny.identity import drawn_identity_loss
from training.trainer import Recipe, Trainer

WEIGHTED = Recipe(identity_weight=0.1, identity_below=400)


@pytest.fixture(scope="module")
def identity_loss():
    return drawn_identity_loss(WEIGHTED, FOLDER / VAE)


@pytest.fixture(scope="module")
def batch():
    """Two drawn people, two pictures each."""
    encoded = encode_people(load_autoencoder(FOLDER / VAE), 0, "test", 0, 2, 4)
    people = join_people(0, "test", [encoded])
    sampling = Sampling(targets_per_group=2, drop_references=0, drop_text=0, drop_both=0)
    drawn = draw_batch(people, sampling, 4, 0, range(2))
    return drawn._replace(timesteps=torch.tensor([100, 399, 400, 900]))


def noisy(batch):
    return add_noise(batch.latents, batch.noise, batch.timesteps)


def test_of_the_true_noise_the_clean_prediction_is_the_picture(batch):
    found = clean_prediction(noisy(batch), batch.noise, batch.timesteps)
    torch.testing.assert_close(found, batch.latents, rtol=1e-4, atol=1e-3)


def test_the_truth_costs_nothing_and_another_face_much(identity_loss, batch):
    rows = range(4)
    assert identity_loss(batch.noise, noisy(batch), batch, rows).abs().max() < 1e-3
    other = batch.latents.roll(2, dims=0)
    alphas, sigmas = (level[batch.timesteps].view(4, 1, 1, 1) for level in noise_levels())
    of_other = (noisy(batch) - alphas * other) / sigmas
    lost = identity_loss(of_other, noisy(batch), batch, rows)
    assert lost[:2].min() > 0.2


def test_only_late_rows_that_show_the_person_are_asked(identity_loss, batch):
    given = torch.zeros_like(batch.noise, requires_grad=True)
    lost = identity_loss(given, noisy(batch), batch, [1, 2, 3])
    assert (lost != 0).tolist() == [False, True, False, False]
    lost.sum().backward()
    touched = given.grad.abs().amax(dim=1)
    assert (touched.flatten(1).amax(dim=1) > 0).tolist() == [False, True, False, False]
    top, bottom, left, right = bounds(batch.region[1, 0])
    touched[1, top:bottom, left:right] = 0
    assert not touched.any()  # outside of the face nothing is asked

    nowhere = batch._replace(region=torch.zeros_like(batch.region))
    assert not identity_loss(given, noisy(batch), nowhere, range(4)).any()


def test_faces_are_what_the_decoder_makes_of_the_region(batch):
    """At the embedder's size, in -1..1, and for both pictures the same place."""
    seen = []

    def embed(faces):
        seen.append(faces)
        return faces.flatten(1)

    decode = load_autoencoder(FOLDER / VAE).taesd_decoder
    IdentityLoss(decode, embed, 48, 1000)(batch.noise, noisy(batch), batch, [0])
    true, found = seen
    assert true.shape == found.shape == (1, 3, 48, 48)
    assert -1 <= true.min() < -0.2 and 0.2 < true.max() <= 1
    torch.testing.assert_close(found, true, rtol=0, atol=0.02)


@pytest.fixture
def mini(tmp_path):
    from support.models import write_flashface

    return write_flashface(tmp_path / "mini.safetensors")


def test_the_trainer_adds_it_with_its_weight(mini, tmp_path):
    def first_loss(folder, weight, loss):
        sampling = Sampling(drop_references=0, drop_text=0, drop_both=0)
        recipe = Recipe(steps=1, groups=1, identity_weight=weight, sampling=sampling)
        given = (random_people(), encode_text, recipe, tmp_path / folder, None, loss)
        return Trainer(make_networks(mini), *given).step()

    asked = []

    def one(predicted, noisy, batch, rows):
        asked.append((predicted.shape, list(rows)))
        return torch.ones(len(predicted))

    without = first_loss("without", 0.5, None)
    assert first_loss("half", 0.5, one) == pytest.approx(without + 0.5, rel=1e-5)
    assert asked == [((1, 4, SIZE, SIZE), [0])]


def test_a_recipe_without_it_has_none():
    assert (
        drawn_identity_loss(dataclasses.replace(WEIGHTED, identity_weight=0), FOLDER / VAE) is None
    )


@pytest.mark.parametrize(
    "given", [["--identity-weight", "0.1"], ["--identity-embedder", "msid.pt"]]
)
def test_half_of_its_options_is_an_error(given, data, weights, clip, tmp_path):
    options = ["--data", data, "--checkpoint", weights, "--clip", clip, "--out", tmp_path]
    with pytest.raises(SystemExit, match="The identity loss has the weight .* give --identity-"):
        train.main([*map(str, options), "--steps", "1", *given])


def test_photographs_are_trained_with_it(data, weights, clip, vae, tmp_path):
    embedder = FOLDER / "face2diffusion" / "msid_tiny.safetensors"
    options = ["--data", data, "--checkpoint", weights, "--clip", clip, "--vae", vae]
    recipe = "--steps 1 --groups 2 --log-every 1 --drop-references 0 --drop-text 0 --drop-both 0"
    losses = []
    for weight in ("0.5", "1.0"):
        out = tmp_path / weight
        more = ["--identity-embedder", embedder, "--identity-below", 1000, "--out", out]
        line = [*options, *more, *recipe.split(), "--identity-weight", weight]
        train.main([str(one) for one in line])
        assert json.loads((out / "recipe.json").read_text())["identity_weight"] == float(weight)
        (_, row) = (out / "losses.csv").read_text().splitlines()
        losses.append(float(row.split(",")[1]))
    assert losses[1] > losses[0]
    with pytest.raises(FlashFaceError, match="is not Face2Diffusion's"):
        with_msid(weights, torch.nn.Identity(), 400, "cpu")
