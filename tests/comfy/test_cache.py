"""The ReferenceNet and the VAE work once; what they made is used again, bit for bit."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler
from flashface_pack.flashface_core.comfy_adapter.flashface.main_memory import own_copy
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.features import FeatureCache
from flashface_pack.nodes.features import FlashFaceEncode
from support.harness import Guidance, apply_features, load_flashface, relative_error
from support.models import random_vae
from support.photos import identity, photos, placed
from support.sampling import Counter, ksampler, prompt, reference_passes

STEPS = 2
EQUAL = 1e-5


@pytest.fixture(scope="module")
def vae():
    return random_vae(4)


class Work:
    """Draws, and counts photos through the VAE and the ReferenceNet while it does."""

    def __init__(self, flashface, vae) -> None:
        self.flashface, self.vae = flashface, vae
        self.passes = self.photos = -1

    def draw(
        self,
        person,
        positive=None,
        negative=None,
        seed=1,
        sigmas=None,
        scheduler="simple",
        steps=STEPS,
        reference_steps="exact",
        **guidance,
    ):
        ff = self.flashface
        positive, negative = positive or ff.positive, negative or ff.negative
        encoder = Counter(self.vae.first_stage_model.taesd_encoder)
        with encoder, reference_passes(ff.net) as passes:
            given = person, ff.net, self.vae, negative, sigmas, reference_steps
            features = FlashFaceEncode.execute(*given).args[0]
            self.photos, self.passes = encoder.count, passes.count
            model = apply_features(ff.model, features, Guidance(**guidance))
            settings = dict(seed=seed, steps=steps, scheduler=scheduler)
            result = ksampler(model, positive, negative, **settings)
        self.passes_while_sampling = passes.count - self.passes
        self.passes = passes.count
        return result


@pytest.fixture
def work(fresh, vae):
    return Work(fresh, vae)


def test_the_first_run_encodes_every_photo_and_passes_it_once_per_step(work):
    work.draw(identity(photos(3)))
    assert (work.photos, work.passes) == (3, 3 * STEPS)


def test_cold_and_warm_runs_are_equal_to_the_bit(work):
    cold = work.draw(identity())
    other_seed = work.draw(identity(), seed=2)
    assert work.passes == 0
    warm = work.draw(identity())
    assert torch.equal(cold, warm) and not torch.equal(cold, other_seed)
    work.flashface.net.cache = FeatureCache(2**40)
    assert torch.equal(work.draw(identity()), cold)
    assert work.passes == 2 * STEPS


CHANGES = {
    "seed": dict(seed=2),
    "prompt": dict(positive=prompt(55)),
    "feature strength": dict(feature_strength=0.7),
    "face guidance": dict(face_guidance=0.0),
    "launch": dict(launch_timestep=100),
    "levels": dict(coarse=0.5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_beside_the_photos_costs_no_pass(work, name):
    first = work.draw(identity())
    changed = work.draw(identity(), **CHANGES[name])
    assert (work.photos, work.passes) == (0, 0)
    assert not torch.equal(changed, first)


IDENTITIES = {
    "place": lambda: placed(identity(), x=0.5),
    "strength of the place": lambda: placed(identity(), strength=0.5),
    "region": lambda: placed(identity(), attention="inside the region"),
    "weight": lambda: identity(weight=0.5),
    "weight of one photo": lambda: identity(photos()[:1], 3.0, identity(photos()[1:])),
    "one photo fewer": lambda: identity(photos()[:1]),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_place_or_a_weight_costs_no_pass(work, name):
    first = work.draw(placed(identity()))
    changed = work.draw(IDENTITIES[name]())
    assert (work.photos, work.passes) == (0, 0)
    assert not torch.equal(changed, first)


def test_a_photo_more_costs_its_own_passes_only(work):
    work.draw(identity())
    work.draw(identity(photos(1, seed=9), append_to=identity()))
    assert (work.photos, work.passes) == (1, STEPS)


def test_what_was_in_the_cache_before_does_not_show(work):
    """The photos of a person go through the ReferenceNet together, but for those it knows."""
    three, one = photos(3), photos(1)
    whole = work.draw(identity(three))
    for known in (one, three[1:]):
        work.flashface.net.cache = FeatureCache(2**40)
        work.draw(identity(known))
        assert relative_error(work.draw(identity(three)), whole) < EQUAL
        assert work.passes == (3 - len(known)) * STEPS


def test_a_person_goes_through_the_reference_net_in_passes_of_eight_photos(work):
    """One pass a step for up to eight, so that its weights are read once."""
    sizes: list[int] = []
    first = work.flashface.net.network.unet.input_blocks[0][0]
    hook = first.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    work.draw(identity(photos(10)))
    hook.remove()
    assert sizes == [8, 2] * STEPS


def test_another_negative_prompt_runs_the_reference_net_but_encodes_no_photo(work):
    first = work.draw(identity())
    changed = work.draw(identity(), negative=prompt(56))
    assert (work.photos, work.passes) == (0, 2 * STEPS)
    assert not torch.equal(changed, first)
    assert torch.equal(work.draw(identity()), first)
    assert work.passes == 0  # both negatives are remembered


def test_a_prompt_for_the_reference_net_may_differ_from_the_samplers(work, vae):
    ff = work.flashface
    features = FlashFaceEncode.execute(identity(), ff.net, vae, prompt(56)).args[0]
    model = apply_features(ff.model, features, Guidance())
    got = ksampler(model, ff.positive, ff.negative)
    assert not torch.equal(got, work.draw(identity()))


def test_another_vae_encodes_the_photos_again(work):
    work.draw(identity())
    other = Work(work.flashface, random_vae(4))
    other.draw(identity())
    assert other.photos == 2


@pytest.mark.parametrize("scheduler", ["simple", "karras", "exponential"])
def test_encode_with_sigmas_leaves_nothing_for_the_sampler(work, scheduler):
    (sigmas,) = BasicScheduler.execute(work.flashface.model, scheduler, STEPS, 1.0).args
    drawn = work.draw(identity(), sigmas=sigmas, scheduler=scheduler)
    assert work.passes_while_sampling == 0
    fresh_cache = work.flashface.net.cache = FeatureCache(2**40)
    # Several steps went through the ReferenceNet together.
    assert relative_error(work.draw(identity(), scheduler=scheduler), drawn) < EQUAL
    assert fresh_cache.bytes > 0


def test_anchors_serve_every_step_of_every_schedule(work):
    """Nine passes of two photos, however many steps there are."""
    drawn = work.draw(identity(), steps=12, reference_steps="9 anchors")
    assert work.passes == 2 * 9
    exact = work.draw(identity(), steps=12)
    assert work.passes == 2 * (12 - 1)  # the first step is at an anchor
    assert 0 < relative_error(drawn, exact) < 0.05
    work.draw(identity(), steps=7, scheduler="karras", reference_steps="9 anchors")
    assert work.passes == 0


def test_fewer_anchors_cost_fewer_passes_and_a_larger_error(work):
    exact = work.draw(identity(), steps=12)
    errors = {}
    for count in (9, 5):
        work.flashface.net.cache = FeatureCache(2**40)
        drawn = work.draw(identity(), steps=12, reference_steps=f"{count} anchors")
        assert work.passes == 2 * count
        errors[count] = relative_error(drawn, exact)
    assert errors[9] < errors[5]


def test_a_step_at_an_anchor_is_exact(work):
    ff = work.flashface
    encode = partial(FlashFaceEncode.execute, identity(), ff.net, work.vae, ff.negative, None)
    exact, anchored = (encode(name).args[0] for name in ("exact", "5 anchors"))
    cpu = torch.device("cpu")
    for timestep, is_anchor in ((500.0, True), (0.0, True), (600.0, False)):
        a, b = (ff.net.step_references(one, timestep, cpu).groups for one in (exact, anchored))
        same = [
            torch.equal(x.keys, y.keys) for site in a for x, y in zip(a[site], b[site], strict=True)
        ]
        assert set(same) == {is_anchor}


def test_encode_with_sigmas_and_anchors_leaves_nothing_for_the_sampler(work):
    (sigmas,) = BasicScheduler.execute(work.flashface.model, "simple", STEPS, 1.0).args
    work.draw(identity(), sigmas=sigmas, reference_steps="5 anchors")
    assert work.passes_while_sampling == 0 < work.passes


def test_the_cache_keeps_within_its_bound(work):
    whole = work.draw(identity())
    entry = work.flashface.net.cache.bytes // (2 * STEPS)
    bound = int(1.5 * entry)
    work.flashface.net.cache = FeatureCache(bound)
    for kept in (0, 1):
        assert relative_error(work.draw(identity()), whole) < EQUAL
        assert work.passes == 2 * STEPS - kept
        assert entry <= work.flashface.net.cache.bytes <= bound
    work.flashface.net.cache = FeatureCache(0)
    assert torch.equal(work.draw(identity()), whole)
    assert work.flashface.net.cache.bytes == 0


def test_a_cache_that_is_a_step_too_small_keeps_the_other_steps(work, caplog):
    one, steps = photos(1), 4
    (sigmas,) = BasicScheduler.execute(work.flashface.model, "simple", steps, 1.0).args
    work.draw(identity(one), steps=steps)
    bound = work.flashface.net.cache.bytes - 1
    work.flashface.net.cache = FeatureCache(bound)
    work.draw(identity(one), sigmas=sigmas, steps=steps)
    assert (work.passes, work.passes_while_sampling) == (steps + 1, 1)
    work.draw(identity(one), seed=2, steps=steps)
    assert work.passes == 1 and work.flashface.net.cache.bytes <= bound
    (line,) = [record.message for record in caplog.records if "find room" in record.message]
    assert "so 3 steps find room" in line and "FLASHFACE_CACHE_MB" in line
    work.draw(identity(photos(1, seed=9)), steps=steps)  # the person before makes room
    work.draw(identity(photos(1, seed=9)), steps=steps)
    assert work.passes == 1


def test_the_environment_bounds_the_cache(work, checkpoint, monkeypatch):
    monkeypatch.setenv("FLASHFACE_CACHE_MB", "0")
    model, net = load_flashface(checkpoint, "fp32")
    small = Work(replace(work.flashface, model=model, net=net), work.vae)
    small.draw(identity())
    assert net.cache.bytes == 0 == net.cache.max_bytes
    monkeypatch.setenv("FLASHFACE_CACHE_MB", "2 GB")
    with pytest.raises(FlashFaceError, match="FLASHFACE_CACHE_MB is '2 GB'; it must be a whole"):
        load_flashface(checkpoint, "fp32")


def test_two_loads_of_a_file_do_not_share_what_they_remember(work, checkpoint):
    first = work.draw(identity())
    model, net = load_flashface(checkpoint, "fp32")
    again = Work(replace(work.flashface, model=model, net=net), work.vae)
    assert torch.equal(again.draw(identity()), first)
    assert (again.photos, again.passes) == (2, 2 * STEPS)


def test_encoded_photos_keep_within_their_bound(work, vae, monkeypatch):
    whole = work.draw(identity())
    latents = work.flashface.net.latents
    entry = latents.of(vae).bytes // 2
    monkeypatch.setattr(latents.of(vae), "max_bytes", 2 * entry)
    for seed in range(4):
        work.draw(identity(photos(2, seed=seed + 20)))
        assert work.photos == 2
        assert 0 < latents.of(vae).bytes <= 2 * entry
    assert torch.equal(work.draw(identity()), whole)
    assert work.photos == 2  # encoded again, the others went first
    work.draw(identity())
    assert work.photos == 0


def test_encoded_photos_are_bounded_from_the_start(work, vae):
    work.draw(identity())
    bounded = work.flashface.net.latents.of(vae)
    assert 0 < bounded.bytes < bounded.max_bytes <= 2**30


def test_keys_and_values_lie_in_main_memory_whatever_the_flags(work):
    """With --highvram core leaves networks on the GPU, where their offload device is."""
    expected = work.draw(identity())
    work.flashface.net.cache = FeatureCache(2**40)
    work.flashface.net.patcher.offload_device = torch.device("meta")
    assert torch.equal(work.draw(identity()), expected)
    entries = work.flashface.net.cache._entries.values()
    devices = {t.device.type for kept in entries for pair in kept.value.values() for t in pair}
    assert devices == {"cpu"} and work.passes == 2 * STEPS


@pytest.mark.parametrize("is_locked", [False, True])
def test_a_photo_can_leave_main_memory_without_the_others(is_locked):
    """Also where no pages can be locked: there is no GPU here, or the system has no more."""
    rows = torch.arange(24.0).reshape(2, 3, 4)
    copies = [own_copy(row, is_locked) for row in rows.split(1)]
    assert torch.equal(torch.cat(copies), rows)
    assert all(copy.untyped_storage().nbytes() == copy.nbytes for copy in copies)
    assert all(copy.is_pinned() == (is_locked and torch.cuda.is_available()) for copy in copies)
