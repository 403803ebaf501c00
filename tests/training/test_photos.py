"""From photographs to shards: what is kept, what is dropped and why, and that nothing is lost."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.tools import ROOT

pytest.importorskip("webdataset", reason="preparing photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

import webdataset
from support.photographs import (
    add,
    astronaut,
    cameraman,
    different,
    encoded,
    make_shard,
    make_source,
)

from flashface_core.errors import FlashFaceError
from flashface_core.faces.crop import crop_face, pad_to_square
from flashface_core.faces.detect import MtcnnDetector, load_detector
from training.photos import look as looking
from training.photos.frame import rectangle_around
from training.photos.look import read_looks, read_picture
from training.photos.prepare import main, prepare
from training.photos.select import Limits
from training.photos.shards import read_shard
from training.photos.sources import open_source

SIZES = dict(size=128, face_size=64, per_shard=2)
OPTIONS = ["--size", "128", "--face-size", "64", "--per-shard", "2", "--detector", "mtcnn"]


@pytest.fixture(scope="module")
def detector():
    return MtcnnDetector()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "source"
    return folder, make_source(folder)


@pytest.fixture(scope="module")
def prepared(source, detector, tmp_path_factory):
    out = tmp_path_factory.mktemp("photos") / "prepared"
    return out, prepare(source[0], out, detector, **SIZES)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def dropped(out: Path) -> dict[str, str]:
    with open(out / "report.csv", newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


def stored(out: Path) -> list[dict]:
    shards = sorted(map(str, out.glob("photos-*.tar")))
    return list(webdataset.WebDataset(shards, shardshuffle=False))


def test_what_cannot_be_used_is_dropped_and_reported(source, prepared):
    out, report = prepared
    assert dropped(out) == source[1]
    assert report == json.loads((out / "report.json").read_text())
    assert (report["photographs"], report["kept"], report["people"]) == (16, 6, 2)
    assert sum(report["dropped"].values()) == 10
    assert report["dropped"]["unreadable file"] == 3
    assert report["kept_without_caption"] == 0


def test_webdataset_reads_the_shards_and_the_crop_is_the_packs_own(source, prepared, detector):
    samples = stored(prepared[0])
    abouts = [json.loads(sample["json"]) for sample in samples]
    assert [about["person"] for about in abouts] == ["anna"] * 3 + ["carl"] * 3
    assert [about["source"] for about in abouts[:3]] == [f"anna/{name}.jpg" for name in "abc"]
    assert samples[3]["txt"] == b"carl as a"
    photo = torch.from_numpy(np.array(Image.open(source[0] / "anna" / "b.jpg")))
    (face,) = detector.find(photo)
    expected = pad_to_square(crop_face(photo, face.box, face.eyes), 64)
    got = np.array(Image.open(io.BytesIO(samples[1]["face.png"])))
    assert np.array_equal(got, expected.numpy())
    picture = Image.open(io.BytesIO(samples[1]["jpg"]))
    assert picture.size == (128, 128)
    assert abouts[1]["box"] == pytest.approx([value / 512 for value in face.box])


@pytest.mark.parametrize(
    ("width", "height", "box", "expected"),
    [
        (300, 200, (140, 50, 160, 80), (50, 0, 200)),
        (300, 200, (10, 50, 60, 80), (10, 0, 200)),
        (300, 200, (250, 50, 295, 80), (95, 0, 200)),
        (200, 300, (50, -20, 90, 40), (0, 0, 200)),
        (200, 200, (50, 60, 90, 100), (0, 0, 200)),
    ],
)
def test_the_square_is_the_middle_one_that_holds_the_face(width, height, box, expected):
    left, top, side = expected
    assert rectangle_around(width, height, box) == (left, top, side, side)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(source, prepared, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training.photos.prepare", str(source[0]), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(
            [*command, *OPTIONS], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
        progress = out / "faces-mtcnn.jsonl"
        while process.poll() is None and not (
            progress.exists() and progress.read_bytes().count(b"\n") >= 3
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        process.wait()
    assert not (out / "report.json").exists(), "the run ended before it was killed"
    with open(progress, "a") as file:
        file.write('{"name": "anna/cut short')  # killed while writing a line
    (out / "photos-00000.tar.part").write_bytes(b"half a shard")
    main([str(source[0]), "--out", str(out), *OPTIONS])
    assert files(out) == files(prepared[0])


def test_a_run_interrupted_while_writing_shards_ends_in_the_same_bytes(
    source, prepared, detector, tmp_path, monkeypatch
):
    frames = []

    def interrupted(*arguments):
        frames.append(arguments)
        if len(frames) == 4:
            raise KeyboardInterrupt
        return framed(*arguments)

    from training.photos import prepare as module

    framed = module.frame
    monkeypatch.setattr(module, "frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source[0], tmp_path, detector, **SIZES)
    assert {path.name for path in tmp_path.glob("photos*")} == {
        "photos-00000.tar",
        "photos-00001.tar.part",
    }
    prepare(source[0], tmp_path, detector, **SIZES)
    assert files(tmp_path) == files(prepared[0])


def test_other_limits_look_at_no_photograph_twice(source, tmp_path, detector, monkeypatch):
    prepare(source[0], tmp_path, detector, **SIZES)
    (tmp_path / "latents-00000.tar").write_bytes(b"of the selection before")
    monkeypatch.setattr(looking, "look_at", None)
    again = prepare(source[0], tmp_path, detector, Limits(min_face=0.23), **SIZES)
    assert (again["people"], again["kept"], again["dropped"]["face too small"]) == (1, 3, 7)
    assert not (tmp_path / "latents-00000.tar").exists()
    assert [json.loads(sample["json"])["person"] for sample in stored(tmp_path)] == ["carl"] * 3


def test_captions_written_later_come_into_the_shards(tmp_path, detector):
    source, out = tmp_path / "source", tmp_path / "out"
    for name, variant in list(different(cameraman()).items())[:2]:
        add(source, f"carl/{name}.png", encoded(variant, "PNG"))
    assert prepare(source, out, detector, **SIZES)["kept_without_caption"] == 2
    latents = out / "latents-00000.tar"
    latents.touch()
    plan = out / "plan.json"
    plan.write_text(json.dumps({"sha256": json.loads(plan.read_text())["sha256"]}))
    prepare(source, out, detector, **SIZES)  # as earlier versions left it: nothing is made anew
    assert latents.exists()
    (source / "carl/a.txt").write_text("carl at last", encoding="utf-8-sig")
    (source / "carl/b.txt").write_text("carl as well", encoding="utf-16")
    assert prepare(source, out, detector, **SIZES)["kept_without_caption"] == 0
    assert [sample["txt"] for sample in stored(out)] == [b"carl at last", b"carl as well"]
    assert not latents.exists()


def test_people_behind_links_are_people_and_links_in_a_circle_end(tmp_path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    add(source, "anna/a.png", b"x")
    add(elsewhere, "b.png", b"x")
    (source / "carl").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(source, target_is_directory=True)
    names = [photo.name for photo in open_source(source).photos]
    assert names == ["anna/a.png", "carl/b.png"]


def test_sixteen_bits_are_the_picture_that_eight_are():
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(4, axis=0)
    file = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint16) * 257).save(file, "PNG")
    assert np.array_equal(np.array(read_picture(io.BytesIO(file.getvalue())))[..., 0], ramp)


def test_shards_are_a_source_and_a_truncated_one_is_read_as_far_as_it_goes(tmp_path, detector):
    anna, carl = different(astronaut()), different(cameraman())
    make_shard(tmp_path / "0.tar", {"carl": carl})
    make_shard(tmp_path / "1.tar", {"anna": anna}, cut=20_000)  # within the last photograph
    (tmp_path / "2.tar").write_bytes(b"not a tar file" * 100)
    report = prepare(tmp_path, tmp_path / "out", detector, **SIZES)
    assert report["people"] == 2 and report["dropped"]["broken shard"] == 2
    names = [json.loads(sample["json"])["source"] for sample in stored(tmp_path / "out")]
    assert names == ["1.tar/anna-a.jpg", "1.tar/anna-b.jpg"] + [
        f"0.tar/carl-{name}.jpg" for name in "abc"
    ]
    assert stored(tmp_path / "out")[0]["txt"] == b"anna as a"


def test_a_cut_or_damaged_shard_never_gives_half_a_sample(tmp_path):
    pictures = {name: Image.new("RGB", (20, 20)) for name in "abc"}
    make_shard(tmp_path / "whole.tar", {"anna": pictures})
    samples, trouble = read_shard(tmp_path / "whole.tar")
    assert len(samples) == 3 and not trouble
    data = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        headers = [member.offset for member in tar]
        end = tar.offset
    for cut in range(0, end, 256):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        found, trouble = read_shard(tmp_path / "cut.tar")
        assert trouble and len(found) <= 2 and all(len(sample.parts) == 3 for sample in found)
    for header in headers:
        damaged = bytearray(data)
        damaged[header + 1] ^= 255
        (tmp_path / "damaged.tar").write_bytes(damaged)
        found, trouble = read_shard(tmp_path / "damaged.tar")
        assert trouble and all(len(sample.parts) == 3 for sample in found)


def test_photographs_of_nobody_need_a_recognition_model(tmp_path, detector):
    add(tmp_path, "a.jpg", encoded(astronaut()))
    with pytest.raises(FlashFaceError, match="1 photographs belong to nobody .* --model-pack"):
        prepare(tmp_path, tmp_path / "out", detector, **SIZES)


def test_no_photographs_are_an_error(tmp_path):
    with pytest.raises(FlashFaceError, match="has no photographs; expected jpg"):
        open_source(tmp_path)
    with pytest.raises(FlashFaceError, match="There is no"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="multiple of 8"):
        main([str(tmp_path), "--out", str(tmp_path), "--size", "100"])


def test_mtcnn_finds_a_level_face_with_eyes_and_needs_no_model_pack(detector):
    photo = torch.from_numpy(np.array(astronaut()))
    (found,) = load_detector("auto").find(photo)
    assert found.score > 0.99 and found.points.shape == (5, 2)
    assert found.box == pytest.approx((181, 62, 268, 172), abs=4)
    left, right = found.eyes or ((0, 0), (0, 0))
    assert 181 < left[0] < right[0] < 268 and abs(left[1] - right[1]) < 10
    large = torch.from_numpy(np.array(astronaut().resize((2048, 2048))))
    (again,) = detector.find(large)
    assert np.array(again.box) / 4 == pytest.approx(np.array(found.box), abs=6)
    with pytest.raises(FlashFaceError, match="cannot compare them; use InsightFace"):
        detector.embed(photo, found)


def test_looks_without_key_points_are_taken_again(prepared, tmp_path):
    """As versions wrote them that kept the eyes alone."""
    path = tmp_path / "faces.jsonl"
    lines = (prepared[0] / "faces-mtcnn.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[:5]:
        row["eyes"] = row.pop("points")[:2]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_looks(path)) == len(rows) - 5
    assert path.read_text().count("\n") == len(rows)
