"""Face2DiffusionTextEncode with core's CLIP-L.

The files are in the published layout with values made by rule; so is the first layer of the text
model, the others pass their input on.
"""

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from flashface_pack.flashface_core.comfy_adapter.face2diffusion import (
    encode_text,
    load_face2diffusion,
)
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.face2diffusion.word import inject
from flashface_pack.flashface_core.people.identity import FaceReference, Identity, join_people
from flashface_pack.flashface_core.tiny_text import clip_state_dict
from flashface_pack.nodes.face2diffusion import Face2DiffusionTextEncode
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from support.detecting import as_image, identify
from support.face2diffusion import rule_tensor, write_published
from support.photographs import astronaut
from support.sampling import ksampler
from support.snapshot import differences, snapshot

import nodes

TEXT = "a photo of f l in a forest"
AT = 4  # of "f", start token included


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_face2diffusion(*write_published(tmp_path_factory.mktemp("face2diffusion")))


@pytest.fixture(scope="module")
def clip():
    state = clip_state_dict()
    layer = "text_model.encoder.layers.0."
    rule = {k: rule_tensor(k, tuple(v.shape)) for k, v in state.items() if k.startswith(layer)}
    return comfy.sd.load_text_encoder_state_dicts(
        [{**state, **rule}], None, clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION
    )


def face(seed: int) -> torch.Tensor:
    """uint8 (112, 112, 3)"""
    coarse = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(112, 112), mode="bicubic")
    return (fine[0].movedim(0, -1).clamp(0, 1) * 255).to(torch.uint8)


def person(*seeds: int, weights=None, name="Anna") -> Identity:
    weights = weights or [1.0] * len(seeds)
    pairs = zip(seeds, weights, strict=True)
    made = (FaceReference.from_crop(face(s), w, aligned=face(s)) for s, w in pairs)
    return Identity(tuple(made), name)


def encode(clip, loaded, identity=None, text=TEXT, placeholder="f l"):
    """The tensor of the node's CONDITIONING."""
    given = (clip, loaded, identity or person(1), text, placeholder)
    ((tensor, _),) = Face2DiffusionTextEncode.execute(*given).args[0]
    return tensor


def plain(clip, text: str) -> torch.Tensor:
    return nodes.CLIPTextEncode().encode(clip, text)[0][0][0]


def expected(clip, word: torch.Tensor, text=TEXT, *ats: int) -> torch.Tensor:
    """S* injected into the embeddings of one chunk, around core's text model."""
    ids = torch.tensor([[token for token, _ in clip.tokenize(text)["l"][0]]])
    clip.load_model()
    transformer = clip.cond_stage_model.clip_l.transformer
    embeddings = transformer.text_model.embeddings
    device = embeddings.position_embedding.weight.device
    tokens = embeddings.token_embedding(ids.to(device), out_dtype=torch.float32)
    places = embeddings.position_embedding.weight.float()
    for at in ats or (AT,):
        tokens = inject(tokens, word[None].to(device), places, at)
    return transformer(None, embeds=tokens, num_tokens=[77], dtype=torch.float32)[0].cpu()


def test_the_placeholder_is_the_word_of_the_face(clip, loaded):
    networks = loaded.patcher.model
    loaded.word(person(1))  # puts the networks where they compute
    photos = torch.stack([face(1)])  # in memory as those of a person: others round another way
    aligned = network_input(photos).to(loaded.patcher.load_device)
    word = networks.mapping(networks.encoder(aligned))[0].cpu()
    assert torch.equal(loaded.word(person(1)), word)
    assert torch.equal(encode(clip, loaded), expected(clip, word))


def test_the_text_before_is_unchanged_and_what_follows_reads_the_person(clip, loaded):
    without, one, other = plain(clip, TEXT), encode(clip, loaded), encode(clip, loaded, person(2))
    assert torch.equal(one[:, :AT], without[:, :AT]) and torch.equal(one[:, :AT], other[:, :AT])
    for at in range(AT, 77):  # a token attends to those before it
        assert not torch.equal(one[:, at], without[:, at])
        assert not torch.equal(one[:, at], other[:, at])


@pytest.mark.parametrize("placeholder", ["sks", "S*", "my old friend", "f l"])
def test_any_words_may_be_the_placeholder(clip, loaded, placeholder):
    text = TEXT.replace("f l", placeholder)
    got = encode(clip, loaded, text=text, placeholder=placeholder)
    assert torch.equal(got, encode(clip, loaded))


@pytest.mark.parametrize("weight", [1.4, 0.5])
def test_weights_in_parentheses_scale_the_person_and_nothing_else(clip, loaded, weight):
    weighted = encode(clip, loaded, text=f"a photo of (f l:{weight}) in a forest")
    without, nothing = encode(clip, loaded), plain(clip, "")
    at = slice(AT, AT + 2)
    scaled = (without[:, at] - nothing[:, at]) * weight + nothing[:, at]
    assert torch.allclose(weighted[:, at], scaled, atol=1e-5)
    assert (weighted[:, at] - without[:, at]).abs().max() > 0.01
    assert torch.allclose(weighted[:, :AT], without[:, :AT], atol=1e-5)
    assert torch.allclose(weighted[:, AT + 2 :], without[:, AT + 2 :], atol=1e-5)


@pytest.mark.parametrize("words", [3, 73, 74, 75, 160])
def test_in_long_prompts_the_pair_stays_in_one_chunk(clip, loaded, words):
    got = encode(clip, loaded, text="cat " * words + "f l dog")
    chunks, rest = divmod(words, 75)
    if rest == 74:  # core alone would cut the pair here
        last_of_first = clip.tokenize("cat " * words + "f l dog")["l"][0][75]
        assert last_of_first[0] == 325
        chunks, rest = chunks + 1, 0
    where = "cat " * rest + "f l" + (" dog" if rest < 73 else "")
    there = expected(clip, loaded.word(person(1)), where, rest + 1)
    parts = got.split(77, dim=1)
    assert torch.allclose(parts[chunks], there, atol=1e-5)
    for part in parts[: words // 75]:
        assert torch.allclose(part, plain(clip, "cat " * 75), atol=1e-5)
    if rest == 73:
        assert torch.allclose(parts[1], plain(clip, "dog"), atol=1e-5)
    assert len(parts) == chunks + 1 + (rest == 73)


def test_every_placeholder_is_the_person(clip, loaded):
    text = "f l and f l"
    both = expected(clip, loaded.word(person(1)), text, 1, 4)
    assert torch.equal(encode(clip, loaded, text=text), both)


def test_the_clip_is_left_as_it_was(clip, loaded):
    before, state = plain(clip, TEXT), snapshot(clip.patcher)
    for seed in (1, 2):
        encode(clip, loaded, person(seed), text="(f l:1.3) " * 60)
    assert differences(state, snapshot(clip.patcher)) == []
    assert torch.equal(plain(clip, TEXT), before)


def test_an_expression_changes_the_person_and_the_learned_vector_is_used_without(clip, loaded):
    def with_it(expression):
        return encode_text(clip, loaded, person(1), TEXT, "f l", expression)[0][0]

    learned = loaded.patcher.model.mapping.null_exp[None]
    assert torch.equal(with_it(learned), encode(clip, loaded))
    smile = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    assert (with_it(smile) - encode(clip, loaded)).abs().max() > 0.01
    with pytest.raises(FlashFaceError, match="expression has 8 values"):
        with_it(smile[:, :8])


def test_several_photos_are_their_weighted_mean_in_any_order(loaded):
    networks = loaded.patcher.model
    both = loaded.word(person(1, 2, weights=[3.0, 1.0]))
    device = loaded.patcher.load_device
    one, two = networks.encoder(network_input(torch.stack([face(1), face(2)]).to(device)))
    word = networks.mapping((0.75 * one + 0.25 * two)[None])[0].cpu()
    assert torch.allclose(both, word, atol=1e-5)
    three = loaded.word(person(1, 2, 3))
    for order in ((1, 3, 2), (2, 1, 3), (3, 2, 1)):
        assert torch.equal(loaded.word(person(*order)), three)
    assert torch.equal(loaded.word(person(1, 2, weights=[1.0, 0.0])), loaded.word(person(1)))
    assert (both - loaded.word(person(1))).abs().max() > 0.01


def test_comfyui_unloads_the_networks_and_the_next_run_loads_them_again(loaded):
    before = loaded.word(person(1))
    listed = comfy.model_management.loaded_models
    assert loaded.patcher in listed()
    comfy.model_management.unload_all_models()
    assert loaded.patcher not in listed()
    assert torch.equal(loaded.word(person(1)), before)
    assert loaded.patcher in listed()


def test_a_photograph_through_a_detector_changes_the_picture(clip, loaded):
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    pytest.importorskip("skimage", reason="the photograph comes with it")
    from flashface_pack.flashface_core.faces.mtcnn import MtcnnDetector

    identity = identify(as_image(astronaut()), MtcnnDetector())[0]
    word = loaded.word(identity)
    assert (word - loaded.word(person(1))).abs().max() > 0.01
    model, _, tiny, _ = FlashFaceTinyModels.execute().args
    assert torch.equal(encode(tiny, loaded, identity), expected(tiny, word))
    negative = nodes.CLIPTextEncode().encode(tiny, "")[0]
    pictures = [
        ksampler(
            model,
            Face2DiffusionTextEncode.execute(tiny, loaded, someone, TEXT, "f l").args[0],
            negative,
            None,
            steps=2,
            cfg=3.0,
        )
        for someone in (identity, identity, person(1))
    ]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def cropped() -> Identity:
    return Identity((*person(1).references, FaceReference.from_crop(face(2))), "Anna")


WRONG = {
    "no placeholder": (dict(text="a photo"), "no placeholder 'f l'; write it where the person"),
    "part of a word": (dict(text="asks", placeholder="sks"), "no placeholder 'sks'"),
    "empty text": (dict(text=""), "no placeholder 'f l'"),
    "empty placeholder": (dict(placeholder=" "), "placeholder is empty"),
    "not aligned": (
        dict(identity=cropped()),
        "1 of the identity's 2 photos have no aligned face.*FlashFace Detector Loader",
    ),
    "group": (
        dict(identity=join_people([person(1), person(2, name="Berta")])),
        r"describes one person, .* group of 2 \(Anna, Berta\)",
    ),
    "weights": (dict(identity=person(1, weights=[0.0])), "1 photos and none with a weight above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_a_sentence(clip, loaded, case):
    given, words = WRONG[case]
    with pytest.raises(FlashFaceError, match=words):
        encode(clip, loaded, **given)


def test_no_clip_and_that_of_sdxl_are_errors(loaded):
    class SDXL:
        clip, tokenizer, params = SDXLClipModel, SDXLTokenizer, {}

    small = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 1}
    small["intermediate_size"] = 64
    options = {f"clip_{name}_model_config": small for name in "lg"}
    sdxl = comfy.sd.CLIP(SDXL, model_options=options)
    with pytest.raises(FlashFaceError, match="text models g, l, .* CLIP-L of SD1.5 alone"):
        encode(sdxl, loaded)
    with pytest.raises(FlashFaceError, match="There is no CLIP"):
        encode(None, loaded)
