"""tools/convert.py: what it writes, and what it says."""

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_pack.flashface_core.face2diffusion.encoder import Topology
from flashface_pack.flashface_core.face2diffusion.files import load_encoders, load_mapping
from flashface_pack.flashface_core.face2diffusion.mapping import MappingNetwork
from flashface_pack.flashface_core.weights_file import write_safetensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.face2diffusion import (
    EXPRESSION,
    IDENTITY,
    rule_state,
    shapes_of,
    small_encoder,
    small_metadata,
    write_small,
)
from support.tools import ROOT, load_tool

rule_weights = load_tool("rule_weights")


# In the published layout, but smaller.
FACE2DIFFUSION = {
    "mapping": lambda: rule_state(shapes_of(MappingNetwork(24, 8, 32, 16))),
    "msid": lambda: small_encoder(Topology(patch=16, width=24, depth=3, scales=(0, 2))),
}


def convert(*arguments) -> subprocess.CompletedProcess:
    """The command in this process, which is started already."""
    words = [str(argument) for argument in arguments]
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as said:
        try:
            load_tool("convert").main(words)
            code = 0
        except SystemExit as end:  # as Python itself ends with a sentence
            print(end.code, file=said)
            code = 1
    return subprocess.CompletedProcess(words, code, out.getvalue(), said.getvalue())


@pytest.fixture
def published(tmp_path):
    """A small pickle in the published layout, aliases and ref_middle included."""
    whole = rule_weights.write_rule_checkpoint(tmp_path / "a.safetensors", "mini", aliases=True)
    path = tmp_path / "flashface.ckpt"
    torch.save(load_file(whole), path)
    return path


def test_the_converted_file_is_a_fraction_and_loads_to_the_same_values(published, tmp_path):
    """In a process of its own, as a user runs it."""
    command = [sys.executable, str(ROOT / "tools" / "convert.py"), str(published)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Writing flashface.safetensors" in done.stderr and "100%" in done.stderr
    out = tmp_path / "flashface.safetensors"
    source, written = torch.load(published, weights_only=True), load_file(out)
    groups = {key.partition(".")[0] for key in written}
    assert not groups & {"encoder", "middle", "decoder", "ref_middle"}
    assert {value.dtype for value in written.values()} == {torch.float16}
    assert all(torch.equal(value, source[key].half()) for key, value in written.items())
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {"num_heads": "8", "reference_size": "224", "picture_size": "768"}
    assert out.stat().st_size < published.stat().st_size / 2.8

    (model, _), (expected, _) = load_flashface(out), load_flashface(published, "fp16")
    state = expected.model.diffusion_model.state_dict()
    for key, value in model.model.diffusion_model.state_dict().items():
        assert torch.equal(value.half(), state[key])


def test_it_refuses_to_overwrite_and_leaves_no_half_file(published, tmp_path):
    out = tmp_path / "flashface.safetensors"
    out.write_text("precious")
    done = convert(published)
    assert done.returncode != 0 and "exists already" in done.stderr
    assert out.read_text() == "precious"

    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(published.read_bytes()[:100_000])
    done = convert(damaged)
    assert done.returncode != 0 and "damaged.ckpt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("damaged.safetensors*"))


def test_values_beyond_half_precision_are_told(published, tmp_path):
    state = torch.load(published, weights_only=True)
    state["ori_middle.0.layer1.0.weight"] = state["ori_middle.0.layer1.0.weight"] * 1e6
    large = tmp_path / "large.ckpt"
    torch.save(state, large)
    done = convert(large)
    assert done.returncode != 0 and "use --dtype bf16" in done.stderr
    assert not (tmp_path / "large.safetensors").exists()
    assert convert(large, "--dtype", "bf16").returncode == 0


@pytest.mark.parametrize("name", ["mapping", "msid"])
def test_the_published_files_of_face2diffusion_are_converted(tmp_path, name):
    """The encoder's counters are whole numbers beyond half precision."""
    state = FACE2DIFFUSION[name]()
    counters = {key for key, value in state.items() if not value.is_floating_point()}
    state |= {key: torch.tensor(300_000) for key in counters}
    assert len(counters) == (2 if name == "msid" else 0)
    torch.save(state, tmp_path / f"{name}.pt")
    done = convert(tmp_path / f"{name}.pt")
    assert done.returncode == 0, done.stderr
    assert "put it into ComfyUI/models/face2diffusion/" in done.stdout
    out = tmp_path / f"{name}.safetensors"
    written = load_file(out)
    assert written.keys() == state.keys()
    for key, value in written.items():
        assert torch.equal(value, state[key] if key in counters else state[key].half())
        assert value.dtype == (torch.int64 if key in counters else torch.float16)
    loaded = load_mapping(out) if name == "mapping" else load_encoders(out)[0]
    assert all(torch.equal(value, written[key]) for key, value in loaded.state_dict().items())
    whole = tmp_path / "whole.safetensors"
    assert convert(tmp_path / f"{name}.pt", "--dtype", "fp32", "--out", whole).returncode == 0
    assert all(torch.equal(value, state[key]) for key, value in load_file(whole).items())


def test_an_encoder_with_an_expression_keeps_both_and_its_metadata(tmp_path):
    source, out = write_small(tmp_path)[1], tmp_path / "half.safetensors"
    assert convert(source, "--out", out).returncode == 0
    encoder, expression = load_encoders(out)
    assert (encoder.topology, encoder.face) == (IDENTITY, "crop")
    assert expression is not None and expression.topology == EXPRESSION


def test_a_damaged_encoder_and_one_beyond_half_precision_leave_no_file(tmp_path):
    state = small_encoder()
    for name, value, told in (
        ("large", state["pos_embed"] * 1e6, "use --dtype bf16"),
        ("other", torch.zeros(1, 5, 3), "pos_embed has shape (1, 5, 3)"),
    ):
        save_file(state | {"pos_embed": value}, tmp_path / f"{name}.sft", small_metadata())
        done = convert(tmp_path / f"{name}.sft")
        assert done.returncode != 0 and told in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.safetensors*"))


def test_a_writer_that_is_handed_the_wrong_tensor_leaves_no_file(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="b"):
        write_safetensors(path, {"a": (2,)}, [("b", torch.ones(2))], torch.float32)
    with pytest.raises(ValueError, match="a was announced"):
        write_safetensors(path, {"a": (2,)}, [], torch.float32)
    assert not list(tmp_path.iterdir())
