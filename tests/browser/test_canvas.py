"""web/js/flashface.js: a colour for every socket, and what a preset overrides."""

import itertools

import pytest
from support.browser import open_graph
from support.server import ui_workflow

pytestmark = pytest.mark.browser

OF_CORE = ("*", "BOUNDING_BOX", "MODEL", "CLIP", "VAE", "CONDITIONING", "IMAGE", "MASK", "SIGMAS")
OF_CORE += ("CLIP_VISION", "COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")


def test_every_socket_of_the_pack_has_a_colour_of_its_own(page, server):
    types = set()
    for info in server.get("/object_info").values():
        if info["python_module"] == "custom_nodes.flashface":
            inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
            types |= {type_ for type_, *_ in inputs.values() if isinstance(type_, str)}
            types |= set(info["output"])
    ours = sorted(types - set(OF_CORE))
    assert len(ours) >= 9
    shown = page.evaluate(
        """(types) => types.map((type) => [
            LGraphCanvas.link_type_colors[type],
            app.canvas.default_connection_color_byType[type],
            document.documentElement.style.getPropertyValue(`--color-datatype-${type}`),
        ])""",
        ours,
    )
    assert all(len(set(colours)) == 1 and colours[0] for colours in shown), shown
    for one, other in itertools.combinations(shown, 2):
        assert one != other


def guidance(page) -> dict:
    page.wait_for_timeout(300)
    return page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'FlashFaceGuidance')
            return Object.fromEntries(node.widgets.map((widget) =>
                [widget.name, [widget.label ?? null, Boolean(widget.disabled), widget.value]]))
        }"""
    )


def test_a_preset_shows_its_numbers_and_changes_no_widget(page, tmp_path):
    open_graph(page, ui_workflow("03_child_and_elder"))
    shown = guidance(page)
    assert shown["preset"][2] == "change age"
    assert shown["feature_strength"] == ["0.9 (preset) feature_strength", True, 1.2]
    assert shown["face_guidance"] == ["2.5 (preset) face_guidance", True, 3.2]
    assert shown["launch_timestep"] == ["750 (preset) launch_timestep", True, 750]
    assert not shown["early_strength"][1]
    page.screenshot(path=tmp_path / "preset.png")
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find((node) => node.type === 'FlashFaceGuidance')
            const preset = node.widgets.find((widget) => widget.name === 'preset')
            preset.value = 'custom'
            preset.callback?.('custom')
        }"""
    )
    shown = guidance(page)
    assert [shown[name][1] for name in ("feature_strength", "launch_timestep")] == [False, False]
    assert "preset" not in (shown["feature_strength"][0] or "")


def test_an_empty_list_of_files_says_what_belongs_there(page, server):
    open_graph(page, ui_workflow("02_portrait_from_photos"))
    label = """async () => {
        await app.refreshComboInNodes()
        await new Promise((resolve) => setTimeout(resolve, 500))
        const loader = app.graph.nodes.find((node) => node.type === 'FlashFaceLoader')
        return loader.widgets.find((widget) => widget.name === 'model_name').label ?? null
    }"""
    folder = server.base / "models" / "flashface"
    aside = folder.rename(folder.with_name("aside"))
    try:
        folder.mkdir()
        assert page.evaluate(label) == "put flashface.ckpt into models/flashface"
    finally:
        folder.rmdir()
        aside.rename(folder)
    assert page.evaluate(label) in (None, "model_name")
