"""A person opens a shipped workflow, exports it, and runs it."""

import itertools
import json
import os
import time
from pathlib import Path

import folder_paths
import pytest
from support.browser import complaints, frontend, open_graph
from support.server import (
    OTHER_MODELS,
    SHIPPED,
    SIZES,
    TINY,
    api_workflow,
    bare,
    made_small,
    ui_workflow,
)

pytestmark = pytest.mark.browser

NODES = """() => app.graph.nodes.map((node) => ({
    type: node.type,
    registered: node.type in LiteGraph.registered_node_types,
    errors: Boolean(node.has_errors),
    place: [...node.getBounding()],
}))"""
SHOW_ALL = """() => {
    const ends = app.graph.nodes.map((n) => [n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
    const width = Math.max(...ends.map((end) => end[0])) + 600
    const height = Math.max(...ends.map((end) => end[1])) + 250
    app.canvas.ds.scale = Math.min(2700 / width, 1100 / height, 1)
    app.canvas.ds.offset = [570, 260]
    app.canvas.setDirty(true, true)
}"""
# As a person would type them; at their whole size those for photographs take minutes on a CPU. The
# server's tests run those of the tiny models at theirs.
MAKE_SMALL = """(sizes) => {
    for (const node of app.graph.nodes)
        for (const widget of node.widgets ?? []) {
            if (sizes[node.type]?.includes(widget.name)) widget.value /= 8
            if (node.type === 'KSampler' && widget.name === 'steps') widget.value = 2
        }
}"""


PINS = (Path(folder_paths.__file__).parent / "requirements.txt").read_text()
RUNS_IN = "classic" if f"comfyui-frontend-package=={frontend()}\n" in PINS else "nodes2"
RUN = {name: made_small(name) for name in SHIPPED}


@pytest.fixture(scope="module")
def opened(page, server, name):
    """A page with the template, for every test of a workflow in their order."""
    open_graph(page, server.get(f"/api/workflow_templates/flashface/{name}.json"))
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
    assert complaints(opened) == []


def test_no_node_stands_on_another(opened):
    for one, other in itertools.combinations(opened.evaluate(NODES), 2):
        (x, y, width, height), (x_2, y_2, width_2, height_2) = one["place"], other["place"]
        beside = min(x + width, x_2 + width_2) <= max(x, x_2) + 1  # pixels are rounded
        above = min(y + height, y_2 + height_2) <= max(y, y_2) + 1
        assert beside or above, f"{one} {other}"


def test_its_export_is_the_shipped_api_workflow(opened, name):
    assert bare(export(opened)) == bare(api_workflow(name))


def test_saving_and_opening_it_again_changes_nothing(opened, look):
    if look != RUNS_IN:
        pytest.skip(f"with this frontend it is saved in {RUNS_IN}")
    before = export(opened)
    saved = opened.evaluate("JSON.stringify(app.graph.serialize())")  # as into a file
    open_graph(opened, json.loads(saved))
    assert export(opened) == before
    assert complaints(opened) == []


def test_it_runs_and_shows_its_picture(opened, name, look, server, tmp_path):
    """In one of the two ways that each frontend draws: what is sent is the same in both."""
    if look != RUNS_IN or name in OTHER_MODELS:
        screenshot(opened, name, look, tmp_path)
    if look != RUNS_IN:
        pytest.skip(f"with this frontend it runs in {RUNS_IN}")
    if name in OTHER_MODELS:
        pytest.skip("it loads gigabytes of other models; the server's tests run it on small ones")
    opened.evaluate(MAKE_SMALL, SIZES)
    assert bare(export(opened)) == bare(RUN[name])
    before = server.get("/history").keys()
    opened.evaluate("async () => app.queuePrompt(0, 1)")
    deadline = time.monotonic() + 600  # seconds, where nobody else computes
    while not (new := server.get("/history").keys() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    (prompt,) = new
    status = server.get("/history")[prompt]["status"]
    assert status["status_str"] == "success", status
    shown_by = "PreviewImage" if "save_identity" in name else "SaveImage"
    for key in (key for key, node in RUN[name].items() if node["class_type"] == shown_by):
        opened.wait_for_function(
            f"(app.nodeOutputs['{key}']?.images ?? []).length > 0", timeout=10_000
        )
    screenshot(opened, name, look, tmp_path)


def screenshot(page, name: str, look: str, folder: Path) -> None:
    """Of the whole graph, to look at: into FLASHFACE_SCREENSHOTS, where that is set."""
    folder = Path(os.environ.get("FLASHFACE_SCREENSHOTS") or folder)
    folder.mkdir(parents=True, exist_ok=True)
    page.evaluate(SHOW_ALL)
    page.wait_for_timeout(700)
    path = folder / f"{name}-{frontend()}-{look}.png"
    page.screenshot(path=path)
    print(f"screenshot: {path}")


def test_a_workflow_with_an_unknown_node_is_complained_of(page):
    """Else the test of what is opened without complaint could not fail."""
    graph = ui_workflow(TINY)
    graph["nodes"][0]["type"] = "FlashFaceOfAnotherWorld"
    open_graph(page, graph)
    assert "FlashFaceOfAnotherWorld" in "".join(complaints(page))
    assert [n["type"] for n in page.evaluate(NODES) if n["errors"]] == ["FlashFaceOfAnotherWorld"]
