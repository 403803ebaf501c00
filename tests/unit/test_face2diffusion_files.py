"""Face2Diffusion's published files in every form they come in, and files that are something else.

The values are made by rule: the published ones were never seen by these tests.
"""

import os

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import MSID, Topology
from flashface_pack.flashface_core.face2diffusion.files import load_encoder, load_mapping
from flashface_pack.flashface_core.face2diffusion.mapping import MappingNetwork
from flashface_pack.flashface_core.weights_file import write_safetensors
from safetensors.torch import save_file
from support.face2diffusion import published_shapes, rule_state
from support.tools import load_tool

LOADERS = {"msid": load_encoder, "mapping": load_mapping}


@pytest.fixture(scope="module")
def published():
    """The state dicts of both files; tests copy what they change."""
    return {name: rule_state(published_shapes(name)) for name in LOADERS}


@pytest.fixture(scope="module")
def small():
    """A mapping network that was trained on another face embedding, ArcFace's."""
    shapes = {
        key: tuple(v.shape) for key, v in MappingNetwork(512, 64, 96, 768).state_dict().items()
    }
    return rule_state(shapes)


def refusal(load, path) -> str:
    with pytest.raises(FlashFaceError) as caught:
        load(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", LOADERS)
def test_the_networks_have_the_official_keys_and_shapes(name):
    with torch.device("meta"):
        network = MSID() if name == "msid" else MappingNetwork(Topology().vector_width)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes == published_shapes(name)


@pytest.mark.parametrize("form", ["pt", "old pt", "wrapped pt", "safetensors", "converted"])
@pytest.mark.parametrize("name", LOADERS)
def test_every_form_of_the_published_layout_loads_alike(published, tmp_path, name, form):
    state = published[name]
    path = tmp_path / f"{name}.{'pt' if form.endswith('pt') else 'safetensors'}"
    if form == "safetensors":
        save_file(state, path)
    elif form == "converted":
        write_safetensors(path, published_shapes(name), iter(state.items()), torch.float16)
        state = {key: value.half().to(value.dtype) for key, value in state.items()}
    else:
        content = {"state_dict": state} if form == "wrapped pt" else state
        torch.save(content, path, _use_new_zipfile_serialization=form != "old pt")
    network = LOADERS[name](path)
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    path.unlink()
    assert all(torch.equal(loaded[key], state[key]) for key in state)  # nothing reads it later


def test_widths_follow_from_a_mapping_network_of_another_embedding(small, tmp_path):
    torch.save(small, tmp_path / "arcface.pt")
    network = load_mapping(tmp_path / "arcface.pt")
    assert (network.identity_width, network.text_width) == (512, 768)
    assert network(torch.randn(3, 512)).shape == (3, 2, 768)
    with pytest.raises(FlashFaceError, match="1536 values, .* vectors of 512"):
        network(torch.randn(3, Topology().vector_width))
    with pytest.raises(FlashFaceError, match="expression has 80 values, .* trained on 64"):
        network(torch.randn(3, 512), torch.randn(3, 80))


@pytest.mark.parametrize("name, other", [("msid", "mapping"), ("mapping", "msid")])
def test_swapped_files_are_told_apart(published, tmp_path, name, other):
    path = tmp_path / "weights.safetensors"
    save_file(published[other], path)
    assert f"{other}.pt), expected its" in refusal(LOADERS[name], path)


def test_a_flashface_checkpoint_is_neither(tmp_path):
    path = load_tool("rule_weights").write_rule_checkpoint(tmp_path / "mini.safetensors", "mini")
    assert "lacks blocks.0.attn.proj.bias, " in refusal(load_encoder, path)
    assert "lacks i2t_first.fc_out.bias, " in refusal(load_mapping, path)


BROKEN = {
    "no null_exp": ({"null_exp": None}, "lacks null_exp"),
    "one token only": ({"i2t_last.fc_out.bias": None}, "lacks i2t_last.fc_out.bias"),
    "an added layer": (
        {"i2t_first.layers.2.0.bias": torch.zeros(96)},
        "do not belong there, i2t_first.layers.2.0.bias",
    ),
    "prefixed": ({"module.null_exp": torch.zeros(64)}, "do not belong there, module.null_exp"),
    "two text models": (
        {"i2t_last.fc_out.weight": torch.zeros(1280, 96)},
        "i2t_last.fc_out.weight has shape (1280, 96), expected (768, 96)",
    ),
    "a scalar": ({"null_exp": torch.zeros(())}, "shape"),
    "no identity": ({"null_exp": torch.zeros(576)}, "shape"),
    "integers": (
        {"null_exp": torch.zeros(64, dtype=torch.int64)},
        "null_exp holds int64, expected floating point",
    ),
    "nothing": (None, "lacks "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_almost_right_is_refused_by_name_and_shape(small, tmp_path, case):
    changes, told = BROKEN[case]
    state = {} if changes is None else small | changes
    path = tmp_path / "broken.pt"
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    message = refusal(load_mapping, path)
    assert told in message and "not Face2Diffusion's mapping network" in message


def test_another_vit_is_refused(published, tmp_path):
    state = published["msid"] | {"pos_embed": torch.zeros(1, 577, 384)}
    torch.save(state, tmp_path / "vit.pt")
    message = refusal(load_encoder, tmp_path / "vit.pt")
    assert "pos_embed has shape (1, 577, 384), expected (1, 197, 384)" in message


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", LOADERS)
def test_code_in_a_file_is_not_run(small, tmp_path, name):
    path, trace = tmp_path / "evil.pt", tmp_path / "was_run"
    torch.save(small | {"null_exp": RunsCode(trace)}, path)
    message = refusal(LOADERS[name], path)
    assert "refused" in message and f"published {name}.pt" in message
    assert not trace.exists()


@pytest.mark.parametrize("name", LOADERS)
def test_what_is_no_whole_file_of_weights_is_refused(small, tmp_path, name):
    whole = tmp_path / "whole.pt"
    torch.save(small, whole)
    contents = {
        "cut.pt": whole.read_bytes()[:-1000],
        "page.pt": b"<html>Quota exceeded</html>",
        "page.safetensors": b"<html>Quota exceeded</html>",
        "empty.pt": b"",
    }
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
        refusal(LOADERS[name], tmp_path / file)
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    assert f"published {name}.pt" in refusal(LOADERS[name], tmp_path / "list.pt")
    refusal(LOADERS[name], tmp_path / "missing.pt")
