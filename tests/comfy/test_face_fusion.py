"""Face Fusion: the sampled network looks at the photos, its cross-attention sees them."""

import math
from dataclasses import replace

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from flashface_pack.flashface_core.comfy_adapter.face_fusion import apply as face_fusion_apply
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import (
    FaceFusion,
    load_face_fusion,
)
from flashface_pack.flashface_core.comfy_adapter.flashface import from_model
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.people import FlashFaceIdentityGroup, FlashFaceIdentityMix
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from safetensors.torch import load_file
from support.control import lora_state
from support.face_fusion import (
    Fusion,
    cross_attention_blocks,
    hidden_states,
    rows,
    weight_name,
    write_file,
    written_out,
)
from support.harness import relative_error
from support.models import deeper_sdxl_model, random_vae
from support.own_attention import sdxl_prompt
from support.photos import identity, photos, placed
from support.sampling import Counter, classic, empty_latent, guided, noise, noisy
from support.snapshot import containers, differences, snapshot

import nodes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Fusion:
    """The shipped tiny MODEL, which carries FlashFace's reference attention, and a file."""
    with torch.inference_mode():
        model, _, clip, vae = FlashFaceTinyModels.execute().args
        positive, negative = (nodes.CLIPTextEncode().encode(clip, t)[0] for t in ("a child", ""))
    path = write_file(tmp_path_factory.mktemp("face_fusion") / "random.safetensors", model)
    return Fusion(model, load_face_fusion(path), vae, positive, negative, 64, load_file(path))


@pytest.fixture(scope="module")
def free(tiny) -> Fusion:
    """Training-free, on the same MODEL."""
    return Fusion(tiny.model, FaceFusion(), tiny.vae, tiny.positive, tiny.negative, 64)


@pytest.fixture(scope="module")
def sdxl() -> Fusion:
    """Training-free, with photos as large as the pictures, as a file could ask for: SDXL's own are
    512 pixels wide, which was most of the work here."""
    model, fusion = deeper_sdxl_model(seed=32), FaceFusion()
    fusion.reference_size = 128
    return Fusion(model, fusion, random_vae(4), sdxl_prompt(1), sdxl_prompt(2), 128)


@pytest.fixture(params=["tiny", "free", "sdxl"])
def fusion(request) -> Fusion:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["tiny", "sdxl"])
def either(request) -> Fusion:
    """Trained and training-free, SD1.5 and SDXL."""
    return request.getfixturevalue(request.param)


def projections(fusion):
    """W' from the file, or from the MODEL's own self-attention."""
    blocks = cross_attention_blocks(fusion.model)

    def project(site, hidden):
        if fusion.state is None:
            attn1 = blocks[site].attn1
            hidden = hidden.to(attn1.to_k.weight.device)
            return attn1.to_k(hidden).cpu(), attn1.to_v(hidden).cpu()
        return tuple(hidden @ fusion.state[weight_name(site, part)].T for part in "kv")

    return project


# The formula


@pytest.mark.parametrize("noised", ["current step", "none"])
def test_it_is_one_softmax_over_text_and_face_tokens_at_every_cross_attention(fusion, noised):
    images, weights, strength = photos(2), (1.0, 0.25), 0.7
    person = identity(images[1:], weights[1], identity(images[:1], weights[0]))
    model = fusion.applied(person, strength=strength, reference_noise=noised)
    seen = hidden_states(fusion, images, noised == "current step")
    logs = [math.log(strength * weight) for weight in weights]
    expected = rows(fusion, written_out(fusion, seen, logs, projections(fusion)))[0]
    got, plain = rows(fusion, model), rows(fusion, fusion.model)
    assert relative_error(got[0], expected) <= 1e-5
    assert relative_error(got[0], plain[0]) > 1e-3
    assert torch.equal(got[1], plain[1])  # the negative prompt sees nobody


@pytest.mark.parametrize("times", [(1, 2), (2, 3)], ids=str)
def test_longer_texts_in_the_same_call_do_not_weaken_the_faces(fusion, times):
    """Core repeats both to a common length, so that text would have more of the softmax."""
    positive, negative = (
        [[prompt[0][0].repeat(1, count, 1), *prompt[0][1:]]]
        for prompt, count in zip((fusion.positive, fusion.negative), times, strict=True)
    )
    graph = replace(fusion, positive=positive, negative=negative)
    joined = rows(graph, fusion.applied())[0]
    alone = rows(graph, fusion.applied(), cfg=1.0)[0]
    assert relative_error(joined, alone) <= 1e-5
    if times[0] == 1:
        assert relative_error(joined, rows(fusion, fusion.applied())[0]) <= 1e-5
    assert relative_error(joined, rows(graph, fusion.model)[0]) > 1e-3


def test_a_text_that_another_pack_makes_longer_is_the_rows_text(tiny):
    more = torch.randn(1, 10, 768, generator=torch.Generator().manual_seed(4))

    def longer(text):
        return torch.cat([text, more.to(text).expand(len(text), -1, -1)], 1)

    def wrapper(apply_model, given):
        c = {**given["c"], "c_crossattn": longer(given["c"]["c_crossattn"])}
        return apply_model(given["input"], given["timestep"], **c)

    model = tiny.applied()
    model.set_model_unet_function_wrapper(wrapper)
    positive, negative = (
        [[longer(prompt[0][0]), *prompt[0][1:]]] for prompt in (tiny.positive, tiny.negative)
    )
    expected = rows(replace(tiny, positive=positive, negative=negative), tiny.applied())
    assert relative_error(rows(tiny, model)[0], expected[0]) <= 1e-5


def test_the_strength_of_a_place_is_a_factor_too(tiny):
    half = tiny.drawn(placed(identity(), strength=0.5))
    assert torch.equal(half, tiny.drawn(strength=0.5))
    assert not torch.equal(half, tiny.drawn())


def test_a_lora_is_on_the_photos_and_on_the_projections(sdxl):
    lora, _ = comfy.sd.load_lora_for_models(sdxl.model, None, lora_state(sdxl.model, ""), 0.5, 0)
    before = rows(sdxl, sdxl.applied(model=lora))[0]
    applied = sdxl.applied()
    after, _ = comfy.sd.load_lora_for_models(applied, None, lora_state(applied, ""), 0.5, 0)
    assert torch.equal(before, rows(sdxl, after)[0])
    comfy.model_management.load_models_gpu([lora])
    seen = hidden_states(sdxl, photos(), True, lora)
    with_lora = Fusion(lora, sdxl.fusion, sdxl.vae, sdxl.positive, sdxl.negative, sdxl.size)
    keys = projections(with_lora)
    expected = rows(with_lora, written_out(with_lora, seen, [0.0, 0.0], keys))[0]
    assert relative_error(before, expected) <= 1e-5
    assert relative_error(before, rows(sdxl, applied)[0]) > 1e-3


def test_the_reference_attention_of_flashfaces_models_is_on_the_photos(tiny):
    _, net, *_ = FlashFaceTinyModels.execute().args
    attachment = tiny.model.get_attachment("flashface")
    ra = attachment.net.network.attention_at(attachment.net.network.sites[0])
    with Counter(ra, of_rows=True) as seen:
        drawn = rows(tiny, tiny.applied(identity(photos(3))))
    assert seen.count == 3 + len(drawn)  # photos, the picture
    assert net.reference_size == tiny.size


# Ends


def test_strength_0_and_weights_0_are_the_plain_model_to_the_bit(fusion):
    plain = fusion.sample()
    assert torch.equal(fusion.drawn(strength=0.0), plain)
    assert torch.equal(fusion.drawn(identity(weight=0.0)), plain)
    assert torch.equal(fusion.drawn(placed(identity(), strength=0.0)), plain)
    assert relative_error(fusion.drawn(), plain) > 1e-4


def test_outside_of_the_window_it_is_the_plain_model_to_the_bit(tiny):
    x = noisy(tiny.model, noise(7), 501)

    def step(**window):
        model = tiny.applied(**window) if window else tiny.model
        return guided(classic(model, tiny.positive, tiny.negative), x, 501)

    assert torch.equal(step(end_percent=0.3), step())
    assert torch.equal(step(start_percent=0.7), step())
    inside = step(start_percent=0.3, end_percent=0.7)
    assert torch.equal(inside, step(start_percent=0.0))
    assert not torch.equal(inside, step())


def test_the_noise_on_the_photos_matters_and_is_always_the_same(either):
    drawn = [either.drawn(reference_noise=noise) for noise in ("current step", "none")]
    assert relative_error(*drawn) > 2e-5
    assert torch.equal(drawn[0], either.drawn())


def test_as_trained_is_what_the_file_says(tiny, free, tmp_path):
    clean = write_file(
        tmp_path / "clean.safetensors", tiny.model, metadata={"reference_noise": "none"}
    )
    fusion = replace(tiny, fusion=load_face_fusion(clean))
    for one, noised in ((fusion, "none"), (tiny, "current step"), (free, "current step")):
        drawn = one.drawn(reference_noise="as trained")
        assert torch.equal(drawn, one.drawn(reference_noise=noised))


def test_without_a_file_photos_for_sdxl_are_512_pixels_wide(sdxl):
    applied = replace(sdxl, fusion=FaceFusion()).applied(identity(photos(1)))
    (person,) = applied.get_attachment("face_fusion").people
    assert person.references[0].latent.shape == (1, 4, 64, 64)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_ends_of_a_mix_give_the_bits_of_the_pure_identity(tiny, ratio):
    anna, berta = identity(photos(2, 1)), identity(photos(3, 2), weight=0.5)
    mix = FlashFaceIdentityMix.execute(anna, berta, ratio).args[0]
    assert torch.equal(tiny.drawn(mix), tiny.drawn(berta if ratio else anna))
    half = FlashFaceIdentityMix.execute(anna, berta, 0.5).args[0]
    assert not torch.equal(tiny.drawn(half), tiny.drawn(mix))


def test_as_four_photos_weighs_as_the_identity_says_so_that_mixes_have_no_jump(tiny):
    one = identity(photos(1), reference_weight="as four photos")
    assert torch.equal(tiny.drawn(one), tiny.drawn(identity(photos(1), weight=4.0)))
    other = identity(photos(1, 5), reference_weight="as four photos")
    near = FlashFaceIdentityMix.execute(one, other, 1e-4).args[0]
    assert relative_error(tiny.drawn(near), tiny.drawn(one)) <= 1e-3


# Order and regions


def group(*people):
    return FlashFaceIdentityGroup.execute(*people).args[0]


def test_the_order_of_photos_and_of_people_changes_no_bit(either):
    first, second, third = photos(3).split(1)

    def person(*images):
        one = None
        for image in images:
            weight = 0.5 if image is second else 1.0
            one = identity(image, weight, one)
        return one

    given, turned = person(first, second, third), person(third, second, first)
    assert torch.equal(either.drawn(given), either.drawn(turned))
    people = [placed(given, 0.05), placed(identity(photos(1, 9)), 0.6)]
    inside = dict(attention="inside the region")
    apart = [placed(people[0], 0.0, **inside), placed(people[1], 0.5, **inside)]
    for pair in (people, apart):
        assert torch.equal(either.drawn(group(*pair)), either.drawn(group(*pair[::-1])))


def test_other_photos_in_one_region_change_nothing_in_the_other(either, monkeypatch):
    """The same queries, with the references of another run."""
    real, calls = face_fusion_apply.fusion_change, {}

    def watched(*arguments):
        calls[seed].append(arguments)
        return real(*arguments)

    monkeypatch.setattr(face_fusion_apply, "fusion_change", watched)
    inside = dict(attention="inside the region")
    for seed in (1, 2):
        calls[seed] = []
        left, right = identity(photos(2, seed)), identity(photos(1, 9))
        people = group(placed(left, 0.1, **inside), placed(right, 0.6, **inside))
        rows(either, either.applied(people), batch=2)
    assert len(calls[1]) == len(cross_attention_blocks(either.model))
    moved = []
    for (q, k, v, mine, *rest), (_, _, _, others, *_) in zip(*calls.values(), strict=True):
        first, second = (real(q, k, v, keys, *rest) for keys in (mine, others))
        side = round(first.shape[1] ** 0.5)
        changed = (first != second).any(-1).view(-1, side, side)
        # 0.1 to 0.4 and 0.6 to 0.9 of the width
        moved.append(bool(changed[..., : side // 2].any()))
        assert not changed[..., side // 2 :].any()
        outside = ~torch.stack([entry.covered for entry in mine]).any(0)
        assert outside.any() and (first[outside] == 0).all()
    assert sum(moved) > len(moved) / 2  # some text is all that a trained query looks at


def test_a_region_moves_what_is_drawn(tiny):
    person = identity()
    inside = placed(person, attention="inside the region")
    assert relative_error(tiny.drawn(inside), tiny.drawn()) > 1e-4
    assert torch.equal(tiny.drawn(placed(person)), tiny.drawn())  # there is no position channel


# Runs


@pytest.mark.parametrize("size", [(17, 23), (16, 24)], ids=str)
def test_a_batch_of_three_is_three_pictures_at_any_size(either, size):
    """In one step: in two the tiny MODEL alone makes 2e-4 of rounding."""
    model = either.applied(placed(identity(), attention="inside the region"))

    def of_noise(*samples):
        latent = {**empty_latent(len(samples), *size), "batch_index": list(samples)}
        return either.sample(model, latent=latent, steps=1)

    batch = of_noise(0, 1, 2)
    for i in range(3):
        assert relative_error(batch[i], of_noise(i)[0]) <= 2e-5


def test_without_guidance_there_are_positive_rows_alone(tiny):
    got, guided_rows = rows(tiny, tiny.applied(), cfg=1.0), rows(tiny, tiny.applied())
    assert list(got) == [0]
    assert relative_error(got[0], guided_rows[0]) <= 1e-5


@pytest.mark.parametrize(("noised", "passes"), [("current step", 3), ("none", 1)])
def test_photos_are_looked_at_once_per_noise_level_or_once_per_run(
    tiny, monkeypatch, noised, passes
):
    real, looks = from_model.feature_maps, []

    def watched(*arguments):
        looks.extend(arguments[2] for _ in arguments[1])
        return real(*arguments)

    monkeypatch.setattr(from_model, "feature_maps", watched)
    model = tiny.applied(reference_noise=noised)
    for _ in range(2):  # nothing is kept between runs
        looks.clear()
        tiny.sample(model, steps=3)
        assert len(looks) == 2 * passes
        assert noised != "none" or set(looks) == {0.0}


def test_apply_and_runs_leave_the_input_model_as_it_was(either):
    before = snapshot(either.model)
    model = either.applied()
    drawn = either.sample(model)
    assert differences(before, snapshot(either.model)) == []
    assert torch.equal(either.sample(model.clone()), drawn)
    for other in (either.model, model.clone()):
        assert not set(containers(model)) & set(containers(other))
    comfy.model_management.unload_all_models()
    assert torch.equal(either.sample(model), drawn)


def test_cancel_stops_between_photos_and_leaves_nothing(either):
    expected, model = either.drawn(), either.applied()
    before, before_patched = snapshot(either.model), snapshot(model)
    first = either.model.model.diffusion_model.input_blocks[0][0]

    def cancel(*_):
        comfy.model_management.interrupt_current_processing(True)

    with Counter(first) as passes:
        hook = first.register_forward_hook(cancel)
        with pytest.raises(InterruptProcessingException):
            either.sample(model)
        hook.remove()
    assert passes.count == 1
    assert differences(before, snapshot(either.model)) == []
    assert differences(before_patched, snapshot(model)) == []
    assert torch.equal(either.sample(model), expected)


def test_errors_name_both_sides(tiny, sdxl, free):
    with pytest.raises(FlashFaceError, match="SDXL, context width 2048.*text that is 768 wide"):
        tiny.applied(model=sdxl.model)
    with pytest.raises(FlashFaceError, match="FlashFace Identity Group"):
        free.applied(model=tiny.applied())
    with pytest.raises(FlashFaceError, match="1024 wide.*SD1.5 .768. and SDXL"):
        text = [[torch.zeros(1, 77, 1024), {}]]
        Fusion(tiny.model, tiny.fusion, tiny.vae, text, text, 64).features()
    with pytest.raises(FlashFaceError, match="start_percent 0.5 is not below"):
        tiny.applied(start_percent=0.5, end_percent=0.5)
