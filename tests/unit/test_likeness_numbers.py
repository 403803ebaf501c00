"""The numbers of `benchmark likeness`, by hand."""

import sys

import numpy as np
import pytest
from support.tools import ROOT


@pytest.fixture(scope="module")
def likeness():
    pytest.importorskip("webdataset", reason="reading photographs needs it")
    sys.path.append(str(ROOT))  # behind all else: benchmarks are no part of the pack
    try:
        from benchmarks import likeness
    finally:
        sys.path.remove(str(ROOT))
    return likeness


def test_the_area_under_the_curve_counts_equal_scores_half(likeness):
    assert likeness.auc([0.9, 0.5], [0.1, 0.5]) == (1 + 1 + 1 + 0.5) / 4
    assert likeness.auc([0.0], [1.0, 2.0]) == 0


def test_missed_pairs_are_those_at_or_below_the_threshold_of_strangers(likeness):
    strangers = np.arange(101) / 100  # one in a hundred is above .99
    assert likeness.missed_at([0.98, 0.99, 0.995, 1.0], strangers, 0.01) == 0.5
