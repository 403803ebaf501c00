"""Photos and rows of a manifest, as people have them; no server is needed."""

import json
import unicodedata

import pytest
from PIL import Image
from support.automation import WORKFLOW

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

import automation.run
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
        "people/eva [2024]",
        "people/eva [2024]/*",
        f"{tmp_path}/people/eva [2024]/?.png",
    ):
        assert len(PhotoFolders(tmp_path).find(cell)) == 1


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, format="PNG")


def people_of(folder, people) -> dict[str, list[str]]:
    """The photos of each person of a grid."""
    (folder / "grid.json").write_text(json.dumps({"people": people}))
    lines, problems = read_manifest(folder / "grid.json")
    assert not problems
    photos = PhotoFolders(folder)
    return {
        line.values["person"]: [photo.path.name for photo in photos.find(line.values["photos"])]
        for line in lines
    }


def test_a_pattern_means_no_hidden_files_no_litter_and_no_results(tmp_path):
    for name in ("anna/1.png", "anna/pictures/small.png", "ben/1.png", "ben/._1.png"):
        draw(tmp_path / name)
    draw(tmp_path / ".trash" / "1.png")
    draw(tmp_path / "out" / "pictures" / f"{32 * 'a'}.png")
    draw(tmp_path / "out" / "sheets" / "001_anna.jpg")
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "begun/pictures"):
        (tmp_path / folder).mkdir(parents=True)
    for litter in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "anna" / litter).touch()
    assert people_of(tmp_path, "*") == {"anna": ["1.png"], "ben": ["1.png"]}
    assert len(PhotoFolders(tmp_path).find("**/1.png")) == 2
    # What is named is meant.
    assert len(PhotoFolders(tmp_path).find(".trash/*; out/pictures/*")) == 2
    (tmp_path / "ben" / "notes.txt").touch()
    with pytest.raises(PhotoError, match=r"notes\.txt is no picture"):
        PhotoFolders(tmp_path).find("ben/*")


@pytest.mark.parametrize("people", [{"anna": "people/anna"}, {"anna": ["people/anna/"]}])
def test_a_folder_means_its_pictures(tmp_path, people):
    draw(tmp_path / "people/anna/1.png")
    draw(tmp_path / "people/anna/2.png")
    assert people_of(tmp_path, people) == {"anna": ["1.png", "2.png"]}
    (tmp_path / "people/ben").mkdir()
    with pytest.raises(PhotoError, match=r"no file matches people/ben/\*"):
        PhotoFolders(tmp_path).find("people/ben")


@pytest.mark.parametrize("there", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_accents_of_a_mac_are_those_of_a_list(tmp_path, there, asked):
    draw(tmp_path / unicodedata.normalize(there, "p\xe9ople/bj\xf6rn [1]/\xe5.png"))
    for cell in (
        "bj\xf6rn [1]/\xe5.png",
        "bj\xf6rn [1]",
        "bj\xf6rn [1]/\xe5*",
        "*/\xe5.png",
        "bj\xf6*/*",
    ):
        cell = unicodedata.normalize(asked, f"p\xe9ople/{cell}")
        assert len(PhotoFolders(tmp_path).find(cell)) == 1, cell


@pytest.mark.parametrize("cell", ["a" * 5000, "a**/b.png", "a" * 300 + "/*.png"])
def test_what_no_file_can_be_called_is_a_mistake_of_its_cell(tmp_path, cell):
    with pytest.raises(PhotoError, match="cannot be looked up|there is no file"):
        PhotoFolders(tmp_path).find(cell)


def test_nothing_is_written_before_a_list_is_checked(tmp_path):
    (tmp_path / "list.csv").write_text("seed\n1\n")
    asked = [tmp_path / "list.csv", "--workflow", WORKFLOW, "--out", tmp_path / "out"]
    asked += ["--server", "http://127.0.0.1:9"]
    assert automation.run.main([str(one) for one in asked]) == automation.run.REFUSED
    assert not (tmp_path / "out").exists()


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
