"""FaceStudioApply on the shipped tiny MODEL: UNet tensors, and everyone's own region."""

import comfy.model_management
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.facestudio.people import (
    INPUTS,
    KEY,
    PEOPLE,
    ROWS,
    cross_attentions,
)
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.place import Place
from support.facestudio import TOKENS, person
from support.facestudio_pictures import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    apply,
    attention_outputs,
    encode,
    for_any_model,
    halves,
    predict,
    two,
)
from support.harness import observe
from support.models import flux_model, sdxl_model, wider_model
from support.sampling import basic
from support.snapshot import containers, differences, snapshot

import nodes


def test_the_tensors_of_the_file_are_the_models_and_unpatching_restores_them(tiny, studio):
    comfy.model_management.unload_all_models()  # a clone of another test may have patched it
    before, held = snapshot(tiny[0]), containers(tiny[0])
    weights = {key: value.to("cpu", copy=True) for key, value in tiny[0].model.state_dict().items()}
    model = apply(tiny[0], studio)
    assert differences(before, snapshot(tiny[0])) == []
    predict(model, encode(studio, person(1)))
    state = model.model.state_dict()
    assert len(studio.unet) == 2 * len(cross_attentions(model.model.diffusion_model)) + 1
    for key, value in studio.unet.items():
        got = state[f"diffusion_model.{key}"]
        assert torch.equal(got.float().cpu(), value.to(got.dtype).float())
    changed = {f"diffusion_model.{key}" for key in studio.unet}
    assert all(torch.equal(state[k].cpu(), weights[k]) for k in weights if k not in changed)
    model.unpatch_model()
    state = model.model.state_dict()
    assert all(torch.equal(state[key].cpu(), weights[key]) for key in weights)
    predict(tiny[0], for_any_model(encode(studio, person(1))))
    assert differences(before, snapshot(tiny[0])) == []
    assert containers(tiny[0]) == held


def test_face_and_style_change_the_picture(model, studio):
    one = predict(model, encode(studio, person(1)))
    assert not torch.equal(predict(model, encode(studio, person(2))), one)
    assert not torch.equal(predict(model, encode(studio, person(1), seed=60)), one)


@pytest.mark.parametrize("place", [None, LEFT])
def test_one_person_is_the_plain_attention_exactly(tiny, model, studio, place):
    conds = encode(studio, person(1, place=place))
    assert all(PEOPLE not in options["model_conds"] for ((_, options),) in conds)
    bare = tiny[0].clone()
    bare.add_patches({f"diffusion_model.{k}": ("set", (v,)) for k, v in studio.unet.items()})
    assert torch.equal(predict(model, conds), predict(bare, for_any_model(conds)))


def test_a_group_without_places_is_joint_attention(tiny, model, studio):
    conds = two(studio, places=(None, None))
    bare = tiny[0].clone()
    bare.add_patches({f"diffusion_model.{k}": ("set", (v,)) for k, v in studio.unet.items()})
    assert torch.equal(predict(model, conds), predict(bare, for_any_model(conds)))
    assert not torch.equal(predict(model, conds), predict(model, two(studio)))


def test_another_person_in_one_region_changes_nothing_in_the_attention_of_the_other(model, studio):
    one = attention_outputs(model, two(studio, 1, 2))
    other = attention_outputs(model, two(studio, 1, 3))
    unet = model.model.diffusion_model
    assert {(*block, 0) for block in one} == set(cross_attentions(unet))  # encoder to decoder
    for block, (out, size) in one.items():
        (left, right), (same, changed) = halves(out, size), halves(*other[block])
        assert torch.equal(left, same), block
        assert not torch.equal(right, changed), block


def test_a_region_attends_to_its_person_as_alone(model, studio):
    together = attention_outputs(model, two(studio, 1, 2))
    alone = [attention_outputs(model, encode(studio, person(seed))) for seed in (1, 2)]
    for block, (out, size) in together.items():
        left, right = halves(out, size)
        torch.testing.assert_close(left, halves(*alone[0][block])[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(right, halves(*alone[1][block])[1], atol=2e-6, rtol=1e-5)


def test_people_in_another_order_change_nothing(model, studio):
    one, other = person(1, place=LEFT), person(2, place=RIGHT)
    given = attention_outputs(model, encode(studio, one, other))
    turned = attention_outputs(model, encode(studio, other, one))
    for block, (out, _) in given.items():
        assert torch.equal(out, turned[block][0])
    photos = encode(studio, person(1, 4, 5, place=LEFT), other)
    shuffled = encode(studio, person(5, 1, 4, place=LEFT), other)
    assert torch.equal(predict(model, photos), predict(model, shuffled))


def test_where_no_one_is_it_is_the_first_person_or_who_has_no_place(model, studio):
    corner = Place((0.0, 0.5, 0.5, 0.5))
    first = predict(model, two(studio, places=(corner, TOP)))
    assert torch.equal(first, predict(model, two(studio, places=(BOTTOM, TOP))))
    rest = predict(model, two(studio, 2, 1, places=(TOP, None)))
    assert torch.equal(rest, predict(model, two(studio, 2, 1, places=(TOP, BOTTOM))))
    with pytest.raises(FlashFaceError, match="2 of 3 people have no place"):
        encode(studio, person(1), person(2, place=TOP), person(3))


def test_masks_are_regions_one_per_picture_of_the_batch(model, studio):
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :, :16] = masks[1, :16] = True
    places = (Place((0, 0, 1, 1), mask=masks), None)
    both = predict(model, two(studio, places=places), batch=2)
    for i, pair in enumerate([(LEFT, RIGHT), (TOP, BOTTOM)]):
        expected = predict(model, two(studio, places=pair), batch=2)
        torch.testing.assert_close(both[i], expected[i], atol=1e-5, rtol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_both_rows_share_a_call_and_separate_calls_are_equal(model, studio, monkeypatch):
    conds = two(studio)
    watched, seen = observe(model)
    together = predict(watched, conds)
    assert [sorted(branches) for branches in seen.branches] == [[0, 1]]
    monkeypatch.setattr(type(model.model), "memory_required", lambda *_, **__: 1e30)
    watched, seen = observe(model)
    apart = predict(watched, conds)
    assert sorted(map(tuple, seen.branches)) == [(0,), (1,)]
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_an_ordinary_negative_goes_beside(tiny, model, studio):
    negative = nodes.CLIPTextEncode().encode(tiny[2], "")[0]
    positive = two(studio)[0]
    got = predict(model, (positive, negative))
    parts = [predict(model, (one,), guider=basic) for one in (positive, negative)]
    torch.testing.assert_close(got, parts[1] + 7.5 * (parts[0] - parts[1]), atol=1e-4, rtol=1e-4)


def test_a_batch_is_its_samples(model, studio):
    conds = two(studio)
    both, one = predict(model, conds, batch=2), predict(model, conds)
    torch.testing.assert_close(both[:1], one, atol=3e-5, rtol=1e-5)


def test_an_area_sees_its_piece_of_the_regions(model, studio):
    """The lower half alone, as area conditioning: with people on top of each other, one of them."""

    def lower(positive):
        return nodes.ConditioningSetAreaPercentage().append(positive, 1.0, 0.5, 0.0, 0.5, 1.0)[0]

    group = lower(two(studio, 1, 2, places=(TOP, BOTTOM))[0])
    alone = lower(encode(studio, person(2))[0])
    got, expected = (predict(model, (one,), guider=basic) for one in (group, alone))
    torch.testing.assert_close(got[:, :, 8:], expected[:, :, 8:], atol=1e-5, rtol=1e-5)
    other = lower(two(studio, 1, 3, places=(TOP, BOTTOM))[0])
    assert not torch.equal(predict(model, (other,), guider=basic), got)


def test_nothing_is_left_in_the_options_of_a_block(model, studio):
    left = []

    def look(n, extra_options):
        left.append((ROWS in extra_options, INPUTS in extra_options))
        return n

    model.set_model_attn2_output_patch(look)
    predict(model, two(studio))
    assert set(left) == {(True, False)}
    left.clear()
    predict(model, encode(studio, person(1)))
    assert set(left) == {(False, False)}


def test_a_model_that_does_not_fit_is_an_error(tiny, studio, model, tmp_path):
    with pytest.raises(FlashFaceError, match=r"MODEL \(SDXL, context width 2048\) and tiny.*768\)"):
        apply(sdxl_model(), studio)
    with pytest.raises(FlashFaceError, match="no UNet"):
        apply(flux_model(), studio)
    with pytest.raises(FlashFaceError, match=r"attn2.to_k.weight is \(\d+, 768\) in the file and "):
        apply(wider_model(tiny[0]), studio)
    with pytest.raises(FlashFaceError, match="already carries FaceStudio's weights .tiny.safe"):
        apply(model, studio)
    assert tiny[0].get_attachment(KEY) is None


def test_a_condition_that_was_joined_with_a_text_is_an_error(tiny, model, studio):
    text = nodes.CLIPTextEncode().encode(tiny[2], "")[0]
    joined = nodes.ConditioningConcat().concat(two(studio)[0], text)[0]
    with pytest.raises(FlashFaceError, match=f"{77 + 2 * TOKENS} tokens, which is not a multiple"):
        predict(model, (joined,), guider=basic)
