"""Several people, mixes and saved identities from photos to samples, through the nodes."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.identity_file import load_identity, save_identity
from flashface_pack.nodes.features import FlashFaceEncode
from flashface_pack.nodes.identity import FlashFaceIdentity
from flashface_pack.nodes.people import FlashFaceIdentityGroup, FlashFaceIdentityMix
from support.harness import Guidance, apply_features, relative_error
from support.models import random_vae
from support.photos import identity, photos, placed
from support.sampling import ksampler, reference_passes


@pytest.fixture(scope="module")
def vae():
    return random_vae(4)


@pytest.fixture
def sample(flashface, vae):
    def sample(person):
        features = FlashFaceEncode.execute(person, flashface.net, vae, flashface.negative).args[0]
        model = apply_features(flashface.model, features, Guidance())
        return ksampler(model, flashface.positive, flashface.negative)

    return sample


def group(*people):
    return FlashFaceIdentityGroup.execute(*people).args[0]


def mix(a, b, ratio):
    return FlashFaceIdentityMix.execute(a, b, ratio).args[0]


def anna(**place):
    person = identity(photos(2, seed=1))
    return placed(person, 0.05, **place) if place else person


def berta(**place):
    person = identity(photos(3, seed=2), weight=0.5)
    return placed(person, 0.6, **place) if place else person


def cecil():
    return placed(identity(photos(1, seed=3)), 0.3, attention="inside the region")


def test_the_order_of_people_does_not_matter(sample):
    inside = dict(attention="inside the region")
    people = [anna(**inside), berta(strength=0.6), cecil()]
    results = [sample(group(*(people[i] for i in order))) for order in ((0, 1, 2), (2, 0, 1))]
    assert torch.equal(*results)
    nested = sample(group(group(*people[:2]), people[2]))
    assert torch.equal(nested, results[0])


def test_everybody_in_a_group_counts(sample):
    both = sample(group(anna(), berta()))
    assert relative_error(sample(anna()), both) > 1e-3
    assert relative_error(sample(berta()), both) > 1e-3


def test_two_people_without_a_place_are_all_their_photos(sample):
    one = FlashFaceIdentity.execute(
        photos(3, seed=2), "largest", 0, 0.0, "error", 0.5, "as given", "", append_to=anna()
    ).args[0]
    assert relative_error(sample(group(anna(), berta())), sample(one)) <= 1e-5


def test_somebody_of_strength_0_in_a_region_of_their_own_is_not_drawn(sample):
    inside = dict(attention="inside the region")
    gone = placed(identity(photos(3, seed=2)), 0.6, strength=0.0, **inside)
    other = placed(identity(photos(1, seed=9)), 0.6, strength=0.0, **inside)
    results = [sample(group(anna(**inside), person)) for person in (gone, other)]
    assert relative_error(*results) <= 1e-6


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_ends_of_a_mix_give_the_bits_of_the_pure_identity(sample, ratio):
    pure = berta() if ratio else anna()
    assert torch.equal(sample(mix(anna(), berta(), ratio)), sample(pure))


def test_a_mix_is_symmetric_and_lies_between(sample):
    half = sample(mix(anna(), berta(), 0.3))
    assert relative_error(half, sample(mix(berta(), anna(), 0.7))) <= 1e-6
    assert min(relative_error(half, sample(person)) for person in (anna(), berta())) > 1e-3


def test_a_mix_of_a_person_with_the_same_person_is_that_person(sample):
    assert relative_error(sample(mix(anna(), anna(), 0.4)), sample(anna())) <= 1e-5


def test_ratios_and_places_compute_no_photo_again(flashface, vae, sample):
    sample(group(anna(strength=1.0), berta()))
    with reference_passes(flashface.net) as passes:
        for ratio in (0.2, 0.8):
            sample(mix(anna(), berta(), ratio))
        sample(group(anna(attention="inside the region"), berta(strength=0.3)))
    assert passes.count == 0


@pytest.mark.parametrize(
    "person",
    [
        anna,
        berta,
        cecil,
        lambda: mix(anna(strength=0.9), berta(), 0.37),
        lambda: mix(anna(), mix(anna(), berta(), 0.5), 0.5),
    ],
    ids=["anna", "berta", "placed", "mixed", "mixed with herself"],
)
def test_a_saved_identity_gives_the_same_bits(sample, tmp_path, person):
    path = save_identity(person(), tmp_path, "someone")
    assert torch.equal(sample(load_identity(path)), sample(person()))


def test_one_person_is_asked_for_where_one_is_needed():
    two = group(anna(), berta())
    for use in (
        lambda: mix(two, anna(), 0.5),
        lambda: mix(anna(), two, 0.5),
        lambda: placed(two),
        lambda: identity(photos(1), append_to=two),
    ):
        with pytest.raises(FlashFaceError, match="one person, before FlashFace Identity Group"):
            use()


def test_a_group_with_somebody_without_photos_is_refused(sample):
    nobody = FlashFaceIdentity.execute(
        photos(1), "largest", 0, 0.0, "skip image", 1.0, "as given", "Bob", boxes=[[]]
    ).args[0]
    with pytest.raises(FlashFaceError, match="identity Bob has no photo"):
        sample(group(anna(), nobody))
