"""ComfyUI's page in Chinese: our nodes' names, beside core's own."""

import json

import pytest
from support.browser import NODES_2, frontend, load_page
from support.tools import ROOT

pytestmark = pytest.mark.browser

ZH = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
TYPES = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))["dataTypes"]
ADDED = """async (types) => {
    app.graph.clear()
    const nodes = types.map((type) => LiteGraph.createNode(type))
    nodes.forEach((node, i) => {
        node.pos = [380 * (i % 6), 480 * Math.floor(i / 6)]
        app.graph.add(node)
    })
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [60, 120]
    app.canvas.setDirty(true, true)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    const shown = (slot) => slot.label ?? slot.localized_name
    return nodes.map((node) => ({
        title: node.title,
        inputs: Object.fromEntries((node.inputs ?? []).map((slot) => [slot.name, shown(slot)])),
        outputs: (node.outputs ?? []).map((slot) => [slot.name, slot.type, shown(slot)]),
        labels: Object.fromEntries((node.widgets ?? []).map((w) => [w.name, w.label ?? null])),
        values: (node.widgets ?? []).filter((w) => w.type === 'combo').map((w) => w.value),
    }))
}"""
# Inputs that core's nodes have too, which are called in ours as they are there.
CORE = {
    "KSampler": ("model", "negative", "steps"),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "ImageCrop": ("image", "width", "height"),
    "VAEEncodeForInpaint": ("mask",),
    "CLIPTextEncode": ("text",),
}


@pytest.fixture
def chinese(pages, look, server):
    if tuple(map(int, frontend().split(".")[:2])) < (1, 33):
        pytest.skip("this frontend forgets packs' translations when it loads its own language")
    before = server.get("/settings")
    page = pages[look].context.new_page()
    try:
        server.post("/settings/Comfy.Locale", "zh")
        server.post(f"/settings/{NODES_2}", look == "nodes2")
        load_page(page, server)
        yield page
    finally:
        page.close()
        server.post("/settings/Comfy.Locale", "en")
        server.post(f"/settings/{NODES_2}", before.get(NODES_2, False))


def test_nodes_are_called_in_chinese_as_core_calls_its_own(chinese, tmp_path):
    names = [*ZH, *CORE]
    added = dict(zip(names, chinese.evaluate(ADDED, names), strict=True))
    chinese.screenshot(path=tmp_path / "chinese.png")
    print(f"screenshot: {tmp_path / 'chinese.png'}")
    called = {}
    for name, node in ZH.items():
        assert added[name]["title"] == node["display_name"]
        for input_name, given in node.get("inputs", {}).items():
            assert added[name]["inputs"][input_name] == given["name"]
            called[input_name] = given["name"]
        for index, (slot, kind, shown) in enumerate(added[name]["outputs"]):
            if slot != kind:
                assert shown == node["outputs"][str(index)]["name"]
            elif kind in TYPES:
                assert shown == TYPES[kind]
    assert added["FlashFaceGuidance"]["values"] == ["custom"]  # is sent, so it stays as it is
    # web/js/flashface.js renames widgets, and gives their names back.
    renamed = {"FlashFaceGuidance": "feature_strength", "FlashFaceLoader": "model_name"}
    for node, widget in renamed.items():
        assert added[node]["labels"][widget] == ZH[node]["inputs"][widget]["name"]
    for name, inputs in CORE.items():
        for input_name in inputs:
            assert called[input_name] == added[name]["inputs"][input_name], input_name
