"""ReferenceNetFromModel: the sampled network looks at the photos itself, as SD1.5 and as SDXL."""

from dataclasses import replace

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy_extras.nodes_custom_sampler import BasicScheduler
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from flashface_pack.flashface_core.comfy_adapter.flashface import from_model
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.apply import FlashFaceApply
from flashface_pack.nodes.features import FlashFaceEncode
from support.control import lora_state
from support.harness import (
    Guidance,
    Place,
    apply_features,
    cond,
    relative_error,
)
from support.models import (
    community_model,
    deeper_sdxl_model,
    flux_model,
    inpainting_model,
    random_vae,
    wider_model,
)
from support.own_attention import (
    GUIDANCE,
    LATE,
    Own,
    attentive,
    from_node,
    later_blocks,
    one_step,
    sdxl_prompt,
    what_the_network_sees,
    with_lora,
    written_out,
)
from support.photos import identity
from support.sampling import (
    Counter,
    basic,
    classic,
    empty_latent,
    everywhere,
    guided,
    noise,
    noisy,
    prompt,
)
from support.snapshot import containers, differences, snapshot

SIZE = {"SD1.5": 256, "SDXL": 512}


@pytest.fixture(scope="module")
def sd15(flashface) -> Own:
    model = attentive(community_model(flashface.model, seed=31))
    return Own("SD1.5", model, from_node(model), flashface.positive, flashface.negative)


@pytest.fixture(scope="module")
def sdxl() -> Own:
    model = attentive(deeper_sdxl_model(seed=32))
    return Own("SDXL", model, from_node(model), sdxl_prompt(1), sdxl_prompt(2))


@pytest.fixture(params=["sd15", "sdxl"])
def own(request) -> Own:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.2])
def test_it_is_the_models_attention_with_the_photos_as_further_keys(own, strength):
    got = one_step(own, everywhere(own.model, own.features(3), strength))
    expected = written_out(own.model, what_the_network_sees(own, own.model, 3), strength)
    assert relative_error(got, one_step(own, expected)) <= 1e-5
    assert relative_error(got, one_step(own, own.model)) > 1e-3


def test_the_photos_are_seen_with_the_lora_of_the_sampled_model(own):
    lora = with_lora(own.model)
    got = one_step(own, everywhere(lora, own.features(), 1.0))
    with_it = written_out(lora, what_the_network_sees(own, lora, 2), 1.0)
    without = written_out(lora, what_the_network_sees(own, own.model, 2), 1.0)
    assert relative_error(got, one_step(own, with_it)) <= 1e-5
    assert relative_error(got, one_step(own, without)) > 1e-3
    after = one_step(own, with_lora(everywhere(own.model, own.features(), 1.0)))
    assert torch.equal(after, got)


def test_a_lora_of_one_prompt_alone_is_not_on_the_photos(own, monkeypatch):
    """Core puts it on and takes it off between the rows of a step."""
    query = later_blocks(own.model)["middle", 0, 0].attn1.to_q
    comfy.model_management.unload_all_models()
    real, plain = from_model.feature_maps, query.weight.clone()
    on_photos, on_rows = [], []

    def is_on():
        return not torch.equal(query.weight.cpu(), plain)

    def watched(*arguments):
        on_photos.append(is_on())
        return real(*arguments)

    monkeypatch.setattr(from_model, "feature_maps", watched)
    hooks = comfy.hooks.create_hook_lora(lora_state(own.model, ""), 0.5, 0.0)
    hooked = replace(own, negative=comfy.hooks.set_hooks_for_conditioning(own.negative, hooks))
    last = own.model.model.diffusion_model.out[2]
    hook = last.register_forward_hook(lambda *_: on_rows.append(is_on()))
    hooked.drawn(count=1)
    hook.remove()
    assert on_photos == [False, False] and True in on_rows and False in on_rows
    assert not is_on()


OFF = {
    "strengths": dict(guidance=Guidance(0.0, 0.0, early_strength=0.0)),
    "weights": dict(weights=[0.0, 0.0]),
    "levels": dict(guidance=Guidance(1, 0, 750, 1, 0, coarse=0, medium=0, fine=0)),
    "the person": dict(
        guidance=Guidance(1, 0, 750, 1, 0), place=Place((0.2, 0.2, 0.4, 0.4), strength=0.0)
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_nothing_at_0_is_the_plain_model_to_the_bit(own, name):
    assert torch.equal(own.drawn(**OFF[name]), own.sample(own.model))


def test_photos_change_the_picture(own):
    drawn = own.drawn()
    assert torch.isfinite(drawn).all()
    # Most of a picture by a random network is its noise.
    assert relative_error(drawn, own.sample(own.model)) > 1e-4
    assert relative_error(drawn, own.drawn(seed=200)) > 1e-5


def test_a_place_moves_nothing_but_its_region_counts(own):
    """There is no position channel: without a region a place has no effect."""
    box = (0.1, 0.1, 0.4, 0.4)
    assert torch.equal(own.drawn(place=Place(box)), own.drawn())
    inside = own.drawn(place=Place(box, inside_region=True))
    assert relative_error(inside, own.drawn()) > 1e-4


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)], ids=str)
def test_the_order_of_photos_does_not_matter(own, weights):
    features = own.features(3, weights=list(weights))
    (person,) = features.people
    turned = replace(person, references=person.references[::-1])
    results = [
        own.sample(apply_features(own.model, replace(features, people=(p,)), GUIDANCE))
        for p in (person, turned)
    ]
    assert torch.equal(*results)


def left_and_right(own, seed):
    """Somebody on the left, made of noise with this seed, and always the same on the right."""
    left, right = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    left[..., :64], right[..., 64:] = True, True
    anna, berta = (Place((0, 0, 1, 1), mask, inside_region=True) for mask in (left, right))
    return own.people(own.features(place=anna, seed=seed), own.features(place=berta, seed=300))


def test_the_order_of_people_does_not_matter(own):
    features = left_and_right(own, 100)
    turned = replace(features, people=features.people[::-1])
    results = [
        own.sample(apply_features(own.model, people, GUIDANCE)) for people in (features, turned)
    ]
    assert relative_error(*results) <= 1e-6


def test_the_photos_of_one_person_do_not_touch_the_region_of_another(own, monkeypatch):
    """The same picture tokens, with the references of another run."""
    real, calls = from_model.add_extra_keys, {}

    def watched(*arguments):
        calls[seed].append(arguments)
        return real(*arguments)

    monkeypatch.setattr(from_model, "add_extra_keys", watched)
    for seed in (100, 200):
        calls[seed] = []
        one_step(own, everywhere(own.model, left_and_right(own, seed), 1.2), batch=2)
    assert len(calls[100]) == len(later_blocks(own.model))
    for (attention, y, mine, strength), (_, _, others, _) in zip(*calls.values(), strict=True):
        changed = real(attention, y, mine, strength) != real(attention, y, others, strength)
        half = round(y.shape[1] ** 0.5) // 2
        changed = changed.any(-1).view(len(y), 2 * half, 2 * half)
        assert changed[..., :half].all() and not changed[..., half:].any()


@pytest.mark.parametrize("size", [(17, 23), (16, 24)], ids=str)
def test_a_batch_of_three_is_three_pictures_at_any_size(own, size):
    features = own.features(place=Place((0.1, 0.1, 0.5, 0.5), inside_region=True))
    model = apply_features(own.model, features, GUIDANCE)

    def of_noise(*samples):
        latent = {**empty_latent(len(samples), *size), "batch_index": list(samples)}
        return own.sample(model, latent=latent)

    batch = of_noise(0, 1, 2)
    for i in range(3):
        assert relative_error(batch[i], of_noise(i)[0]) <= 2e-5


def test_the_sampled_network_is_the_only_one_that_is_loaded(own):
    comfy.model_management.unload_all_models()
    model = apply_features(own.model, own.features(), GUIDANCE)
    assert not model.additional_models
    seen = []

    def look(*_):
        loaded = comfy.model_management.current_loaded_models
        seen.append([entry.model.model for entry in loaded])

    hook = own.model.model.diffusion_model.out[2].register_forward_hook(look)
    drawn = own.sample(model)
    hook.remove()
    assert seen and all(len(m) == 1 and m[0] is own.model.model for m in seen)
    comfy.model_management.unload_all_models()
    assert torch.equal(own.sample(model), drawn)


def test_features_are_looked_at_by_whatever_model_of_that_shape_is_sampled(sd15, flashface):
    other = attentive(community_model(flashface.model, seed=33))
    mixed = sd15.drawn(sampled=other)
    assert torch.equal(mixed, replace(sd15, model=other, net=from_node(other)).drawn())


def test_cancel_stops_between_photos_and_leaves_nothing(own):
    expected = own.drawn(count=4)
    model = apply_features(own.model, own.features(4), GUIDANCE)
    before, before_patched = snapshot(own.model), snapshot(model)
    first = own.model.model.diffusion_model.input_blocks[0][0]

    def cancel(*_):
        comfy.model_management.interrupt_current_processing(True)

    with Counter(first) as passes:
        hook = first.register_forward_hook(cancel)
        with pytest.raises(InterruptProcessingException):
            own.sample(model)
        hook.remove()
    assert passes.count == 1
    assert differences(before, snapshot(own.model)) == []
    assert differences(before_patched, snapshot(model)) == []
    assert torch.equal(own.sample(model), expected)


def test_apply_and_runs_leave_the_input_model_as_it_was(own):
    before = snapshot(own.model)
    model = FlashFaceApply.execute(own.model, own.features()).args[0]
    own.sample(model)
    assert differences(before, snapshot(own.model)) == []
    assert torch.equal(own.sample(model.clone()), own.sample(model))
    for other in (own.model, model.clone()):
        assert not set(containers(model)) & set(containers(other))


def test_a_sampler_that_asks_twice_for_a_noise_level_costs_one_pass(own, monkeypatch):
    real, passes = from_model.feature_maps, []

    def watched(*arguments):
        passes.extend(arguments[2] for _ in arguments[1])
        return real(*arguments)

    monkeypatch.setattr(from_model, "feature_maps", watched)
    guider = classic(
        apply_features(own.model, own.features(), GUIDANCE), own.positive, own.negative
    )
    (sigmas,) = BasicScheduler.execute(own.model, "simple", 3, 1.0).args
    sampler, start = comfy.samplers.sampler_object("heun"), noise(7)
    guider.sample(start, torch.zeros_like(start), sampler, sigmas)
    assert len(passes) == 2 * 3  # photos, noise levels: heun asks five times


@pytest.mark.parametrize(
    "patch",
    [
        lambda model: HyperTile.execute(model, 32, 2, 2, False)[0],
        lambda model: FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0],
    ],
    ids=["HyperTile", "FreeU"],
)
def test_nodes_of_core_work_before_and_after(own, patch):
    features = own.features()
    before = own.sample(apply_features(patch(own.model), features, GUIDANCE))
    after = own.sample(patch(apply_features(own.model, features, GUIDANCE)))
    assert torch.isfinite(before).all() and torch.isfinite(after).all()
    assert relative_error(before, own.sample(patch(own.model))) > 1e-4


def test_through_the_nodes_photos_are_encoded_at_half_of_the_familys_size(own, caplog):
    sigmas = BasicScheduler.execute(own.model, "simple", 2, 1.0).args[0]
    arguments = (identity(), own.net, random_vae(4), own.negative)
    with caplog.at_level("WARNING", "flashface"):
        features = FlashFaceEncode.execute(*arguments, sigmas).args[0]
    assert "sigmas has no effect" in caplog.text
    side = SIZE[own.family] // 8
    (person,) = features.people
    encoded = random_vae(4).encode(torch.zeros(1, 64, 64, 3))
    scale = own.net.settings.latent_format.process_in(encoded) / encoded
    assert torch.allclose(scale, torch.tensor({"SD1.5": 0.18215, "SDXL": 0.13025}[own.family]))
    assert all(r.latent.shape == (1, 4, side, side) for r in person.references)
    model = FlashFaceApply.execute(own.model, features).args[0]
    assert relative_error(own.sample(model), own.sample(own.model)) > 1e-3


def test_the_models_of_flashface_keep_their_attention_and_the_photos_get_it_too(flashface):
    own = Own("SD1.5", flashface.model, from_node(flashface.model), flashface.positive, prompt(2))
    assert own.net.reference_size == flashface.net.reference_size
    nothing = dict(guidance=Guidance(1, 0, 750, 1, 0, coarse=0, medium=0, fine=0))
    assert torch.equal(own.drawn(**nothing), own.sample(flashface.model))
    ra = flashface.net.network.attention_at(flashface.net.network.sites[0])
    model = everywhere(flashface.model, own.features(3), 1.0)
    with Counter(ra, of_rows=True) as rows:
        guided(basic(model, own.positive), noisy(model, noise(7), LATE), LATE)
    assert rows.count == 3 + 1  # photos, the picture


@pytest.mark.parametrize("first", ["own", "flashface"])
def test_one_apply_per_model_whichever_kind(flashface, first):
    net = from_node(flashface.model)
    features = [replace(flashface.features(), net=net), flashface.features()]
    features = features if first == "own" else features[::-1]
    model = apply_features(flashface.model, features[0], GUIDANCE)
    with pytest.raises(FlashFaceError, match="FlashFace Identity Group"):
        apply_features(model, features[1], GUIDANCE)


def test_other_families_are_refused_in_one_sentence(flashface):
    with pytest.raises(FlashFaceError, match="Flux, no UNet.*neither SD1.5 nor SDXL"):
        from_node(flux_model())
    with pytest.raises(FlashFaceError, match="has 9 input channels"):
        from_node(inpainting_model(flashface.model))


def test_features_of_another_shape_are_refused(sd15, sdxl, flashface):
    with pytest.raises(FlashFaceError, match="context width 2048 and 768"):
        apply_features(sdxl.model, sd15.features(), GUIDANCE)
    with pytest.raises(FlashFaceError, match=r"channels \[64, 128\] and \[32, 64\]"):
        apply_features(wider_model(flashface.model), sd15.features(), GUIDANCE)
    with pytest.raises(FlashFaceError, match="SDXL, context width 2048"):
        apply_features(sdxl.model, flashface.features(), GUIDANCE)


def test_the_negative_prompt_has_to_be_of_the_family(sd15, sdxl):
    def encode(net, negative):
        FlashFaceEncode.execute(identity(), net, random_vae(4), negative)

    with pytest.raises(FlashFaceError, match="768 wide.*2048.*an SDXL CLIP"):
        encode(sdxl.net, sd15.negative)
    with pytest.raises(FlashFaceError, match="2048 wide.*768.*an SD1.5 CLIP"):
        encode(sd15.net, sdxl.negative)
    with pytest.raises(FlashFaceError, match="no pooled output"):
        encode(sdxl.net, cond(sdxl.negative[0][0]))
    with pytest.raises(FlashFaceError, match="16 latent channels.*an SDXL VAE"):
        FlashFaceEncode.execute(identity(), sdxl.net, random_vae(16), sdxl.negative)
