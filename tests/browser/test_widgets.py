"""What the real frontend makes of our nodes' inputs: widgets, or sockets that wait for a link."""

import json

import pytest
from support.browser import complaints, open_graph
from support.server import ui_workflow
from support.tools import ROOT

pytestmark = pytest.mark.browser

WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
# Under numbers of their own: some versions give a node the values of an earlier one with the same.
ADDED = """async (types) => {
    app.graph.state.lastNodeId = 1000
    const nodes = types.map((type) => LiteGraph.createNode(type))
    nodes.forEach((node) => app.graph.add(node))
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const sent = (await app.graphToPrompt()).output
    return nodes.map((node) => ({
        id: Number(node.id),
        values: Object.fromEntries((node.widgets ?? []).map((w) => [w.name, w.value])),
        sockets: (node.inputs ?? []).filter((i) => !i.widget).map((i) => [i.name, i.type]),
        sent: sent[node.id].inputs,
    }))
}"""


def described(info: dict) -> tuple[dict, list]:
    """Of one node in /object_info: defaults of its widgets by name, and its sockets, in order."""
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    values, sockets = {}, []
    for name, (type_, *rest) in inputs.items():
        options = rest[0] if rest else {}
        choices = type_ if isinstance(type_, list) else options.get("options")
        if isinstance(type_, list) or type_ in WIDGETS:
            values[name] = options.get("default", choices[0] if choices else "")
        else:
            sockets.append([name, type_])
    return values, sockets


def test_widgets_are_those_of_the_schema_and_every_other_input_stays_a_socket(page, server):
    ours = {
        name: described(info)
        for name, info in server.get("/object_info").items()
        if info["python_module"] == "custom_nodes.flashface"
    }
    assert len(ours) >= 23
    added = dict(zip(ours, page.evaluate(ADDED, list(ours)), strict=True))
    assert min(node["id"] for node in added.values()) > 1000
    for name, (values, sockets) in ours.items():
        assert added[name]["values"] == values, name
        assert added[name]["sockets"] == sockets, name
        assert added[name]["sent"] == values, name  # nothing that nobody connected


def named(node: dict, **labels: str) -> None:
    """As "Rename Widget" of newer frontends saves it."""
    for entry in node["inputs"]:
        if entry["name"] in labels:
            entry["label"] = labels.pop(entry["name"])
    assert not labels


def labels(page) -> dict:
    return page.evaluate(
        """() => Object.fromEntries(app.graph.nodes
            .find((node) => node.type === 'FlashFaceGuidance')
            .widgets.map((widget) => [widget.name, widget.label ?? widget.name]))"""
    )


def test_a_name_of_the_users_own_stays_beside_the_number_of_a_preset_and_without_it(page):
    graph = ui_workflow("03_child_and_elder")
    (node,) = [node for node in graph["nodes"] if node["type"] == "FlashFaceGuidance"]
    # One of them is what the field for names saves where it is left without typing.
    named(node, feature_strength="mine", face_guidance="2.5 (preset) face_guidance")
    open_graph(page, graph)
    shown = labels(page)
    assert shown["feature_strength"] == "0.9 (preset) mine"
    assert shown["face_guidance"] == "2.5 (preset) face_guidance"
    assert shown["launch_timestep"] == "750 (preset) launch_timestep"
    saved = page.evaluate("JSON.stringify(app.graph.serialize())")
    open_graph(page, json.loads(saved))
    assert labels(page) == shown
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'FlashFaceGuidance')
            const of = (name) => node.widgets.find((widget) => widget.name === name)
            // As "Rename Widget" does it.
            node.inputs.find((input) => input.name === 'launch_timestep').label = 'start'
            of('launch_timestep').label = 'start'
            of('launch_timestep').callback(of('launch_timestep').value)
        }"""
    )
    assert labels(page)["launch_timestep"] == "750 (preset) start"
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'FlashFaceGuidance')
            const preset = node.widgets.find((widget) => widget.name === 'preset')
            preset.value = 'custom'
            preset.callback('custom')
        }"""
    )
    shown = labels(page)
    assert shown["feature_strength"] == "mine"
    assert shown["face_guidance"] == "face_guidance"
    assert shown["launch_timestep"] == "start"


@pytest.mark.parametrize("name", [None, "mine"])
def test_in_a_block_too_the_advice_about_an_empty_list_goes_when_files_are_there(
    page, server, name
):
    graph = json.loads((ROOT / "subgraphs" / "FlashFace models.json").read_text())
    (block,) = graph["definitions"]["subgraphs"]
    (node,) = [node for node in block["nodes"] if node["type"] == "FlashFaceLoader"]
    if name:
        named(node, model_name=name)
    label = """async () => {
        await app.refreshComboInNodes()
        await new Promise((resolve) => setTimeout(resolve, 500))
        const nodes = app.graph.nodes.find((node) => node.subgraph).subgraph.nodes
        const loader = nodes.find((node) => node.type === 'FlashFaceLoader')
        return [loader, loader.clone()].map((node) =>
            node.widgets.find((widget) => widget.name === 'model_name').label ?? 'model_name')
    }"""
    open_graph(page, graph)
    folder = server.base / "models" / "flashface"
    aside = folder.rename(folder.with_name("aside"))
    try:
        folder.mkdir()
        assert page.evaluate(label) == ["put flashface.ckpt into models/flashface"] * 2
    finally:
        folder.rmdir()
        aside.rename(folder)
    assert page.evaluate(label) == [name or "model_name"] * 2
    page.wait_for_timeout(2000)  # while it says that it has looked again
    assert complaints(page) == []
