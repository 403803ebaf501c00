"""tools/comfy.py evaluate: bad arguments are told before anything is set up."""

import subprocess
import sys

import pytest
from support.tools import ROOT


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "comfy.py"), "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--people", "0", "--json", "x"], "--people is 0; give 1 or more."),
        (["--seed", "-1", "--json", "x"], "--seed is -1; give a number from 0 to"),
        (["--seed", str(10**15), "--json", "x"], "give a number from 0 to"),
        (["--people", "3"], "nothing to write; give --json FILE"),
        (["--json", "."], "is a folder; name a file."),
        (["--json", "x", "--out", __file__], "is a file; name a folder."),
    ],
)
def test_a_bad_argument_is_one_sentence_and_exit_code_2(arguments, words):
    done = evaluate(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_number_and_an_unknown_option_are_exit_code_2_as_well():
    for arguments in (["--people", "many", "--json", "x"], ["--persons", "3"]):
        done = evaluate(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


# In a process of its own: the folder's comfy.py would hide ComfyUI's comfy here.
WATCHED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import comfy
comfy.prepare = lambda modules: sorted(modules)
comfy._run = lambda *call: print(*call, sep="\\n") or 7
sys.exit(comfy.main(["evaluate", *sys.argv[1:]]))
"""


def test_the_evaluation_runs_with_the_arguments_and_its_exit_code_is_handed_on(tmp_path):
    tools = str(ROOT / "tools")
    given = ["--people", "3", "--seed", "9", "--json", "numbers.json", "--out", "folder"]
    command = [sys.executable, "-c", WATCHED, tools, *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    modules, *line = done.stdout.splitlines()
    assert modules == "['accelerate', 'matplotlib']"
    absolute = [str(tmp_path / "numbers.json"), "--out", str(tmp_path / "folder")]
    assert line == ["-m", "training.evaluate", *given[:5], *absolute]


def test_the_table_of_all_systems_is_the_same_command():
    given = ["--systems", "--people", "3", "--json", "numbers.json"]
    command = [sys.executable, "-c", WATCHED, str(ROOT / "tools"), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[1:5] == ["-m", "training.tiny.compare", "--people", "3"]
