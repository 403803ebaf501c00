"""Face Fusion in other people's graphs: masks, guiders, half precision, patched cross-attention."""

from dataclasses import replace

import pytest
import torch
from comfy_extras.nodes_custom_sampler import DualCFGGuider
from comfy_extras.nodes_perpneg import PerpNegGuider
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_pack.flashface_core.errors import FlashFaceError
from support.face_fusion import STEP, Fusion, on_flashface, rows, write_file
from support.harness import (
    Guidance,
    apply_features,
    load_flashface,
    make_features,
    observe,
    relative_error,
)
from support.image_prompt import image_prompt
from support.own_attention import from_node
from support.photos import identity, placed
from support.sampling import CFG, basic, classic, guided, noise, noisy, prompt
from torch.utils._python_dispatch import TorchDispatchMode

import nodes

EMPTY = prompt(3)


@pytest.fixture(scope="module")
def fusion(flashface, tmp_path_factory) -> Fusion:
    return on_flashface(flashface, tmp_path_factory.mktemp("fusion"))


def step(fusion, model, positive=None, cfg=CFG):
    x = noisy(fusion.model, noise(7), STEP)
    return guided(classic(model, positive or fusion.positive, fusion.negative, cfg), x, STEP)


# Masks


def test_each_masked_prompt_has_its_part_of_the_picture_and_sees_the_faces(fusion):
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
    parts = prompt(21), prompt(22)
    masked = [
        nodes.ConditioningSetMask().append(part, mask, "default", 1.0)[0]
        for part, mask in zip(parts, (left, 1 - left), strict=True)
    ]
    model = fusion.applied()
    got = step(fusion, model, masked[0] + masked[1], cfg=1.0)
    alone, plain = (
        [guided(basic(m, part), noisy(m, noise(7), STEP), STEP) for part in parts]
        for m in (model, fusion.model)
    )
    half = got.shape[-1] // 2
    assert relative_error(got[..., :half], alone[0][..., :half]) <= 1e-5
    assert relative_error(got[..., half:], alone[1][..., half:]) <= 1e-5
    assert all(relative_error(*pair) > 1e-3 for pair in zip(alone, plain, strict=True))


def test_inpainting_draws_faces_inside_of_the_mask_and_keeps_the_rest(fusion):
    mask = torch.zeros(1, 128, 128)
    mask[..., 64:] = 1
    original = {"samples": noise(11)}
    (latent,) = nodes.SetLatentNoiseMask().set_mask(original, mask)
    drawn, plain = (fusion.sample(m, latent=latent) for m in (fusion.applied(), fusion.model))
    assert float((drawn - original["samples"])[..., :8].abs().max()) <= 1e-4
    assert relative_error(drawn[..., 8:], plain[..., 8:]) > 1e-4


# Guiders


def perp_neg(model, positive, negative):
    return PerpNegGuider.execute(model, positive, negative, EMPTY, CFG, 1.0).args[0]


def dual(style):
    return lambda model, positive, negative: DualCFGGuider.execute(
        model, positive, EMPTY, negative, 5.0, CFG, style
    ).args[0]


# guider, and the number of its positive cond list
GUIDERS = {
    "PerpNegGuider": (perp_neg, 0),
    "DualCFG regular": (dual("regular"), 2),
    "DualCFG nested": (dual("nested"), 2),
}


@pytest.mark.parametrize("name", GUIDERS)
def test_only_the_positive_prompt_of_any_guider_sees_faces(fusion, name):
    make, positive = GUIDERS[name]
    found, results = [], []
    for model in (fusion.model, fusion.applied()):
        model, seen = observe(model)
        x = noisy(model, noise(7), STEP)
        results.append(guided(make(model, fusion.positive, fusion.negative), x, STEP))
        calls = [seen.rows(call) for call in range(len(seen.eps))]
        found.append({number: eps for call in calls for number, eps in call.items()})
    plain, got = found
    assert plain.keys() == got.keys() == {0, 1, 2}
    assert torch.isfinite(results[1]).all() and relative_error(*results) > 1e-3
    for number, eps in got.items():
        assert torch.equal(eps, plain[number]) == (number != positive)


# Half precision


@pytest.mark.parametrize(("weight_dtype", "limit"), [("fp16", 2e-2), ("bf16", 1e-1)])
def test_half_precision_weights_draw_nearly_the_same(
    fusion, checkpoint, tmp_path, weight_dtype, limit
):
    model, _ = load_flashface(checkpoint, weight_dtype)
    dtype = model.model_dtype()
    assert dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[weight_dtype]
    path = write_file(tmp_path / "half.safetensors", fusion.model, dtype=dtype)
    half = replace(fusion, model=model, fusion=load_face_fusion(path))
    person = placed(identity(), attention="inside the region")
    expected, got = (rows(one, one.applied(person))[0] for one in (fusion, half))
    effect = relative_error(rows(fusion, fusion.model)[0], expected)
    assert relative_error(got, expected) <= min(limit, effect / 2)


# Neighbours in cross-attention


def test_beside_an_image_prompt_the_order_of_the_nodes_changes_no_bit(fusion):
    """A replaced attention, as IPAdapter packs set it: its part stays, the faces are added."""
    beside = image_prompt(fusion.model, 0.7)
    both = fusion.sample(image_prompt(fusion.applied(), 0.7))
    assert torch.equal(fusion.sample(fusion.applied(model=beside)), both)
    assert relative_error(both, fusion.drawn()) > 1e-4
    assert relative_error(both, fusion.sample(beside)) > 1e-4


def couple(model):
    """Every row once per region, joined afterwards, as attention couple packs do it."""

    def double(n, context, value, extra_options):
        return tuple(tensor.repeat(2, 1, 1) for tensor in (n, context, value))

    def join(n, extra_options):
        return n.unflatten(0, (2, -1)).mean(0)

    model = model.clone()
    model.set_model_attn2_patch(double)
    model.set_model_attn2_output_patch(join)
    return model


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_attention_couple_is_refused_with_the_rows_that_differ(fusion, after):
    model = couple(fusion.applied()) if after else fusion.applied(model=couple(fusion.model))
    with pytest.raises(FlashFaceError, match="rows .* from 2 to 4, which Face Fusion Apply") as e:
        step(fusion, model)
    assert "attention couple" in str(e.value) and "\n" not in str(e.value)
    off = fusion.applied(model=couple(fusion.model), strength=0.0)
    assert torch.equal(step(fusion, off), step(fusion, couple(fusion.model)))


# Speed


class Made(TorchDispatchMode):
    """Counts the tensors that are made of Python numbers: each is a copy to the GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


def own_features(flashface):
    net = from_node(flashface.model)
    return make_features(net, noise(5, 2, 8, 8), flashface.negative[0][0])


PATCHED = {
    "Face Fusion": lambda _, fusion: fusion.applied(),
    "FlashFace": lambda ours, _: apply_features(ours.model, ours.features(), Guidance()),
    "training-free": lambda ours, _: apply_features(ours.model, own_features(ours), Guidance()),
}


@pytest.mark.parametrize("name", PATCHED)
def test_no_attention_makes_an_index_of_its_own(flashface, fusion, name, monkeypatch):
    """Some rows see faces and others do not: which ones is known before the network runs."""
    counts = []
    unet = flashface.model.model.diffusion_model
    forward = unet._forward  # a wrapper would bring y_ref into a call of its own

    def watched(*args, **kwargs):
        with Made() as made:
            result = forward(*args, **kwargs)
        counts.append(made.count)
        return result

    monkeypatch.setattr(unet, "_forward", watched)
    step(fusion, flashface.model)
    step(fusion, PATCHED[name](flashface, fusion))
    plain, patched = counts[0], counts[-1]
    assert patched == plain
