"""What no face, no strength and no weight mean, to the last bit where it has to be."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.features import FlashFaceEncode
from flashface_pack.nodes.guidance import FlashFaceGuidance
from support.harness import (
    Guidance,
    Place,
    apply_features,
    make_features,
    observe,
    relative_error,
    sigma_of,
)
from support.models import random_vae
from support.photos import identity, photos
from support.sampling import (
    basic,
    classic,
    everywhere,
    face_step,
    guided,
    ksampler,
    noise,
    noisy,
    place_only,
    reference_passes,
)

LATE, EARLY = 501, 951
PLACE = Place((0.3, 0.1, 0.4, 0.4))
OFF = dict(feature_strength=0.0, face_guidance=0.0, early_strength=0.0)


def sample(flashface, model, **options):
    return ksampler(model, flashface.positive, flashface.negative, **options)


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_all_strengths_0_change_nothing_at_all(flashface, rescale):
    guidance = Guidance(**OFF, guidance_rescale=rescale)
    model = apply_features(flashface.model, flashface.features(place=PLACE), guidance)
    with reference_passes(flashface.net) as passes:
        got = sample(flashface, model, steps=3)
    assert torch.equal(got, sample(flashface, flashface.model, steps=3))
    assert passes.count == 0


def test_the_node_with_zeros_changes_nothing_at_all(flashface):
    numbers = dict(launch_timestep=750, guidance_rescale=0.5, start_percent=0.0, end_percent=1.0)
    levels = dict(coarse=1.0, medium=1.0, fine=1.0)
    guidance = FlashFaceGuidance.execute("custom", **OFF, **numbers, **levels).args[0]
    model = apply_features(flashface.model, flashface.features(), guidance)
    assert torch.equal(sample(flashface, model), sample(flashface, flashface.model))


@pytest.mark.parametrize("place", [None, PLACE], ids=["anywhere", "placed"])
def test_all_weights_0_change_nothing_at_all(flashface, place):
    features = flashface.features(2, weights=[0.0, 0.0], place=place)
    model = apply_features(flashface.model, features, Guidance())
    assert torch.equal(sample(flashface, model), sample(flashface, flashface.model))


def test_weight_0_drops_a_photo_exactly(flashface):
    photos = noise(100, 3, 8, 8)
    context = flashface.negative[0][0]
    dropped = make_features(flashface.net, photos, context, [1.0, 0.0, 0.5])
    without = make_features(flashface.net, photos[[0, 2]], context, [1.0, 0.5])
    results = [
        sample(flashface, apply_features(flashface.model, features, Guidance()))
        for features in (dropped, without)
    ]
    assert torch.equal(*results)


def unet_output(flashface, features) -> torch.Tensor:
    """Every row of one UNet call with the face in all of them."""
    model, seen = observe(flashface.model)
    model = everywhere(model, features, 1.2)
    x = noisy(model, noise(7, 2), EARLY)
    guided(classic(model, flashface.positive, flashface.negative), x, EARLY)
    return seen.eps[-1]


def of_weights(flashface, order, weights):
    """UNet output with photos 0, 1, 2 in an order, with weights."""
    photos = noise(100, 3, 8, 8)[list(order)]
    context = flashface.negative[0][0]
    return unet_output(flashface, make_features(flashface.net, photos, context, list(weights)))


def test_a_photo_given_twice_equals_weight_2(flashface):
    twice = of_weights(flashface, (0, 1, 1), (1, 1, 1))
    assert relative_error(of_weights(flashface, (0, 1), (1, 2)), twice) <= 2e-6
    assert relative_error(of_weights(flashface, (0, 1), (1, 1)), twice) > 1e-4


@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_four_photos_is_what_the_official_demos_do_with_fewer(flashface, count):
    """They fill up to four with copies of those given."""
    images = photos(count)
    four = images.repeat(4 // count, 1, 1, 1)
    vae = random_vae(4)

    def output(*person):
        features = FlashFaceEncode.execute(*person, flashface.net, vae, flashface.negative).args[0]
        return unet_output(flashface, features)

    filled_up = output(identity(four))
    got = output(identity(images, reference_weight="as four photos"))
    assert relative_error(got, filled_up) <= 2e-6
    if count < 4:
        assert relative_error(output(identity(images)), filled_up) > 1e-4


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0)], ids=str)
def test_the_order_of_photos_does_not_matter(flashface, order, weights):
    expected = of_weights(flashface, (0, 1, 2), weights)
    got = of_weights(flashface, order, [weights[i] for i in order])
    assert torch.equal(got, expected)


def test_the_order_of_people_does_not_matter(flashface):
    anna = flashface.features(1, place=Place((0.0, 0.2, 0.3, 0.3)), seed=100)
    berta = flashface.features(2, place=Place((0.6, 0.2, 0.3, 0.3), strength=0.5), seed=200)
    results = [
        unet_output(flashface, flashface.people(*people))
        for people in ((anna, berta), (berta, anna))
    ]
    assert relative_error(*results) <= 2e-6  # 1.3e-6 seen


def test_a_person_without_photos_that_count_changes_nothing_for_the_others(flashface):
    anna = flashface.features(2, place=PLACE)
    nobody = flashface.features(1, weights=[0.0], place=Place((0.6, 0.6, 0.3, 0.3)), seed=200)
    results = [
        sample(flashface, apply_features(flashface.model, features, Guidance()))
        for features in (anna, flashface.people(anna, nobody))
    ]
    assert torch.equal(*results)


# percent_to_sigma: 0.3 of sampling is timestep 699, 0.6 is 399.
@pytest.mark.parametrize("timestep", [EARLY, 301])
@pytest.mark.parametrize("place", [None, PLACE], ids=["anywhere", "placed"])
def test_outside_of_start_and_end_percent_only_the_place_stays(flashface, timestep, place):
    features = flashface.features(place=place)
    guidance = Guidance(start_percent=0.3, end_percent=0.6)
    model = apply_features(flashface.model, features, guidance)
    x = noisy(model, noise(7), timestep)
    bare = flashface.model if place is None else place_only(flashface.model, features)
    prompts = flashface.positive, flashface.negative
    with reference_passes(flashface.net) as passes:
        got = guided(classic(model, *prompts), x, timestep)
    assert torch.equal(got, guided(classic(bare, *prompts), x, timestep))
    assert passes.count == 0


def test_inside_of_start_and_end_percent_the_face_is_on(flashface):
    features = flashface.features(place=PLACE)
    guidance = Guidance(start_percent=0.3, end_percent=0.6)
    model = apply_features(flashface.model, features, guidance)
    x = noisy(model, noise(7), LATE)
    got = guided(classic(model, flashface.positive, flashface.negative), x, LATE)
    expected = face_step(flashface, classic, features, guidance, x, LATE)
    assert relative_error(got, expected) <= 1e-5


def test_a_window_that_sampling_never_enters_costs_no_pass(flashface):
    features = flashface.features(seed=4242)
    guidance = Guidance(start_percent=0.8, end_percent=0.9)
    model = apply_features(flashface.model, features, guidance)
    with reference_passes(flashface.net) as passes:
        got = sample(flashface, model, steps=2)  # timesteps 999 and 499
    assert passes.count == 0
    assert torch.equal(got, sample(flashface, flashface.model, steps=2))


def test_an_empty_window_is_an_error():
    with pytest.raises(FlashFaceError, match="start_percent 0.5 is not below end_percent 0.5"):
        Guidance(start_percent=0.5, end_percent=0.5)


def test_a_noise_level_between_two_timesteps_is_read_as_the_nearer_one(flashface):
    """As the official sampler does; core would take the network's answer at the level itself."""
    guidance = Guidance(feature_strength=0, early_strength=0, guidance_rescale=0)
    model = apply_features(flashface.model, flashface.features(), guidance)
    prompts = flashface.positive, flashface.negative
    level = sigma_of(model, LATE)
    x, off = noise(7) * 5, 1.001
    got = guided(classic(model, *prompts), x, LATE, off_by=off)
    as_seen = x * ((level**2 + 1) / ((level * off) ** 2 + 1)) ** 0.5
    expected = guided(classic(flashface.model, *prompts), as_seen, LATE)
    assert relative_error(got, expected) <= 1e-5
    core = guided(classic(flashface.model, *prompts), x, LATE, off_by=off)
    assert 1e-4 < relative_error(got, core) < 1e-2


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_levels_multiply_the_strength_at_their_sites_only(flashface, level):
    """RA of the other sites gets no references, as the outputs of its modules tell."""
    net = flashface.net
    others = {name: 0.0 for name in ("coarse", "medium", "fine") if name != level}
    settings = dict(feature_strength=1, early_strength=1, face_guidance=0, guidance_rescale=0)
    model = apply_features(flashface.model, flashface.features(), Guidance(**settings, **others))
    seen = {}
    hooks = [
        net.network.attention_at(site).register_forward_hook(
            lambda module, args, output, site=site: seen.__setitem__(
                site, len(args) > 1 and bool(args[1])
            )
        )
        for site in net.network.sites
    ]
    try:
        guided(basic(model, flashface.positive), noisy(model, noise(7), EARLY), EARLY)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == {site: name == level for site, name in net.levels.items()}


def test_levels_at_1_and_half_strength_equal_levels_at_half(flashface):
    x = noisy(flashface.model, noise(7), EARLY)
    features = flashface.features()
    settings = dict(feature_strength=1.2, early_strength=1.2, face_guidance=0, guidance_rescale=0)
    halves = Guidance(**settings, coarse=0.5, medium=0.5, fine=0.5)
    got = guided(
        basic(apply_features(flashface.model, features, halves), flashface.positive), x, EARLY
    )
    expected = guided(
        basic(everywhere(flashface.model, features, 0.6), flashface.positive), x, EARLY
    )
    assert relative_error(got, expected) <= 1e-6
