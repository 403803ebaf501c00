"""The ReferenceNet and the VAE work once; what they made is used again, bit for bit."""

from dataclasses import replace

import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler
from flashface_pack.flashface_core.features import FeatureCache
from flashface_pack.nodes.features import FlashFaceEncode
from support.harness import Guidance, apply_features, load_flashface
from support.models import random_vae
from support.photos import identity, photos, placed
from support.sampling import Counter, ksampler, prompt, reference_passes

STEPS = 2


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
        **guidance,
    ):
        ff = self.flashface
        positive, negative = positive or ff.positive, negative or ff.negative
        encoder = Counter(self.vae.first_stage_model.taesd_encoder)
        with encoder, reference_passes(ff.net) as passes:
            features = FlashFaceEncode.execute(person, ff.net, self.vae, negative, sigmas).args[0]
            self.photos, self.passes = encoder.count, passes.count
            model = apply_features(ff.model, features, Guidance(**guidance))
            settings = dict(seed=seed, steps=STEPS, scheduler=scheduler)
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
    assert torch.equal(work.draw(identity(), scheduler=scheduler), drawn)
    assert fresh_cache.bytes > 0


def test_the_cache_keeps_within_its_bound(work):
    whole = work.draw(identity())
    entry = work.flashface.net.cache.bytes // (2 * STEPS)
    bound = int(1.5 * entry)
    work.flashface.net.cache = FeatureCache(bound)
    for _ in range(2):
        assert torch.equal(work.draw(identity()), whole)
        assert work.passes == 2 * STEPS  # nothing useful was kept
        assert entry <= work.flashface.net.cache.bytes <= bound
    work.flashface.net.cache = FeatureCache(0)
    assert torch.equal(work.draw(identity()), whole)
    assert work.flashface.net.cache.bytes == 0


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
    devices = {t.device.type for entry in entries for pair in entry.values() for t in pair}
    assert devices == {"cpu"} and work.passes == 2 * STEPS
