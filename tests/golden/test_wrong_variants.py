"""The golden check tells wrong networks from the right one: each is broken here on purpose."""

import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface.load import (
    build_flashface,
    load_flashface,
)
from flashface_pack.flashface_core.flashface.checkpoint import read_checkpoint, unet_key
from flashface_pack.flashface_core.weights_file import read_state_dict
from safetensors.torch import load_file
from support.golden import ROOT
from support.harness import (
    Guidance,
    Place,
    apply_features,
    cond,
    make_features,
    observe,
    one_step,
    relative_error,
)

CASE = ROOT / "flashface_mini" / "M1_16x16_r2.safetensors"
LIMIT = 2e-4


def error(model, net, context="in.neg", place=True) -> float:
    """Of the raw outputs at t = 301 and strength 1.2 on all rows."""
    data = load_file(CASE)
    mask = Place((0, 0, 1, 1), data["in.mask"].bool()) if place else None
    features = make_features(net, data["in.ref"], data[context], place=mask)
    model, seen = observe(model)
    everywhere = Guidance(feature_strength=1, early_strength=1.2, launch_timestep=-1)
    model = apply_features(model, features, everywhere)
    one_step(model, data["in.x"], 301, cond(data["in.cond"]), cond(data["in.neg"]), 7.5)
    rows = seen.rows()
    return relative_error(torch.cat([rows[0], rows[1]]), data["t301.nd2.lam1.2"])


@pytest.fixture
def loaded(networks):
    """Fresh networks: the tests below break them."""
    return load_flashface(networks.path("mini"), "fp32")


def test_the_right_network_passes(loaded):
    assert error(*loaded) <= LIMIT


def test_ref_middle_in_the_reference_net_is_caught(networks):
    state, metadata = read_state_dict(networks.path("mini"))
    checkpoint = read_checkpoint("ref_middle", state, metadata)
    wrong = {
        unet_key("ref_middle", key.partition(".")[2]): tensor
        for key, tensor in state.items()
        if key.startswith("ref_middle.")
    }
    assert wrong and wrong.keys() <= checkpoint.reference.keys()
    checkpoint.reference |= wrong
    assert error(*build_flashface(checkpoint, "fp32")) > 10 * LIMIT


def test_features_of_timestep_zero_are_caught(loaded, monkeypatch):
    network = loaded[1].network
    right = network.keys_values
    monkeypatch.setattr(
        network, "keys_values", lambda latent, t, text, options: right(latent, 0, text, options)
    )
    assert error(*loaded) > 10 * LIMIT


def test_the_positive_prompt_as_reference_text_is_caught(loaded):
    assert error(*loaded, context="in.cond") > 10 * LIMIT


def test_features_after_self_attention_are_caught(loaded, monkeypatch):
    network = loaded[1].network

    def after_self_attention(latent, t, text, options):
        captured = {}

        def capture(n, extra_options):
            captured[(*extra_options["block"], extra_options["block_index"])] = n
            return n

        network.unet(
            latent,
            torch.as_tensor(t, device=latent.device),
            context=text.expand(len(latent), -1, -1),
            transformer_options={"patches": {"attn1_output_patch": [capture]}},
        )
        return {site: network.attention_at(site).project(captured[site]) for site in network.sites}

    monkeypatch.setattr(network, "keys_values", after_self_attention)
    assert error(*loaded) > 10 * LIMIT


def test_a_missing_position_mask_is_caught(loaded):
    assert error(*loaded, place=False) > 10 * LIMIT
