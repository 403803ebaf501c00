"""Keys and values between anchors, and what is kept of them."""

import pytest
import torch
from flashface_pack.flashface_core.features import FeatureCache, between, blended

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


class Runs:
    """A cache with room for so many entries, and runs through it."""

    def __init__(self, room: int) -> None:
        self.cache = FeatureCache(room * 4)

    def run(self, keys) -> int:
        """How many had to be computed."""
        computed = []
        self.cache.begin_run()
        for key in keys:
            self.cache.get_all([key], lambda missing: [computed.append(missing) or torch.zeros(1)])
            assert self.cache.bytes <= self.cache.max_bytes
        return len(computed)


def test_a_run_that_is_a_step_too_large_finds_the_others():
    runs = Runs(20)
    assert [runs.run(range(21)) for _ in range(4)] == [21, 1, 1, 1]
    assert runs.cache.has_left_out
    assert runs.run(range(20)) == 0 and not runs.cache.has_left_out


def test_people_and_prompts_of_older_runs_make_room():
    runs = Runs(20)
    runs.run(range(20))
    other, third = range(100, 115), range(200, 210)
    assert [runs.run(other), runs.run(other)] == [15, 0]
    assert [runs.run(third), runs.run(third)] == [10, 0]
    assert runs.run(other[:10]) == 0  # the first person went first, then the end of the second


def test_two_passes_that_are_a_step_too_large_together_find_the_others():
    runs = Runs(20)
    passes = range(14), range(50, 57)
    counts = [runs.run(steps) for _ in range(4) for steps in passes]
    assert counts[:2] == [14, 7] and sum(counts[2:]) <= 2 * 3


def test_of_single_entries_the_least_recently_used_goes_first():
    cache = FeatureCache(2 * 4)
    for key in "abac":
        cache.get(key, lambda: torch.zeros(1))
    computed = []
    for key in "acb":
        cache.get(key, lambda key=key: computed.append(key) or torch.zeros(1))
    assert computed == ["b"]
