"""One command makes the tiny models; here with a recipe of a few steps, in two processes."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support.harness import load_flashface
from support.tools import ROOT

from flashface_core.comfy_adapter.flashface.tiny import FOLDER, load_vae
from training.tiny import make
from training.tiny.base_file import load_base
from training.tiny.probes import load_probes
from training.tiny.recipe import ToyRecipe, read_recipe, run

# Not bf16: many CPUs compute it by way of float32, a hundred times slower.
FEW = dict(groups=2, precision="no")
SHORT = ToyRecipe(
    autoencoder_steps=2,
    probe_steps=2,
    probe_people=40,
    people=6,
    scenes=6,
    width=32,
    heads=1,
    unseen=1,
    pretrain=dataclasses.replace(ToyRecipe().pretrain, steps=2, **FEW),
    train=dataclasses.replace(ToyRecipe().train, steps=2, save_every=1, log_every=1, **FEW),
)


def make_in_two_processes(out, recipe) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    make = ["-m", "training.tiny.make", "--out", out, "--recipe", recipe]
    done = subprocess.run(
        [sys.executable, *launch, *make],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_one_command_makes_everything_and_goes_on_where_it_was(tmp_path):
    recipe, out = tmp_path / "recipe.json", tmp_path / "made"
    recipe.write_text(json.dumps(dataclasses.asdict(SHORT)))
    make_in_two_processes(out, recipe)
    base = load_base(out / "base_tiny.safetensors")
    assert torch.equal(base.target["out.2.weight"], base.reference["out.2.weight"])
    model, net = load_flashface(out / "flashface_tiny.safetensors", "fp32")
    assert (net.reference_size, net.picture_size) == (64, 128)
    assert model.model.diffusion_model.model_channels == SHORT.width
    load_vae(out / "vae_tiny.safetensors")
    load_probes(out / "probes.safetensors")
    assert read_recipe(out / "recipe.json") == SHORT
    with open(out / "losses.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    with open(out / "paired_losses.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    assert (out / "curve.png").is_file() and (out / "work" / "step-000002.png").is_file()

    again, begun = tmp_path / "again", tmp_path / "begun"
    begun.mkdir()
    for name in ("vae_tiny.safetensors", "base_tiny.safetensors"):
        shutil.copy(out / name, begun / name)
    given = ["--recipe", recipe, "--until", "base", "--go-on-from", begun]
    make.main(list(map(str, ["--out", again, *given])))
    assert not (again / "flashface_tiny.safetensors").exists()
    further = load_base(again / "base_tiny.safetensors")
    change = (further.target["out.2.weight"] - base.target["out.2.weight"]).abs().max()
    assert 0 < change < 0.05

    before = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    make.main(["--out", str(out), "--recipe", str(recipe)])
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == before


def test_flashface_is_trained_further_from_a_file(tmp_path):
    """At a rate that moves nothing, so that its weights are seen again; no base is made."""
    still = dataclasses.replace(SHORT.train, steps=1, learning_rate=1e-12, weight_decay=0.0)
    recipe = dataclasses.replace(SHORT, train=still)
    for name in ("vae_tiny.safetensors", "probes.safetensors"):
        shutil.copy(FOLDER / name, tmp_path / name)
    begun = FOLDER / "flashface_tiny.safetensors"
    run(recipe, tmp_path, tmp_path / "work", begin_with=begun)
    further, before = load_file(tmp_path / begun.name), load_file(begun)
    assert further.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in further.items())
    assert not (tmp_path / "base_tiny.safetensors").exists()
    told = tmp_path / "recipe.json"
    assert read_recipe(told) == recipe
    digest = hashlib.sha256(begun.read_bytes()).hexdigest()
    assert json.loads(told.read_text())["begun_with_sha256"] == digest


def test_the_shipped_models_say_how_they_were_made():
    recipes = [read_recipe(path) for path in sorted(FOLDER.glob("recipe*.json"))]
    with open(FOLDER / "losses.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert int(last["step"]) == sum(recipe.train.steps for recipe in recipes)
    told = json.loads(sorted(FOLDER.glob("recipe_*.json"))[-1].read_text())
    assert len(told["begun_with_sha256"]) == 64
    sizes = [path.stat().st_size for path in FOLDER.glob("*.safetensors")]
    assert len(sizes) == 3 and sum(sizes) <= 30 * 10**6
