"""FLASHFACE_FRONTEND: another version of the web page for the commands of tools/comfy.py."""

import os

import pytest
from support.tools import load_tool

environment = load_tool("environment")


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """Prepares the environment of the ComfyUI that these tests run in, with a choice."""
    monkeypatch.setattr(environment, "PRIVATE", tmp_path)
    monkeypatch.setenv("PYTHONPATH", "what was there")
    monkeypatch.delenv("FLASHFACE_DETECTORS", raising=False)

    def prepare(wanted: str):
        monkeypatch.setenv("FLASHFACE_FRONTEND", wanted)
        return environment.prepare()

    return prepare


def test_its_folder_comes_first_and_children_find_the_environment_as_it_is(choose, tmp_path):
    folder = tmp_path / "packages" / "frontend-1.58.1"
    folder.mkdir(parents=True)
    variables = choose("1.58.1").variables
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(folder), "what was there"]
    assert "FLASHFACE_FRONTEND" not in variables


def test_without_a_choice_nothing_is_put_first(choose):
    assert choose("").variables["PYTHONPATH"] == "what was there"


@pytest.mark.parametrize("wanted", ["latest", "1", "1.58.1 --pre", "../1.58.1"])
def test_what_is_no_version_is_one_sentence(choose, wanted):
    with pytest.raises(SystemExit) as stopped:
        choose(wanted)
    assert str(stopped.value).startswith(f"FLASHFACE_FRONTEND is {wanted!r}; give `newest` or")
