"""What users are shown of the toy world: prompts, photos, place and the list of words."""

import ast
import json

import numpy as np
import pytest
import torch
from support.tools import ROOT, load_tool

from flashface_core.comfy_adapter.flashface import tiny
from toy_world import identity_words, scenes
from toy_world.draw import face_boxes
from toy_world.people import People
from toy_world.scenes import Scenes

# In the order of a caption.
TABLES = (
    scenes.AGES,
    scenes.EXPRESSIONS,
    scenes.CLOTHES,
    scenes.BACKGROUNDS,
    scenes.STYLES,
    scenes.LIGHTS,
    scenes.LEANS,
)
API = json.loads((ROOT / "workflows" / "api" / "01_start_here.json").read_text())


def constant(tool: str, name: str):
    """The value of NAME = ... in a file of tools/."""
    tree = ast.parse((ROOT / "tools" / f"{tool}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{tool}.py has no {name}")


def given(class_type: str) -> dict:
    (node,) = (node for node in API.values() if node["class_type"] == class_type)
    return node["inputs"]


SHIPPED = API[given("KSampler")["positive"][0]]["inputs"]["text"]


@pytest.mark.parametrize("prompt", [SHIPPED, *constant("demo", "PROMPTS")])
def test_a_prompt_is_written_as_the_captions_of_the_training_are(prompt):
    start = "a portrait of "
    assert prompt.startswith(start)
    parts = prompt.removeprefix(start).split(", ")
    for part, table in zip(parts, TABLES, strict=True):
        assert part in table.values()


def test_the_demo_asks_for_every_age_and_two_styles():
    prompts = constant("demo", "PROMPTS")
    assert len(prompts) == 4
    for words, count in ((scenes.AGES, 3), (scenes.STYLES, 2)):
        found = {word for word in words.values() for prompt in prompts if f" {word}," in prompt}
        assert len(found) == count


def test_the_place_of_the_workflow_is_that_of_an_upright_head_in_the_middle():
    middle = Scenes.draw_from(0, "test", 1).with_values(
        tilt=0.0, size=0.62, centre_x=0.0, centre_y=0.5
    )
    x1, y1, x2, y2 = face_boxes(People.draw_from(0, "test", 1), middle)[0].tolist()
    place = given("FlashFaceIdentityPlace")
    got = [place[name] for name in ("x", "y", "width", "height")]
    assert got == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.01)


def test_the_shipped_photos_are_four_crops_each_of_people_whom_nobody_trained_on():
    seed = constant("shipped_pictures", "SEED")
    for person, photos in enumerate(load_tool("toy_people").draw_photos(seed, tiny.PEOPLE)):
        shipped = tiny.load_tiny_photos(person)
        drawn = torch.stack([torch.from_numpy(np.array(photo)) for photo in photos]) / 255
        assert shipped.shape == drawn.shape == (4, tiny.PHOTO_SIDE, tiny.PHOTO_SIDE, 3)
        assert (shipped - drawn).abs().mean() < 0.01


def test_the_help_page_lists_every_word():
    page = (ROOT / "web" / "docs" / "FlashFaceTinyModels.md").read_text()
    for table in TABLES:
        for words in table.values():
            assert f"`{words}`" in page, words
    of_people = [word for table in identity_words.WORDS.values() for word in table.values()]
    for word in (*of_people, *(end for ends in identity_words.LENGTHS.values() for end in ends)):
        assert not word or f"`{word}`" in page, word
