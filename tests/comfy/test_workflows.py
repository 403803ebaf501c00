"""Ordinary SD1.5 graphs around FlashFaceApply: ControlNet, inpainting, img2img, batches, sizes."""

from dataclasses import replace

import comfy.samplers
import pytest
import torch
from comfy.ldm.modules import attention
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    RandomNoise,
    SamplerCustom,
    SamplerCustomAdvanced,
)
from support.control import random_controlnet
from support.harness import Guidance, Place, apply_features, observe, relative_error
from support.sampling import (
    CFG,
    basic,
    classic,
    empty_latent,
    euler,
    face_step,
    guided,
    ksampler,
    noise,
    noisy,
    prompt,
    watch_rows,
)

import nodes

GUIDANCE = Guidance()
LATE = 501
EQUAL = 1e-5
TRAJECTORY = 1e-4
PLACE = Place((0.3, 0.1, 0.4, 0.4))


@pytest.fixture(scope="module")
def control(wide):
    return random_controlnet(wide.model)


def controlled(control, positive, negative, start=0.0, end=1.0):
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(3))
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, negative, control, image, 1.0, start, end
    )


def test_controlnet_guides_every_branch_and_the_face_is_added(wide, control):
    positive, negative = controlled(control, wide.positive, wide.negative)
    graph = replace(wide, positive=positive, negative=negative)
    features = wide.features(place=PLACE)
    x = noisy(wide.model, noise(7, 2), LATE)
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE)
    model = apply_features(wide.model, features, GUIDANCE)
    got = guided(classic(model, positive, negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL
    without = guided(classic(model, wide.positive, wide.negative), x, LATE)
    assert relative_error(got, without) > 1e-2  # the ControlNet is seen


def test_controlnet_on_the_positive_prompt_alone(wide, control):
    positive = controlled(control, wide.positive, wide.negative)[0]
    graph = replace(wide, positive=positive)
    x = noisy(wide.model, noise(7, 2), LATE)
    expected = face_step(graph, classic, wide.features(), GUIDANCE, x, LATE)
    model = apply_features(wide.model, wide.features(), GUIDANCE)
    assert (
        relative_error(guided(classic(model, positive, wide.negative), x, LATE), expected) <= EQUAL
    )


def test_img2img_area_and_controlnet_together_follow_eulers_method(wide, control):
    """The whole trajectory of KSampler at denoise 0.6, from single steps computed apart."""
    area = nodes.ConditioningSetArea().append(prompt(21), 64, 128, 64, 0, 1.0)[0]
    positive, negative = controlled(control, wide.positive + area, wide.negative)
    graph = replace(wide, positive=positive, negative=negative)
    features = wide.features(place=PLACE)
    model = apply_features(wide.model, features, GUIDANCE)
    latent = {"samples": noise(11)}
    got = ksampler(model, positive, negative, latent, seed=5, steps=3, denoise=0.6)

    (sigmas,) = BasicScheduler.execute(model, "simple", 3, 0.6).args
    assert len(sigmas) == 4 and sigmas[0] < model.get_model_object("model_sampling").sigma_max / 2
    scale = model.get_model_object("latent_format").scale_factor
    x = latent["samples"] * scale + noise_of(5, latent) * sigmas[0]
    x = euler(model, lambda x, t: face_step(graph, classic, features, GUIDANCE, x, t), x, sigmas)
    assert relative_error(got, x / scale) <= TRAJECTORY


def noise_of(seed, latent):
    return RandomNoise.execute(seed).args[0].generate_noise(latent)


def test_text_to_image_follows_eulers_method_through_both_phases(flashface):
    features = flashface.features()
    model = apply_features(flashface.model, features, GUIDANCE)
    got = ksampler(model, flashface.positive, flashface.negative, seed=5, steps=4)
    (sigmas,) = BasicScheduler.execute(model, "simple", 4, 1.0).args
    scale = model.get_model_object("latent_format").scale_factor
    x = noise_of(5, empty_latent()) * (1 + sigmas[0] ** 2) ** 0.5
    x = euler(
        model, lambda x, t: face_step(flashface, classic, features, GUIDANCE, x, t), x, sigmas
    )
    assert relative_error(got, x / scale) <= TRAJECTORY


def test_inpainting_keeps_the_area_outside_of_the_mask(flashface):
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:96, 40:104] = 1.0
    original = {"samples": noise(11)}
    (latent,) = nodes.SetLatentNoiseMask().set_mask(original, mask)
    model = apply_features(flashface.model, flashface.features(place=PLACE), GUIDANCE)
    got = ksampler(model, flashface.positive, flashface.negative, latent)
    bare = ksampler(flashface.model, flashface.positive, flashface.negative, latent)
    hole = mask[0, ::8, ::8].bool()
    kept = got[..., ~hole] - original["samples"][..., ~hole]
    assert float(kept.abs().max()) <= 1e-4
    assert relative_error(got[..., hole], bare[..., hole]) > 1e-2
    assert torch.isfinite(got).all()


def test_samples_of_a_batch_equal_those_made_alone(flashface):
    model = apply_features(flashface.model, flashface.features(place=PLACE), GUIDANCE)

    def sampled(*indices):
        latent = {"samples": torch.zeros(len(indices), 4, 16, 16), "batch_index": list(indices)}
        return ksampler(model, flashface.positive, flashface.negative, latent)

    batch = sampled(0, 1, 2)
    for i in range(3):
        assert relative_error(batch[i], sampled(i)[0]) <= 2e-5


@pytest.mark.parametrize("size", [(64, 96), (65, 89)], ids=["512x768", "520x712"])
def test_pictures_of_other_shapes(flashface, size, monkeypatch):
    """At cfg 1, to be quick: one row above launch, two below."""
    # Core's own choice on graphics cards; what it takes on a CPU needs half a minute here.
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    model, seen = observe(flashface.model)
    model = apply_features(model, flashface.features(1, place=PLACE), GUIDANCE)
    latent = empty_latent(1, *size)
    got = ksampler(model, flashface.positive, flashface.negative, latent, cfg=1.0)
    assert got.shape == (1, 4, *size) and torch.isfinite(got).all()
    assert [len(branches) for branches in seen.branches] == [1, 2]
    rows = seen.rows()
    assert relative_error(rows[2], rows[0]) > 1e-3


def test_cfg_1_runs_the_positive_prompt_alone(flashface):
    """KSampler leaves the negative prompt out; BasicGuider has none."""
    watched, calls = watch_rows(flashface.model)
    model = apply_features(watched, flashface.features(), GUIDANCE)
    got = ksampler(model, flashface.positive, flashface.negative, cfg=1.0)
    assert [sorted(call["branches"]) for call in calls] == [[0], [0, 2]]
    (sigmas,) = BasicScheduler.execute(model, "simple", 2, 1.0).args
    (random,) = RandomNoise.execute(1).args
    sampler = comfy.samplers.sampler_object("euler")
    guider = basic(model, flashface.positive)
    out = SamplerCustomAdvanced.execute(random, guider, sampler, sigmas, empty_latent()).args[0]
    assert relative_error(out["samples"], got) <= EQUAL


def test_sampler_custom_does_what_ksampler_does(flashface):
    model = apply_features(flashface.model, flashface.features(), GUIDANCE)
    prompts = flashface.positive, flashface.negative
    (sigmas,) = BasicScheduler.execute(model, "simple", 2, 1.0).args
    sampler = comfy.samplers.sampler_object("euler")
    out = SamplerCustom.execute(model, True, 1, CFG, *prompts, sampler, sigmas, empty_latent())
    assert torch.equal(out.args[0]["samples"], ksampler(model, *prompts))


def test_two_halves_of_ksampler_advanced_equal_one_run(flashface):
    model = apply_features(flashface.model, flashface.features(place=PLACE), GUIDANCE)
    prompts = flashface.positive, flashface.negative

    def advanced(latent, start, end, add_noise, leftover):
        return nodes.KSamplerAdvanced().sample(
            model, add_noise, 1, 4, CFG, "euler", "simple", *prompts, latent, start, end, leftover
        )[0]

    half = advanced(empty_latent(), 0, 2, "enable", "enable")
    got = advanced(half, 2, 10000, "disable", "disable")["samples"]
    whole = ksampler(model, *prompts, steps=4)
    assert relative_error(got, whole) <= EQUAL


def test_two_samplers_in_a_row_from_one_model(flashface):
    """A second pass at a larger size, and the first one again after it."""
    model = apply_features(flashface.model, flashface.features(place=PLACE), GUIDANCE)
    prompts = flashface.positive, flashface.negative
    first = ksampler(model, *prompts)
    (larger,) = nodes.LatentUpscale().upscale({"samples": first}, "bilinear", 192, 128, "disabled")
    second = ksampler(model, *prompts, larger, denoise=0.5)
    assert second.shape == (1, 4, 16, 24) and torch.isfinite(second).all()
    bare = ksampler(flashface.model, *prompts, larger, denoise=0.5)
    assert relative_error(second, bare) > 1e-3
    assert torch.equal(ksampler(model, *prompts), first)


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "dpmpp_2m", "dpmpp_sde", "heun", "lcm", "euler_cfg_pp", "uni_pc"]
)
def test_other_samplers_and_schedules_run_with_the_face(flashface, sampler):
    """Their sigmas lie between the trained timesteps; some call MODEL twice a step."""
    model = apply_features(flashface.model, flashface.features(place=PLACE), GUIDANCE)
    prompts = flashface.positive, flashface.negative
    settings = (1, 3, 4.0, sampler, "karras", *prompts, empty_latent(), 1.0)
    got = nodes.KSampler().sample(model, *settings)[0]["samples"]
    bare = nodes.KSampler().sample(flashface.model, *settings)[0]["samples"]
    assert torch.isfinite(got).all() and relative_error(got, bare) > 1e-3
