"""What FlashFaceEncode cannot use: one sentence each, before anything is computed."""

from dataclasses import replace

import comfy.sd
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.features import FlashFaceEncode
from support.harness import Guidance, Place, apply_features, cond
from support.models import random_vae
from support.photos import identity
from support.sampling import Counter, ksampler, prompt, reference_passes


@pytest.fixture(scope="module")
def vae():
    return random_vae(4)


NEGATIVES = {
    "SDXL's width": (cond(torch.zeros(1, 77, 2048)), "2048 wide.*needs 768.*SD1.5 CLIP"),
    "several entries": (prompt(1) + prompt(2), "has 2 entries.*exactly one"),
    "no entry": ([], "has 0 entries"),
    "a batch": (cond(torch.zeros(2, 77, 768)), "batch of 2 with 77 tokens"),
    "half a chunk of tokens": (cond(torch.zeros(1, 100, 768)), "100 tokens.*multiple of 77"),
    "no tokens": (cond(torch.zeros(1, 0, 768)), "0 tokens"),
}


def refused(flashface, vae, person, negative, message):
    with (
        Counter(vae.first_stage_model.taesd_encoder) as encoder,
        reference_passes(flashface.net) as passes,
        pytest.raises(FlashFaceError, match=message) as error,
    ):
        FlashFaceEncode.execute(person, flashface.net, vae, negative)
    assert encoder.count == passes.count == 0
    assert "\n" not in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("name", NEGATIVES)
def test_a_negative_prompt_that_does_not_fit_is_refused(flashface, vae, name):
    refused(flashface, vae, identity(), *NEGATIVES[name])


def test_several_chunks_of_a_long_negative_prompt_are_fine(flashface, vae):
    features = FlashFaceEncode.execute(identity(), flashface.net, vae, prompt(3, 231)).args[0]
    assert features.context.shape == (1, 231, 768)


def test_a_vae_with_16_latent_channels_is_refused(flashface):
    message = "VAE has 16 latent channels.*needs 4.*SD1.5 VAE"
    refused(flashface, random_vae(16), identity(), flashface.negative, message)


@pytest.mark.parametrize("kind", ["none", "no weights", "another pack's without a network"])
def test_no_vae_is_said_in_a_sentence(flashface, kind):
    vae = {"none": None, "no weights": comfy.sd.VAE(sd={})}.get(kind, object())
    with pytest.raises(FlashFaceError, match="There is no VAE.*holds none; load one with Load VAE"):
        FlashFaceEncode.execute(identity(), flashface.net, vae, flashface.negative)


def test_an_identity_without_photos_is_refused(flashface, vae):
    empty = replace(identity(), references=())
    refused(flashface, vae, empty, flashface.negative, "identity|photo")


def test_a_place_that_is_too_small_for_the_picture_says_so_when_sampling(flashface):
    place = Place((0.51, 0.51, 0.02, 0.02))
    model = apply_features(flashface.model, flashface.features(place=place), Guidance())
    with pytest.raises(FlashFaceError, match="covers none of it; make it larger"):
        ksampler(model, flashface.positive, flashface.negative)
    # and the MODEL is as usable as before
    bare = ksampler(flashface.model, flashface.positive, flashface.negative)
    assert torch.isfinite(bare).all()
