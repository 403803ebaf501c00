"""Reading checkpoints: the published layout in every form it comes in, and everything else."""

import json
import pickle
from pathlib import Path

import comfy.model_detection
import comfy.supported_models
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.flashface.checkpoint import (
    published_state_dict,
    read_checkpoint,
    site_levels,
)
from flashface_pack.flashface_core.weights_file import read_state_dict
from safetensors.torch import load_file, save_file
from support.tools import load_tool

rule_weights = load_tool("rule_weights")


@pytest.fixture(scope="module")
def mini(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    return rule_weights.write_rule_checkpoint(folder / "mini.safetensors", "mini")


def weights(path: Path, dtype="fp32") -> dict[str, torch.Tensor]:
    model, net = load_flashface(path, dtype)
    target = {f"target.{k}": v for k, v in model.model.diffusion_model.state_dict().items()}
    return target | net.network.state_dict()


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_every_official_sd15_key_has_its_place_in_comfyuis_unet():
    shapes = json.loads(rule_weights.SHAPES["sd15"].read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    checkpoint = read_checkpoint("sd15", state, {})
    for part in (checkpoint.target, checkpoint.reference):
        config = comfy.model_detection.detect_unet_config(part, "")
        model_config = comfy.supported_models.SD15(config)
        unet = UNetModel(**model_config.unet_config, device="meta").state_dict()
        assert {k: v.shape for k, v in part.items()} == {k: v.shape for k, v in unet.items()}
        assert len(part) == 686
    assert len(checkpoint.reference_attention) == 10
    assert checkpoint.position is not None and checkpoint.position.shape == (320, 1, 3, 3)


@pytest.mark.parametrize("topology", ["mini", "sd15"])
def test_writing_is_the_inverse_of_reading(topology):
    shapes = rule_weights.published_shapes(topology)
    used = {key: shape for key, shape in shapes.items() if not key.startswith("ref_middle.")}
    state = {key: torch.empty(shape, device="meta") for key, shape in used.items()}
    written = published_state_dict(read_checkpoint(topology, state, {}))
    assert {key: tuple(value.shape) for key, value in written.items()} == used


def test_sites_are_coarse_medium_and_fine_by_depth():
    shapes = json.loads(rule_weights.SHAPES["sd15"].read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    levels = site_levels(read_checkpoint("sd15", state, {}))
    names = {"coarse": [], "medium": [], "fine": []}
    for (part, block, _), level in levels.items():
        names[level].append(part if part == "middle" else block)
    assert names == {"coarse": ["middle", 3, 4, 5], "medium": [6, 7, 8], "fine": [9, 10, 11]}


def test_the_reference_net_has_its_own_copy_of_the_targets_middle(mini):
    model, net = load_flashface(mini, "fp32")
    target = model.model.diffusion_model.middle_block
    reference = net.network.unet.middle_block
    for (name, a), (_, b) in zip(
        target.named_parameters(), reference.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert a.data_ptr() != b.data_ptr(), name


@pytest.mark.parametrize("form", ["ckpt", "wrapped ckpt", "old ckpt", "aliases", "aliases only"])
def test_all_forms_of_the_published_layout_load_alike(mini, tmp_path, form):
    state = load_file(mini)
    path = tmp_path / "flashface.ckpt"
    if "aliases" in form:
        path = path.with_suffix(".safetensors")
        names = {"ori_encoder": "encoder", "ori_middle": "middle", "ori_decoder": "decoder"}
        for key in list(state):
            group, _, rest = key.partition(".")
            if group in names:
                # With both, ori_* wins, as it does officially.
                wrong = state[key].clone() + 1 if form == "aliases" else state.pop(key)
                state[f"{names[group]}.{rest}"] = wrong
        save_file(state, path)
    else:
        kept = {"state_dict": state} if "wrapped" in form else state
        torch.save(kept, path, _use_new_zipfile_serialization="old" not in form)
    assert_same(weights(path), weights(mini))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_file_keeps_its_values(mini, tmp_path, dtype):
    path = tmp_path / "half.safetensors"
    save_file({key: value.to(dtype) for key, value in load_file(mini).items()}, path)
    full = weights(mini)
    for key, value in weights(path).items():
        assert torch.equal(value, full[key].to(dtype).float())


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_weight_dtype_is_the_dtype_of_the_weights(mini, name, dtype):
    assert {value.dtype for value in weights(mini, name).values()} == {dtype}


def test_the_number_of_heads_comes_from_the_metadata(mini, tmp_path):
    path = tmp_path / "heads.safetensors"
    sizes = {"num_heads": "2", "reference_size": "64", "picture_size": "128"}
    save_file(load_file(mini), path, metadata=sizes)
    model, net = load_flashface(path)
    block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
    assert block.attn1.heads == net.network.attention_at(("middle", 0, 0)).heads == 2
    assert (net.reference_size, net.picture_size) == (64, 128)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "it_ran"
    for name, write in (
        ("zip.ckpt", lambda path: torch.save({"a": Trap(marker)}, path)),
        ("plain.ckpt", lambda path: path.write_bytes(pickle.dumps({"a": Trap(marker)}))),
    ):
        write(tmp_path / name)
        with pytest.raises(FlashFaceError, match=f"{name} was refused"):
            load_flashface(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_named(mini, tmp_path, suffix, kept):
    whole = tmp_path / f"whole.{suffix}"
    if suffix == "ckpt":
        torch.save(load_file(mini), whole)
    else:
        whole.write_bytes(mini.read_bytes())
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(FlashFaceError, match=rf"cut\.{suffix}.*again|cut\.{suffix} was refused"):
        load_flashface(cut)


@pytest.mark.parametrize("name", ["flashface.ckpt", "flashface.safetensors"])
def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path, name):
    with pytest.raises(FlashFaceError, match=rf"^There is no file {tmp_path / name}; give"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("text", [b"Repository not found", b"<html>", b"version https://git-lfs"])
def test_a_page_that_was_downloaded_in_place_of_the_file_is_named(tmp_path, text):
    path = tmp_path / "flashface.ckpt"
    path.write_bytes(text)
    with pytest.raises(FlashFaceError, match=r"^flashface\.ckpt (is damaged|was refused).*\.$"):
        load_flashface(path)


def changed(mini: Path, tmp_path: Path, change) -> Path:
    state = load_file(mini)
    change(state)
    path = tmp_path / "changed.safetensors"
    save_file(state, path)
    return path


def drop(*prefixes):
    def change(state):
        for key in [key for key in state if key.startswith(prefixes)]:
            del state[key]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("ori_decoder.2.0.layer1.2.weight"), r"missing output_blocks\.2\.0\.in_layers\.2"),
        (drop("ori_encoder.3.0."), "incomplete"),
        (drop("ref_decoder.0.0."), "incomplete"),
        (drop("ori_encoder.1.1."), "target and ReferenceNet differ in transformer_depth"),
        (drop("ori_middle.1.blocks."), r"attention is missing in parts at middle_block\.1"),
        (drop("ref_decoder.2.1."), r"attention is missing in parts at output_blocks\.2\.1"),
        (drop("ori_decoder.2.1."), r"attention is missing in parts at output_blocks\.2\.1"),
        (drop("ref_decoder."), "missing ref_decoder"),
        (
            drop("ori_decoder.1.1.blocks.0.self_attn.self_attn_first.o"),
            "missing attention.output_1",
        ),
        (drop("time_embedding."), "missing time_embedding"),
        (lambda s: s.update({"ori_encoder.9.surprise": torch.ones(1)}), "ori_encoder.9.surprise"),
        (lambda s: s.update({"lora.weight": torch.ones(1)}), "unexpected lora"),
        (lambda s: s.update({"head.0.weight": torch.ones(3)}), r"head|out\.0\.weight is \(3,\)"),
    ],
)
def test_missing_and_unexpected_tensors_are_named(mini, tmp_path, change, words):
    path = changed(mini, tmp_path, change)
    with pytest.raises(FlashFaceError, match=words) as caught:
        load_flashface(path)
    assert "changed.safetensors" in str(caught.value)


def test_a_stable_diffusion_checkpoint_is_told_from_flashface(tmp_path):
    path = tmp_path / "sd15.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(320, 4, 3, 3)}, path)
    with pytest.raises(FlashFaceError, match="sd15.safetensors is a Stable Diffusion checkpoint"):
        load_flashface(path)


def test_a_file_of_something_else_is_an_error(tmp_path):
    path = tmp_path / "list.ckpt"
    torch.save([1, 2, 3], path)
    with pytest.raises(FlashFaceError, match="holds list"):
        read_state_dict(path)
