"""Keys and values between anchors."""

import pytest
import torch
from flashface_pack.flashface_core.features import between, blended

ANCHORS = (0.0, 250.0, 500.0, 999.0)


@pytest.mark.parametrize(
    ("timestep", "expected"),
    [
        (0.0, [(0.0, 1.0)]),
        (250.0, [(250.0, 1.0)]),
        (300.0, [(250.0, 0.8), (500.0, 0.2)]),
        (999.0, [(999.0, 1.0)]),
        (-0.87, [(0.0, 1.0)]),
        (1010.0, [(999.0, 1.0)]),
    ],
)
def test_the_anchors_around_a_timestep(timestep, expected):
    found = between(ANCHORS, timestep)
    assert [anchor for anchor, _ in found] == [anchor for anchor, _ in expected]
    assert [share for _, share in found] == pytest.approx([share for _, share in expected])


def test_without_anchors_a_timestep_is_its_own():
    assert between((), 333.0) == [(333.0, 1.0)]


def test_keys_and_values_lie_on_the_line_between_two_anchors():
    site = ("output", 3, 0)
    low, high = ({site: tuple(torch.randn(2, 1, 5, 4))} for _ in range(2))
    found = blended([0.8, 0.2], [low, high])[site]
    for got, a, b in zip(found, low[site], high[site], strict=True):
        torch.testing.assert_close(got, 0.8 * a + 0.2 * b)
    assert blended([1.0], [low]) is low
