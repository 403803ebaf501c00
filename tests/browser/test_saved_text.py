"""FlashFaceIdentitySave says in the node where the person lies."""

import json

import pytest
from support.browser import complaints, frontend, open_graph
from support.server import ui_workflow

pytestmark = pytest.mark.browser

SAVE = "app.graph.nodes.find((node) => node.type === 'FlashFaceIdentitySave')"
SENT = "async () => (await app.graphToPrompt()).output"


def kept(page) -> list:
    """What a saved workflow holds of the node's widgets."""
    return page.evaluate(f"[{SAVE}.serialize().widgets_values, {SAVE}.serialize().inputs]")


def widgets(page) -> list:
    return page.evaluate(f"{SAVE}.widgets.map((widget) => widget.name)")


def test_where_the_person_was_saved_can_be_read_in_the_node(page, look, server, tmp_path):
    open_graph(page, ui_workflow("toy_save_identity"))
    assert widgets(page) == ["filename"]
    sent, before = page.evaluate(SENT), kept(page)
    page.evaluate(f"{SAVE}.setSize([300, 80])")  # as it is where somebody has just added it
    height = page.evaluate(f"{SAVE}.size[1]")
    page.evaluate("async () => app.queuePrompt(0, 1)")
    page.wait_for_function(f"{SAVE}.widgets.length > 1")
    text = page.locator("textarea[readonly]:visible")
    text.wait_for()
    file = server.base / "models" / "identities" / "toy_person.safetensors"
    assert text.input_value() == f"4 photos in {file}"
    assert complaints(page) == []
    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "saved.png")
    assert page.evaluate(f"{SAVE}.size[1]") > height
    if (frontend(), look) != ("1.32.9", "nodes2"):  # there it scrolls
        assert text.evaluate("(element) => element.scrollHeight <= element.clientHeight")

    assert page.evaluate(SENT) == sent
    assert kept(page) == before
    saved = page.evaluate("JSON.stringify(app.graph.serialize())")
    open_graph(page, json.loads(saved))
    assert widgets(page) == ["filename"]
    assert page.evaluate(SENT) == sent
