"""No node runs with a value that its schema rules out, whichever way the value comes.

Every widget of every node is tried, so that a new node cannot be forgotten.
"""

import asyncio
import inspect
import math
from dataclasses import dataclass

import execution
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes import FlashFaceExtension
from flashface_pack.nodes.base import checked_inputs
from flashface_pack.nodes.guidance import FlashFaceGuidance
from flashface_pack.nodes.plot import FlashFaceGuidancePlot
from flashface_pack.nodes.saved import FlashFaceIdentityLoad

NODES = asyncio.run(FlashFaceExtension().get_node_list())
HALF_AN_EMOJI = "a\ud83d"


def own_check(node: type[io.ComfyNode]) -> bool:
    return node.validate_inputs.__func__ is not io.ComfyNode.validate_inputs.__func__


@dataclass(frozen=True)
class Widget:
    node: type[io.ComfyNode]
    input: io.WidgetInput

    @property
    def has_own_check(self) -> bool:
        """As combos over files have, whose options are those of this machine."""
        own = own_check(self.node)
        return own and self.input.id in inspect.signature(self.node.validate_inputs).parameters


WIDGETS = {
    f"{node.__name__}.{given.id}": Widget(node, given)
    for node in NODES
    for given in node.define_schema().inputs
    if isinstance(given, io.WidgetInput)
}
SOCKETS = {
    f"{node.__name__}.{given.id}": (node, given)
    for node in NODES
    for given in node.define_schema().inputs
    if not isinstance(given, io.WidgetInput)
}
NUMBERS = {
    name: widget
    for name, widget in WIDGETS.items()
    if isinstance(widget.input, (io.Int.Input, io.Float.Input))
}


def wrong_values(given: io.WidgetInput) -> list:
    """Of every kind that a script or a link may bring."""
    anything = [None, [], {}, torch.ones(()), torch.ones(2), object()]
    if isinstance(given, io.Combo.Input):
        known = given.options[-1]
        return [*anything, "", known.upper() + "!", f" {known}", 0, True, [known], HALF_AN_EMOJI]
    if isinstance(given, io.Boolean.Input):
        return [*anything, "false", 0, 1.0]
    if isinstance(given, io.String.Input):
        return [*anything, 1, b"text", HALF_AN_EMOJI]
    beyond = [given.min - 1, given.max + 1, 5e9, -(10**400), math.nan, math.inf, -math.inf]
    halves = [given.min + 0.5] if isinstance(given, io.Int.Input) else []
    return [*anything, "1", "", True, np.bool_(True), 1j, *beyond, *halves]


def run(node: type[io.ComfyNode], given: dict):
    """As core does: by a copy of the class that cannot be changed."""
    inputs = {name: [value] for name, value in given.items()}
    work = execution._async_map_node_over_list("prompt", "1", node, inputs, node.FUNCTION)
    (output,) = asyncio.run(work)
    return output.args


def right_values(node: type[io.ComfyNode]) -> dict:
    """Sockets hold what no node can use: none is looked at before the widgets are."""
    given: dict = {i.id: object() for i in node.define_schema().inputs}
    for i in node.define_schema().inputs:
        if isinstance(i, io.Combo.Input):
            given[i.id] = i.options[0]
        elif isinstance(i, io.WidgetInput):
            given[i.id] = "" if i.default is None else i.default
    return given


def complaint(node, given) -> str:
    with pytest.raises(FlashFaceError) as error:
        run(node, given)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_node_has_the_check_and_every_number_its_limits():
    assert len(NODES) == 26 and len(WIDGETS) > 40
    for widget in NUMBERS.values():
        assert widget.input.min < widget.input.max


@pytest.mark.parametrize("name", WIDGETS)
def test_a_value_that_is_not_allowed_is_refused_in_one_sentence(name):
    widget = WIDGETS[name]
    for wrong in wrong_values(widget.input):
        if widget.has_own_check and isinstance(wrong, str):
            continue  # a sentence of its own, see below
        line = complaint(widget.node, {**right_values(widget.node), widget.input.id: wrong})
        title = widget.node.define_schema().display_name
        assert line.startswith(f"{widget.input.id} of {title} is "), line
        if isinstance(widget.input, io.Combo.Input):
            assert all(repr(option) in line for option in widget.input.options), line
        if name in NUMBERS:
            assert f"from {widget.input.min:g} to {widget.input.max:g}" in line, line


@pytest.mark.parametrize("name", SOCKETS)
def test_a_plain_value_for_a_socket_is_refused_in_one_sentence(name):
    node, socket = SOCKETS[name]
    title = node.define_schema().display_name
    plain: list = ["auto", "", 5, 0.5, True]
    if socket.io_type != "BOUNDING_BOX":
        plain.append({"a": 1})
    if socket.io_type not in ("BOUNDING_BOX", "CONDITIONING"):
        plain.append([[1]])
    if not socket.optional and socket.io_type not in ("CLIP", "VAE"):
        plain.append(None)  # of a checkpoint without one, which has a sentence of its own
    for wrong in plain:
        line = complaint(node, {**right_values(node), socket.id: wrong})
        kind = type(wrong).__name__
        shown = f"a value of type {kind}" if kind in ("dict", "list") else repr(wrong)
        assert line == f"{socket.id} of {title} is {shown}; connect a node to it instead."


@pytest.mark.parametrize("node", [node for node in NODES if own_check(node)])
def test_a_value_that_is_missing_is_left_to_core(node):
    """Core calls the check with what there is, and then says itself what is required."""
    assert node.validate_inputs() is True


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_within_their_limits_have_the_type_of_the_schema(name):
    given = NUMBERS[name].input
    kind = int if isinstance(given, io.Int.Input) else float
    for value in (given.min, given.max, float(given.max), int(given.max), np.float32(given.max)):
        checked = checked_inputs(NUMBERS[name].node, {given.id: value})
        assert checked[given.id] == value and type(checked[given.id]) is kind


@pytest.mark.parametrize("name", [name for name, widget in WIDGETS.items() if widget.has_own_check])
def test_a_linked_name_of_nothing_gets_the_sentence_of_its_node(name):
    widget = WIDGETS[name]
    wrong = {**right_values(widget.node), widget.input.id: "nowhere.safetensors"}
    if name == "FlashFaceDetectorLoader.model_pack":
        wrong["detector"] = "insightface"
    line = complaint(widget.node, wrong)
    assert line.startswith(widget.node.define_schema().display_name)
    assert "nowhere.safetensors" in line


def test_a_file_that_vanished_since_the_workflow_was_checked_is_named():
    assert "there is no saved identity 'none'" in complaint(
        FlashFaceIdentityLoad, {"filename": "none"}
    )


def test_core_asks_for_the_names_that_execute_had():
    """ComfyUI and scripts read signatures; positions count in scripts."""
    names = list(inspect.signature(FlashFaceGuidance.execute).parameters)
    assert names == [given.id for given in FlashFaceGuidance.define_schema().inputs]
    guidance = FlashFaceGuidance.execute("custom", 1, 2, 700.0, 0, 0, 0, 1, 1, 1, 1).args[0]
    assert guidance.launch_timestep == 700 and type(guidance.launch_timestep) is int
    picture = run(FlashFaceGuidancePlot, {"guidance": guidance, "steps": 2})[0]
    assert picture.shape[0] == 1
