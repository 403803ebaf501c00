"""When a face is called doubtful, on photographs with boxes and key points that were found once."""

import logging

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.faces.crop import crop_face
from flashface_pack.flashface_core.faces.doubts import SMALLEST, doubts, is_turned, sharpness
from flashface_pack.flashface_core.faces.face import Face
from flashface_pack.flashface_core.faces.preview import DOUBT
from flashface_pack.flashface_core.faces.select import make_identity
from PIL import Image, ImageFilter
from support.photographs import astronaut, cameraman, smaller

pytest.importorskip("skimage", reason="the photographs come with it")

FRONT = Face(
    (178, 63, 268, 176), np.array([[200, 102], [247, 103], [220, 125], [199, 143], [240, 144]])
)
PROFILE = Face(
    (99, 68, 155, 145), np.array([[134, 97], [152, 99], [151, 119], [132, 131], [144, 132]])
)


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


def said(picture: Image.Image, face: Face) -> list[str]:
    photo = pixels(picture)
    return doubts(photo, face, crop_face(photo, face.box, face.eyes))


def at(face: Face, scale: float = 1, x: float = 0, y: float = 0) -> Face:
    """A face of a photo that was scaled, then moved."""
    x1, y1, x2, y2 = (scale * value for value in face.box)
    return Face((x1 + x, y1 + y, x2 + x, y2 + y), scale * face.points + [x, y])


@pytest.mark.parametrize("scale", [0.7, 1, 1.5, 3])
def test_a_sharp_face_from_the_front_is_not_doubtful(scale):
    assert said(smaller(astronaut(), scale), at(FRONT, scale)) == []


def test_a_face_of_too_few_pixels_is_small_and_not_blurred_as_well():
    scale = (SMALLEST - 1) / 113
    assert said(smaller(astronaut(), scale), at(FRONT, scale)) == ["small"]
    blurred = smaller(astronaut(), scale).filter(ImageFilter.GaussianBlur(3))
    assert said(blurred, at(FRONT, scale)) == ["small"]


@pytest.mark.parametrize("scale", [1, 3])
def test_blur_counts_by_the_size_of_the_face(scale):
    photo = smaller(astronaut(), scale)
    assert said(photo.filter(ImageFilter.GaussianBlur(0.5 * scale)), at(FRONT, scale)) == []
    blurred = photo.filter(ImageFilter.GaussianBlur(2 * scale))
    assert said(blurred, at(FRONT, scale)) == ["blurred"]


def test_sharpness_does_not_ask_how_bright_a_photo_is():
    crop = crop_face(pixels(astronaut()), FRONT.box)
    assert sharpness((crop * 0.5).to(torch.uint8)) == pytest.approx(sharpness(crop), rel=0.05)
    assert sharpness(torch.full((100, 80, 3), 90, dtype=torch.uint8)) == 0


def test_a_profile_is_turned_away():
    assert said(cameraman(), PROFILE) == ["turned away"]
    assert not is_turned(FRONT.points)
    assert is_turned(FRONT.points[[3, 4, 2, 0, 1]])  # mouth and eyes exchanged: upside down
    turned = np.array([[0, 1], [-1, 0]])
    assert not is_turned(FRONT.points @ turned)  # a tilted head is levelled


def test_a_given_box_is_not_asked_where_the_nose_is():
    assert said(cameraman(), PROFILE._replace(points=None)) == []


@pytest.mark.parametrize(("left", "expected"), [(178, []), (180, []), (200, ["cut off"])])
def test_a_face_is_cut_off_from_a_share_of_its_box_on(left, expected):
    photo = astronaut().crop((left, 0, 512, 512))
    assert said(photo, at(FRONT, x=-left)) == expected


def identity(picture: Image.Image, box: Face, **changes):
    given = dict(select="largest", index=0, margin=0.0, no_face="error", weight=1.0, name="Ann")
    given |= dict(as_four_photos=True, boxes=[box.box[0], box.box[1], *size_of(box)])
    return make_identity(pixels(picture)[None].float() / 255, **{**given, **changes})


def size_of(face: Face) -> tuple[float, float]:
    x1, y1, x2, y2 = face.box
    return x2 - x1, y2 - y1


def written(preview: torch.Tensor) -> np.ndarray:
    """Rows in which the preview has the colour of doubts."""
    colour = torch.tensor(DOUBT)
    return ((preview[0] * 255).round() == colour).all(-1).any(1).nonzero().flatten().numpy()


def test_the_preview_says_it_below_the_box_and_the_log_once(caplog):
    photo = astronaut().filter(ImageFilter.GaussianBlur(3))
    with caplog.at_level(logging.WARNING, "flashface"):
        assert not len(written(identity(astronaut(), FRONT).preview))
        assert not caplog.records
        rows = written(identity(photo, FRONT).preview)
        assert rows.min() > 176 and rows.max() < 210
        two = identity(
            photo, FRONT, boxes=[[[178, 63, 90, 113], [181, 62, 87, 110]]], select="every face"
        )
    assert two.count == 2
    first, second = (record.getMessage() for record in caplog.records)
    assert "weak likeness of Ann: a face of image 0 is blurred. Use other photos" in first
    assert second.count("a face of image 0 is blurred") == 2


def test_where_there_is_no_room_below_it_is_said_above():
    photo = astronaut().filter(ImageFilter.GaussianBlur(3)).crop((0, 0, 512, 178))
    rows = written(identity(photo, FRONT).preview)
    assert len(rows) and rows.max() < 63


def test_photos_that_do_not_count_or_are_taken_whole_are_not_judged(caplog):
    photo = astronaut().filter(ImageFilter.GaussianBlur(3))
    with caplog.at_level(logging.WARNING, "flashface"):
        identity(photo, FRONT, weight=0.0)
        identity(photo, FRONT, boxes=None)
    assert not caplog.records
