"""Bypass leaves no trace: the MODEL that goes into FlashFaceApply is never changed."""

import comfy.model_management
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy_extras.nodes_freelunch import FreeU
from flashface_pack.nodes.apply import FlashFaceApply
from support.harness import Guidance, Place, apply_features
from support.sampling import classic, guided, ksampler, noise, reference_passes
from support.snapshot import containers, differences, snapshot

PLACE = Place((0.3, 0.1, 0.4, 0.4), inside_region=True)


def sample(flashface, model, seed=1):
    return ksampler(model, flashface.positive, flashface.negative, seed=seed)


def patched(flashface, **options):
    return apply_features(flashface.model, flashface.features(**options), Guidance())


def test_apply_and_runs_leave_the_input_model_as_it_was(fresh):
    bare = sample(fresh, fresh.model)
    before = snapshot(fresh.model)
    for seed in (1, 2):
        model = FlashFaceApply.execute(fresh.model, fresh.features(place=PLACE)).args[0]
        assert differences(before, snapshot(fresh.model)) == []
        assert not torch.equal(sample(fresh, model, seed), sample(fresh, fresh.model, seed))
    assert differences(before, snapshot(fresh.model)) == []
    assert torch.equal(sample(fresh, fresh.model), bare)


def test_the_snapshot_sees_what_could_be_left_behind(fresh):
    """Every part that a careless node would touch."""
    before = snapshot(fresh.model)
    model = patched(fresh)
    seen = set(differences(before, snapshot(model)))
    assert seen == {"model_options", "wrappers", "attachments"}
    assert "additional_models" in differences(before, snapshot(fresh.model.clone()))
    weight = next(fresh.model.model.parameters())
    old = weight.data.clone()
    weight.data += 1
    assert "weights" in differences(before, snapshot(fresh.model))
    weight.data.copy_(old)
    assert differences(before, snapshot(fresh.model)) == []


class Breaking:
    """Raises an exception in the nth forward pass of a module."""

    def __init__(self, module, nth: int, act) -> None:
        self.module, self.left, self.act = module, nth, act

    def __enter__(self):
        def count(*_) -> None:
            self.left -= 1
            if self.left == 0:
                self.act()

        self._hook = self.module.register_forward_hook(count)
        return self

    def __exit__(self, *_):
        self._hook.remove()


def throw(error):
    def act():
        raise error

    return act


def interrupt():
    """What the Cancel button does; the next place that asks stops."""
    comfy.model_management.interrupt_current_processing(True)


BREAKS = {
    "cancelled in the second step": lambda ff: (
        ff.model.model.diffusion_model.middle_block[0].in_layers[2],
        2,
        throw(InterruptProcessingException()),
        InterruptProcessingException,
    ),
    "cancelled between two photos": lambda ff: (
        ff.net.network.unet.input_blocks[0][0],
        1,
        interrupt,
        InterruptProcessingException,
    ),
    "cancelled inside the ReferenceNet": lambda ff: (
        ff.net.network.unet.middle_block[0].in_layers[2],
        2,
        throw(InterruptProcessingException()),
        InterruptProcessingException,
    ),
    "out of memory in reference attention": lambda ff: (
        ff.net.network.attention_at(ff.net.network.sites[2]).q,
        1,
        throw(comfy.model_management.OOM_EXCEPTION("no memory left")),
        comfy.model_management.OOM_EXCEPTION,
    ),
    "out of memory while keys are computed": lambda ff: (
        ff.net.network.attention_at(ff.net.network.sites[1]).k,
        2,
        throw(comfy.model_management.OOM_EXCEPTION("no memory left")),
        comfy.model_management.OOM_EXCEPTION,
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_after_an_interrupted_run_nothing_is_left_and_the_next_one_is_right(flashface, fresh, name):
    module, nth, act, error = BREAKS[name](fresh)
    model = patched(fresh, place=PLACE)
    before, before_patched = snapshot(fresh.model), snapshot(model)
    with Breaking(module, nth, act) as breaking, pytest.raises(error):
        sample(fresh, model)
    assert breaking.left <= 0
    assert differences(before, snapshot(fresh.model)) == []
    assert differences(before_patched, snapshot(model)) == []
    assert torch.equal(sample(fresh, model), sample(flashface, patched(flashface, place=PLACE)))
    assert torch.equal(sample(fresh, fresh.model), sample(flashface, flashface.model))


def test_cancel_stops_before_the_next_photos_and_not_after_the_last(fresh):
    first = fresh.net.network.unet.input_blocks[0][0]
    model = apply_features(fresh.model, fresh.features(10), Guidance())
    with (
        reference_passes(fresh.net) as passes,
        Breaking(first, 1, interrupt),
        pytest.raises(InterruptProcessingException),
    ):
        sample(fresh, model)
    assert passes.count == 8  # which go through the network together


def test_an_interrupted_pass_leaves_no_half_entry_in_the_cache(fresh):
    model = patched(fresh)
    site = fresh.net.network.sites[-1]
    error = InterruptProcessingException()
    last = fresh.net.network.attention_at(site).v
    with Breaking(last, 1, throw(error)), pytest.raises(InterruptProcessingException):
        sample(fresh, model)
    assert fresh.net.cache.bytes == 0
    with reference_passes(fresh.net) as passes:
        sample(fresh, model)
    assert passes.count == 2 * 2  # photos, steps


def test_guider_conds_survive_an_interrupt(fresh):
    guider = classic(patched(fresh), fresh.positive, fresh.negative)
    seen = []
    inner = guider.outer_predict_noise

    def watched(*args, **kwargs):
        before = guider.conds
        try:
            return inner(*args, **kwargs)
        finally:
            seen.append(guider.conds is before)

    guider.outer_predict_noise = watched
    module = fresh.model.model.diffusion_model.middle_block[0].in_layers[2]
    with (
        Breaking(module, 1, throw(InterruptProcessingException())),
        pytest.raises(InterruptProcessingException),
    ):
        guided(guider, noise(7), 501)
    assert seen == [True]


def test_a_cloned_model_shares_no_container(fresh):
    model = patched(fresh, place=PLACE)
    clone = model.clone()
    shared = set(containers(model)) & set(containers(clone))
    assert not shared, [containers(model)[key] for key in shared]
    shared = set(containers(model)) & set(containers(fresh.model))
    assert not shared, [containers(model)[key] for key in shared]


def test_what_is_done_to_a_clone_does_not_reach_the_patched_model(fresh):
    model = patched(fresh, place=PLACE)
    expected = sample(fresh, model)
    before = snapshot(model)
    clone = model.clone()
    clone.set_model_attn1_patch(lambda q, k, v, extra_options: (q * 0, k, v))
    clone.set_model_input_block_patch(lambda h, options: h * 0)
    clone.remove_wrappers_with_key("predict_noise", "flashface")
    clone.model_options["transformer_options"]["patches"].clear()
    sample(fresh, clone)
    assert differences(before, snapshot(model)) == []
    assert torch.equal(sample(fresh, model), expected)


def test_a_node_before_apply_can_still_be_used_without_it(fresh):
    (freeu,) = FreeU().patch(fresh.model, 1.1, 1.2, 0.9, 0.2)
    alone = sample(fresh, freeu)
    before = snapshot(freeu)
    sample(fresh, apply_features(freeu, fresh.features(), Guidance()))
    assert differences(before, snapshot(freeu)) == []
    assert torch.equal(sample(fresh, freeu), alone)
