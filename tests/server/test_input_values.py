"""Values that people and scripts send over HTTP, as constants and over links of core's nodes."""

import math

import pytest
from support.server import add_node, complaint, inputs, small_workflow

pytestmark = pytest.mark.server

GUIDANCE = dict(
    preset="custom",
    feature_strength=1.2,
    face_guidance=3.2,
    launch_timestep=750,
    early_strength=0.85,
    guidance_rescale=0.5,
    start_percent=0.0,
    end_percent=1.0,
    coarse=1.0,
    medium=1.0,
    fine=1.0,
)


def plot(**changed) -> dict:
    """A workflow that needs no model; the node whose inputs are changed is number 1."""
    steps = changed.pop("steps", 4)
    workflow = {"1": {"class_type": "FlashFaceGuidance", "inputs": {**GUIDANCE, **changed}}}
    picture = add_node(workflow, "FlashFaceGuidancePlot", guidance=["1", 0], steps=steps)
    add_node(workflow, "PreviewImage", images=[picture, 0])
    return workflow


def linked(name: str, kind: str, value) -> dict:
    """The same, with the value over a link."""
    workflow = plot(**{name: ["9", 0]})
    workflow["9"] = {"class_type": kind, "inputs": {"value": value}}
    return workflow


# Older cores check no constant of a combo, and all cores no NaN; what they check they say.
CONSTANTS = {
    "preset": ("Strong Identity", ["preset", "Strong Identity", "'strong identity'"]),
    "face_guidance": (math.nan, ["face_guidance of FlashFace Guidance is nan", "from 0 to 20"]),
    "launch_timestep": (5000, ["launch_timestep", "5000", "1000"]),
}
LINKS = {
    "feature_strength": ("PrimitiveFloat", -0.5, "is -0.5; it must be a number from 0 to 3."),
    "guidance_rescale": ("PrimitiveFloat", 7, "is 7.0; it must be a number from 0 to 1."),
    "coarse": ("PrimitiveFloat", math.nan, "is nan; it must be a number from 0 to 3."),
    "launch_timestep": ("PrimitiveInt", 5000, "is 5000; it must be a whole number from 0 to 1000."),
    "steps": ("PrimitiveInt", 0, "is 0; it must be a whole number from 1 to 1000."),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_that_is_not_allowed_is_named_with_what_is(server, name):
    value, words = CONSTANTS[name]
    line = complaint(server, plot(**{name: value}))
    assert all(word in line for word in words), line


@pytest.mark.parametrize("name", LINKS)
def test_a_linked_number_that_is_not_allowed_is_named_with_what_is(server, name):
    kind, value, end = LINKS[name]
    line = complaint(server, linked(name, kind, value))
    node = "FlashFace Guidance Plot" if name == "steps" else "FlashFace Guidance"
    assert f": {name} of {node} {end}" in line, line


def test_linked_numbers_within_the_limits_and_values_of_combos_run(server):
    server.prompt(linked("feature_strength", "PrimitiveFloat", 0.4))
    server.prompt(linked("launch_timestep", "PrimitiveInt", 500))
    server.prompt(plot(preset="strong identity"))


@pytest.mark.parametrize("name", ["select", "no_face", "reference_weight"])
def test_a_combo_of_an_identity_is_not_silently_something_else(server, name):
    workflow = small_workflow()
    given = inputs(workflow, "FlashFaceIdentity")
    given[name] = right = given[name].title()
    line = complaint(server, workflow)
    assert name in line and repr(right) in line and repr(right.lower()) in line, line


def test_a_name_that_is_missing_and_a_text_for_a_socket_are_told(server):
    workflow = small_workflow()
    del inputs(workflow, "FlashFaceLoader")["model_name"]
    line = complaint(server, workflow)
    assert "Required input is missing" in line and "model_name" in line, line
    workflow = small_workflow()
    inputs(workflow, "FlashFaceIdentity")["detector"] = "auto"
    line = complaint(server, workflow)
    assert "detector of FlashFace Identity is 'auto'; connect a node to it instead." in line, line


def test_a_name_with_half_an_emoji_is_refused_before_a_file_has_it(server):
    workflow = small_workflow()
    inputs(workflow, "FlashFaceIdentity")["name"] = "Anna \ud83d"
    line = complaint(server, workflow)
    assert "name of FlashFace Identity is 'Anna \\ud83d'" in line and "emoji" in line, line
