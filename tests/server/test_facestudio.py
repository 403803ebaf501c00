"""FaceStudio over HTTP: the shipped workflows on random weights, and mistakes."""

import numpy as np
import pytest
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from PIL import Image
from support.facestudio import write_facestudio
from support.server import add_node, api_workflow, inputs, node_id

pytestmark = pytest.mark.server

FILE = "random.safetensors"
NAMES = ("toy_style_portrait", "toy_style_two_people")


@pytest.fixture(scope="module", autouse=True)
def file(server):
    folder = server.base / "models" / "facestudio"
    folder.mkdir(exist_ok=True)
    write_facestudio(folder / FILE, FlashFaceTinyModels.execute().args[0])


def workflow(name: str):
    """A shipped one with two steps, and this test's weights."""
    workflow = api_workflow(name)
    for node in workflow.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    inputs(workflow, "FaceStudioLoader")["model_name"] = FILE
    return workflow


def picture(server, workflow) -> np.ndarray:
    (path,) = server.files({0: server.prompt(workflow)[node_id(workflow, "SaveImage")]})
    return np.asarray(Image.open(path).convert("RGB"))


def titled(workflow, title: str) -> dict:
    (found,) = (node["inputs"] for node in workflow.values() if node["_meta"]["title"] == title)
    return found


def test_person_and_style_image_change_the_picture(server):
    given = workflow("toy_style_portrait")
    one = picture(server, given)
    assert one.shape == (384, 384, 3)
    titled(given, "Photos")["person"] = 2
    assert not np.array_equal(picture(server, given), one)
    given = workflow("toy_style_portrait")
    titled(given, "Prompt of the style image")["text"] = "a portrait, in a forest, neon night"
    assert not np.array_equal(picture(server, given), one)


def test_the_places_of_two_people_change_the_picture(server):
    given = workflow("toy_style_two_people")
    one = picture(server, given)
    assert one.shape == (384, 768, 3)
    titled(given, "Place of A")["x"], titled(given, "Place of B")["x"] = 0.5, 0.0
    assert not np.array_equal(picture(server, given), one)


def without_style(workflow) -> None:
    del inputs(workflow, "FaceStudioEncode")["style_image"]


def masked(workflow) -> None:
    inputs(workflow, "FaceStudioEncode")["mask_face"] = True


def twice(workflow) -> None:
    sampler, given = titled(workflow, "KSampler"), dict(inputs(workflow, "FaceStudioApply"))
    given["model"] = [node_id(workflow, "FaceStudioApply"), 0]
    sampler["model"] = [add_node(workflow, "FaceStudioApply", **given), 0]


def no_file(workflow) -> None:
    inputs(workflow, "FaceStudioLoader")["model_name"] = "none"


WRONG = {
    without_style: "takes a style image and was given none",
    masked: "mask_face is on and no detector is connected",
    twice: f"already carries FaceStudio's weights ({FILE})",
    no_file: "no FaceStudio file 'none' among",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_mistakes_are_told_in_a_sentence(server, change):
    given = workflow("toy_style_portrait")
    change(given)
    with pytest.raises(Exception, match="FaceStudio") as caught:
        server.prompt(given)
    assert WRONG[change] in str(caught.value)
