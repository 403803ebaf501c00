"""The cases of docs/PHOTOS.md with photographs that packages ship, through core's Load Image."""

import asyncio
from importlib.util import find_spec
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.faces.crop import crop_face
from flashface_pack.flashface_core.faces.doubts import doubts
from flashface_pack.flashface_core.faces.mtcnn import MtcnnDetector
from PIL import Image, ImageDraw
from support.detecting import as_image, identify
from support.photographs import astronaut, cameraman, smaller
from support.zoo import make_zoo

import nodes

pytest.importorskip("skimage", reason="the photographs come with it")

FACE = (181, 62, 268, 172)  # the astronaut's
ORIENTATION, TURNED_LEFT = 0x0112, 6  # EXIF: to be shown turned by 90 degrees clockwise


@pytest.fixture(scope="module")
def detector():
    pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
    return MtcnnDetector(look_again=True)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A file through Load Image: IMAGE."""
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))

    def load(picture: Image.Image, name: str, **options) -> torch.Tensor:
        picture.save(tmp_path / name, **options)
        given = nodes.LoadImage().load_image(name)
        return (asyncio.run(given) if asyncio.iscoroutine(given) else given)[0]

    return load


def found(image, detector) -> list[tuple[float, ...]]:
    return [one.box for one in identify(image, detector, "every face")[0].references]


def judged(picture: Image.Image, detector) -> list[list[str]]:
    photo = torch.from_numpy(np.array(picture.convert("RGB")))
    faces = detector.find(photo)
    return [doubts(photo, face, crop_face(photo, face.box, face.eyes)) for face in faces]


def test_a_phone_photo_that_is_turned_by_its_exif_note(load, detector):
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_LEFT
    lying = astronaut().transpose(Image.Transpose.ROTATE_90)
    (box,) = found(load(lying, "phone.jpg", exif=exif, quality=95), detector)
    assert box == pytest.approx(FACE, abs=5)


def test_a_png_with_an_alpha_channel(load, detector):
    alpha = Image.new("L", (512, 512), 200)
    (box,) = found(load(Image.merge("RGBA", (*astronaut().split(), alpha)), "heic.png"), detector)
    assert box == pytest.approx(FACE, abs=5)


def test_twelve_megapixels(load, detector):
    photo = Image.new("RGB", (4000, 3000), (90, 110, 130))
    photo.paste(smaller(astronaut(), 4), (900, 400))
    (box,) = found(load(photo, "large.jpg", quality=90), detector)
    assert box == pytest.approx([900 + 4 * 181, 400 + 4 * 62, 900 + 4 * 268, 400 + 4 * 172], abs=40)
    assert judged(photo, detector) == [[]]


def test_a_screenshot_with_borders_and_text(detector):
    shot = Image.new("RGB", (1080, 2340), (0, 0, 0))
    draw = ImageDraw.Draw(shot)
    draw.rectangle((0, 0, 1080, 120), fill=(240, 240, 240))
    for line in range(12):
        draw.text((40, 1500 + 60 * line), "liked by somebody and 24 others", fill=(255, 255, 255))
    shot.paste(smaller(astronaut(), 2), (28, 300))
    (box,) = found(as_image(shot), detector)
    assert box == pytest.approx([28 + 362, 300 + 124, 28 + 536, 300 + 344], abs=20)


def sunglasses() -> Image.Image:
    photo = astronaut()
    draw = ImageDraw.Draw(photo)
    for x in (201, 247):
        draw.ellipse((x - 18, 92, x + 18, 116), fill=(15, 15, 18))
    draw.line((201, 100, 247, 100), fill=(15, 15, 18), width=4)
    return photo


def test_sunglasses_that_are_painted_on(detector):
    (box,) = found(as_image(sunglasses()), detector)
    assert box == pytest.approx(FACE, abs=20)


def test_sunglasses_cost_likeness(tmp_path):
    from flashface_pack.flashface_core.faces.zoo import ZooDetector

    zoo = ZooDetector(make_zoo(tmp_path / "opencv_zoo"))
    photos = [torch.from_numpy(np.array(one)) for one in (astronaut(), sunglasses())]
    bare, covered = (zoo.embed(photo, zoo.find(photo)[0]) for photo in photos)
    assert 0.3 < bare @ covered < 0.9


def test_a_profile_is_found_and_called_turned_away(detector):
    assert judged(cameraman(), detector) == [["turned away"]]


def test_a_hundred_people_of_all_kinds_are_found_and_none_is_turned_away(detector):
    from skimage import data

    faces = (data.lfw_subset()[:100:4] * 255).astype(np.uint8)
    said = [judged(Image.fromarray(one).resize((224, 224)), detector) for one in faces]
    assert [len(one) for one in said] == [1] * len(faces)
    assert not [words for one in said for words in one if "turned away" in words]


def test_a_group_of_six_of_whom_one_looks_aside(detector):
    package = find_spec("insightface")
    if package is None or package.origin is None:
        pytest.skip("the group photograph comes with InsightFace")
    photo = Image.open(Path(package.origin).parent / "data" / "images" / "t1.jpg")
    assert sorted(judged(photo, detector)) == [[]] * 5 + [["turned away"]]
