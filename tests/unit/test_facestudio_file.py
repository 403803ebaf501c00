"""FaceStudio's file format: read whole, or refused in a sentence that says why."""

import json

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.facestudio.condition import FACELESS, TextPrior, paint_out
from flashface_pack.flashface_core.facestudio.file import build_facestudio, read_facestudio
from support.facestudio import (
    ARCFACE,
    CONFIG,
    FACES,
    METADATA,
    STYLE,
    TOKENS,
    WIDTH,
    face,
    facestudio_state,
    write_facestudio,
)
from torch.nn.functional import layer_norm

NAME = "some.safetensors"


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def state():
    return facestudio_state()


def build(state, **metadata):
    return build_facestudio(NAME, state, METADATA | metadata)


def test_every_part_is_read_with_its_sizes(tmp_path, state):
    state["unet.out.2.bias"] = torch.zeros(4)
    file = build(state)
    assert (file.condition.style_width, file.condition.face_width) == (STYLE, FACES.vector_width)
    assert file.condition.tokens == TOKENS
    assert file.condition.linear.out_features == TOKENS * WIDTH
    assert torch.equal(file.condition.linear.weight, state["linear.weight"])
    assert file.face_encoder.topology == FACES and file.face_encoder.face == "crop"
    assert torch.equal(file.prior[2].weight, state["prior.2.weight"])
    assert list(file.unet) == ["out.2.bias"]
    assert file.style_config == CONFIG
    assert "visual_projection.weight" in file.style_state
    networks = (file.condition, file.prior, file.face_encoder)
    assert not any(network.training for network in networks)
    assert not any(p.requires_grad for network in networks for p in network.parameters())
    path = write_facestudio(tmp_path / "a.safetensors")
    read = read_facestudio(path)
    seen = network_input(face(1, 32)[None])
    assert torch.equal(read.face_encoder(seen), file.face_encoder(seen))
    assert read.name == "a.safetensors"


def test_a_file_without_encoders_is_for_arcface_and_four_tokens_are_usual():
    state = facestudio_state(own_encoders=False)
    file = build_facestudio(NAME, state, {"tokens": str(TOKENS)})
    assert (file.condition.style_width, file.condition.face_width) == (STYLE, ARCFACE)
    assert file.face_encoder is None and file.style_config is None and file.style_state == {}
    state = {k: v for k, v in state.items() if not k.startswith("prior")}
    file = build_facestudio(NAME, state, {})
    assert file.prior is None and file.condition.tokens == 4


def test_half_precision_is_read_as_float32():
    state = {key: value.half() for key, value in facestudio_state(own_encoders=False).items()}
    file = build_facestudio(NAME, state, {"tokens": "3"})
    assert file.condition.linear.weight.dtype == file.prior[0].weight.dtype == torch.float32
    assert torch.equal(file.condition.linear.bias, state["linear.bias"].float())


def changed(state, **values):
    """A copy with other tensors; None takes one out. __ stands for a dot."""
    state = {**state, **{key.replace("__", "."): value for key, value in values.items()}}
    return {key: value for key, value in state.items() if value is not None}


WRONG = {
    "no linear": (dict(linear__weight=None), {}, "linear.weight is not there"),
    "no bias": (dict(linear__bias=None), {}, "lacks linear.bias"),
    "flat": (dict(linear__weight=torch.zeros(9)), {}, r"has the shape \(9,\)"),
    "integers": (
        dict(linear__bias=torch.zeros(TOKENS * WIDTH, dtype=torch.int8)),
        {},
        "holds int8 in linear.bias",
    ),
    "narrow": (
        dict(linear__weight=torch.zeros(12, 48)),
        {},
        "48 inputs, expected more than the 48",
    ),
    "tokens": ({}, dict(tokens="7"), "makes 7 tokens, which does not divide the 2304 rows"),
    "no number": ({}, dict(tokens="many"), "makes many tokens"),
    "half a prior": (dict(prior__2__bias=None), {}, "lacks prior.2.bias"),
    "another prior": (
        dict(prior__2__weight=torch.zeros(5, 32)),
        {},
        r"prior.2.weight of the shape \(5, 32\), expected \(24, 32\)",
    ),
    "deeper prior": (
        dict(prior__4__weight=torch.zeros(5, 32)),
        {},
        "do not belong there, prior.4.weight",
    ),
    "unknown": (
        dict(adapter=torch.zeros(1)),
        {},
        "do not belong into FaceStudio's weights, adapter",
    ),
    "half an encoder": (
        dict(face_encoder__norm__weight=None),
        {},
        r"^face_encoder\.\* in some.safetensors is not a face encoder \(MSID\): it lacks "
        "norm.weight; use a whole file of FaceStudio's weights.$",
    ),
    "a mapping network in it": (
        dict(face_encoder__cls_token=None, face_encoder__null_exp=torch.zeros(4)),
        {},
        "is not a face encoder .* use a whole file of FaceStudio's weights.$",
    ),
    "no JSON": ({}, dict([("style_encoder.config", "{")]), "not a JSON object"),
    "a list": ({}, dict([("style_encoder.config", "[]")]), "not a JSON object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_whole_is_an_error(state, case):
    values, metadata, words = WRONG[case]
    with pytest.raises(FlashFaceError, match=words):
        build(changed(state, **values), **metadata)


WRONG_SETTINGS = {
    "negative": (dict(hidden_size=-64), "hidden_size -64, expected a whole number above 0"),
    "fraction": (dict(patch_size=16.5), "patch_size 16.5, expected a whole number above 0"),
    "boolean": (dict(num_hidden_layers=True), "num_hidden_layers True, expected a whole number"),
    "word": (dict(image_size="64"), "image_size '64', expected a whole number above 0"),
    "zero": (dict(projection_dim=0), "projection_dim 0, expected a whole number above 0"),
    "heads": (dict(num_attention_heads=5), "num_attention_heads 5, expected a divisor of .* 64"),
    "one mean": (dict(image_mean=[0.5]), r"image_mean \[0.5\], expected three numbers"),
    "mean": (dict(image_mean=0.5), "image_mean 0.5, expected three numbers"),
    "words": (dict(image_std="abc"), "image_std 'abc', expected three numbers"),
    "infinite": (dict(image_std=[1, 1, float("inf")]), "image_std .* expected three numbers"),
    "no spread": (dict(image_std=[1, 0.0, 1]), "a 0 in image_std, expected the spread"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_a_style_encoder_that_nothing_could_run_is_an_error(state, case):
    settings, words = WRONG_SETTINGS[case]
    text = json.dumps({**CONFIG, **settings})
    with pytest.raises(FlashFaceError, match=f"^{NAME} has a style_encoder.config .*{words}"):
        build(state, **{"style_encoder.config": text})


def test_a_style_encoder_needs_its_configuration_and_its_tensors(state):
    without = {k: v for k, v in METADATA.items() if k != "style_encoder.config"}
    with pytest.raises(FlashFaceError, match="no style_encoder.config in its metadata"):
        build_facestudio(NAME, state, without)
    tensors = {k: v for k, v in state.items() if not k.startswith("style_encoder.")}
    with pytest.raises(FlashFaceError, match=r"no tensors style_encoder\.\*"):
        build(tensors)


FOREIGN = {
    "Face Fusion's weights": "input.1.0.k.weight",
    "Face2Diffusion's face encoder": "cls_token",
    "Face2Diffusion's mapping network": "null_exp",
    "a FlashFace checkpoint": "ref_encoder.0.weight",
    "a Stable Diffusion checkpoint": "model.diffusion_model.out.2.bias",
    "a CLIP vision model": "vision_model.post_layernorm.weight",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_something_else_says_what_it_is(kind):
    with pytest.raises(FlashFaceError, match=f"{NAME} is .*{kind}, expected FaceStudio's"):
        build_facestudio(NAME, {FOREIGN[kind]: torch.zeros(1, 1)}, {})


def test_the_prior_reads_the_mean_over_any_number_of_tokens():
    prior = TextPrior(6, 5, 4)
    tokens = torch.randn(2, 154, 6)
    normed = layer_norm(tokens.mean(1), (6,))
    torch.testing.assert_close(prior(tokens), prior[2](prior[1](prior[0](normed))))
    torch.testing.assert_close(prior(tokens.repeat(1, 3, 1)), prior(tokens), atol=1e-5, rtol=1e-5)


def test_only_the_face_is_painted_out_and_the_picture_is_left_as_it_was():
    picture = torch.rand(20, 30, 3)
    before = picture.clone()
    painted = paint_out(picture, (-4.0, 5.2, 10.4, 99.0))
    assert torch.equal(picture, before)
    assert torch.equal(painted[5:, :10], torch.tensor(FACELESS).expand(15, 10, 3))
    painted[5:, :10] = picture[5:, :10]
    assert torch.equal(painted, picture)
