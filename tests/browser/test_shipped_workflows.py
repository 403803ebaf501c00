"""A person opens a shipped workflow, exports it, and runs it."""

import time

import pytest
from support.server import LARGE, SHIPPED, api_workflow, bare, node_id, small_workflow

pytestmark = pytest.mark.browser

OPEN_TEMPLATE = """async (name) => {
    const path = `/api/workflow_templates/flashface/${name}.json`
    await app.loadGraphData(await (await fetch(path)).json())
}"""
NODES = """() => app.graph.nodes.map((node) => ({
    type: node.type,
    registered: node.type in LiteGraph.registered_node_types,
    errors: Boolean(node.has_errors),
}))"""
SHOW_ALL = """() => {
    const ends = app.graph.nodes.map((n) => [n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
    const width = Math.max(...ends.map((end) => end[0])) + 600
    const height = Math.max(...ends.map((end) => end[1])) + 250
    app.canvas.ds.scale = Math.min(2700 / width, 1100 / height, 1)
    app.canvas.ds.offset = [570, 260]
    app.canvas.setDirty(true, true)
}"""
# As a person would type them; at its whole size the larger one takes minutes on a CPU.
MAKE_SMALL = """() => {
    const set = (type, values) => {
        const node = app.graph.nodes.find((node) => node.type === type)
        for (const [name, value] of Object.entries(values))
            node.widgets.find((widget) => widget.name === name).value = value
    }
    set('EmptyLatentImage', { width: 64, height: 64 })
    set('KSampler', { steps: 2 })
}"""


RUN = {name: api_workflow(name) for name in SHIPPED} | {LARGE: small_workflow()}


@pytest.fixture(params=SHIPPED)
def name(request) -> str:
    return request.param


@pytest.fixture
def opened(page, name):
    page.evaluate(OPEN_TEMPLATE, name)
    page.wait_for_function("app.graph.nodes.length > 0")
    page.wait_for_timeout(1000)  # dialogs about missing things come a little later
    return page


def export(page) -> dict:
    workflow = page.evaluate("async () => (await app.graphToPrompt()).output")
    for node in workflow.values():
        if node["class_type"] == "PreviewAny":  # the frontend sends the text that it shows as well
            node["inputs"].pop("preview", None)
    return workflow


def test_it_opens_without_missing_nodes_and_without_complaint(opened, name):
    nodes = opened.evaluate(NODES)
    assert len(nodes) == len(api_workflow(name)) + 1  # and the note
    assert not [node for node in nodes if node["errors"] or not node["registered"]]
    assert opened.locator(".p-dialog:visible").all_inner_texts() == []
    assert opened.locator(".p-toast-message:visible").all_inner_texts() == []


def test_its_export_is_the_shipped_api_workflow(opened, name):
    assert bare(export(opened)) == bare(api_workflow(name))


def test_saving_and_opening_it_again_changes_nothing(opened):
    before = export(opened)
    opened.evaluate("async () => app.loadGraphData(app.graph.serialize())")
    opened.wait_for_timeout(500)
    assert export(opened) == before


def test_it_runs_and_shows_its_picture(opened, name, server, tmp_path):
    if name == LARGE:
        opened.evaluate(MAKE_SMALL)
    assert bare(export(opened)) == bare(RUN[name])
    before = server.get("/history").keys()
    opened.evaluate("async () => app.queuePrompt(0, 1)")
    deadline = time.monotonic() + 120
    while not (new := server.get("/history").keys() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    (prompt,) = new
    status = server.get("/history")[prompt]["status"]
    assert status["status_str"] == "success", status
    save = node_id(RUN[name], "PreviewImage" if name == "save_identity" else "SaveImage")
    opened.wait_for_function(
        f"(app.nodeOutputs['{save}']?.images ?? []).length > 0", timeout=10_000
    )
    opened.evaluate(SHOW_ALL)
    opened.wait_for_timeout(1000)
    opened.screenshot(path=tmp_path / "workflow.png")
    print(f"screenshot: {tmp_path / 'workflow.png'}")
