"""Photographs x policies through FlashFaceIdentity with the real MTCNN: what comes of each."""

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.detector import FlashFaceDetectorLoader
from PIL import Image, ImageOps
from support.detecting import as_image, identify
from support.photographs import astronaut, cameraman, group, smaller

pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
skimage_data = pytest.importorskip("skimage.data", reason="the photographs come with it")


def on_canvas(picture: Image.Image, side: int) -> Image.Image:
    canvas = Image.new("RGB", (side, side), (90, 110, 130))
    canvas.paste(picture, (side // 3, side // 3))
    return canvas


def coloured(value: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (300, 200), (value,) * 3 if mode == "RGB" else value)


# The picture, how many faces are found in it, and where they are (x1, y1, x2, y2).
PHOTOGRAPHS = {
    "nobody: a cup of coffee": (lambda: Image.fromarray(skimage_data.coffee()), []),
    "one face": (astronaut, [(181, 62, 268, 172)]),
    "three faces": (
        group,
        [(483, 66, 565, 172), (105, 173, 159, 246), (945, 187, 993, 246)],
    ),
    "a face of 87 pixels among 8000": (
        lambda: on_canvas(astronaut(), 8000),
        [(2847, 2728, 2934, 2838)],
    ),
    "a face of 9 pixels": (lambda: on_canvas(smaller(astronaut(), 0.1), 2000), []),
    "tilted by 30 degrees": (lambda: astronaut().rotate(30), [(106, 96, 208, 211)]),
    "on its side": (lambda: astronaut().rotate(90), []),
    "upside down": (lambda: astronaut().rotate(180), []),
    "cut off at the left eye": (lambda: astronaut().crop((225, 0, 512, 512)), [(-19, 67, 54, 175)]),
    "cut off below the eyes": (
        lambda: astronaut().crop((0, 0, 512, 120)),
        [(185, 71, 269, 168)],
    ),
    "cut off above the eyes": (lambda: astronaut().crop((0, 0, 512, 95)), []),
    "larger than its photo": (lambda: astronaut().crop((190, 73, 260, 161)), [(-7, -14, 74, 92)]),
    "nearly in profile": (cameraman, [(99, 68, 155, 145)]),
    "half a face": (lambda: astronaut().crop((225, 40, 300, 190)), [(-25, 27, 49, 134)]),
    "black and white": (lambda: astronaut().convert("L"), [(181, 60, 268, 174)]),
    "with transparency": (
        lambda: Image.merge("RGBA", (*astronaut().split(), Image.new("L", (512, 512), 230))),
        [(181, 62, 268, 172)],
    ),
    "wholly transparent": (
        lambda: Image.merge("RGBA", (*astronaut().split(), Image.new("L", (512, 512), 0))),
        [],
    ),
    "16 pixels": (lambda: astronaut().resize((16, 16)), []),
    "one pixel": (lambda: astronaut().resize((1, 1)), []),
    "a line": (lambda: astronaut().resize((3000, 2)), []),
    "8000 pixels": (lambda: astronaut().resize((8000, 8000)), [(2790, 998, 4167, 2710)]),
    "black": (lambda: coloured(0), []),
    "white": (lambda: coloured(255), []),
    "grey, one channel": (lambda: coloured(128, "L"), []),
}

EMPTY = ("wholly transparent", "black", "white")


@pytest.fixture(scope="module")
def detector():
    return FlashFaceDetectorLoader.execute("mtcnn", "none").args[0]


def boxes(result) -> list[tuple]:
    return [reference.box for reference in result[0].references]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_what_comes_of_a_photograph_with_each_policy(name, detector):
    make, expected = PHOTOGRAPHS[name]
    picture = make()
    image = as_image(picture)
    near = pytest.approx(np.array(expected), abs=max(5, 0.01 * max(picture.size)))

    everybody = identify(image, detector, "every face", no_face="skip image")
    person, faces, preview, count = everybody
    assert count == len(person.references) == len(expected)
    assert faces.shape == (max(1, count), 224, 224, 3)
    assert preview.shape[0] == 1 and max(preview.shape[1:3]) == min(1024, max(picture.size))
    for reference in person.references:
        assert reference.points.shape == (5, 2) and reference.aligned.shape == (112, 112, 3)
        assert reference.crop.float().std() > 0 and reference.aligned.float().std() > 0
    if not expected:
        with pytest.raises(FlashFaceError, match="Image 0 has no face.*`boxes`.*no_face"):
            identify(image, detector)
        if name in EMPTY:
            with pytest.raises(FlashFaceError, match="Image 0 shows no face: 100%"):
                identify(image, detector, no_face="use whole image")
            return
        whole = identify(image, detector, no_face="use whole image")
        assert boxes(whole) == [None]
        assert whole[0].references[0].crop.shape[:2] == picture.size[::-1]
        return
    assert np.array(boxes(everybody)) == near
    if max(picture.size) > 4000:  # which take their time
        return
    first = boxes(everybody)[:1]
    for no_face in ("error", "use whole image"):
        assert boxes(identify(image, detector, no_face=no_face)) == first
    with pytest.raises(FlashFaceError, match=f"has {count} faces .* set index below {count}"):
        identify(image, detector, "index", count)


@pytest.mark.parametrize(
    ("select", "index", "expected"),
    [
        ("largest", 0, [0]),
        ("leftmost", 0, [1]),
        ("rightmost", 0, [2]),
        ("index", 0, [0]),
        ("index", 1, [1]),
        ("index", 2, [2]),
        ("every face", 0, [0, 1, 2]),
    ],
)
def test_the_wanted_one_of_three_people_is_taken(select, index, expected, detector):
    all_boxes = PHOTOGRAPHS["three faces"][1]
    got = boxes(identify(as_image(group()), detector, select, index))
    assert np.array(got) == pytest.approx(np.array([all_boxes[i] for i in expected]), abs=5)


def test_a_batch_with_a_photo_without_a_face_follows_the_policy(detector):
    image = torch.cat(
        [
            as_image(astronaut()),
            torch.full((1, 512, 512, 3), 0.5),
            as_image(ImageOps.mirror(astronaut())),
        ]
    )
    with pytest.raises(FlashFaceError, match="Image 1 has no face"):
        identify(image, detector)
    assert identify(image, detector, no_face="skip image")[3] == 2
    whole = identify(image, detector, no_face="use whole image")
    assert [box is None for box in boxes(whole)] == [False, True, False]
    assert whole[2].shape == (3, 512, 512, 3)


def test_a_tilted_face_is_levelled(detector):
    (upright,) = identify(as_image(astronaut()), detector)[0].references
    (tilted,) = identify(as_image(astronaut().rotate(30)), detector)[0].references
    # The same place of the same face, so far as two detections agree.
    difference = (upright.aligned.float() - tilted.aligned.float()).abs().mean()
    other = (upright.aligned.float() - upright.aligned.flip(1).float()).abs().mean()
    assert difference < 0.3 * other
    assert (tilted.crop[:8, :8] == 0).all()  # the corners of a turned crop are black


def test_given_boxes_win_over_the_detector(detector):
    given = identify(as_image(astronaut()), detector, boxes=[10, 20, 30, 40])[0]
    assert given.references[0].box == (10, 20, 40, 60) and given.references[0].points is None
