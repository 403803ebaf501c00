"""Every shipped recipe takes two steps; here on small networks."""

import pytest

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

import psutil

from training import dry_run
from training.initial import fresh_checkpoint
from training.tiny.text import ToyText

RECIPES = sorted(dry_run.RECIPES.glob("*.json"))


def small(path, capsys, *more) -> tuple[int, str]:
    code = dry_run.main(["--recipe", str(path), "--size", "64", *map(str, more)])
    return code, capsys.readouterr().out


@pytest.fixture
def start(monkeypatch):
    """The attention's levels of SD1.5, a tenth of its width, and no layers of CLIP."""

    def make(name, width, **sizes):
        return fresh_checkpoint(name, width=32, **{**sizes, "reference_size": 64})

    monkeypatch.setattr("training.initial.fresh_checkpoint", make)
    monkeypatch.setattr("training.clip.rule_text_encoder", ToyText)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_two_steps_of_a_shipped_recipe(path, start, capsys):
    code, told = small(path, capsys)
    assert code == 0 and told.startswith(f"{path.stem}: ") and told.count("\n") == 1
    assert (
        "million values trained" in told and " s a step, losses 0." in told or "losses 1." in told
    )
    assert "nan" not in told


def test_too_little_memory_is_one_sentence(start, capsys, monkeypatch):
    memory = type("Memory", (), {"available": 1e6})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    path = dry_run.RECIPES / "face_fusion-paired.json"
    code, told = small(path, capsys)
    assert code == 1 and told.count("\n") == 1
    assert (
        "for gradients, optimizer and average of" in told and "0.0 GB are free; train less" in told
    )


def test_fresh_weights_have_sd15s_shape():
    """Keys and shapes are those of the published checkpoint; no memory is taken."""
    import torch
    from support.tools import load_tool

    from flashface_core.flashface.checkpoint import published_state_dict

    with torch.device("meta"):
        start = fresh_checkpoint("fresh", width=320, heads=8, **dry_run.SD15)
    got = {key: tuple(value.shape) for key, value in published_state_dict(start).items()}
    published = load_tool("rule_weights").published_shapes("sd15")
    assert got == {key: shape for key, shape in published.items() if key in got}
    missing = {key.partition(".")[0] for key in published.keys() - got.keys()}
    assert missing <= {"ref_middle"}
