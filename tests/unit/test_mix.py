"""Mixing two people: weights, exact ends, symmetry; and groups."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.identity import (
    FaceReference,
    Identity,
    IdentityGroup,
    join_people,
    one_person,
)
from flashface_pack.flashface_core.people.mix import mix_identities
from flashface_pack.flashface_core.people.place import Place


def person(*weights, seed=0, as_four_photos=False, place=None, name="") -> Identity:
    random = torch.Generator().manual_seed(seed)
    crops = [torch.randint(256, (8, 8, 3), generator=random).to(torch.uint8) for _ in weights]
    photos = [FaceReference.from_crop(crop, w) for crop, w in zip(crops, weights, strict=True)]
    return Identity(tuple(photos), name, as_four_photos, place)


def weights_of(mixed: Identity) -> dict[str, float]:
    weights: dict[str, float] = {}
    for reference, weight in zip(mixed.references, mixed.key_weights(), strict=True):
        weights[reference.content] = weights.get(reference.content, 0.0) + weight
    return weights


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_the_weights_of_a_mix(ratio):
    a, b = person(1.0, 0.5, seed=1), person(2.0, 3.0, 1.0, seed=2)
    total = (1 - ratio) * 1.5 + ratio * 6.0
    mixed = mix_identities(a, b, ratio)
    expected = [w * (1 - ratio) * total / 1.5 for w in (1.0, 0.5)]
    expected += [w * ratio * total / 6.0 for w in (2.0, 3.0, 1.0)]
    assert mixed.key_weights() == pytest.approx(expected, rel=1e-12)
    assert sum(mixed.key_weights()) == pytest.approx(total)


def test_one_photo_as_four_weighs_as_much_as_four_in_a_mix():
    one, four = person(1.0, seed=1, as_four_photos=True), person(1, 1, 1, 1, seed=2)
    assert mix_identities(one, four, 0.5).key_weights() == pytest.approx([2, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("ratio", [0, 0.0, 1, 1.0])
def test_the_ends_are_the_pure_identity(ratio):
    a, b = person(1.0, 0.5, seed=1, name="a"), person(2.0, seed=2, as_four_photos=True, name="b")
    pure, mixed = (b if ratio else a), mix_identities(a, b, ratio)
    assert mixed.references is pure.references
    assert (mixed.name, mixed.as_four_photos) == (pure.name, pure.as_four_photos)


def test_a_mix_is_symmetric():
    a, b = person(1.0, 0.5, seed=1), person(2.0, 3.0, seed=2)
    one, other = (weights_of(m) for m in (mix_identities(a, b, 0.3), mix_identities(b, a, 0.7)))
    assert one.keys() == other.keys()
    assert all(one[key] == pytest.approx(other[key], rel=1e-12) for key in one)


def test_mixes_can_be_mixed():
    a, b, c = (person(1.0, 1.0, seed=seed) for seed in (1, 2, 3))
    half = mix_identities(mix_identities(a, b, 0.5), c, 1 / 3)
    assert half.key_weights() == pytest.approx([1 / 3] * 4 + [1 / 3] * 2)


def test_photos_of_weight_0_stay_out():
    mixed = mix_identities(person(1.0, 0.0, seed=1), person(0.0, seed=2), 0.5)
    assert mixed.key_weights() == pytest.approx([0.25, 0.0, 0.0])


def test_the_place_is_that_of_the_one_who_has_one():
    place = Place((0.1, 0.1, 0.2, 0.2))
    for ratio in (0, 0.5, 1):
        assert mix_identities(person(1.0), person(1.0, place=place), ratio).place is place
        assert mix_identities(person(1.0, place=place), person(1.0), ratio).place is place
    with pytest.raises(FlashFaceError, match="Both .* a place.* behind FlashFace Identity Mix"):
        mix_identities(person(1.0, place=place), person(1.0, place=place), 0.5)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_outside_of_0_to_1_is_an_error(ratio):
    with pytest.raises(FlashFaceError, match="ratio"):
        mix_identities(person(1.0), person(1.0), ratio)


def test_groups_of_groups_are_one_group():
    a, b, c = (person(1.0, seed=seed, name=name) for seed, name in enumerate("abc"))
    group = join_people([join_people([a, b]), c])
    assert [one.name for one in group.people] == ["a", "b", "c"]
    assert one_person(a, "This") is a
    with pytest.raises(FlashFaceError, match=r"This.* group of 2 \(a, no name\)"):
        one_person(IdentityGroup((a, person(1.0))), "This")
