"""FaceStudioApply on the shipped tiny MODEL: UNet tensors, and everyone's own region."""

import pytest
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from flashface_pack.flashface_core.comfy_adapter.facestudio import load_facestudio
from flashface_pack.flashface_core.comfy_adapter.facestudio_people import (
    INPUTS,
    KEY,
    ROWS,
    cross_attentions,
)
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.identity import join_people
from flashface_pack.flashface_core.place import Place
from flashface_pack.nodes.apply import FlashFaceApply
from flashface_pack.nodes.facestudio import FaceStudioApply, FaceStudioEncode
from flashface_pack.nodes.features import FlashFaceEncode
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from support.control import lora_state, random_controlnet
from support.facestudio import TOKENS, person, style, write_facestudio
from support.harness import observe
from support.image_prompt import image_prompt
from support.models import flux_model, narrower_model, sdxl_model
from support.photos import identity as photo_identity
from support.sampling import basic, classic, empty_latent, guided, ksampler, noise, noisy
from support.snapshot import containers, differences, snapshot

import nodes

LEFT, RIGHT = Place((0.0, 0.0, 0.5, 1.0)), Place((0.5, 0.0, 0.5, 1.0))
STEP = 500


@pytest.fixture(scope="module")
def tiny():
    """MODEL, REFERENCE_NET, CLIP and VAE."""
    return FlashFaceTinyModels.execute().args


@pytest.fixture(scope="module")
def studio(tiny, tmp_path_factory):
    return load_facestudio(
        write_facestudio(tmp_path_factory.mktemp("facestudio") / "tiny.safetensors", tiny[0])
    )


@pytest.fixture
def model(tiny, studio):
    return apply(tiny[0], studio)


def apply(model, studio):
    return FaceStudioApply.execute(model, studio).args[0]


def encode(studio, *people, seed=50):
    """Positive and negative."""
    identity = people[0] if len(people) == 1 else join_people(people)
    return FaceStudioEncode.execute(studio, identity, 1.0, False, style(seed)).args


def two(studio, left=1, right=2, places=(LEFT, RIGHT)):
    pair = zip((left, right), places, strict=True)
    return encode(studio, *(person(seed, place=place) for seed, place in pair))


def predict(model, conds, batch=1, size=(16, 16), guider=None):
    x = noisy(model, noise(1, batch, *size), STEP)
    return guided((guider or classic)(model, *conds), x, STEP)


def test_the_tensors_of_the_file_are_the_models_and_unpatching_restores_them(tiny, studio):
    before, held = snapshot(tiny[0]), containers(tiny[0])
    weights = {key: value.clone() for key, value in tiny[0].model.state_dict().items()}
    model = apply(tiny[0], studio)
    assert differences(before, snapshot(tiny[0])) == []
    predict(model, encode(studio, person(1)))
    state = model.model.state_dict()
    assert len(studio.unet) == 2 * len(cross_attentions(model.model.diffusion_model)) + 1
    for key, value in studio.unet.items():
        got = state[f"diffusion_model.{key}"]
        assert torch.equal(got.float().cpu(), value.to(got.dtype).float())
    changed = {f"diffusion_model.{key}" for key in studio.unet}
    assert all(torch.equal(state[key], weights[key]) for key in weights if key not in changed)
    model.unpatch_model()
    assert all(torch.equal(model.model.state_dict()[key], weights[key]) for key in weights)
    predict(tiny[0], encode(studio, person(1)))
    assert differences(before, snapshot(tiny[0])) == []
    assert containers(tiny[0]) == held


def test_face_and_style_change_the_picture(model, studio):
    one = predict(model, encode(studio, person(1)))
    assert not torch.equal(predict(model, encode(studio, person(2))), one)
    assert not torch.equal(predict(model, encode(studio, person(1), seed=60)), one)


@pytest.mark.parametrize("place", [None, LEFT])
def test_one_person_is_the_plain_attention_exactly(tiny, model, studio, place):
    conds = encode(studio, person(1, place=place))
    assert all(options == {} for ((_, options),) in conds)
    bare = tiny[0].clone()
    bare.add_patches({f"diffusion_model.{k}": ("set", (v,)) for k, v in studio.unet.items()})
    assert torch.equal(predict(model, conds), predict(bare, conds))


def test_a_group_without_places_is_joint_attention(tiny, model, studio):
    conds = two(studio, places=(None, None))
    bare = tiny[0].clone()
    bare.add_patches({f"diffusion_model.{k}": ("set", (v,)) for k, v in studio.unet.items()})
    assert torch.equal(predict(model, conds), predict(bare, conds))
    assert not torch.equal(predict(model, conds), predict(model, two(studio)))


def attention_outputs(model, conds, size=(16, 16), batch=1):
    """What every cross-attention adds to its block, of the positive row: by site, of fixed inputs.

    The blocks are given the same input whatever came before, so that only attention is compared.
    """
    model, outputs = model.clone(), {}
    steady = torch.Generator().manual_seed(3)
    inputs: dict = {}

    def same_input(n, context, value, extra_options):
        key = (*extra_options["block"], tuple(n.shape))
        if key not in inputs:
            inputs[key] = torch.randn(n.shape, generator=steady)
        return inputs[key].to(n), context, value

    def note(n, extra_options):
        block = extra_options["block"]
        outputs[block] = (n.clone(), tuple(extra_options["activations_shape"][-2:]))
        return n

    options = model.model_options["transformer_options"]
    patches = options["patches"] = dict(options["patches"])
    patches["attn2_patch"] = [same_input, *patches["attn2_patch"]]
    model.set_model_attn2_output_patch(note)
    predict(model, conds[:1], batch, size, guider=basic)
    return outputs


def halves(out, size):
    """Left and right half of (B, h * w, C)."""
    tokens = out.unflatten(1, size)
    return tokens[:, :, : size[1] // 2], tokens[:, :, size[1] // 2 :]


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
    top = Place((0.0, 0.0, 1.0, 0.5))
    corner = Place((0.0, 0.5, 0.5, 0.5))
    bottom = Place((0.0, 0.5, 1.0, 0.5))
    first = predict(model, two(studio, places=(corner, top)))
    assert torch.equal(first, predict(model, two(studio, places=(bottom, top))))
    rest = predict(model, two(studio, 2, 1, places=(top, None)))
    assert torch.equal(rest, predict(model, two(studio, 2, 1, places=(top, bottom))))
    with pytest.raises(FlashFaceError, match="2 of 3 people have no place"):
        encode(studio, person(1), person(2, place=top), person(3))


def test_masks_are_regions_one_per_picture_of_the_batch(model, studio):
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :, :16] = masks[1, :16] = True
    places = (Place((0, 0, 1, 1), mask=masks), None)
    top, bottom = Place((0, 0, 1, 0.5)), Place((0, 0.5, 1, 0.5))
    both = predict(model, two(studio, places=places), batch=2)
    for i, pair in enumerate([(LEFT, RIGHT), (top, bottom)]):
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
    torch.testing.assert_close(both[:1], one, atol=1e-5, rtol=1e-5)


def test_an_area_sees_its_piece_of_the_regions(model, studio):
    """The lower half alone, as area conditioning: with people on top of each other, one of them."""
    top, bottom = Place((0, 0, 1, 0.5)), Place((0, 0.5, 1, 0.5))

    def lower(positive):
        return nodes.ConditioningSetAreaPercentage().append(positive, 1.0, 0.5, 0.0, 0.5, 1.0)[0]

    group = lower(two(studio, 1, 2, places=(top, bottom))[0])
    alone = lower(encode(studio, person(2))[0])
    got, expected = (predict(model, (one,), guider=basic) for one in (group, alone))
    torch.testing.assert_close(got[:, :, 8:], expected[:, :, 8:], atol=1e-5, rtol=1e-5)
    other = lower(two(studio, 1, 3, places=(top, bottom))[0])
    assert not torch.equal(predict(model, (other,), guider=basic), got)


def windows(model, length: int, dim: int):
    """Core's context windows, beside each other."""
    settings = (length, 0, "standard_static", 1, False, "pyramid", dim)
    return ContextWindowsManualNode.execute(model, *settings).args[0]


def test_context_windows_take_their_piece_of_the_regions(model, studio):
    top, bottom = Place((0, 0, 1, 0.5)), Place((0, 0.5, 1, 0.5))
    windowed = windows(model, 8, 2)
    got = ksampler(windowed, *two(studio, places=(top, bottom)), cfg=1.0)
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


def test_with_a_controlnet(tiny, model, studio):
    net = random_controlnet(tiny[0])
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(4))
    conds = two(studio)
    controlled = nodes.ControlNetApplyAdvanced().apply_controlnet(*conds, net, hint, 1.0, 0.0, 1.0)
    got = predict(model, controlled)
    assert got.isfinite().all() and not torch.equal(got, predict(model, conds))


def test_a_lora_adds_to_the_trained_tensors_before_and_after(tiny, studio):
    lora = lora_state(tiny[0], "attn2.to_k")
    before = apply(nodes.comfy.sd.load_lora_for_models(tiny[0], None, lora, 1.0, 0)[0], studio)
    after = nodes.comfy.sd.load_lora_for_models(apply(tiny[0], studio), None, lora, 1.0, 0)[0]
    conds = encode(studio, person(1))
    got = predict(before, conds)
    assert torch.equal(got, predict(after, conds))
    assert not torch.equal(got, predict(apply(tiny[0], studio), conds))


def test_image_to_image(model, studio):
    latent = {"samples": noise(7)}
    conds = two(studio)
    light = ksampler(model, *conds, latent=latent, denoise=0.3)
    strong = ksampler(model, *conds, latent=latent, denoise=0.9)
    assert light.isfinite().all() and strong.isfinite().all()
    near, far = (float((out - latent["samples"]).norm()) for out in (light, strong))
    assert near < far


def flashface_on(model, tiny, photos):
    negative = nodes.CLIPTextEncode().encode(tiny[2], "")[0]
    features = FlashFaceEncode.execute(photos, tiny[1], tiny[3], negative).args[0]
    return FlashFaceApply.execute(model, features).args[0]


def test_a_flashface_identity_in_a_facestudio_style(tiny, studio):
    """FaceStudio brings the style alone, FlashFace the face, in either order."""
    photos = photo_identity()

    def draw(facestudio_first, seed=50, photos=photos, people=()):
        if facestudio_first:
            model = flashface_on(apply(tiny[0], studio), tiny, photos)
        else:
            model = apply(flashface_on(tiny[0], tiny, photos), studio)
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
        apply(narrower_model(tiny[0]), studio)
    with pytest.raises(FlashFaceError, match="already carries FaceStudio's weights .tiny.safe"):
        apply(model, studio)
    assert tiny[0].get_attachment(KEY) is None


def test_a_condition_that_was_joined_with_a_text_is_an_error(tiny, model, studio):
    text = nodes.CLIPTextEncode().encode(tiny[2], "")[0]
    joined = nodes.ConditioningConcat().concat(two(studio)[0], text)[0]
    with pytest.raises(FlashFaceError, match=f"{77 + 2 * TOKENS} tokens, which is not a multiple"):
        predict(model, (joined,), guider=basic)
