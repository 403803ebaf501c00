"""The blocks in subgraphs/: the frontend opens them, and sends what is in them."""

import json

import pytest
from support.browser import complaints, open_graph
from support.server import TINY, api_workflow, ui_workflow
from support.tools import ROOT

pytestmark = pytest.mark.browser

BLUEPRINTS = {path.stem: json.loads(path.read_text()) for path in ROOT.glob("subgraphs/*.json")}
PERSON = "FlashFace person into picture"
IN_BLOCK = ["FlashFaceIdentityPlace", "FlashFaceEncode", "FlashFaceGuidance", "FlashFaceApply"]


def exported(page) -> dict:
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def with_block() -> dict:
    """01_start_here, with one block in place of the four nodes that are in it."""
    ui, blueprint = ui_workflow(TINY), BLUEPRINTS[PERSON]
    gone = {node["id"]: node for node in ui["nodes"] if node["type"] in IN_BLOCK}
    (block,) = blueprint["nodes"]
    block = {**block, "id": 100, "inputs": [dict(entry) for entry in block["inputs"]]}
    ui["nodes"] = [node for node in ui["nodes"] if node["id"] not in gone] + [block]
    slots = {entry["name"]: slot for slot, entry in enumerate(block["inputs"])}
    kept = []
    for number, source, at, target, slot, type_ in ui["links"]:
        if source in gone and target in gone:
            continue
        if target in gone:
            name = gone[target]["inputs"][slot]["name"]
            block["inputs"][slots[name]]["link"] = number
            target, slot = 100, slots[name]
        if source in gone:
            block["outputs"] = [{**block["outputs"][0], "links": [number]}]
            source, at = 100, 0
        kept.append([number, source, at, target, slot, type_])
    widgets = [entry["name"] for entry in block["inputs"] if "widget" in entry]
    wanted = dict(x=0.19, y=0.2, width=0.62, height=0.62, preset="custom")
    block["widgets_values"] = [wanted[name] for name in widgets]
    return {**ui, "links": kept, "last_node_id": 100, "definitions": blueprint["definitions"]}


def by_class(workflow: dict) -> dict:
    """What the nodes of every class are given; links by the class they come from."""

    def plain(value):
        if isinstance(value, list):
            return workflow[value[0]]["class_type"], value[1]
        return value

    nodes = {}
    for node in workflow.values():
        values = {name: plain(value) for name, value in node["inputs"].items()}
        nodes.setdefault(node["class_type"], []).append(sorted(values.items(), key=str))
    return {name: sorted(all_, key=str) for name, all_ in nodes.items()}


def test_a_block_in_a_workflow_sends_the_nodes_that_are_in_it(page):
    open_graph(page, with_block())
    assert complaints(page) == []
    sent = exported(page)
    assert len(sent) == len(api_workflow(TINY))
    assert by_class(sent) == by_class(api_workflow(TINY))


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_opens_as_one_node_with_its_inputs_and_outputs(page, name):
    open_graph(page, BLUEPRINTS[name])
    assert complaints(page) == []
    (block,) = BLUEPRINTS[name]["nodes"]
    shown = page.evaluate(
        """() => app.graph.nodes.map((node) => ({
            inputs: node.inputs.map((i) => i.name), outputs: node.outputs.map((o) => o.name),
            widgets: node.widgets.map((w) => [w.name, w.value]),
        }))"""
    )
    widgets = [entry["name"] for entry in block["inputs"] if "widget" in entry]
    expected = {
        "inputs": [entry["name"] for entry in block["inputs"]],
        "outputs": [entry["name"] for entry in block["outputs"]],
        "widgets": [list(pair) for pair in zip(widgets, block["widgets_values"], strict=True)],
    }
    assert shown == [expected]


def test_the_server_lists_the_blueprints(server):
    listed = server.get("/api/global_subgraphs")
    ours = {entry["name"] for entry in listed.values() if "flashface" in str(entry["info"])}
    assert ours == set(BLUEPRINTS)
