"""Names and pages in each language: complete, and made from the English that is there now."""

import asyncio
import json
import re

import pytest
from flashface_pack.nodes import FlashFaceExtension
from support.tools import ROOT, load_tool

locales = load_tool("locales")
PAGES = locales.pages()
HELP = "run .comfy/venv/bin/python tools/locales.py, whose first lines say how to go on"


NODES = asyncio.run(FlashFaceExtension().get_node_list())


@pytest.fixture(scope="module")
def english():
    infos = [node.GET_NODE_INFO_V1() for node in NODES]
    return locales.texts({info["name"]: info for info in infos})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Locales with two strings, translated."""
    monkeypatch.setattr(locales, "LOCALES", tmp_path)
    locales.fill(
        ENGLISH,
        {"strings": {path: {"en": text, "zh": "zh: " + text} for path, text in ENGLISH.items()}},
    )
    return tmp_path


ENGLISH = {"nodeDefs.A.display_name": "A node", "nodeDefs.A.inputs.x.name": "x"}


def test_the_english_files_say_what_the_schemas_say(english):
    assert len(english) > 200
    assert locales.read("en") == english, HELP


def test_every_string_has_a_translation_made_from_what_it_says_now(english):
    assert locales.to_do(english) == {}, HELP


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_string_holds_a_sign_that_a_frontend_would_read_as_its_own(language):
    strings = locales.read(language)
    assert not [path for path, text in strings.items() if locales.SIGNS.search(text)]
    assert locales.SIGNS.search("{x, y}") and locales.SIGNS.search("a|b")


def test_a_new_changed_or_removed_string_is_found(folder):
    assert locales.to_do(ENGLISH) == {}
    now = {**ENGLISH, "nodeDefs.A.inputs.x.name": "y", "nodeDefs.B.display_name": "A node"}
    del now["nodeDefs.A.display_name"]
    found = locales.to_do(now)
    assert {path: entry["problem"] for path, entry in found.items()} == {
        "nodeDefs.A.display_name": "orphan",
        "nodeDefs.A.inputs.x.name": "stale",
        "nodeDefs.B.display_name": "missing",
    }
    assert found["nodeDefs.A.inputs.x.name"]["was"] == "x"
    # The same English elsewhere is what a translator would write again.
    assert found["nodeDefs.B.display_name"]["zh"] == "zh: A node"
    locales.fill(now, {"strings": found})
    assert locales.to_do(now) == {}
    assert json.loads((folder / "zh" / "nodeDefs.json").read_text()) == {
        "A": {"inputs": {"x": {"name": "zh: x"}}},
        "B": {"display_name": "zh: A node"},
    }


def test_a_translation_of_what_has_changed_meanwhile_is_refused(folder):
    given = {"strings": {"nodeDefs.A.display_name": {"en": "A note", "zh": "B"}}}
    with pytest.raises(SystemExit, match="now says 'A node', and the file 'A note'"):
        locales.fill(ENGLISH, given)


def test_a_string_left_empty_stays_missing(folder):
    now = {**ENGLISH, "nodeDefs.C.display_name": "C"}
    locales.fill(now, {"strings": locales.to_do(now)})
    assert [entry["problem"] for entry in locales.to_do(now).values()] == ["missing"]


def test_a_name_with_a_dot_stays_one_step_of_the_way():
    info = {
        "category": "FlashFace",
        "display_name": "D",
        "description": "",
        "input": {"required": {"people.count": ["INT", {"tooltip": "How many."}]}},
        "output": ["INT", "FACE_IDENTITY"],
        "output_name": ["count", "FACE_IDENTITY"],
        "output_tooltips": [None, "A person."],
    }
    assert locales.texts({"D": info}) == {
        "main.nodeCategories.FlashFace": "FlashFace",
        "nodeDefs.D.display_name": "D",
        "nodeDefs.D.inputs.people_count.name": "people.count",
        "nodeDefs.D.inputs.people_count.tooltip": "How many.",
        "nodeDefs.D.outputs.0.name": "count",
        "nodeDefs.D.outputs.1.tooltip": "A person.",
        "main.dataTypes.FACE_IDENTITY": "FACE_IDENTITY",
    }


def test_every_page_has_a_translation_made_from_the_sections_it_has_now():
    assert len(PAGES) >= len(NODES)
    assert locales.pages_to_do() == {}, HELP


def parts(text: str) -> list[str]:
    """Headings, rows of tables and entries of lists, without their words."""
    found = [re.match(r"#+ |\||- |[0-9]+\. |    (?=[^ ])", line) for line in text.splitlines()]
    return [match.group() for match in found if match]


@pytest.mark.parametrize("page", PAGES)
def test_a_translated_page_has_the_same_parts(page):
    english, chinese = ROOT / page, PAGES[page]
    found = parts(chinese.read_text(encoding="utf-8"))
    assert found == parts(english.read_text(encoding="utf-8"))


def test_a_changed_section_of_a_page_is_found():
    before = locales.sections("# A\n\none\n\n## B\n\ntwo\n")
    after = locales.sections("# A\n\none\n\n## B\n\nthree\n")
    assert [title for title in before if before[title] != after[title]] == ["## B"]
