"""The tiny workflow over HTTP, as it is shipped. How good its pictures are is not tested here."""

import importlib

import numpy as np
import pytest
from PIL import Image
from support.server import TINY, api_workflow, inputs, node_id

pytestmark = pytest.mark.server


def picture(server, workflow) -> np.ndarray:
    (path,) = server.files(server.prompt(workflow))
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def as_shipped(server):
    return picture(server, api_workflow(TINY))


def test_the_shipped_workflow_gives_a_picture_without_complaint(server, as_shipped):
    assert as_shipped.shape == (384, 384, 3)
    assert as_shipped.std() > 10
    log = server.log_text()
    for complaint in ("clip missing", "unet missing", "Missing VAE keys", "Leftover VAE keys"):
        assert complaint not in log


def test_every_frame_of_the_photos_is_a_photo_of_the_person(server):
    workflow = api_workflow(TINY)
    inputs(workflow, "SaveImage")["images"] = [node_id(workflow, "FlashFaceIdentity"), 1]
    faces = [np.asarray(Image.open(p)) for p in server.files(server.prompt(workflow))]
    assert len(faces) == 4
    assert len({face.tobytes() for face in faces}) == 4


def test_without_flashface_and_with_another_prompt_the_picture_is_another(server, as_shipped):
    without = api_workflow(TINY)
    inputs(without, "KSampler")["model"] = [node_id(without, "FlashFaceTinyModels"), 0]
    assert not np.array_equal(picture(server, without), as_shipped)
    other = api_workflow(TINY)
    positive = inputs(other, "KSampler")["positive"][0]
    text = other[positive]["inputs"]["text"]
    other[positive]["inputs"]["text"] = text.replace("a child", "an elder")
    assert not np.array_equal(picture(server, other), as_shipped)


def test_the_benchmark_draws_the_people_that_it_made(server):
    """A value for an input that a node does not have is ignored by ComfyUI without a word."""
    module = importlib.import_module("benchmarks.pipeline")
    for case in module.CASES:
        for node in module.filled_in(case, 0).values():
            described = server.get(f"/object_info/{node['class_type']}")[node["class_type"]]
            known = set().union(*described["input"].values())
            assert set(node["inputs"]) <= known, node
    sheets = []
    for number, photos in enumerate(module.draw_photos(3, 2)):
        module.save_photos(server.base / "input" / f"person_{number}.png", photos)
        workflow = module.filled_in(module.FIRST, number)
        inputs(workflow, "SaveImage")["images"] = [node_id(workflow, "FlashFaceIdentity"), 1]
        faces = server.files(server.prompt(workflow))
        sheets.append([np.asarray(Image.open(path)).tobytes() for path in faces])
    assert len(sheets[0]) == 4 and not set(sheets[0]) & set(sheets[1])
