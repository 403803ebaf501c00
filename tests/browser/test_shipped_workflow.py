"""A person opens the shipped workflow, exports it, and runs it."""

import json
import time

import pytest
from support.server import API_WORKFLOW, bare, node_id, small_workflow

pytestmark = pytest.mark.browser

OPEN_TEMPLATE = """async () => {
    const path = '/api/workflow_templates/flashface/photo_to_portrait.json'
    await app.loadGraphData(await (await fetch(path)).json())
}"""
NODES = """() => app.graph.nodes.map((node) => ({
    type: node.type,
    registered: node.type in LiteGraph.registered_node_types,
    errors: Boolean(node.has_errors),
}))"""
SHOW_ALL = """() => {
    app.canvas.ds.scale = 0.74
    app.canvas.ds.offset = [570, 200]
    app.canvas.setDirty(true, true)
}"""
# As a person would type them; the whole size takes minutes on a CPU.
MAKE_SMALL = """() => {
    const set = (type, values) => {
        const node = app.graph.nodes.find((node) => node.type === type)
        for (const [name, value] of Object.entries(values))
            node.widgets.find((widget) => widget.name === name).value = value
    }
    set('EmptyLatentImage', { width: 64, height: 64 })
    set('KSampler', { steps: 2 })
}"""


@pytest.fixture
def opened(page):
    page.evaluate(OPEN_TEMPLATE)
    page.wait_for_function("app.graph.nodes.length > 0")
    page.wait_for_timeout(1000)  # dialogs about missing things come a little later
    return page


def export(page) -> dict:
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def test_it_opens_without_missing_nodes_and_without_complaint(opened):
    nodes = opened.evaluate(NODES)
    assert len(nodes) == len(json.loads(API_WORKFLOW.read_text())) + 1  # and the note
    assert not [node for node in nodes if node["errors"] or not node["registered"]]
    assert opened.locator(".p-dialog:visible").all_inner_texts() == []
    assert opened.locator(".p-toast-message:visible").all_inner_texts() == []


def test_its_export_is_the_shipped_api_workflow(opened):
    assert bare(export(opened)) == bare(json.loads(API_WORKFLOW.read_text()))


def test_saving_and_opening_it_again_changes_nothing(opened):
    before = export(opened)
    opened.evaluate("async () => app.loadGraphData(app.graph.serialize())")
    opened.wait_for_timeout(500)
    assert export(opened) == before


def test_it_runs_and_shows_its_picture(opened, server, tmp_path):
    opened.evaluate(MAKE_SMALL)
    assert bare(export(opened)) == bare(small_workflow())
    opened.evaluate("async () => app.queuePrompt(0, 1)")
    deadline = time.monotonic() + 120
    while not (history := server.get("/history")) and time.monotonic() < deadline:
        time.sleep(0.2)
    ((_, entry),) = history.items()
    assert entry["status"]["status_str"] == "success", entry["status"]
    save = node_id(small_workflow(), "SaveImage")
    opened.wait_for_function(
        f"(app.nodeOutputs['{save}']?.images ?? []).length === 1", timeout=10_000
    )
    opened.evaluate(SHOW_ALL)
    opened.wait_for_timeout(1000)
    opened.screenshot(path=tmp_path / "workflow.png")
    print(f"screenshot: {tmp_path / 'workflow.png'}")
