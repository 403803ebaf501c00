"""The 112 x 112 face of ArcFace and Face2Diffusion, against the official code's numbers."""

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.align import (
    ARCFACE_POINTS,
    align_face,
    similarity_transform,
)
from safetensors.torch import load_file
from support.golden import ROOT


@pytest.fixture(scope="module")
def golden():
    return load_file(ROOT / "face2diffusion" / "align.safetensors")


def test_the_transform_is_the_official_one(golden):
    got = similarity_transform(golden["landmarks5"].numpy(), ARCFACE_POINTS)
    assert got == pytest.approx(golden["M"].numpy(), abs=1e-4)


def test_the_aligned_face_is_the_official_one(golden):
    got = align_face(golden["frame_u8"], golden["landmarks5"].numpy())
    error = (got.float() - golden["warped_u8"].float()).abs()
    assert got.shape == (112, 112, 3) and got.dtype == torch.uint8
    assert error.mean() < 0.01 and error.max() <= 2


def moved(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ARCFACE_POINTS @ turn.T + [x, y]


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -120])
@pytest.mark.parametrize("scale", [0.1, 1, 20])
def test_turned_scaled_and_shifted_points_are_brought_back(degrees, scale):
    matrix = similarity_transform(moved(degrees, scale, 40, -7), ARCFACE_POINTS)
    back = np.c_[moved(degrees, scale, 40, -7), np.ones(5)] @ matrix[:2].T
    assert back == pytest.approx(ARCFACE_POINTS, abs=1e-9)


def test_a_face_never_becomes_its_mirror_image():
    mirrored = ARCFACE_POINTS * [-1, 1] + [112, 0]
    matrix = similarity_transform(mirrored, ARCFACE_POINTS)
    assert np.linalg.det(matrix[:2, :2]) > 0


def test_points_of_a_photo_of_112_pixels_leave_it_as_it_is():
    photo = torch.randint(0, 256, (112, 112, 3), generator=torch.Generator().manual_seed(0))
    photo = photo.to(torch.uint8)
    assert (align_face(photo, ARCFACE_POINTS).int() - photo.int()).abs().max() <= 1
    part = align_face(photo[:, 30:], ARCFACE_POINTS - [30, 0])
    assert not part[:, :30].any()  # black where the photo ends
    assert (part[:, 31:].int() - photo[:, 31:].int()).abs().max() <= 1


def test_a_face_outside_of_the_photo_is_black_and_points_in_one_place_are_an_error():
    photo = torch.full((50, 60, 3), 200, dtype=torch.uint8)
    assert not align_face(photo, ARCFACE_POINTS + 5000).any()
    assert not align_face(photo, ARCFACE_POINTS - 5000).any()
    with pytest.raises(FlashFaceError, match="coincide"):
        align_face(photo, np.full((5, 2), 20.0))
