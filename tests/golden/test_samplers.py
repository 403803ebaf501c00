"""The ordinary KSampler does what the recorded trajectories did."""

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, RandomNoise, SamplerCustomAdvanced
from safetensors.torch import load_file
from support.golden import ROOT
from support.harness import Guidance, Place, apply_features, cond, make_features, relative_error

import nodes

SEED, CFG = 1234, 7.5


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
@torch.inference_mode()
def test_ksampler_with_simple_spacing_is_the_official_sampler(networks, sampler, steps):
    model, net = networks("mini")
    data = load_file(ROOT / "flashface_mini" / "MS_ddim6_16x16_r4.safetensors")
    place = Place((0, 0, 1, 1), data["in.mask"].bool())
    features = make_features(net, data["in.ref"], data["in.neg"], place=place)
    model = apply_features(model, features, Guidance())
    positive, negative = cond(data["in.cond"]), cond(data["in.neg"])
    latent = {"samples": torch.zeros_like(data["in.noise"])}

    (ours,) = nodes.KSampler().sample(
        model, SEED, steps, CFG, sampler, "simple", positive, negative, latent, 1.0
    )
    recorded = load_file(ROOT / "flashface" / "schedule.safetensors")[f"steps{steps}.sigma_ve"]
    (noise,) = RandomNoise.execute(SEED).args
    (guider,) = CFGGuider.execute(model, positive, negative, CFG).args
    official = SamplerCustomAdvanced.execute(
        noise,
        guider,
        comfy.samplers.sampler_object("euler"),
        torch.cat([recorded, torch.zeros(1)]),
        latent,
    ).args[0]
    assert relative_error(ours["samples"], official["samples"]) <= 1e-4
