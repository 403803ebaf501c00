"""Newer cores' default on NVIDIA: weights that do not exist before they are loaded, and MODELs
that core loads again by itself, for torch.compile, hooks and other GPUs."""

from pathlib import Path

import comfy.hooks
import comfy.model_patcher
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.face2diffusion import load_face2diffusion
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import load_tiny_models
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.weights_file import read_state_dict
from flashface_pack.nodes.face2diffusion import Face2DiffusionTextEncode
from safetensors.torch import save_file
from support.control import lora_state
from support.dynamic_vram import (
    dynamic_vram,
    has_dynamic_vram,
    lazy_modules,
    without_dynamic_vram,
)
from support.face2diffusion import write_small
from support.face_fusion import Fusion, write_file
from support.facestudio import person, write_facestudio
from support.facestudio_pictures import apply, encode
from support.harness import Guidance, apply_features, load_flashface, make_features, relative_error
from support.models import random_vae
from support.own_attention import from_node
from support.photos import identity
from support.sampling import NEGATIVE, POSITIVE, ksampler, noise, prompt

import nodes

pytestmark = pytest.mark.skipif(bool(has_dynamic_vram()), reason=has_dynamic_vram() or "")

GUIDANCE = Guidance()
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MODES = {"lazy modules": lazy_modules, "dynamic patcher": dynamic_vram}


def features_of(net, negative=NEGATIVE):
    return make_features(net, noise(100, 2, 8, 8), negative[0][0])


def sample(model, positive=POSITIVE):
    return ksampler(model, positive, NEGATIVE)


def draw_bare(checkpoint, folder, weight_dtype="fp32"):
    return sample(load_flashface(checkpoint, weight_dtype)[0])


def draw_flashface(checkpoint, folder, weight_dtype="fp32"):
    model, net = load_flashface(checkpoint, weight_dtype)
    return sample(apply_features(model, features_of(net), GUIDANCE))


def draw_training_free(checkpoint, folder, weight_dtype="fp32"):
    model, _ = load_flashface(checkpoint, weight_dtype)
    return sample(apply_features(model, features_of(from_node(model)), GUIDANCE))


def draw_face_fusion(checkpoint, folder, weight_dtype="fp32"):
    model, _ = load_flashface(checkpoint, weight_dtype)
    fusion = load_face_fusion(folder / "fusion.safetensors")
    return Fusion(model, fusion, random_vae(4), POSITIVE, NEGATIVE, 64).drawn()


def draw_facestudio(checkpoint, folder, weight_dtype="fp32"):
    model, _ = load_flashface(checkpoint, weight_dtype)
    studio = load_facestudio(folder / "studio.safetensors")
    return ksampler(apply(model, studio), *encode(studio, person(1)))


def draw_face2diffusion(checkpoint, folder, weight_dtype="fp32"):
    model, _, clip, _ = load_tiny_models()
    loaded = load_face2diffusion(*write_small(folder))
    (positive,) = Face2DiffusionTextEncode.execute(
        clip, loaded, identity(), "a portrait of f l", "f l"
    ).args
    return ksampler(model, positive, nodes.CLIPTextEncode().encode(clip, "")[0])


DRAW = {
    "bare MODEL": draw_bare,
    "FlashFace": draw_flashface,
    "training-free": draw_training_free,
    "Face Fusion": draw_face_fusion,
    "FaceStudio": draw_facestudio,
    "Face2Diffusion": draw_face2diffusion,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint) -> Path:
    """Files of the other systems for the small MODEL."""
    folder = tmp_path_factory.mktemp("dynamic")
    with torch.inference_mode():
        model, _ = load_flashface(checkpoint, "fp32")
        write_file(folder / "fusion.safetensors", model)
        write_facestudio(folder / "studio.safetensors", model)
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint, folder) -> dict[str, torch.Tensor]:
    with torch.inference_mode(), without_dynamic_vram():
        return {name: draw(checkpoint, folder) for name, draw in DRAW.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DRAW)
def test_every_system_draws_the_same(checkpoint, folder, expected, name, mode):
    is_cpu = comfy.model_management.get_torch_device().type == "cpu"
    if (name, mode) == ("FaceStudio", "dynamic patcher") and is_cpu:
        pytest.skip("on the CPU this patcher leaves weight patches out; see the next test")
    with MODES[mode]():
        got = DRAW[name](checkpoint, folder)
    if name == "Face2Diffusion":  # core's CLIP keeps float32 there, and rounds to fp16 elsewhere
        assert relative_error(got, expected[name]) < 5e-3
    else:
        assert torch.equal(got, expected[name])


def test_the_dynamic_patcher_sets_the_tensors_of_facestudio(checkpoint, folder):
    """By what it brings patched weights in with, on every device but the CPU."""
    from comfy.model_patcher import LowVramPatch  # pyright: ignore

    studio = load_facestudio(folder / "studio.safetensors")
    with dynamic_vram():
        model = apply(load_flashface(checkpoint, "fp32")[0], studio)
        state = model.model.state_dict()
        for key, tensor in studio.unet.items():
            patch = LowVramPatch(f"diffusion_model.{key}", model.patches)
            got = patch(state[f"diffusion_model.{key}"].clone())
            assert torch.equal(got, tensor.to(got)), key
            patch.memory_required()
    assert len(studio.unet) > 10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16"])
def test_weights_are_brought_to_the_dtype_that_was_asked_for(
    checkpoint, folder, weight_dtype, mode
):
    """Of a file in fp32."""
    with without_dynamic_vram():
        plain = draw_flashface(checkpoint, folder, weight_dtype)
    with MODES[mode]():
        model, net = load_flashface(checkpoint, weight_dtype)
        assert model.model_dtype() == DTYPES[weight_dtype]
        got = sample(apply_features(model, features_of(net), GUIDANCE))
    assert got.isfinite().all()
    # The dynamic patcher casts the file's weights at use.
    assert torch.equal(got, plain) or mode == "dynamic patcher"
    assert relative_error(got, plain) < {"fp16": 5e-3, "bf16": 5e-2}[weight_dtype]


def test_a_plain_patcher_holds_weights_of_the_dtype_that_was_asked_for(checkpoint):
    with without_dynamic_vram(), lazy_modules():
        model, net = load_flashface(checkpoint, "fp16")
    for module in (model.model.diffusion_model, net.network):
        assert {p.dtype for p in module.parameters()} == {torch.float16}


BROKEN = {
    "lacks": (lambda s: s.pop("ori_encoder.1.0.layer1.2.weight"), "missing input_blocks.1.0.in_l"),
    "lacks a bias": (lambda s: s.pop("head.2.bias"), "missing out.2.bias"),
    "lacks a linear": (
        lambda s: s.pop("ori_middle.1.blocks.0.self_attn.self_attn_first.k.weight"),
        "missing attention.middle_0_0.k.weight",
    ),
    "surprise": (
        lambda s: s.update({"time_embedding.0.gamma": torch.ones(1)}),
        "unexpected time_embed.0.gamma",
    ),
    "shape of a linear": (
        lambda s: s.update({"time_embedding.0.weight": torch.ones(3, 4)}),
        r"time_embed.0.weight is \(3, 4\), expected",
    ),
    "shape of a bias": (
        lambda s: s.update({"time_embedding.0.bias": torch.ones(3)}),
        r"time_embed.0.bias is \(3,\), expected",
    ),
    "whole numbers": (
        lambda s: s.update({"head.2.bias": torch.ones(4, dtype=torch.int8)}),
        "out.2.bias holds int8",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_told_in_the_same_words(checkpoint, tmp_path, name, mode):
    change, words = BROKEN[name]
    state, metadata = read_state_dict(checkpoint)
    change(state)
    save_file(state, tmp_path / "changed.safetensors", metadata)
    with pytest.raises(FlashFaceError) as without:
        load_flashface(tmp_path / "changed.safetensors", "fp32")
    with MODES[mode](), pytest.raises(FlashFaceError, match=words) as caught:
        load_flashface(tmp_path / "changed.safetensors", "fp32")
    assert str(caught.value) == str(without.value)


# What core loads again


def test_the_delegate_of_a_dynamic_model_draws_the_same(checkpoint, expected):
    """TorchCompileModel begins with it."""
    with dynamic_vram():
        model, net = load_flashface(checkpoint, "fp32")
        applied = apply_features(model, features_of(net), GUIDANCE)
        for one, name in ((model, "bare MODEL"), (applied, "FlashFace")):
            delegate = one.clone(disable_dynamic=True)
            assert type(delegate) is comfy.model_patcher.ModelPatcher and one.is_dynamic()
            assert delegate.model is not one.model
            assert torch.equal(sample(delegate), expected[name])


@pytest.mark.parametrize("name", ["bare MODEL", "FlashFace", "training-free"])
def test_a_prompt_with_hooks_on_a_dynamic_model(checkpoint, name):
    def draw():
        model, net = load_flashface(checkpoint, "fp32")
        if name != "bare MODEL":
            net = net if name == "FlashFace" else from_node(model)
            model = apply_features(model, features_of(net), GUIDANCE)
        hooks = comfy.hooks.create_hook_lora(lora_state(model, ""), 0.5, 0.0)
        return sample(model, prompt(1, hooks=hooks))

    with without_dynamic_vram():
        plain = draw()
    with dynamic_vram():
        assert torch.equal(draw(), plain)


def fresh_copies(checkpoint, folder) -> dict:
    model, net = load_flashface(checkpoint, "fp32")
    tiny = load_tiny_models()
    return {
        "REFERENCE_NET": net.patcher,
        "Face Fusion": load_face_fusion(folder / "fusion.safetensors").patcher,
        "tiny CLIP": tiny[2].patcher,
        "tiny VAE": tiny[3].patcher,
        "tiny REFERENCE_NET": tiny[1].patcher,
    }


@pytest.mark.parametrize("disable_dynamic", [False, True])
def test_every_patcher_of_ours_can_be_loaded_again(checkpoint, folder, disable_dynamic):
    with dynamic_vram():
        for name, patcher in fresh_copies(checkpoint, folder).items():
            if disable_dynamic:
                copy = patcher.clone(disable_dynamic=True)
                assert not copy.is_dynamic(), name
            else:
                copy = patcher.deepclone_multigpu(new_load_device=patcher.load_device)
                assert copy.is_dynamic(), name
            assert copy.model is not patcher.model, name
            state, other = (p.model.state_dict() for p in (patcher, copy))
            assert state.keys() == other.keys() and state, name
            assert all(torch.equal(state[k], other[k].to(state[k].dtype)) for k in state), name


def test_a_model_with_reference_attention_is_not_copied_for_another_gpu(checkpoint):
    model, net = load_flashface(checkpoint, "fp32")
    for one in (model, apply_features(model, features_of(net), GUIDANCE), model.clone()):
        alone = f"on {net.patcher.load_device} alone .* take out MultiGPU CFG Split"
        with pytest.raises(FlashFaceError, match=alone):
            one.deepclone_multigpu(new_load_device=torch.device("cuda:1"))


def test_a_model_that_is_split_over_gpus_is_refused_by_apply(flashface):
    split, copy = flashface.model.clone(), flashface.model.clone()
    copy.load_device = torch.device("cuda:1")
    split.set_additional_models("multigpu", [copy])
    own = flashface.model.load_device
    words = f"MODEL works on {own} and cuda:1, and the REFERENCE_NET .* on {own} alone; take out"
    with pytest.raises(FlashFaceError, match=words):
        apply_features(split, flashface.features(), GUIDANCE)
    with pytest.raises(FlashFaceError, match="MODEL works on cuda:1, and"):
        apply_features(copy, flashface.features(), GUIDANCE)
    assert apply_features(flashface.model, flashface.features(), GUIDANCE) is not None


def test_what_runs_is_told_to_core_which_models_it_needs(checkpoint, folder):
    """Newer cores keep the models that a socket's object names while a prompt runs."""
    tracker = comfy.model_patcher.PromptModelTracker()  # pyright: ignore
    with dynamic_vram():
        model, net = load_flashface(checkpoint, "fp32")
        loaded = load_face_fusion(folder / "fusion.safetensors")
        vae = random_vae(4)
        fusion = Fusion(model, loaded, vae, POSITIVE, NEGATIVE, 64)
        sockets = {
            "FACE_FEATURES": (features_of(net), [net.patcher]),
            "REFERENCE_NET": (net, [net.patcher]),
            "FACE_FUSION": (loaded, [loaded.patcher]),
            "FACE_FUSION_FEATURES": (fusion.features(), [loaded.patcher, vae.patcher]),
            "training-free features": (features_of(from_node(model)), []),
        }
        for name, (output, wanted) in sockets.items():
            tracker.start()
            tracker.add([output])
            assert {id(p.model) for p in tracker.models.values()} == {
                id(p.model) for p in wanted
            }, name
        tracker.end()
