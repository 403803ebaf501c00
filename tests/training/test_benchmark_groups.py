"""Several people in one picture of a benchmark: placed, matched and measured."""

from itertools import permutations

import numpy as np
import pytest
import torch

pytest.importorskip("webdataset", reason="reading photographs needs it")

from training.photos.groups import in_square, measure_group


@pytest.mark.parametrize(
    ("size", "boxes", "expected"),
    [
        # The square is as high as the picture, around both faces.
        ((300, 100), [(120, 20, 140, 40), (160, 20, 180, 60)],
         [(0.2, 0.2, 0.2, 0.2), (0.6, 0.2, 0.2, 0.4)]),
        # At the picture's edge it stays inside.
        ((300, 100), [(0, 20, 20, 40), (20, 20, 40, 40)],
         [(0, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)]),
        # Faces further apart need a larger one, higher than the picture.
        ((400, 100), [(100, 0, 150, 100), (250, 0, 300, 100)],
         [(0, 0.25, 0.25, 0.5), (0.75, 0.25, 0.25, 0.5)]),
        # High pictures; a box that leaves the picture; a tiny one grows.
        ((100, 200), [(-20, 40, 20, 60), (50, 100, 51, 101)],
         [(0, 0.195, 0.2, 0.2), (0.505 - 1 / 32, 0.8 - 1 / 32, 1 / 16, 1 / 16)]),
    ],
)  # fmt: skip
def test_boxes_are_told_in_the_square_around_them(size, boxes, expected):
    found = in_square(boxes, *size)
    assert np.allclose(found, expected, atol=0.006), found


def vectors(*angles: float) -> torch.Tensor:
    """Unit vectors in a plane, of angles in degrees."""
    radians = torch.tensor(angles).double().deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_faces_are_matched_and_the_others_tell_of_blending():
    found = measure_group(vectors(62, 1), vectors(3, 60), vectors(0, 64))
    assert found.sim_gt == pytest.approx((cosine(1) + cosine(2)) / 2)
    assert found.sim_ref == pytest.approx((cosine(2) + cosine(2)) / 2)
    assert found.blending_gt == pytest.approx((cosine(62) + cosine(63)) / 2)
    assert found.blending_ref == pytest.approx((cosine(59) + cosine(59)) / 2)
    assert found.copy_paste == pytest.approx(((1 - 2) / 3 + (2 - 2) / 4) / 2)
    copied = measure_group(vectors(3, 60), vectors(3, 60), vectors(0, 64))
    assert copied.copy_paste == pytest.approx(1) and copied.sim_ref == pytest.approx(1)


def test_a_missing_face_lowers_no_mean_and_one_too_many_has_no_match():
    missing = measure_group(vectors(1), vectors(3, 60), vectors(0, 64))
    assert missing.sim_gt == pytest.approx(cosine(1))
    assert missing.blending_gt == pytest.approx(cosine(63)) and np.isnan(missing.copy_paste)
    too_many = measure_group(vectors(90, 62, 1), vectors(3, 60), vectors(0, 64))
    assert too_many.sim_gt == pytest.approx((cosine(1) + cosine(2)) / 2)
    assert np.isnan(too_many.copy_paste) and too_many.blending_gt < cosine(60)
    nobody = torch.zeros(0, 0)
    assert np.isnan(measure_group(nobody, vectors(3, 60), vectors(0, 64))).all()
    alone = measure_group(vectors(1), vectors(3), nobody)
    assert alone.sim_ref == pytest.approx(cosine(2))
    assert np.isnan([alone.sim_gt, alone.copy_paste, alone.blending_ref]).all()


def test_the_matching_is_the_best_of_all():
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        drawn, people = torch.nn.functional.normalize(
            torch.randn(2, 4, 5, generator=generator).double(), dim=-1
        )
        cosines = drawn @ people.T
        best = max(cosines[range(4), order].mean() for order in map(list, permutations(range(4))))
        found = measure_group(drawn, people, people)
        assert found.sim_gt == found.sim_ref == pytest.approx(best.item())
        assert found.blending_ref == pytest.approx((cosines.sum().item() - 4 * best.item()) / 12)
