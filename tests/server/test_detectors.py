"""Detectors over HTTP: photographs that are hard to take, and memory after POST /free."""

import time

import psutil
import pytest
from PIL import Image
from support.model_packs import make_model_pack, photograph
from support.photographs import astronaut, group
from support.server import IDENTITY, start_server
from support.zoo import make_zoo

pytestmark = pytest.mark.server

BALLAST = 300  # MB of weights that ArcFace has more


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("skimage", reason="the photographs come with it")
    base = tmp_path_factory.mktemp("comfyui")
    (base / "input").mkdir()
    pictures = {
        "group": group(),
        "astronaut": astronaut(),
        "16 pixels": astronaut().resize((16, 16)),
        "one pixel": Image.new("RGB", (1, 1), (90, 90, 90)),
        "a line": Image.new("RGB", (3000, 2), (90, 90, 90)),
        "8000 pixels": astronaut().resize((8000, 8000)),
        "one colour": Image.new("RGB", (300, 200), (90, 90, 90)),
        "RGBA": Image.merge("RGBA", (*astronaut().split(), Image.new("L", (512, 512), 128))),
        "black and white": astronaut().convert("L"),
        "cells": photograph(1, 0),
    }
    for name, picture in pictures.items():
        picture.save(base / "input" / f"{name}.png", compress_level=1)
    with start_server(base) as server:
        yield server


def workflow(name: str, detector: str = "mtcnn", model_pack: str = "none", **settings):
    """Photo to identity; the square faces and the preview are saved, as files of "4" and "5"."""
    identity = {**IDENTITY, "image": ["1", 0], "detector": ["2", 0], "select": "every face"}
    nodes = {
        "1": ("LoadImage", {"image": f"{name}.png"}),
        "2": ("FlashFaceDetectorLoader", {"detector": detector, "model_pack": model_pack}),
        "3": ("FlashFaceIdentity", identity | settings),
        "4": ("PreviewImage", {"images": ["3", 1]}),
        "5": ("PreviewImage", {"images": ["3", 2]}),
    }
    return {key: {"class_type": kind, "inputs": given} for key, (kind, given) in nodes.items()}


def faces(outputs) -> int:
    return len(outputs["4"]["images"])


# What is seen in each; no face: an error of one sentence, and with `use whole image` the photo.
FACES = {
    "group": 3,
    "16 pixels": 0,
    "one pixel": 0,
    "a line": 0,
    "8000 pixels": 1,
    "one colour": 0,
    "RGBA": 1,
    "black and white": 1,
}


@pytest.mark.parametrize("name", FACES)
def test_no_photograph_stops_the_server(server, name):
    pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
    if FACES[name]:
        assert faces(server.prompt(workflow(name))) == FACES[name]
        return
    with pytest.raises(RuntimeError, match=r"\(FlashFaceIdentity\).*Image 0 has no face; use ano"):
        server.prompt(workflow(name))
    assert faces(server.prompt(workflow(name, no_face="use whole image"))) == 1


def test_an_rgba_image_inside_the_graph_is_taken(server):
    pytest.importorskip("facenet_pytorch", reason="this test finds faces with MTCNN")
    prompt = workflow("RGBA")
    joined = {"image": ["1", 0], "alpha": ["1", 1]}
    prompt["6"] = {"class_type": "JoinImageWithAlpha", "inputs": joined}
    prompt["3"]["inputs"]["image"] = ["6", 0]
    assert faces(server.prompt(prompt)) == 1


def test_a_pack_that_is_not_there_is_told_before_anything_runs(server):
    with pytest.raises(RuntimeError) as caught:
        server.prompt(workflow("group", "insightface", "buffalo_l"))
    folder = server.base / "models" / "insightface" / "models" / "buffalo_l"
    for words in ("FlashFaceDetectorLoader", "no InsightFace model pack 'buffalo_l'", str(folder)):
        assert words in str(caught.value)


def test_auto_finds_faces_with_a_workflow_from_a_machine_with_another_pack(server):
    pytest.importorskip("facenet_pytorch", reason="this test finds faces with MTCNN")
    assert faces(server.prompt(workflow("astronaut", "auto", "buffalo_l"))) == 1


def test_opencv_zoo_finds_three_people_once_its_files_are_there(server):
    """Over the same server: pressing Run again after the files were put there is enough."""
    kind = "opencv zoo (YuNet + SFace)"
    folder = server.base / "models" / "opencv_zoo"
    assert list(folder.iterdir()) == []  # made at the start
    with pytest.raises(RuntimeError) as caught:
        server.prompt(workflow("group", kind))
    for words in ("FlashFaceDetectorLoader", "no face_detection_yunet_2023mar.onnx", str(folder)):
        assert words in str(caught.value)
    folder.rmdir()
    make_zoo(folder)
    assert faces(server.prompt(workflow("group", kind))) == 3


def megabytes(server) -> float:
    return psutil.Process(server._process.pid).memory_info().rss / 1024**2


def freed(server, flags: dict, held: float) -> bool:
    """Whether POST /free gives most of the ballast back. Said again until it does: core misses a
    request that comes while it tidies up after a prompt, until the next one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        server.post("/free", flags)
        time.sleep(0.5)
        if megabytes(server) < held - 0.8 * BALLAST:
            return True
    return False


def test_post_free_gives_insightfaces_memory_back_and_the_next_run_works(server):
    folder = server.base / "models" / "insightface" / "models" / "large"
    make_model_pack(folder, ballast=BALLAST * 1024**2)
    options = server.get("/object_info/FlashFaceDetectorLoader")["FlashFaceDetectorLoader"]
    assert options["input"]["required"]["model_pack"][1]["options"] == ["large"]
    run = dict(detector="insightface", model_pack="large")
    assert faces(server.prompt(workflow("cells", **run))) == 1
    held = megabytes(server)
    # What the button does that unloads models and keeps the results of nodes.
    assert freed(server, {"unload_models": True}, held)
    # The detector was kept, and loads its models again.
    assert faces(server.prompt(workflow("cells", crop_margin=0.1, **run))) == 1
    held = megabytes(server)
    assert freed(server, {"unload_models": True, "free_memory": True}, held)
    assert faces(server.prompt(workflow("cells", crop_margin=0.2, **run))) == 1
