"""FaceStudioApply beside what else is on a MODEL: windows, merges, LoRA, ControlNet, FlashFace."""

import comfy.lora
import pytest
import torch
from comfy_extras.nodes_model_merging import ModelMergeSimple
from flashface_pack.flashface_core.comfy_adapter.cross_attention import check_attention
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_pack.flashface_core.comfy_adapter.flashface.load import load_flashface
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import FLASHFACE, FOLDER
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.nodes.apply import FlashFaceApply
from flashface_pack.nodes.features import FlashFaceEncode
from safetensors.torch import save_file
from support.control import lora_state, random_controlnet
from support.core_calls import context_windows
from support.facestudio import METADATA, facestudio_state, person, write_facestudio
from support.facestudio_pictures import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    apply,
    attention_outputs,
    encode,
    halves,
    predict,
    two,
)
from support.harness import relative_error
from support.image_prompt import image_prompt
from support.photos import identity as photo_identity
from support.sampling import NEGATIVE, empty_latent, ksampler, noise
from support.systems import EARLY, LATE, STUDIO, Graph, in_halves

import nodes


def windows(model, length: int, dim: int):
    """Core's context windows, beside each other."""
    return context_windows(model, length, 0, dim)


def test_context_windows_take_their_piece_of_the_regions(model, studio):
    windowed = windows(model, 8, 2)
    got = ksampler(windowed, *two(studio, places=(TOP, BOTTOM)), cfg=1.0)
    alone = [ksampler(windowed, *encode(studio, person(seed)), cfg=1.0) for seed in (1, 2)]
    for own, other, half in ((0, 1, slice(0, 8)), (1, 0, slice(8, 16))):  # one alone in each
        differences = [(got - out)[:, :, half].norm() for out in (alone[own], alone[other])]
        assert differences[0] < 1e-3 * differences[1]


def test_context_windows_over_a_batch_take_the_masks_of_their_pictures(model, studio):
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[:2, :8] = masks[2:, 8:] = True
    conds = two(studio, places=(Place((0, 0, 1, 1), mask=masks), None))
    # Core finds its step in a batch of four only where there are four sigmas.
    settings = dict(latent=empty_latent(4), steps=3)
    got = ksampler(windows(model, 2, 0), *conds, **settings)
    expected = ksampler(model, *conds, **settings)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
    assert (got[0] - got[2]).abs().max() > 0.01


def test_beside_an_image_prompt_its_addition_stays(tiny, model, studio):
    conds = two(studio)
    # Linear in what the image prompt adds, also where the region's person takes the others' place.
    plain = attention_outputs(model, conds)
    with_it = attention_outputs(image_prompt(model, 1.0), conds)
    alone = encode(studio, person(1))
    difference = attention_outputs(image_prompt(model, 1.0), alone)
    for block, (out, _) in with_it.items():
        added = out - plain[block][0]
        expected = difference[block][0] - attention_outputs(model, alone)[block][0]
        torch.testing.assert_close(added, expected, atol=1e-5, rtol=1e-4)
        assert added.abs().max() > 1e-3
    turned = predict(apply(image_prompt(tiny[0], 1.0), studio), conds)
    assert torch.equal(turned, predict(image_prompt(model, 1.0), conds))


def test_with_a_controlnet_regions_are_still_their_persons(tiny, model, studio):
    net = random_controlnet(tiny[0])
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(4))

    def controlled(right):
        conds = two(studio, 1, right)
        return nodes.ControlNetApplyAdvanced().apply_controlnet(*conds, net, hint, 1.0, 0.0, 1.0)

    got = predict(model, controlled(2))
    assert got.isfinite().all() and not torch.equal(got, predict(model, two(studio, 1, 2)))
    one, other = (attention_outputs(model, controlled(right)) for right in (2, 3))
    for block, (out, size) in one.items():
        (left, right), (same, changed) = halves(out, size), halves(*other[block])
        assert torch.equal(left, same), block
        assert not torch.equal(right, changed), block


def test_a_lora_adds_to_the_trained_tensors_before_and_after(tiny, studio):
    lora = lora_state(tiny[0], "attn2.to_k")
    before = apply(nodes.comfy.sd.load_lora_for_models(tiny[0], None, lora, 1.0, 0)[0], studio)
    after = nodes.comfy.sd.load_lora_for_models(apply(tiny[0], studio), None, lora, 1.0, 0)[0]
    conds = encode(studio, person(1))
    got = predict(before, conds)
    assert torch.equal(got, predict(after, conds))
    assert not torch.equal(got, predict(apply(tiny[0], studio), conds))


def weight_of(model, key: str) -> torch.Tensor:
    """What core computes with, for a tensor with patches."""
    weight = model.model.state_dict()[key].to("cpu", torch.float32, copy=True)
    return comfy.lora.calculate_weight(model.patches[key], weight, key)


def test_merges_before_do_not_dilute_the_trained_tensors_and_loras_add_to_them(tiny, studio):
    lora = lora_state(tiny[0], "attn2.to_k")
    other = nodes.comfy.sd.load_lora_for_models(tiny[0], None, lora, 1.0, 0)[0]
    merged = ModelMergeSimple().merge(tiny[0], other, 0.5)[0]
    twice = ModelMergeSimple().merge(merged, tiny[0], 0.3)[0]
    for before in (merged, twice):
        model = apply(before, studio)
        for key, value in studio.unet.items():
            assert torch.equal(weight_of(model, f"diffusion_model.{key}"), value), key
    late = nodes.comfy.sd.load_lora_for_models(merged, None, lora, 1.0, 0)[0]
    plain = nodes.comfy.sd.load_lora_for_models(apply(tiny[0], studio), None, lora, 1.0, 0)[0]
    model = apply(late, studio)
    for key in (f"diffusion_model.{key}" for key in studio.unet):
        assert torch.equal(weight_of(model, key), weight_of(plain, key)), key
    conds = encode(studio, person(1))
    assert not torch.equal(predict(model, conds), predict(apply(merged, studio), conds))


def test_image_to_image(model, studio):
    """A low denoise keeps the picture, a high one draws the person more."""
    latent = {"samples": noise(7)}
    pairs = {
        denoise: [
            ksampler(model, *encode(studio, person(seed)), latent=latent, denoise=denoise)
            for seed in (1, 2)
        ]
        for denoise in (0.3, 0.9)
    }
    kept = {at: relative_error(one, latent["samples"]) for at, (one, _) in pairs.items()}
    apart = {at: relative_error(one, other) for at, (one, other) in pairs.items()}
    assert kept[0.3] < kept[0.9]
    assert 1e-3 < apart[0.3] < apart[0.9]


def flashface_on(model, tiny, photos):
    negative = nodes.CLIPTextEncode().encode(tiny[2], "")[0]
    features = FlashFaceEncode.execute(photos, tiny[1], tiny[3], negative).args[0]
    return FlashFaceApply.execute(model, features).args[0]


def with_flashface(tiny, studio, facestudio_first: bool, photos):
    """FaceStudio brings the style, FlashFace the face, in either order."""
    if facestudio_first:
        return flashface_on(apply(tiny[0], studio), tiny, photos)
    return apply(flashface_on(tiny[0], tiny, photos), studio)


def test_a_flashface_identity_in_a_facestudio_style(tiny, studio):
    def draw(facestudio_first, seed=50, photos=None, people=()):
        model = with_flashface(tiny, studio, facestudio_first, photos or photo_identity())
        people = people or (person(1, weights=[0.0]),)
        return ksampler(model, *encode(studio, *people, seed=seed), steps=2)

    one = draw(True)
    assert torch.equal(one, draw(False))
    assert not torch.equal(one, draw(True, seed=60))
    others = photo_identity(torch.rand(2, 40, 32, 3, generator=torch.Generator().manual_seed(9)))
    assert not torch.equal(one, draw(True, photos=others))
    # The branch that FlashFace adds has the people's regions too, whoever came first.
    group = (person(1, place=LEFT), person(2, place=RIGHT))
    assert torch.equal(draw(True, people=group), draw(False, people=group))
    turned = (person(1, place=RIGHT), person(2, place=LEFT))
    assert not torch.equal(draw(True, people=group), draw(True, people=turned))


def test_flashface_and_context_windows_together_have_the_right_regions_in_either_order(
    tiny, studio
):
    """With windows FlashFace computes its branch in a call of its own, after the guider's."""
    conds = two(studio, places=(TOP, BOTTOM))
    models = [with_flashface(tiny, studio, first, photo_identity()) for first in (True, False)]
    one, other = (ksampler(windows(model, 8, 2), *conds) for model in models)
    assert torch.equal(one, other)
    turned = two(studio, 2, 1, places=(TOP, BOTTOM))
    assert not torch.equal(one, ksampler(windows(models[0], 8, 2), *turned))


def attention_couple(model):
    """As packs divide the picture among prompts: every row once per region, then joined."""

    def more_rows(n, context, value, extra_options):
        return tuple(torch.cat([tensor, tensor]) for tensor in (n, context, value))

    def join(out, extra_options):
        return sum(out.chunk(2)) / 2

    model = model.clone()
    model.set_model_attn2_patch(more_rows)
    model.set_model_attn2_output_patch(join)
    return model


@pytest.mark.parametrize("is_first", [True, False])
def test_attention_couple_beside_regions_is_told_in_a_sentence(tiny, model, studio, is_first):
    coupled = apply(attention_couple(tiny[0]), studio) if is_first else attention_couple(model)
    words = "attention couple.* rows in cross-attention from 2 to 4, which FaceStudio Apply cannot"
    with pytest.raises(FlashFaceError, match=words):
        predict(coupled, two(studio))
    alone = encode(studio, person(1))
    torch.testing.assert_close(predict(coupled, alone), predict(model, alone), atol=1e-4, rtol=1e-4)


def test_other_picture_tokens_are_told_too():
    n, context, out = torch.zeros(2, 128, 4), torch.zeros(2, 6, 4), torch.zeros(2, 256, 4)
    check_attention("A", 2, n, context, n)
    with pytest.raises(FlashFaceError, match="the picture tokens in .* from 128 to 256, which A c"):
        check_attention("A", 2, n, context, out)
    with pytest.raises(FlashFaceError, match="the rows in .* from 2 to 3, which A cannot follow"):
        check_attention("A", 2, n, torch.zeros(3, 6, 4), n)


def write_other(path, **metadata):
    """A file with another bias: other conditions."""
    state = facestudio_state()
    state["linear.bias"] += 0.1
    save_file(state, path, METADATA | metadata)
    return load_facestudio(path)


def test_a_condition_of_another_file_is_told_in_a_sentence(tiny, model, studio, tmp_path):
    other = write_other(tmp_path / "other.safetensors")
    own, foreign = encode(studio, person(1)), encode(other, person(1))
    words = "encoded with other.safetensors, and MODEL carries .* another FaceStudio file, tiny.saf"
    for conds in (foreign, (own[0], foreign[1]), (own[0] + foreign[0], own[1])):
        with pytest.raises(FlashFaceError, match=words):
            predict(model, conds)
    with pytest.raises(FlashFaceError, match="encoded with other.safetensors"):
        ksampler(model, *encode(other, person(1), person(2)))
    again = load_facestudio(write_facestudio(tmp_path / "renamed.safetensors", tiny[0]))
    assert torch.equal(predict(model, encode(again, person(1))), predict(model, own))


def test_half_precision_weights_draw_nearly_the_same(tiny, model, studio, tmp_path):
    state = facestudio_state(tiny[0])
    half = {key: v.half() if v.is_floating_point() else v for key, v in state.items()}
    save_file(half, tmp_path / "half.safetensors", METADATA)
    halved = load_facestudio(tmp_path / "half.safetensors")
    network, _ = load_flashface(FOLDER / FLASHFACE, "fp16")
    assert network.model_dtype() == torch.float16
    conds, in_half, another = two(studio), two(halved), two(studio, 2, 1)
    assert relative_error(in_half[0][0][0], conds[0][0][0]) < 1e-2
    got, expected = predict(apply(network, halved), in_half), predict(model, conds)
    assert got.isfinite().all()
    error = relative_error(got, expected)
    assert error < 3e-2 and error < relative_error(predict(model, another), expected) / 2


@pytest.mark.parametrize("timestep", [EARLY, LATE], ids=["early", "late"])
@pytest.mark.parametrize("who", ["positive", "negative"])
def test_an_area_of_one_prompt_takes_the_others_people_along(bench, who, timestep):
    """Core gives it to the other prompt, with that one's model_conds and nothing else of it."""
    graph = bench.graph(STUDIO, *in_halves())
    positive, negative = graph.positive, NEGATIVE
    set_area = nodes.ConditioningSetArea().append
    top = [set_area(c, 128, 64, 0, 0, 1.0)[0] for c in (positive, negative)]
    both = Graph(graph.model, positive + top[0], negative + top[1])  # core has nothing to give
    if who == "positive":
        given = Graph(graph.model, positive + top[0], negative)
    else:
        given = Graph(graph.model, positive, negative + top[1])
    assert relative_error(given.step(timestep), both.step(timestep)) <= 1e-5
