"""Photographs that keep about their form: prepared, encoded, and trained on."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")
pytest.importorskip("webdataset", reason="preparing photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

from photographs import SIZES
from support.photographs import add, astronaut, different, encoded

from flashface_core.faces.detect import MtcnnDetector
from training import train
from training.photos import encode
from training.photos.dataset import INDEX, PeopleInShards
from training.photos.frame import by_shape, nearest_shape, rectangle_around, shapes
from training.photos.prepare import prepare


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One person, in pictures of three forms."""
    folder = tmp_path_factory.mktemp("shapes") / "source"
    cuts = {"a": (0, 0, 512, 512), "b": (40, 0, 360, 512), "c": (0, 0, 512, 340)}
    for name, variant in different(astronaut()).items():
        add(folder, f"anna/{name}.png", encoded(variant.crop(cuts[name]), "PNG"), f"as {name}")
    return folder


@pytest.fixture(scope="module")
def data(source, vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "data"
    report = prepare(source, out, MtcnnDetector(), size=128, face_size=64, aspects=True)
    assert report["picture_shapes"] == {"96x160": 1, "128x128": 1, "160x96": 1}
    encode.main([str(out), "--vae", str(vae), "--cpu"])
    return out


@pytest.mark.parametrize("size", [128, 512, 768])
def test_shapes_are_as_large_as_the_square(size):
    found = shapes(size)
    assert (size, size) in found and {(h, w) for w, h in found} == set(found)
    step = 64 if size >= 512 else 16
    for width, height in found:
        assert width % step == height % step == 0
        assert 0.8 * size**2 < width * height <= size**2 and 0.5 <= width / height <= 2


@pytest.mark.parametrize(
    ("photo", "shape"),
    [((4000, 3000), (576, 448)), ((3000, 4000), (448, 576)), ((900, 900), (512, 512)),
     ((5000, 1000), (640, 384))],
)  # fmt: skip
def test_the_nearest_shape(photo, shape):
    found = nearest_shape(*photo, 512)
    assert found in shapes(512)
    ratio = photo[0] / photo[1]
    best = min(shapes(512), key=lambda s: abs(np.log(s[0] / s[1] / ratio)))
    assert found[0] / found[1] == best[0] / best[1]
    assert found[0] / found[1] == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_the_part_has_the_form_and_holds_the_face():
    box = (10.0, 700.0, 210.0, 900.0)
    left, top, width, height = rectangle_around(1000, 1000, box, (2, 1))
    assert (width, height) == (1000, 500)
    assert top <= 700 and top + height >= 900 and left == 0
    left, top, width, height = rectangle_around(1000, 1000, box, (1, 2))
    assert (left, width, height) == (10, 500, 1000)


def test_functions_of_batches_are_given_one_shape_at_a_time():
    pictures = [torch.rand(*size, 3) for size in ((2, 3), (4, 4), (2, 3))]
    seen = []

    def mean(batch):
        seen.append(tuple(batch.shape))
        return batch.mean(dim=(1, 2, 3))

    found = by_shape(mean, pictures)
    assert seen == [(2, 2, 3, 3), (1, 4, 4, 3)]
    torch.testing.assert_close(torch.stack(found), torch.stack([p.mean() for p in pictures]))


def test_people_in_shards_know_their_shapes(data):
    people = PeopleInShards(data)
    found = {people.shape(0, index) for index in range(3)}
    assert found == {(16, 16), (20, 12), (12, 20)} and len(people.buckets) == 3
    for index in range(3):
        picture = people.picture(0, index)
        assert tuple(picture.latent.shape) == (4, *people.shape(0, index))
        assert all(0 <= value <= 1 for value in picture.box)
        x1, y1, x2, y2 = picture.box
        height, width = people.shape(0, index)
        assert (x2 - x1) * width == pytest.approx((y2 - y1) * height, rel=0.5)  # an upright face


def test_an_index_of_an_earlier_version_is_of_squares(data, tmp_path):
    for path in data.iterdir():
        if path.name != INDEX:
            (tmp_path / path.name).symlink_to(path)
    with np.load(data / INDEX) as index:
        kept = {name: index[name] for name in index if name != "shapes"}
    with open(tmp_path / INDEX, "wb") as file:
        np.savez(file, **kept)
    people = PeopleInShards(tmp_path)
    assert not people.buckets and people.shape(0, 0) in {(16, 16), (20, 12), (12, 20)}


def test_they_are_trained_on(data, weights, clip, tmp_path):
    assert json.loads((data / "report.json").read_text())["picture_size"] == SIZES.picture
    options = ["--data", data, "--checkpoint", weights, "--clip", clip, "--out", tmp_path]
    recipe = "--steps 6 --groups 2 --targets-per-group 2 --log-every 1 --no-gradient-checkpointing"
    train.main([*map(str, options), *recipe.split()])
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 7
