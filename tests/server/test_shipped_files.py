"""What the pack ships for people: workflows, their thumbnails and help pages."""

import io
import json
import re
from pathlib import Path

import folder_paths
import pytest
from flashface_pack.flashface_core.comfy_adapter.flashface import tiny
from PIL import Image
from support.server import (
    PHOTO,
    PUBLISHED,
    SHIPPED,
    SIZES,
    TOY,
    api_workflow,
    bare,
    fetch,
    made_small,
    ui_workflow,
)
from support.tools import ROOT

pytestmark = pytest.mark.server

OURS = [path.stem for path in sorted((ROOT / "web" / "docs").glob("*.md"))]
WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")


def ui_to_api(ui: dict, object_info: dict) -> dict:
    """What the frontend exports, from the node descriptions: widget values stand by position."""
    links = {link[0]: [str(link[1]), link[2]] for link in ui["links"]}
    api = {}
    for node in ui["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        info = object_info[node["type"]]["input"]
        described = {**info["required"], **info.get("optional", {})}
        values = iter(node.get("widgets_values") or [])
        inputs = {}
        for name, (type_, *options) in described.items():
            if isinstance(type_, list) or type_ in WIDGETS:
                inputs[name] = next(values)
                if options and options[0].get("control_after_generate"):
                    assert next(values) == "fixed"
        upload = [] if node["type"] != "LoadImage" else ["image"]
        assert list(values) == upload, f"{node['type']} has more values than widgets"
        for slot in node["inputs"]:
            if slot.get("link") is not None:
                inputs[slot["name"]] = links[slot["link"]]
        api[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return api


@pytest.mark.parametrize("name", SHIPPED)
def test_the_workflow_for_the_canvas_and_the_api_form_agree(server, name):
    converted = ui_to_api(ui_workflow(name), server.get("/object_info"))
    assert bare(converted) == bare(api_workflow(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_node_in_api_form_has_a_title_to_set_it_by(name):
    """Of core's nodes not all have a name to show."""
    assert [node for node in api_workflow(name).values() if not node["_meta"]["title"]] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_nodes_of_a_shipped_workflow_name_the_pack_they_come_from(name):
    version = (ROOT / "pyproject.toml").read_text().split('version = "')[1].split('"')[0]
    for node in ui_workflow(name)["nodes"]:
        if node["type"] in OURS:
            expected = {"cnr_id": "flashface", "ver": version, "Node name for S&R": node["type"]}
            files = node["properties"].pop("models", [])
            assert node["properties"] == expected
            # What a frontend offers to download, and where the node looks for it.
            if node["type"] == "FlashFaceLoader":
                (file,) = files
                assert (file["name"], file["directory"]) == (node["widgets_values"][0], "flashface")


@pytest.mark.parametrize("name", SHIPPED)
def test_nodes_and_groups_of_a_shipped_workflow_do_not_overlap(name):
    ui = ui_workflow(name)
    title = 30  # above a node's own position
    nodes = [(*node["pos"], *node["size"]) for node in ui["nodes"]]
    boxes = [(x, y - title, x + w, y + h) for x, y, w, h in nodes]
    groups = [(x, y, x + w, y + h) for x, y, w, h in (g["bounding"] for g in ui["groups"])]
    for kind in (boxes, groups):
        for i, a in enumerate(kind):
            for b in kind[:i]:
                apart = a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
                assert apart, (a, b)


def test_the_workflows_are_listed_as_templates(server):
    (listed,) = server.get("/workflow_templates").items()
    assert (listed[0], sorted(listed[1])) == ("flashface", sorted(SHIPPED))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_workflow_is_served_with_a_thumbnail(server, name):
    path = f"/api/workflow_templates/flashface/{name}"
    assert json.loads(fetch(server, f"{path}.json")) == ui_workflow(name)
    thumbnail = Image.open(io.BytesIO(fetch(server, f"{path}.jpg")))
    assert thumbnail.format == "JPEG"
    assert max(thumbnail.size) <= 512


@pytest.mark.parametrize("name", SHIPPED)
def test_no_picture_is_missing_when_a_workflow_opens(name):
    """A frontend marks a workflow red whose pictures are not there."""
    nodes = ui_workflow(name)["nodes"]
    named = {node["widgets_values"][0] for node in nodes if node["type"] == "LoadImage"}
    assert named == (set() if name in (*TOY, "13_saved_identity") else {PHOTO})
    assert (Path(folder_paths.__file__).parent / "input" / PHOTO).is_file()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_workflow_is_at_most_two_screens_wide(name):
    """Of 1600 pixels at 60 %."""
    nodes = ui_workflow(name)["nodes"]
    ends = [(node["pos"][0], node["pos"][0] + node["size"][0]) for node in nodes]
    width = max(end for _, end in ends) - min(start for start, _ in ends)
    assert width <= 2 * 1600 / 0.6


@pytest.mark.parametrize("name", TOY)
def test_prompts_for_the_tiny_models_are_words_that_they_know(name):
    page = (ROOT / "web" / "docs" / "FlashFaceTinyModels.md").read_text()
    for node in api_workflow(name).values():
        if node["class_type"] == "CLIPTextEncode" and node["inputs"]["text"]:
            start, *parts = node["inputs"]["text"].split(", ")
            assert start.startswith("a portrait")
            age = start.removeprefix("a portrait").removeprefix(" of ")
            for part in [age, *parts] if age else parts:
                assert f"`{part}`" in page, part


def test_every_node_has_a_help_page(server):
    ours = {
        name
        for name, info in server.get("/object_info").items()
        if info["python_module"].endswith("flashface")
    }
    assert ours == set(OURS)
    for name in ours:
        page = fetch(server, f"/extensions/flashface/docs/{name}.md").decode()
        assert page.startswith(
            ("# FlashFace ", "# Face2Diffusion ", "# FaceStudio ", "# Face Fusion ")
        )


def test_help_pages_name_every_widget_of_their_node(server):
    for name in OURS:
        info = server.get(f"/object_info/{name}")[name]["input"]
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text()
        for widget, (type_, *_) in {**info["required"], **info.get("optional", {})}.items():
            if type_ in WIDGETS:
                assert re.search(rf"\b{widget}\b", page), f"{name}.md says nothing about {widget}"


def test_what_users_get_holds_the_tiny_models_and_photos():
    kept = [*(f"tiny_models/{name}" for name in (tiny.FLASHFACE, tiny.VAE))]
    kept += [f"tiny_models/{tiny.PHOTOS}", *(f"workflows/{name}.jpg" for name in SHIPPED)]
    for name in kept:
        assert (ROOT / name).stat().st_size > 10_000, name
    ignored = [
        *(ROOT / ".gitignore").read_text().split(),
        *(ROOT / ".comfyignore").read_text().split(),
    ]
    assert not [rule for rule in ignored for name in kept if name.startswith(rule.rstrip("/*"))]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_workflow_that_is_made_small_is_the_shipped_one_but_for_size_and_steps(name):
    shipped, small = bare(api_workflow(name)), bare(made_small(name))
    changed = {small[key][0] for key in shipped if shipped[key] != small[key]}
    assert "KSampler" in changed or name == "12_save_identity"
    assert changed <= {*SIZES, "KSampler"}
    assert shipped.keys() == small.keys()
