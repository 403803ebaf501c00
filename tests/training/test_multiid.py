"""MultiID-2M in its published layout, made here of two people's photographs."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("webdataset", reason="preparing photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

from support.photographs import astronaut, beside, cameraman, different, encoded, lit_from_the_left

from flashface_core.faces.crop import crop_face
from flashface_core.faces.detect import MtcnnDetector
from training.photos.evaluation import find_sitters
from training.photos.look import alone, read_photo
from training.photos.prepare import prepare
from training.photos.shards import read_shard
from training.photos.sources import open_source

ANNA, CARL = "1001", "1002"
BOXES = {"anna": [170, 55, 280, 180], "carl": [85, 45, 150, 135]}  # of the photographs "a"


def moved(box, x, y) -> list[int]:
    return [box[0] + x, box[1] + y, box[2] + x, box[3] + y]


class Trap:
    """What unpickles to a call."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def write_tar(path: Path, samples: dict[str, tuple]) -> None:
    """samples: picture and json by key; None leaves the json out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, (picture, about) in samples.items():
            parts = {"jpg": encoded(picture), "npy": pickle.dumps(Trap())}
            if about is not None:
                parts["json"] = json.dumps({"url": "a", "ram_score": [1.0], **about}).encode()
            for extension, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multiid") / "MultiID-2M"
    anna, carl = different(astronaut()), different(cameraman())
    box = {"bboxes": [[1, 2, 3, 4]]}
    write_tar(
        folder / "ref/tars/000000.tar",
        {
            f"{ANNA}/x": (anna["b"], {"name": [ANNA], "caption_en": "Anna smiles", **box}),
            f"{CARL}/y": (carl["b"], {"caption_en": "a camera", **box}),  # by its folder
        },
    )
    group = beside(carl["a"], anna["a"])
    left, right = BOXES["carl"], moved(BOXES["anna"], carl["a"].width, 0)
    boxes = [moved(box, 40, 10) for box in (left, right)]
    cut = {"crop": [40, 10, 999, 999], "bboxes": boxes}
    write_tar(
        folder / "train_cp/re_000000.tar",
        {"g": (group, {"name": [CARL, ANNA], "caption_en": "two people", **cut})},
    )
    dark = lit_from_the_left(group)
    write_tar(
        folder / "train_rec/re_000000.tar",
        {
            "h": (dark, {"name": ["none", ANNA], "bboxes": [left, right]}),
            "i": (carl["c"], {"name": "none", **box}),
            "j": (group, {"name": [CARL, ANNA]}),
            "k": (carl["c"], None),
            "l": (group, {"name": [CARL, 7], "bboxes": [[1, 2, 3], "none"]}),
        },
    )
    return folder


def test_every_identifiable_face_is_a_photograph_of_its_person(source):
    photos, broken = open_source(source)
    assert {(photo.name, photo.person, photo.caption()) for photo in photos} == {
        ("ref/tars/000000.tar/1001/x.jpg", ANNA, "Anna smiles"),
        ("ref/tars/000000.tar/1002/y.jpg", CARL, "a camera"),
        ("train_cp/re_000000.tar/g.0.jpg", CARL, ""),
        ("train_cp/re_000000.tar/g.1.jpg", ANNA, ""),
        ("train_rec/re_000000.tar/h.1.jpg", ANNA, ""),
    }
    ((shard, why),) = broken
    assert shard == "train_rec/re_000000.tar" and why.startswith("2 photographs of several people")


def test_people_of_a_group_are_taken_apart_at_their_boxes(source):
    photos = {photo.name: photo for photo in open_source(source).photos}
    carl = read_photo(photos["train_cp/re_000000.tar/g.0.jpg"])
    anna = read_photo(photos["train_cp/re_000000.tar/g.1.jpg"])
    start = cameraman().width + BOXES["anna"][0]
    assert carl.size == (start, 512)
    assert anna.size == (812 - BOXES["carl"][2], 512)


def test_sitters_are_cut_out_of_the_part_they_were_found_in(source):
    detector = MtcnnDetector()

    def face(picture):
        pixels = torch.from_numpy(np.array(picture))
        (found,) = detector.find(pixels)
        return crop_face(pixels, found.box, found.eyes)

    def small(crop):
        return np.array(Image.fromarray(crop.numpy()).convert("L").resize((24, 24))).ravel()

    known = [small(face(picture)) for picture in (astronaut(), cameraman())]
    sitters = find_sitters(source, detector)
    assert [len(sitter.crops) for sitter in sitters] == [3, 2]
    for number, sitter in enumerate(sitters):
        for crop in sitter.crops[1:]:  # the first is mirrored
            alike = [np.corrcoef(small(crop), one)[0, 1] for one in known]
            assert alike[number] > 0.9 > 0.5 > alike[1 - number]


def test_prepare_writes_its_own_shards_of_it(source, tmp_path):
    report = prepare(source, tmp_path, MtcnnDetector(), size=128, face_size=64)
    assert report["people"] == 2 and report["kept"] == 5
    assert report["kept_without_caption"] == 3
    (shard,) = sorted(tmp_path.glob("photos-*.tar"))
    abouts = [json.loads(sample.parts["json"].read()) for sample in read_shard(shard)[0]]
    assert [about["person"] for about in abouts] == [ANNA] * 3 + [CARL] * 2


def test_the_part_without_others_is_the_largest():
    face = (100, 100, 200, 200)
    assert alone(face, [], 400, 300) == (0, 0, 400, 300)
    assert alone(face, [(250.5, 0, 300, 90)], 400, 300) == (0, 90, 400, 300)
    assert alone(face, [(250.5, 90, 300, 190)], 400, 300) == (0, 0, 250, 300)
    others = [(250.5, 90, 300, 190), (0, 120, 30.5, 150)]
    assert alone(face, others, 400, 300) == (31, 0, 250, 300)
    with pytest.raises(ValueError, match="overlaps"):
        alone(face, [(150, 150, 250, 250)], 400, 300)
