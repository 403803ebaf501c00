"""Angles, Copy-Paste and intervals on cases that can be worked out by hand."""

import math

import pytest
import torch

from training.identity_measures import angle, bootstrap_interval, copy_paste


def at(*degrees: float) -> torch.Tensor:
    """Unit vectors in a plane."""
    turned = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=-1)


def copied(picture: float, truth: float, reference: float) -> float:
    drawn, true, photo = at(picture, truth, reference)
    return copy_paste(drawn @ true, drawn @ photo, true @ photo).item()


def test_an_angle_is_that_of_the_cosine_whatever_rounding_did():
    got = angle(torch.tensor([1.0, 1 + 1e-6, 0.5, 0, -1, -1 - 1e-6]))
    assert got.tolist() == pytest.approx([0, 0, math.pi / 3, math.pi / 2, math.pi, math.pi])


@pytest.mark.parametrize(
    ("picture", "expected"),
    [(40, 1), (0, -1), (20, 0), (30, 0.5), (10, -0.5), (90, 1), (-50, -1)],
)
def test_copy_paste_says_which_photo_a_picture_is_nearer_to(picture, expected):
    """Truth at 0 degrees, reference at 40; beyond either of them it stays at the bound."""
    assert copied(picture, 0, 40) == pytest.approx(expected, abs=1e-6)


def test_copy_paste_of_a_picture_off_the_plane_is_smaller():
    """As far from both: 0. A little nearer to the reference, which is far: almost 0."""
    cosines = [torch.tensor(math.cos(math.radians(d)), dtype=torch.float64) for d in (80, 76, 40)]
    assert copy_paste(*cosines).item() == pytest.approx(0.1)
    assert copy_paste(cosines[0], cosines[0], cosines[2]).item() == 0


def test_copy_paste_where_the_truth_is_the_reference_is_zero_not_nan():
    assert copied(30, 10, 10) == 0


def test_copy_paste_takes_many_at_once():
    cosines = torch.rand(3, 4, 5) * 2 - 1
    got = copy_paste(*cosines)
    assert got.shape == (4, 5) and got.abs().max() <= 1
    assert got[2, 3] == copy_paste(*cosines[:, 2, 3])


def test_the_interval_of_equal_values_is_the_value():
    assert bootstrap_interval(torch.full((7,), 0.25)) == (0.25, 0.25)


def test_the_interval_is_that_of_the_normal_distribution():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    half = 1.96 * values.std().item() / 20
    low, high = bootstrap_interval(values, draws=4000)
    assert low == pytest.approx(values.mean().item() - half, abs=0.01)
    assert high == pytest.approx(values.mean().item() + half, abs=0.01)
    narrow = bootstrap_interval(values, level=0.5, draws=4000)
    assert low < narrow[0] < narrow[1] < high


def test_whole_people_are_drawn_when_groups_are_given():
    """Ten pictures of each of four people add nothing to one of each."""
    means = torch.tensor([0.1, 0.2, 0.6, 0.9])
    once = bootstrap_interval(means)
    many = means.repeat_interleave(10)
    people = [name for name in "abcd" for _ in range(10)]
    assert bootstrap_interval(many, people) == pytest.approx(once)
    assert bootstrap_interval(many, torch.arange(4).repeat_interleave(10)) == pytest.approx(once)
    low, high = bootstrap_interval(many)
    assert once[0] < low and high < once[1]


def test_people_with_more_pictures_count_for_more():
    """Means of two people drawn twice: 0 (a, a), 3 / 4 (a, b), 1 (b, b)."""
    values, people = torch.tensor([0.0, 1, 1, 1]), ["a", "b", "b", "b"]
    assert bootstrap_interval(values, people, level=0.99) == (0, 1)
    assert bootstrap_interval(values, people, level=0.1) == (0.75, 0.75)


def test_one_seed_gives_one_interval():
    values = torch.rand(30, generator=torch.Generator().manual_seed(2))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"values": torch.zeros(0)}, "at least one"),
        ({"values": torch.zeros(2, 2)}, "in one row"),
        ({"values": torch.zeros(2), "groups": ["a"]}, "1 groups for 2 values"),
        ({"values": torch.zeros(2), "level": 95}, "level is 95"),
    ],
)
def test_what_has_no_interval_is_told(given, said):
    with pytest.raises(ValueError, match=said):
        bootstrap_interval(**given)
