"""FaceStudioLoader and FaceStudioEncode: who and what goes into the condition."""

import json

import comfy.clip_vision
import comfy.model_management
import folder_paths
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.detector import ManagedDetector, make_detector
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import (
    build_style_encoder,
    style_embedding,
)
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.faces.crop import pad_to_square
from flashface_pack.flashface_core.faces.insight import InsightFaceDetector
from flashface_pack.flashface_core.facestudio.condition import FACELESS
from flashface_pack.flashface_core.likeness.embedders import Recognition
from flashface_pack.flashface_core.people.identity import FaceReference, Identity, join_people
from flashface_pack.flashface_core.people.mix import mix_identities
from flashface_pack.nodes.facestudio import FOLDER, FaceStudioEncode, FaceStudioLoader
from flashface_pack.nodes.folders import SAFETENSORS
from support.control import seeded_like
from support.detecting import as_image, identify
from support.facestudio import (
    CONFIG,
    FACES,
    STYLE,
    TOKENS,
    WIDTH,
    clip_vision,
    encode,
    face,
    person,
    style,
)
from support.model_packs import make_model_pack, photograph
from support.photographs import astronaut
from support.sampling import prompt
from torch.nn.functional import normalize

TEXT = prompt(3)


def positive(*args, **given) -> torch.Tensor:
    return encode(*args, **given)[0]


def vector(facestudio, seed: int) -> torch.Tensor:
    """e_f of one photo."""
    networks = facestudio.patcher.model
    square = pad_to_square(face(seed), FACES.size)
    seen = network_input(square[None]).to(facestudio.patcher.load_device)
    return normalize(networks.face_encoder(seen)).cpu()


def test_the_condition_is_the_linear_map_of_style_and_face(own):
    got, null = encode(own)
    networks = own.patcher.model
    device = own.patcher.load_device
    style_vector = style_embedding(networks.style_encoder, style().to(device))
    joined = torch.cat([style_vector, vector(own, 1).to(device)], 1)
    assert torch.equal(got, networks.condition.linear(joined).cpu().view(1, TOKENS, WIDTH))
    assert torch.equal(null, networks.condition.linear.bias.cpu().view(1, TOKENS, WIDTH))


def test_the_own_style_encoder_is_cores_network(own, tmp_path):

    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    core = comfy.clip_vision.ClipVisionModel(config)
    core.model.float()  # before its weights are rounded
    networks = own.patcher.model
    assert core.load_sd(networks.style_encoder.state_dict()) == ([], [])
    encode(own)
    got = style_embedding(networks.style_encoder, style().to(own.patcher.load_device)).cpu()
    torch.testing.assert_close(got, core.encode_image(style()).image_embeds, atol=1e-5, rtol=1e-5)


def test_a_style_encoder_can_be_trained():
    with torch.inference_mode(False), torch.enable_grad():
        encoder = build_style_encoder(CONFIG)
        encoder.load_state_dict(seeded_like(encoder.state_dict(), 1))
        pixels = torch.randn(2, 3, 64, 64)
        encoder(pixels).square().sum().backward()
        grads = {name: p.grad for name, p in encoder.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert grads["vision_model.embeddings.patch_embedding.weight"].abs().max() > 0


def test_face_and_style_both_count(own):
    one = positive(own)
    assert not torch.equal(positive(own, person(2)), one)
    assert not torch.equal(positive(own, style_image=style(60)), one)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_at_the_ends_only_one_branch_counts_exactly(own, alpha):
    one = positive(own, alpha=alpha, text=TEXT)
    other_style = positive(own, alpha=alpha, text=TEXT, style_image=style(60))
    other_text = positive(own, alpha=alpha, text=prompt(4))
    assert torch.equal(one, other_text if alpha else other_style)
    assert not torch.equal(one, other_style if alpha else other_text)
    if alpha:
        assert torch.equal(one, positive(own))
    else:
        alone = FaceStudioEncode.execute(own, person(1), 0.0, False, text=TEXT).args[0]
        assert torch.equal(one, alone[0][0])


def test_between_the_ends_both_branches_are_weighed(own):
    ends = [positive(own, alpha=a, text=TEXT) for a in (0.0, 1.0)]
    half = positive(own, alpha=0.3, text=TEXT)
    torch.testing.assert_close(half, 0.7 * ends[0] + 0.3 * ends[1])


def test_the_order_of_the_photos_changes_no_bit(own):
    assert torch.equal(positive(own, person(3, 1, 2)), positive(own, person(1, 2, 3)))
    assert not torch.equal(positive(own, person(1, 2)), positive(own, person(1, 2, 3)))


def test_photos_without_weight_do_not_count(own):
    assert torch.equal(positive(own, person(1, 2, weights=[1.0, 0.0])), positive(own))
    nobody = positive(own, person(1, weights=[0.0]))
    assert torch.equal(nobody, positive(own, person(2, 3, weights=[0.0, 0.0])))
    assert not torch.equal(nobody, positive(own))
    networks = own.patcher.model
    device = own.patcher.load_device
    style_vector = style_embedding(networks.style_encoder, style().to(device))
    assert torch.equal(nobody, networks.condition.branch(style_vector, None).cpu())


def test_a_mix_is_between_two_people_and_at_its_ends_one_of_them(own):
    a, b = person(1, 2), person(3, 4, 5)
    mixed = {r: positive(own, mix_identities(a, b, r)) for r in (0.0, 0.25, 1.0)}
    assert torch.equal(mixed[0.0], positive(own, a)) and torch.equal(mixed[1.0], positive(own, b))
    torch.testing.assert_close(mixed[0.25], 0.75 * mixed[0.0] + 0.25 * mixed[1.0])


def test_of_several_style_images_the_mean_counts(own):
    both = positive(own, style_image=style(50, count=2))
    one, other = positive(own, style_image=style(50)), positive(own, style_image=style(51))
    torch.testing.assert_close(both, (one + other) / 2)


def test_an_alpha_channel_and_any_size_are_taken(own):
    wide = torch.cat([style(), style()], 2)
    opaque = torch.cat([wide, torch.ones(1, 96, 192, 1)], 3)
    assert torch.equal(positive(own, style_image=opaque), positive(own, style_image=wide))


def test_people_of_a_group_are_one_after_another(own):
    got, null = encode(own, join_people([person(1), person(2)]))
    assert got.shape == null.shape == (1, 2 * TOKENS, WIDTH)
    torch.testing.assert_close(got[:, :TOKENS], positive(own))
    torch.testing.assert_close(got[:, TOKENS:], positive(own, person(2)))
    assert torch.equal(null, encode(own)[1].repeat(1, 2, 1))
    other = positive(own, join_people([person(1), person(3)]))
    assert torch.equal(got[:, :TOKENS], other[:, :TOKENS])


def test_comfyui_unloads_the_networks_and_the_next_run_loads_them_again(own):
    before = positive(own)
    comfy.model_management.unload_all_models()
    assert own.patcher not in comfy.model_management.loaded_models()
    assert torch.equal(positive(own), before)
    assert own.patcher in comfy.model_management.loaded_models()


@pytest.fixture
def detector(tmp_path):
    return ManagedDetector(InsightFaceDetector(make_model_pack(tmp_path / "pack")))


def test_arcface_and_connected_clip_vision_models(connected, detector, tmp_path):
    vision = [clip_vision(width, width, tmp_path) for width in (10, STYLE - 10)]
    identity = identify(as_image(photograph(1, 0)), detector)[0]
    given = dict(clip_vision=vision[0], clip_vision_3=vision[1], detector=detector)
    got = positive(connected, identity, **given)
    embeds = [one.encode_image(style()).image_embeds.float() for one in vision]
    e_f = torch.from_numpy(Recognition(detector).reference(identity.references[0])).float()[None]
    joined = torch.cat([*embeds, e_f], 1).to(connected.patcher.load_device)
    expected = connected.patcher.model.condition.linear(joined).cpu().view(1, TOKENS, WIDTH)
    assert torch.equal(got, expected)
    other = identify(as_image(photograph(2, 0)), detector)[0]
    assert not torch.equal(positive(connected, other, **given), got)
    with pytest.raises(FlashFaceError, match=r"\(10,\) values, connected.* was trained with 24"):
        encode(connected, identity, clip_vision=vision[0], detector=detector)
    blank = Identity((FaceReference.from_crop(torch.zeros(200, 200, 3, dtype=torch.uint8)),))
    with pytest.raises(FlashFaceError, match="finds no face in 1 of the identity's 1 photos"):
        encode(connected, blank, **given)


def test_the_face_of_the_style_image_is_painted_out(own):
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    pytest.importorskip("skimage", reason="the photograph comes with it")
    detector = make_detector("mtcnn", None)
    picture = as_image(astronaut())
    got = positive(own, mask_face=True, style_image=picture, detector=detector)
    assert not torch.equal(got, positive(own, style_image=picture))
    (x1, y1, x2, y2) = map(round, detector.find((picture[0] * 255).round().byte())[0].box)
    masked = picture.clone()
    masked[:, y1:y2, x1:x2] = torch.tensor(FACELESS)
    assert torch.equal(got, positive(own, style_image=masked))
    grey = picture.mean(-1, keepdim=True)
    got, same = (
        positive(own, mask_face=True, style_image=image, detector=detector)
        for image in (grey, grey.expand(-1, -1, -1, 3))
    )
    assert torch.equal(got, same)
    empty = torch.cat([picture, torch.full_like(picture, 0.5)])
    with pytest.raises(FlashFaceError, match=r"no face in the style image \(picture 1 of 2, mtcnn"):
        encode(own, mask_face=True, style_image=empty, detector=detector)


def test_the_loader_shows_its_folder_and_says_what_to_put_there(folder, monkeypatch):
    paths = ([str(folder)], set(SAFETENSORS))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, paths)
    (names,) = FaceStudioLoader.define_schema().inputs
    assert names.options == ["connected.safetensors", "own.safetensors"]
    assert FaceStudioLoader.validate_inputs("own.safetensors") is True
    answer = FaceStudioLoader.validate_inputs("other.safetensors")
    assert "no FaceStudio file 'other.safetensors' among connected" in answer
    assert FaceStudioLoader.execute("own.safetensors").args[0].tokens == TOKENS
