"""What commands say of paths that cannot be, and at Ctrl-C: a sentence each."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training import train
from training.photos import encode, prepare
from training.tiny import compare, make, make_system, sheet
from training.tiny.recipe import ToyRecipe

REPO = Path(__file__).resolve().parents[2]
FILE = str(REPO / "pyproject.toml")


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (make, ["--out", FILE], "--out: {file} is a file; name a folder"),
        (make, ["--out", "x", "--go-on-from", "nowhere"], "there is no folder nowhere"),
        (make_system, ["face_fusion", "--work", FILE, "--out", "x"], "name a folder"),
        (compare, ["--json", str(REPO)], "is a folder; name a file"),
        (compare, ["--models", "nowhere"], "there is no folder nowhere"),
        (compare, ["--people", "1", "--systems", "nope"], "has 'nope'; there are FlashFace"),
        (sheet, ["--out", str(REPO)], "is a folder; name a file"),
        (sheet, ["--out", "sheet.wrong"], "let it end in .png or .jpg"),
        (prepare, ["photos", "--out", FILE], "--out: {file} is a file; name a folder"),
        (encode, ["nowhere", "--vae", "vae"], "there is no folder nowhere"),
        (train, ["--data", "nowhere"], "--data: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(command, arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert says.format(file=FILE) in capsys.readouterr().err


def test_a_training_is_stopped_by_hand_in_a_sentence(tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(dataclasses.asdict(ToyRecipe(autoencoder_steps=5000))))
    line = [sys.executable, "-m", "training.tiny.make", "--recipe", str(recipe)]
    line += ["--out", str(tmp_path / "out"), "--until", "vae"]
    with subprocess.Popen(line, cwd=REPO, stderr=subprocess.PIPE, text=True) as running:
        first = next(told for told in running.stderr if "step" in told)
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=60)
    assert "step 100 of 5000" in first and running.returncode == 130
    assert "Stopped; the same command goes on" in rest and "Traceback" not in rest
