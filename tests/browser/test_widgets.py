"""What the real frontend makes of our nodes' inputs: widgets, or sockets that wait for a link."""

import pytest

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
