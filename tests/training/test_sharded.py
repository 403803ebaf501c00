"""FSDP: two processes with parts of the networks train what one process with all of them trains."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tools import ROOT, load_tool

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

from people import PUBLISHED, random_people, train

from training.batches import Sampling, draw_batch
from training.muon import FASTER

LEARNING_RATE = 1e-4
SAMPLING = dict(targets_per_group=1, drop_references=0.5)
RECIPE = dict(
    seed=3,
    groups=4,
    steps=3,
    accumulate=2,
    learning_rate=LEARNING_RATE,
    warmup_steps=1,
    log_every=1,
    save_every=2,
    gradient_checkpointing=True,
    sampling=SAMPLING,
)
SHORT = {
    **RECIPE,
    "groups": 2,
    "steps": 1,
    "accumulate": 1,
    "ema": 0,
    "optimizer": "muon",
    "train": ["keys", "values"],
}
RUNS = [("flashface", "flashface", RECIPE, 3), ("face_fusion", "face_fusion", SHORT, 1)]
BEGUN = ("flashface", "flashface", RECIPE, 2)


def launched(weights: Path, out: Path, runs: list) -> None:
    """In two processes, by the config that people are told to use."""
    config = ["--config_file", "training/fsdp.yaml", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *config]
    script = Path(__file__).with_name("people.py")
    done = subprocess.run(
        [*command, str(script), str(weights), str(out), json.dumps(runs)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-20000:]


def numbers(path: Path) -> list[list[float]]:
    with open(path) as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def test_one_process_sees_a_face_where_the_other_sees_none():
    """The case in which they could wait for each other in different networks, for ever."""
    batches = (
        draw_batch(random_people(), Sampling(**SAMPLING), RECIPE["seed"], 0, [group])
        for group in range(2)
    )
    assert [len(batch.references.rows) for batch in batches] == [1, 0]


def test_two_processes_with_parts_train_what_one_with_all_trains(tmp_path):
    weights = load_tool("rule_weights").write_rule_checkpoint(tmp_path / "mini.safetensors", "mini")
    one, two = tmp_path / "one", tmp_path / "two"
    launched(weights, two, [BEGUN, *RUNS[1:]])
    launched(weights, two, RUNS[:1])  # other processes go on where it was saved
    train(weights, one, RUNS)
    for run, _, recipe, _ in RUNS:
        for file in ("losses.csv", "held_out.csv"):
            got, expected = (numbers(folder / run / file) for folder in (two, one))
            assert len(got) == len(expected)
            assert sum(got, []) == pytest.approx(sum(expected, []), rel=2e-4)
        got, expected = (load_file(folder / run / PUBLISHED) for folder in (two, one))
        assert got.keys() == expected.keys()
        for key, value in expected.items():
            if recipe.get("optimizer") == "muon":
                # In bfloat16, and what is rounding errors in a gradient has its share in a step.
                step = FASTER * LEARNING_RATE * 0.2 * value.numel() ** 0.5
                assert (got[key] - value).norm() < 0.25 * step, key
                continue
            # Adam makes steps of a learning rate even of gradients that are rounding errors.
            torch.testing.assert_close(got[key], value, rtol=0, atol=LEARNING_RATE / 4, msg=key)
    parts = [file.stat().st_size for file in (two / "flashface/state/optimizer_0").glob("*.distcp")]
    assert len(parts) == 2 and min(parts) > 0.45 * sum(parts)
