"""Both networks live under ComfyUI's memory management; guiders that bypass our steps are named."""

import logging

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler
from flashface_pack.nodes.features import FlashFaceEncode
from support.harness import Guidance, apply_features
from support.models import random_vae
from support.photos import identity
from support.sampling import Counter, basic, guided, ksampler, noise, noisy, reference_passes

GUIDANCE = Guidance()
LATE = 501


def loaded_modules() -> set[int]:
    return {id(entry.model.model) for entry in comfy.model_management.current_loaded_models}


def during(module, look):
    """Registers look() for the first forward pass of a module."""
    return module.register_forward_hook(lambda *_: look())


@pytest.mark.parametrize("with_face", [False, True], ids=["loader MODEL", "with Apply"])
def test_both_networks_are_loaded_by_comfyui_while_sampling(fresh, with_face):
    comfy.model_management.unload_all_models()
    assert loaded_modules() == set()
    model = apply_features(fresh.model, fresh.features(), GUIDANCE) if with_face else fresh.model
    seen = []
    hook = during(fresh.model.model.diffusion_model.out[2], lambda: seen.append(loaded_modules()))
    try:
        ksampler(model, fresh.positive, fresh.negative)
    finally:
        hook.remove()
    assert seen
    for modules in seen:
        assert id(fresh.net.network) in modules and id(fresh.model.model) in modules


def test_after_unloading_everything_the_next_run_is_the_same(fresh):
    model = apply_features(fresh.model, fresh.features(), GUIDANCE)
    first = ksampler(model, fresh.positive, fresh.negative)
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models()
    assert torch.equal(ksampler(model, fresh.positive, fresh.negative), first)


class Stop(Exception):
    """Ends a run before anything is computed."""


def asked_for(monkeypatch, model, flashface, batch=1) -> float:
    """Bytes that core is asked to free for one run."""
    asked = []

    def watched(models, memory_required=0, **kwargs):
        asked.append(memory_required)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(comfy.model_management, "load_models_gpu", watched)
        guided(basic(model, flashface.positive), noisy(model, noise(7, batch), LATE), LATE)
    (bytes_asked,) = asked
    return bytes_asked


def test_apply_asks_for_memory_for_the_third_branch_and_the_keys(flashface, monkeypatch):
    def with_photos(count):
        model = apply_features(flashface.model, flashface.features(count), GUIDANCE)
        return asked_for(monkeypatch, model, flashface, batch=2)

    plain = asked_for(monkeypatch, flashface.model, flashface, batch=2)
    few, many = with_photos(1), with_photos(400)
    # Three rows where core counts two, for each of two samples.
    assert few >= 1.5 * plain
    net = flashface.net
    widths = sum(a.q.in_features for a in net.network.attention.values())
    keys_and_values = 2 * 400 * 8 * 8 * widths * net.compute_dtype.itemsize
    assert many >= 1.5 * plain + keys_and_values


def test_the_reference_net_runs_only_when_it_is_loaded(fresh):
    """Encode with sigmas loads it by itself."""
    comfy.model_management.unload_all_models()
    (sigmas,) = BasicScheduler.execute(fresh.model, "simple", 2, 1.0).args
    seen = []
    first = fresh.net.network.unet.input_blocks[0][0]
    hook = during(first, lambda: seen.append(id(fresh.net.network) in loaded_modules()))
    try:
        FlashFaceEncode.execute(identity(), fresh.net, random_vae(4), fresh.negative, sigmas)
    finally:
        hook.remove()
    assert seen and all(seen)


class Direct(comfy.samplers.CFGGuider):
    """A guider that bypasses predict_noise and its wrappers."""

    def __call__(self, x, timestep, model_options=None, seed=None):
        conds = [self.conds["positive"]]
        return comfy.samplers.calc_cond_batch(
            self.inner_model, conds, x, timestep, model_options or {}
        )[0]


def test_a_guider_that_goes_round_predict_noise_is_named_in_the_log(flashface, caplog):
    guider = Direct(apply_features(flashface.model, flashface.features(), GUIDANCE))
    guider.inner_set_conds({"positive": flashface.positive})
    x = noisy(flashface.model, noise(7), LATE)
    with caplog.at_level(logging.WARNING, "flashface"):
        got = guided(guider, x, LATE)
    assert "FlashFace Apply had no effect: Direct" in caplog.text
    assert torch.equal(got, guided(basic(flashface.model, flashface.positive), x, LATE))


def test_other_runs_log_nothing(flashface, caplog):
    model = apply_features(flashface.model, flashface.features(), GUIDANCE)
    with caplog.at_level(logging.WARNING, "flashface"):
        ksampler(model, flashface.positive, flashface.negative)
        ksampler(flashface.model, flashface.positive, flashface.negative)
    assert not [record for record in caplog.records if record.name == "flashface"]


def test_counting_hooks_see_a_pass(fresh):
    """The counters of these tests are real: one pass per photo and step."""
    model = apply_features(fresh.model, fresh.features(3), GUIDANCE)
    target = fresh.model.model.diffusion_model.input_blocks[0][0]
    with reference_passes(fresh.net) as passes, Counter(target) as calls:
        guided(basic(model, fresh.positive), noisy(model, noise(7), LATE), LATE)
    assert (passes.count, calls.count) == (3, 1)
