"""YuNet and SFace of OpenCV Zoo: the real networks on photographs, and what is read of them."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.detect import ZOO, load_detector, load_usable_detector
from flashface_pack.flashface_core.faces.zoo import (
    SFACE,
    STRIDES,
    YUNET,
    ZooDetector,
    best_boxes,
    find_zoo,
    read_yunet,
    squares,
)
from PIL import Image, ImageEnhance, ImageOps
from support.photographs import astronaut, cameraman, group, smaller
from support.zoo import make_zoo


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_zoo(tmp_path_factory.mktemp("models") / "opencv_zoo")


@pytest.fixture(scope="module")
def zoo(folder):
    pytest.importorskip("skimage", reason="the photographs come with it")
    return ZooDetector(folder, look_again=True)


def half_size(picture: Image.Image) -> Image.Image:
    return smaller(picture, 0.5)


def test_it_gives_box_points_and_score_in_pixels_of_the_photo(zoo):
    (face,) = zoo.find(pixels(astronaut()))
    assert face.box == pytest.approx((178, 63, 268, 176), abs=4) and 0.8 < face.score <= 1
    left, right, nose, mouth_left, mouth_right = face.points
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    (double,) = zoo.find(pixels(smaller(astronaut(), 2)))
    assert np.array(double.box) / 2 == pytest.approx(np.array(face.box), abs=4)
    assert double.points / 2 == pytest.approx(face.points, abs=6)


# The picture, and the boxes of its faces from the largest to the smallest.
PHOTOGRAPHS = {
    "three faces": (group, [(480, 64, 569, 173), (98, 171, 160, 247), (948, 190, 992, 245)]),
    "nearly in profile": (cameraman, [(96, 60, 157, 146)]),
    "on its side": (lambda: astronaut().rotate(90), [(89, 246, 157, 333)]),
    "upside down": (lambda: astronaut().rotate(180), [(245, 340, 331, 443)]),
    "half a face": (lambda: astronaut().crop((225, 40, 300, 190)), [(-3, 27, 40, 139)]),
    "larger than its photo": (lambda: astronaut().crop((190, 73, 260, 161)), [(-4, 0, 72, 96)]),
    "black and white": (lambda: astronaut().convert("L"), [(177, 64, 269, 178)]),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_faces_of_photographs(zoo, name):
    make, boxes = PHOTOGRAPHS[name]
    found = [face.box for face in zoo.find(pixels(make()))]
    assert np.array(found) == pytest.approx(np.array(boxes), abs=6)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "moon", "retina"])
def test_nobody_is_seen_where_nobody_is(zoo, name):
    from skimage import data

    assert zoo.find(pixels(Image.fromarray(getattr(data, name)()))) == []


@pytest.mark.parametrize("corner", [(700, 900), (1500, 1600)])
def test_a_small_face_of_a_large_photo_is_found_in_the_square_that_holds_it(folder, zoo, corner):
    wide = Image.new("RGB", (2000, 2000), (90, 110, 130))
    wide.paste(smaller(astronaut(), 0.25), corner)
    assert ZooDetector(folder).find(pixels(wide)) == []
    (face,) = zoo.find(pixels(wide))
    x, y = corner
    assert face.box == pytest.approx((x + 45, y + 16, x + 68, y + 44), abs=4)
    assert (face.points > face.box[:2]).all() and (face.points < face.box[2:]).all()


@pytest.mark.parametrize("size", [(5000, 3), (3, 5000), (1, 1), (16, 16), (5000, 100)])
def test_no_shape_of_photo_stops_it(zoo, size):
    assert zoo.find(pixels(Image.new("RGB", size, (10, 60, 200)))) == []


def test_sface_knows_her_in_a_changed_photograph_and_strangers_are_far(zoo):
    def who(picture):
        (face,) = zoo.find(pixels(picture))
        return zoo.embed(pixels(picture), face)

    her = who(astronaut())
    assert her.shape == (128,) and np.linalg.norm(her) == pytest.approx(1, abs=1e-5)
    darker = ImageEnhance.Brightness(astronaut()).enhance(0.5)
    for same in (ImageOps.mirror(astronaut()), darker, half_size(astronaut())):
        assert her @ who(same) > 0.8
    assert her @ who(astronaut().rotate(10)) > 0.8
    assert her @ who(cameraman()) < 0.35


def test_it_works_again_after_its_sessions_were_released(zoo):
    photo = pixels(astronaut())
    (face,) = zoo.find(photo)
    who = zoo.embed(photo, face)
    zoo.release()
    assert np.array_equal(zoo.embed(photo, face), who)
    zoo.release()
    assert zoo.find(photo)[0].box == face.box


def test_without_sface_faces_are_found_and_not_compared(folder, tmp_path):
    (yunet,) = folder.glob(f"{YUNET}*")
    (tmp_path / yunet.name).write_bytes(yunet.read_bytes())
    alone = ZooDetector(tmp_path)
    assert not alone.can_embed and alone.recognition == ""
    (face,) = alone.find(pixels(astronaut()))
    with pytest.raises(FlashFaceError, match=f"without {SFACE}.onnx; put it beside .*{YUNET}"):
        alone.embed(pixels(astronaut()), face)


def test_a_given_box_cannot_be_compared(zoo):
    (face,) = zoo.find(pixels(astronaut()))
    with pytest.raises(FlashFaceError, match="without key points"):
        zoo.embed(pixels(astronaut()), face._replace(points=None))


def test_a_damaged_file_is_told_with_what_to_do(folder, tmp_path):
    with pytest.raises(FlashFaceError, match=rf"no {YUNET}.onnx in {tmp_path}; download .*{SFACE}"):
        ZooDetector(tmp_path)
    (tmp_path / f"{YUNET}.onnx").write_bytes(b"not a graph")
    with pytest.raises(FlashFaceError, match=rf"{YUNET}.onnx cannot be used .*without `_int8`"):
        ZooDetector(tmp_path)


def test_a_file_whose_weights_are_missing_is_refused(folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    kind, make = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["data", "weight"], ["fc1"])
    inputs = [make("data", kind, [1, 3, 112, 112]), make("weight", kind, [112])]
    outputs = [make("fc1", kind, [1, 3, 112, 112])]
    graph = onnx.helper.make_graph([node], "graph", inputs, outputs)
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, tmp_path / f"{SFACE}.onnx")
    (yunet,) = folder.glob(f"{YUNET}*")
    (tmp_path / yunet.name).write_bytes(yunet.read_bytes())
    with pytest.raises(FlashFaceError, match=f"{SFACE}.onnx has 1 weights missing"):
        ZooDetector(tmp_path)


def test_the_published_file_comes_before_quantised_ones(tmp_path):
    assert find_zoo([tmp_path / "no", tmp_path]) is None
    for name in (f"{YUNET}_int8bq.onnx", f"{YUNET}_int8.onnx", f"{YUNET}.onnx"):
        (tmp_path / name).write_bytes(b"")
        assert find_zoo([tmp_path / "no", tmp_path]) == tmp_path
        with pytest.raises(FlashFaceError, match=f"{name} cannot be used|onnxruntime cannot be"):
            ZooDetector(tmp_path)


def test_without_onnxruntime_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / f"{YUNET}.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FlashFaceError, match="onnxruntime cannot be imported .* install it with"):
        load_detector(ZOO, tmp_path)
    with pytest.raises(FlashFaceError, match=f"onnxruntime with .* put .*{YUNET}.onnx"):
        load_detector(ZOO)


def test_auto_takes_it_only_where_nothing_else_can_be_used(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    assert load_usable_detector(None, zoo=folder).name == "opencv zoo"
    with pytest.raises(FlashFaceError, match="No face detector .* for YuNet install onnxruntime"):
        load_usable_detector(None)
    monkeypatch.undo()
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    assert load_usable_detector(None, zoo=folder).name == "mtcnn"


def grids(cells: dict[tuple[int, int, int], tuple[list[float], list[float], float, float]]):
    """YuNet's outputs, empty but for cells of a stride, column and row: bbox, kps, cls, obj."""
    outputs = {}
    for stride in STRIDES:
        side = 640 // stride
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{name}_{stride}"] = np.zeros((1, side**2, width), np.float32)
    for (stride, column, row), (bbox, kps, cls, obj) in cells.items():
        index = row * (640 // stride) + column
        for name, value in (("bbox", bbox), ("kps", kps), ("cls", cls), ("obj", obj)):
            outputs[f"{name}_{stride}"][0, index] = value
    return outputs


def test_a_cell_says_where_its_face_is_in_units_of_its_stride():
    bbox, kps = [0.5, 0.25, np.log(3), np.log(4)], [0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1]
    unsure = ([0, 0, 0, 0], [0] * 10, 1.0, 0.4)
    outputs = grids({(16, 5, 7): (bbox, kps, 0.81, 1.0), (32, 3, 3): unsure})
    boxes, points, scores = read_yunet(outputs)
    x, y = 16 * 5.5, 16 * 7.25
    assert boxes == pytest.approx(np.array([[x - 24, y - 32, x + 24, y + 32]]), abs=1e-3)
    corners = [[80, 112], [96, 112], [88, 120], [80, 128], [96, 128]]
    assert points[0] == pytest.approx(np.array(corners)) and scores == pytest.approx([0.9])


def test_of_overlapping_boxes_the_best_is_kept():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 0, 15, 10]], float)
    assert best_boxes(boxes, np.array([0.8, 0.9, 0.7, 0.6])) == [1, 2]
    assert best_boxes(np.zeros((0, 4)), np.zeros(0)) == []


@pytest.mark.parametrize("size", [(640, 640), (1, 1), (641, 640), (1920, 1280), (1153, 700)])
def test_squares_cover_a_picture_and_overlap(size):
    seen = np.zeros(size[::-1], int)
    places = list(squares(*size))
    for x, y in places:
        assert x >= 0 and y >= 0
        seen[y : y + 640, x : x + 640] += 1
    assert seen.min() == 1 if len(places) > 1 else seen.max() == 1
    for sides in zip(*places, strict=True):
        starts = sorted(set(sides))
        assert all(b - a <= 640 - 127 for a, b in itertools.pairwise(starts))
