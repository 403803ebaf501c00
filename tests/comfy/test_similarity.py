"""FlashFaceSimilarity on photographs, with every kind of detector and with none."""

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.insight import InsightFaceDetector
from flashface_pack.flashface_core.faces.zoo import ZooDetector
from flashface_pack.flashface_core.people.identity import join_people
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.nodes.identity import FlashFaceIdentity
from flashface_pack.nodes.similarity import FlashFaceSimilarity
from PIL import Image, ImageEnhance, ImageFilter
from support.model_packs import make_model_pack, photograph
from support.zoo import make_zoo

FACE = (176, 66, 276, 196)  # the astronaut's, in her photograph


def to_image(*pictures: Image.Image) -> torch.Tensor:
    """IMAGE"""
    return (
        torch.stack([torch.from_numpy(np.array(p.convert("RGB"))) for p in pictures]).float() / 255
    )


def astronaut() -> Image.Image:
    data = pytest.importorskip("skimage", reason="photographs come with scikit-image").data
    return Image.fromarray(data.astronaut())


def portraits(count: int) -> list[Image.Image]:
    """Faces of strangers, 100 x 130, from Labeled Faces in the Wild; grey and 25 pixels wide."""
    from skimage import data

    faces = (data.lfw_subset()[:count] * 255).astype(np.uint8)  # the first hundred are faces
    return [Image.fromarray(face).resize((100, 130)) for face in faces]


def identify(image, detector=None, weight=1.0, name="Eileen", append_to=None):
    settings = ("largest", 0, 0.0, "error", weight, "as four photos", name)
    return FlashFaceIdentity.execute(image, *settings, detector, append_to=append_to).args[0]


def compare(image, identity, detector=None):
    score, best, index, report = FlashFaceSimilarity.execute(image, identity, detector).args
    assert torch.equal(best, image[index : index + 1])
    assert isinstance(score, float) and isinstance(index, int)
    return score, index, report


def scores_of(report: str) -> list[float]:
    """Of the lines "best  image 3  +0.812  1 face"."""
    lines = [line.split() for line in report.splitlines()]
    return [float(words[3]) for words in lines if len(words) > 3 and words[1] == "image"]


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    from flashface_pack.flashface_core.faces.mtcnn import MtcnnDetector

    return MtcnnDetector()


@pytest.fixture(scope="module")
def insightface(tmp_path_factory):
    """The real FaceAnalysis; skips without the package."""
    return InsightFaceDetector(make_model_pack(tmp_path_factory.mktemp("packs") / "tiny"))


CHANGES = {
    "mirrored": lambda face: face.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "darker": lambda face: ImageEnhance.Brightness(face).enhance(0.6),
    "blurred": lambda face: face.filter(ImageFilter.GaussianBlur(2)),
    "grey": lambda face: face.convert("L"),
    "turned": lambda face: face.rotate(8, Image.Resampling.BICUBIC),
    "25 pixels wide": lambda face: face.resize((25, 32)).resize(face.size),
}


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_network_her_changed_photograph_wins_among_a_hundred_strangers(change):
    face = astronaut().crop(FACE)
    pictures = to_image(*portraits(100), CHANGES[change](face))
    score, index, report = compare(pictures, identify(to_image(face)))
    assert index == 100
    assert score - sorted(scores_of(report))[-2] > 0.1
    assert "whole picture" in report and "no proof of identity" in report


def test_the_report_has_a_ranked_line_per_picture():
    face = astronaut().crop(FACE)
    pictures = to_image(*portraits(2), face)
    score, index, report = compare(pictures, identify(to_image(face)))
    ranked = [line.split()[:3] for line in report.splitlines() if " image " in line]
    assert [words[2] for words in ranked] == ["0", "1", "2"]
    assert sorted(words[0] for words in ranked) == ["#2", "#3", "best"]
    assert scores_of(report)[index] == pytest.approx(score, abs=1e-3) and index == 2
    assert report.startswith("Likeness to Eileen, 1 of its 1 photos")
    assert score == pytest.approx(1, abs=1e-5)  # her own photo


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_one_picture_of_any_channels(channels):
    face = to_image(astronaut().crop(FACE))
    picture = face[..., :channels] if channels < 4 else torch.cat([face, face[..., :1] * 0 + 1], -1)
    score, index, report = compare(picture, identify(face))
    assert index == 0 and score > 0.85
    assert report.count(" image ") == 1


def test_without_a_detector_the_place_is_compared():
    photo = astronaut()
    empty = photo.copy()
    empty.paste((90, 90, 90), FACE)
    placed = identify(to_image(photo.crop(FACE))).with_place(
        Place(tuple(v / 512 for v in (FACE[0], FACE[1], FACE[2] - FACE[0], FACE[3] - FACE[1])))
    )
    score, index, report = compare(to_image(empty, photo), placed)
    assert index == 1 and score == pytest.approx(1, abs=1e-5)
    assert "the identity's place" in report
    assert scores_of(report)[0] < 0.5


def test_masks_place_the_pictures_of_a_batch_one_by_one():
    photo = astronaut()
    moved = Image.new("RGB", photo.size)
    moved.paste(photo.crop(FACE), (10, 20))
    masks = torch.zeros(2, 512, 512, dtype=torch.bool)
    masks[0, FACE[1] : FACE[3], FACE[0] : FACE[2]] = True
    masks[1, 20:150, 10:110] = True
    placed = identify(to_image(photo.crop(FACE))).with_place(Place((0, 0, 1, 1), mask=masks))
    assert scores_of(compare(to_image(photo, moved), placed)[2]) == [1.0, 1.0]


def test_mtcnn_finds_the_faces_and_a_picture_without_one_comes_last(mtcnn):
    photo = astronaut()
    nothing = Image.new("RGB", photo.size, (80, 120, 160))
    pictures = to_image(nothing, photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    score, index, report = compare(pictures, identify(to_image(photo), mtcnn), mtcnn)
    assert index == 1 and score == pytest.approx(1, abs=1e-4)
    assert scores_of(report)[0] == -1 and scores_of(report)[2] > 0.85
    assert "image 0  -1.000  no face found" in report
    assert "edges and colours" in report  # MTCNN cannot embed


def test_no_face_in_any_picture_is_told(mtcnn):
    photo = astronaut()
    nothing = to_image(Image.new("RGB", photo.size), Image.new("RGB", photo.size, "white"))
    score, index, report = compare(nothing, identify(to_image(photo), mtcnn), mtcnn)
    assert (score, index) == (-1, 0) and report.count("no face found") == 2


def test_a_picture_of_no_numbers_is_the_last():
    photo = to_image(astronaut())
    pictures = torch.cat([torch.full_like(photo, torch.nan), photo])
    score, index, report = compare(pictures, identify(photo))
    assert index == 1 and score > 0.99
    assert "image 0  -1.000  no picture: pixels that are no numbers" in report


def test_of_several_faces_the_one_in_the_place_counts(mtcnn):
    photo = astronaut()
    small = photo.resize((320, 320))
    both = Image.new("RGB", (832, 512))
    both.paste(ImageEnhance.Color(photo).enhance(0).filter(ImageFilter.GaussianBlur(3)), (0, 0))
    both.paste(small, (512, 100))
    person = identify(to_image(small), mtcnn)
    anywhere = compare(to_image(both), person, mtcnn)
    assert "2 faces: the largest" in anywhere[2]
    placed = person.with_place(Place((0.6, 0.1, 0.4, 0.8)))
    there = compare(to_image(both), placed, mtcnn)
    assert "in the identity's place" in there[2]
    assert there[0] > anywhere[0] + 0.03


def test_arcface_tells_people_apart(insightface):
    photos = to_image(*(photograph(1, number) for number in range(3)))
    pictures = to_image(*(photograph(person, 5) for person in (2, 3, 1, 4)))
    score, index, report = compare(pictures, identify(photos, insightface), insightface)
    assert index == 2
    assert score - sorted(scores_of(report))[-2] > 0.3
    assert "Measured with ArcFace (insightface tiny)" in report and "3 of its 3" in report


def test_sface_knows_her_changed_photograph_among_strangers(tmp_path):
    zoo = ZooDetector(make_zoo(tmp_path / "opencv_zoo"), look_again=True)
    her = identify(to_image(astronaut()), zoo)
    strangers = [face.resize((512, 512)) for face in portraits(12)]
    changed = astronaut().convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    score, index, report = compare(to_image(*strangers, changed), her, zoo)
    assert index == 12 and score > 0.7 and sorted(scores_of(report))[-2] < 0.4
    assert "Measured with SFace (opencv zoo)" in report and "strangers below 0.35" in report
    # Photos whose key points nobody has given are looked at again.
    unknown = identify(to_image(astronaut().crop(FACE)))
    assert unknown.references[0].aligned is None
    assert compare(to_image(changed), unknown, zoo)[0] > 0.7


def test_arcface_sees_photos_without_key_points_through_the_detector(insightface):
    photo, pictures = to_image(photograph(1, 0)), to_image(photograph(2, 5), photograph(1, 5))
    aligned, unknown = identify(photo, insightface), identify(photo)
    assert aligned.references[0].aligned is not None and unknown.references[0].aligned is None
    first, second = (compare(pictures, person, insightface) for person in (aligned, unknown))
    assert first[1] == second[1] == 1
    assert first[0] == pytest.approx(second[0], abs=0.02)  # aligned by two programs


def test_arcface_without_a_face_in_any_photo_is_an_error(insightface):
    grey = identify(torch.full((2, 200, 200, 3), 0.5))
    with pytest.raises(FlashFaceError, match="no face in any of the identity's 2 photos"):
        compare(to_image(photograph(1, 0)), grey, insightface)


def test_arcface_leaves_out_the_photos_without_a_face(insightface):
    good = identify(to_image(photograph(1, 0)), insightface)
    more = identify(torch.full((1, 200, 200, 3), 0.5), append_to=good)
    pictures = to_image(photograph(1, 5))
    assert "1 of its 2 photos" in compare(pictures, more, insightface)[2]
    assert compare(pictures, more, insightface)[0] == compare(pictures, good, insightface)[0]


def test_a_group_of_people_is_an_error():
    anna, berta = (identify(torch.rand(1, 40, 40, 3), name=name) for name in ("Anna", "Berta"))
    with pytest.raises(FlashFaceError, match="FlashFace Similarity .* group of 2 .Anna, Berta."):
        compare(torch.rand(1, 40, 40, 3), join_people([anna, berta]))


def test_photos_without_weight_are_an_error():
    with pytest.raises(FlashFaceError, match="1 photos and none with a weight above 0"):
        compare(torch.rand(1, 40, 40, 3), identify(torch.rand(1, 40, 40, 3), weight=0.0))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3)])
def test_pictures_of_one_colour_or_hardly_a_pixel_have_a_finite_score(size):
    person = identify(torch.rand(1, 40, 40, 3)).with_place(Place((0.9, 0.9, 0.01, 0.01)))
    for value in (0.0, 0.5, 1.0):
        assert -1 <= compare(torch.full((1, *size, 3), value), person)[0] <= 1
