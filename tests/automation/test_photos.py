"""Photos and rows of a manifest, as people have them; no server is needed."""

import json

import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from automation.manifest import read_manifest
from automation.photos import PhotoError, PhotoFolders
from automation.values import check_graph


def test_a_phones_jpeg_with_a_second_picture_in_it_is_a_photo(tmp_path):
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[blue])
    (photo,) = PhotoFolders(tmp_path).find("a.jpg")
    assert photo.suffix == ".jpg"


def test_brackets_of_a_name_are_no_pattern(tmp_path):
    for name in ("anna 1.png", "anna [1].png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (photo,) = PhotoFolders(tmp_path).find("anna [1].png")
    assert photo.path.name == "anna [1].png"
    own = tmp_path / "people" / "eva [2024]"
    own.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(own / "a.png")
    (tmp_path / "grid.json").write_text(json.dumps({"people": "people/*"}))
    (line,), _ = read_manifest(tmp_path / "grid.json")
    for cell in (
        line.values["photos"],
        "people/eva [2024]/*",
        f"{tmp_path}/people/eva [2024]/?.png",
    ):
        assert len(PhotoFolders(tmp_path).find(cell)) == 1
    with pytest.raises(PhotoError, match="no file matches"):
        PhotoFolders(tmp_path).find("people/eva [2024]")


@pytest.mark.parametrize("letter", ["\u2028", "\x85", "\x0c"])
def test_only_a_line_feed_ends_a_row(tmp_path, letter):
    text = json.dumps({"prompt": f"a{letter}b"}, ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_text(text + "\r\n", encoding="utf-8")
    (line,), problems = read_manifest(tmp_path / "rows.jsonl")
    assert not problems and line.values == {"prompt": f"a{letter}b"}


def test_a_widget_of_a_kind_that_only_the_server_knows_is_left_to_it():
    """Newer cores have such, as ResizeImageMaskNode's resize_type and ImageCropV2's box."""
    kinds = {"resize": ["COMFY_DYNAMICCOMBO_V3", {"options": []}], "box": ["BOUNDING_BOX", {}]}
    described = {"Resize": {"input": {"required": kinds}}}
    graph = {"1": {"class_type": "Resize", "inputs": {"resize": "by a factor", "box": {"x": 1}}}}
    assert check_graph(graph, described) == []
    graph["1"]["inputs"]["resize"] = "../../outside"
    assert len(check_graph(graph, described)) == 1


@pytest.mark.parametrize("value", ["auto", 5])
def test_a_plain_value_for_a_socket_is_told(value):
    described = {
        "Sampler": {"input": {"required": {"model": ["MODEL", {}]}}, "output": ["LATENT"]},
        "Loader": {"input": {}, "output": ["MODEL"]},
        "Ours": {"input": {"optional": {"detector": ["DETECTOR", {"forceInput": True}]}}},
    }
    nodes = (("Sampler", {"model": value}), ("Ours", {"detector": value}))
    graph = {name: {"class_type": name, "inputs": given} for name, given in nodes}
    told = [problem.text for problem in check_graph(graph, described)]
    assert len(told) == 2 and all("takes a connection" in text for text in told)
