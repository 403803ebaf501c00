"""LoRA and patches inside of the UNet beside FlashFace, in either order; half-precision weights.

test_beside_core_nodes.py shows what zero means on either side.
"""

from dataclasses import replace

import comfy.sd
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_tomesd import TomePatchModel
from flashface_pack.flashface_core.capture import feature_maps
from flashface_pack.flashface_core.errors import FlashFaceError
from support.control import lora_state
from support.core_calls import context_windows
from support.harness import Guidance, apply_features, load_flashface, relative_error
from support.image_prompt import image_prompt, louder_prompt
from support.sampling import classic, face_step, guided, ksampler, noise, noisy
from support.systems import STUDIO, SYSTEMS, person

GUIDANCE = Guidance()
LATE = 501
EQUAL = 1e-5


def with_lora(model, part="", strength=0.5):
    state = lora_state(model, part)
    assert state
    patched, _ = comfy.sd.load_lora_for_models(model, None, state, strength, 0)
    assert len(patched.patches) == len(state) // 2, "core has not matched every key"
    return patched


@pytest.mark.parametrize("part", ["", "middle_block", "output_blocks"])
def test_a_lora_changes_the_picture_and_the_face_stays(flashface, part):
    def lora(model):
        return with_lora(model, part)

    features = flashface.features()
    prompts = flashface.positive, flashface.negative
    x = noisy(flashface.model, noise(7), LATE)

    def step(model):
        return guided(classic(model, *prompts), x, LATE)

    before = step(apply_features(lora(flashface.model), features, GUIDANCE))
    after = step(lora(apply_features(flashface.model, features, GUIDANCE)))
    assert torch.equal(before, after)
    without_lora = step(apply_features(flashface.model, features, GUIDANCE))
    assert relative_error(before, without_lora) > 1e-2
    assert relative_error(before, step(lora(flashface.model))) > 1e-3
    # And when it is taken off again, nothing of it is left.
    again = step(apply_features(flashface.model, features, GUIDANCE))
    assert torch.equal(again, without_lora)


class OtherAttention(torch.nn.Module):
    """Without to_k, as packs that share attention between pictures have it."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, *args, **options):
        return self.attention(*args, **options)


@pytest.mark.parametrize("system", SYSTEMS)
def test_apply_meets_another_nodes_attention_that_a_run_has_left_in_the_unet(bench, system):
    """Core takes object patches out of a UNet only when another MODEL of it is run."""
    where = "diffusion_model.output_blocks.0.1.transformer_blocks.0.attn2"

    def step():
        return bench.graph(system, person(1, 2)).step(LATE)

    expected = step()
    other = bench.model.clone()
    other.add_object_patch(where, OtherAttention(bench.model.get_model_object(where)))
    bench.plain(other).step(LATE)
    assert isinstance(comfy.utils.get_attr(bench.model.model, where), OtherAttention)  # left
    if system == STUDIO:  # whose tensors core itself would not find
        with pytest.raises(FlashFaceError, match="no such tensor in MODEL; use .* load it anew"):
            step()
        bench.plain().step(LATE)  # takes it out
    assert torch.equal(step(), expected)


def test_a_lora_on_the_middle_of_the_target_leaves_the_feature_maps_alone(flashface):
    """The ReferenceNet's middle is the target's by weights, but a copy of its own."""
    net = flashface.net.network
    arguments = (noise(100, 2, 8, 8), float(LATE), flashface.negative[0][0], net.sites)
    before = feature_maps(net.unet, *arguments)
    features = flashface.features()
    model = with_lora(apply_features(flashface.model, features, GUIDANCE), "middle_block")
    attention = model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn1
    seen = []

    def look(*_):
        seen.append(attention.to_q.weight.detach().clone())
        maps = feature_maps(net.unet, *arguments)
        assert all(torch.equal(maps[site], before[site]) for site in before)

    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    original = flashface.model.model_state_dict()[key].clone()
    hook = model.model.diffusion_model.out.register_forward_hook(look)
    try:
        ksampler(model, flashface.positive, flashface.negative)
    finally:
        hook.remove()
    assert seen and not torch.equal(seen[0], original), "the LoRA was not on during the run"


def hypertile(model):
    return HyperTile.execute(model, 32, 2, 0, False)[0]


def tome(model):
    return TomePatchModel.execute(model, 0.4).args[0]


def freeu(model):
    return FreeU().patch(model, 1.1, 1.2, 0.9, 0.2)[0]


def freeu_v2(model):
    return FreeU_V2().patch(model, 1.3, 1.4, 0.9, 0.2)[0]


PATCHES = {
    "HyperTile": hypertile,
    "ToMe": tome,
    "FreeU": freeu,
    "FreeU_V2": freeu_v2,
    "image prompt": lambda model: image_prompt(model, 0.7),
    "attn2 output patch": lambda model: louder_prompt(model, 0.5),
}


class Finest:
    """Shapes that the self-attention of the last block with RA gets."""

    def __init__(self, model) -> None:
        block = model.model.diffusion_model.output_blocks[-1][1].transformer_blocks[0]
        self.attention, self.shapes = block.attn1, []

    def __enter__(self):
        self._hook = self.attention.register_forward_pre_hook(
            lambda module, args: self.shapes.append(tuple(args[0].shape))
        )
        return self

    def __exit__(self, *_):
        self._hook.remove()


def step(model, flashface, x):
    return guided(classic(model, flashface.positive, flashface.negative), x, LATE)


def test_token_patches_really_cut_and_merge_at_this_size(flashface):
    x = noisy(flashface.model, noise(7), LATE)
    with Finest(flashface.model) as finest:
        for model in (flashface.model, hypertile(flashface.model), tome(flashface.model)):
            step(model, flashface, x)
    (rows, tokens, _), tiled, merged = finest.shapes
    assert tiled[0] > rows and tiled[1] < tokens
    assert merged[0] == rows and merged[1] < tokens


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_acts_before_and_after_apply_and_the_face_is_added(flashface, name):
    patch, features = PATCHES[name], flashface.features()
    x = noisy(flashface.model, noise(7, 2), LATE)

    patched = replace(flashface, model=patch(flashface.model))
    expected = face_step(patched, classic, features, GUIDANCE, x, LATE)
    first = step(apply_features(patch(flashface.model), features, GUIDANCE), flashface, x)
    last = step(patch(apply_features(flashface.model, features, GUIDANCE)), flashface, x)
    assert torch.equal(first, last)
    assert relative_error(first, expected) <= EQUAL
    unpatched = step(apply_features(flashface.model, features, GUIDANCE), flashface, x)
    assert relative_error(first, unpatched) > 1e-3


def test_an_image_prompt_in_context_windows(flashface):
    """There the branch with the face is computed apart, after the guider's own calls."""

    def patched(model):
        return context_windows(image_prompt(model, 0.7), 12, 4, 2)

    graph, features = replace(flashface, model=patched(flashface.model)), flashface.features()
    x = noisy(flashface.model, noise(7, 1, 20, 20), LATE)
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE)
    model = patched(apply_features(flashface.model, features, GUIDANCE))
    assert relative_error(step(model, flashface, x), expected) <= EQUAL


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_on_the_bare_loader_model(flashface, name):
    """The reference attention on the picture alone goes on under it."""
    patched = PATCHES[name](flashface.model)
    got = ksampler(patched, flashface.positive, flashface.negative)
    bare = ksampler(flashface.model, flashface.positive, flashface.negative)
    assert torch.isfinite(got).all() and relative_error(got, bare) > 1e-3
    site = flashface.net.network.sites[-1]
    seen = []
    hook = flashface.net.network.attention_at(site).register_forward_hook(
        lambda module, args, output: seen.append(output.shape[1])
    )
    try:
        ksampler(patched, flashface.positive, flashface.negative)
    finally:
        hook.remove()
    assert set(seen) == {16 * 16}  # all tokens, whole, whatever the patch does to attn1


@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16"])
def test_half_precision_weights_draw_nearly_the_same(flashface, checkpoint, weight_dtype):
    model, net = load_flashface(checkpoint, weight_dtype)
    assert model.model_dtype() == {"fp16": torch.float16, "bf16": torch.bfloat16}[weight_dtype]
    half = type(flashface)(model, net, flashface.positive, flashface.negative)
    x = noisy(model, noise(7), LATE)
    results = []
    for one in (flashface, half):
        patched = apply_features(one.model, one.features(), GUIDANCE)
        results.append(guided(classic(patched, one.positive, one.negative), x, LATE))
    assert relative_error(results[1], results[0]) <= {"fp16": 2e-2, "bf16": 1e-1}[weight_dtype]
    bare = guided(classic(flashface.model, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(results[1], results[0]) < relative_error(results[0], bare) / 2
