"""Who is who: clustering, near duplicates, and InsightFace's own sessions on small ONNX graphs."""

import base64

import numpy as np
import pytest
import torch

pytest.importorskip("webdataset", reason="preparing photographs needs it")

from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from support.model_packs import ARCFACE_POINTS, HALF, make_model_pack, photograph
from support.photographs import add, encoded

from flashface_core.errors import FlashFaceError
from flashface_core.faces.detect import InsightFaceDetector, load_detector
from training.photos import select as selecting
from training.photos.look import PhotoScan
from training.photos.select import Limits, clusters, select


def faces_of(people: int, each: int, spread: float, seed: int = 0) -> np.ndarray:
    """Unit vectors around `people` directions."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, 64)).repeat(each, axis=0)
    faces = centres + spread * rng.standard_normal(centres.shape)
    return (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)


def look(name: str, embedding=None, hash_seed: int = 0) -> PhotoScan:
    bits = np.random.default_rng(hash_seed).bytes(32).hex()
    data = "" if embedding is None else base64.b64encode(embedding.astype("<f2").tobytes()).decode()
    eyes = ((20.0, 20.0), (30.0, 20.0))
    return PhotoScan(name, 1, "", 1, 100, 100, (10, 10, 40, 40), eyes, 1.0, bits, bits, data)


@pytest.mark.parametrize("spread", [0.3, 0.9, 1.2])
def test_clusters_are_those_of_average_linkage_over_everything(spread, monkeypatch):
    monkeypatch.setattr(selecting, "BLOCK", 7)
    faces = faces_of(6, 9, spread)[np.random.default_rng(1).permutation(54)]
    labels = clusters(faces, 0.35)
    whole = fcluster(linkage(pdist(faces, "cosine"), "average"), 0.65, "distance")
    assert np.array_equal(labels[:, None] == labels, whole[:, None] == whole)
    assert labels[0] == 0 and set(labels) == set(range(labels.max() + 1))
    if spread < 1:
        assert labels.max() == 5


def test_one_photograph_between_two_people_does_not_join_them():
    a, b = np.eye(64, dtype=np.float32)[:2]
    between = (a + b) / 2**0.5
    labels = clusters(np.stack([a, a, a, between, b, b, b]), 0.5)
    assert labels[0] == labels[2] != labels[4] == labels[6]


def test_too_many_faces_in_one_component_are_an_error(monkeypatch):
    monkeypatch.setattr(selecting, "LINKED_AT_ONCE", 5)
    with pytest.raises(FlashFaceError, match="6 faces are connected by likeness, 5 are clustered"):
        clusters(faces_of(1, 6, 0.1), 0.35)


def test_strangers_and_copies_leave_a_folder_and_nobody_becomes_somebody():
    faces = faces_of(3, 4, 0.6)
    looks = [look(f"{n:02d}", face, n) for n, face in enumerate(faces)]
    looks[2] = look("02", faces[1], 2)  # the same face by embedding
    looks[6] = look("06", faces[6], 5)  # the same picture by hash
    persons = ["anna"] * 4 + [None] * 4 + ["anna"] + [None] * 3
    people, dropped = select(looks, persons, Limits())
    names = {person: [look.name for look in own] for person, own in people.items()}
    assert names == {
        "anna": ["00", "01", "03"],
        "unnamed/000000": ["04", "05", "07"],
        "unnamed/000001": ["09", "10", "11"],
    }
    assert [(one.name, one.reason, one.detail) for one in dropped] == [
        ("02", "near duplicate", "01"),
        ("06", "near duplicate", "05"),
        ("08", "stranger in folder", ""),
    ]


def test_without_embeddings_folders_are_taken_as_they_are():
    looks = [look(str(n), None, n) for n in range(4)]
    people, dropped = select(looks, ["anna"] * 4, Limits())
    assert [one.name for one in people["anna"]] == ["0", "1", "2", "3"] and not dropped


def test_a_missing_package_or_model_pack_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FlashFaceError, match="no InsightFace model pack at .*nowhere"):
        InsightFaceDetector(tmp_path / "nowhere")
    with pytest.raises(FlashFaceError, match="needs a model pack and none is given"):
        load_detector("insightface")
    with pytest.raises(FlashFaceError, match="no detector 'retina'; use one of auto"):
        load_detector("retina")
    (tmp_path / "det.onnx").write_bytes(b"not a graph")
    monkeypatch.setitem(__import__("sys").modules, "insightface.app", None)
    with pytest.raises(FlashFaceError, match="cannot be imported .* install insightface"):
        InsightFaceDetector(tmp_path)


@pytest.fixture(scope="module")
def model_pack(tmp_path_factory):
    return make_model_pack(tmp_path_factory.mktemp("packs") / "models" / "tiny")


def test_insightface_finds_faces_and_tells_people_apart(model_pack):
    detector = load_detector("auto", model_pack)
    assert detector.name == "insightface tiny" and detector.can_embed
    photos = {key: torch.from_numpy(np.array(photograph(*key))) for key in ((1, 0), (1, 1), (2, 0))}
    vectors = {}
    for key, photo in photos.items():
        (found,) = detector.find(photo)
        x, y = 9 * 32, 8 * 32
        assert found.box == pytest.approx((x - HALF, y - HALF, x + HALF, y + HALF), abs=1)
        assert found.points == pytest.approx((ARCFACE_POINTS - 56) * 2 + [x, y], abs=1)
        assert found.eyes == tuple(map(tuple, found.points[:2].tolist()))
        vectors[key] = detector.embed(photo, found)
        assert vectors[key].shape == (512,) and np.linalg.norm(vectors[key]) == pytest.approx(1)
    assert vectors[1, 0] @ vectors[1, 1] > 0.45 > 0.25 > vectors[1, 0] @ vectors[2, 0]
    two = photograph(1, 0, ((4, 5), (14, 12)))
    assert len(detector.find(torch.from_numpy(np.array(two)))) == 2
    assert detector.find(torch.zeros(64, 48, 3, dtype=torch.uint8)) == []


def test_prepare_clusters_a_flat_folder_and_finds_strangers_with_insightface(model_pack, tmp_path):
    from training.photos.prepare import prepare

    for n in range(3):
        add(tmp_path, f"{n}.png", encoded(photograph(1, n), "PNG"))
        add(tmp_path, f"{n + 3}.png", encoded(photograph(2, n), "PNG"))
        add(tmp_path, f"bea/{n}.png", encoded(photograph(3, n), "PNG"))
    add(tmp_path, "bea/stranger.png", encoded(photograph(4, 0), "PNG"))
    add(tmp_path, "lonely.png", encoded(photograph(5, 0), "PNG"))
    sizes = dict(size=128, face_size=64)
    out = tmp_path / "out"
    report = prepare(tmp_path, out, InsightFaceDetector(model_pack), **sizes)
    assert (report["people"], report["kept"]) == (3, 9)
    rows = (out / "report.csv").read_text().splitlines()[1:]
    assert rows == [
        "bea/stranger.png,bea,stranger in folder,",
        "lonely.png,unnamed/000002,one-picture person,",
    ]
    assert (out / "faces-insightface-tiny.jsonl").is_file()


def test_a_pack_without_its_parts_says_what_is_missing(model_pack, tmp_path):
    detection = tmp_path / "detection"
    detection.mkdir()
    (detection / "det.onnx").write_bytes((model_pack / "det_tiny.onnx").read_bytes())
    detector = InsightFaceDetector(detection)
    photo = torch.from_numpy(np.array(photograph(1, 0)))
    assert not detector.can_embed
    with pytest.raises(FlashFaceError, match="has no recognition model"):
        detector.embed(photo, detector.find(photo)[0])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "det.onnx").write_bytes(b"not a graph")
    with pytest.raises(FlashFaceError, match="model pack .*broken cannot be used"):
        InsightFaceDetector(broken)
    recognition = tmp_path / "recognition"
    recognition.mkdir()
    (recognition / "w.onnx").write_bytes((model_pack / "w600k_tiny.onnx").read_bytes())
    with pytest.raises(FlashFaceError, match="it has no detection model"):
        InsightFaceDetector(recognition)
