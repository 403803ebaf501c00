"""Face2Diffusion of other sizes, as the pack ships it: crops without a detector, expressions of
photos, and beside FlashFace. Values are made by rule, so effects need not look like anything."""

import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.face2diffusion import (
    Face2Diffusion,
    Networks,
    load_face2diffusion,
)
from flashface_pack.flashface_core.comfy_adapter.flashface.apply import apply_features
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.face2diffusion.mapping import MappingNetwork
from flashface_pack.flashface_core.faces.crop import pad_to_square
from flashface_pack.flashface_core.flashface.guidance import Guidance
from flashface_pack.flashface_core.people.identity import join_people
from flashface_pack.flashface_core.tiny_text import MIXTURE, WIDTH, embeddings
from flashface_pack.nodes.face2diffusion import Face2DiffusionTextEncode
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.face2diffusion import IDENTITY, write_small
from support.harness import relative_error
from support.photos import identity, photos, placed
from support.sampling import ksampler
from torch.nn.functional import layer_norm

import nodes

TEXT = "a portrait of f l, smiling"
AT = 4  # of "f", start token included
OFF = dict(feature_strength=0.0, face_guidance=0.0, early_strength=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("face2diffusion")


@pytest.fixture(scope="module")
def loaded(folder):
    return load_face2diffusion(*write_small(folder))


@pytest.fixture(scope="module")
def tiny():
    """MODEL, REFERENCE_NET, CLIP, VAE"""
    with torch.inference_mode():
        return FlashFaceTinyModels.execute().args


def person(seed: int = 0, count: int = 1, weight: float = 1.0):
    """Crops of noise, found by nobody."""
    return identity(photos(count, seed), weight)


def encode(tiny, loaded, who=None, expression=None, text=TEXT):
    """CONDITIONING"""
    given = (tiny[2], loaded, who or person(), text, "f l")
    return Face2DiffusionTextEncode.execute(*given, expression).args[0]


def changed(tiny, loaded, **given) -> bool:
    one, other = (c[0][0] for c in (encode(tiny, loaded), encode(tiny, loaded, **given)))
    return not torch.equal(one, other)


def test_crops_are_enough_for_an_encoder_that_was_trained_on_them(tiny, loaded):
    networks, who = loaded.patcher.model, person()
    square = pad_to_square(who.references[0].crop, IDENTITY.size)
    loaded.word(who)  # puts the networks where they compute
    vector = networks.encoder(network_input(square[None]).to(loaded.patcher.load_device))
    assert torch.equal(loaded.word(who), networks.mapping(vector)[0].cpu())
    without = nodes.CLIPTextEncode().encode(tiny[2], TEXT)[0][0][0]
    differ = (encode(tiny, loaded)[0][0] != without).any(dim=-1)[0].nonzero().flatten().tolist()
    assert differ == list(range(AT, 77))  # what follows attends to the word
    assert changed(tiny, loaded, who=person(1))


def test_the_expression_of_a_photo_is_that_of_the_expression_network(tiny, loaded):
    networks, other = loaded.patcher.model, person(5)
    square = pad_to_square(other.references[0].crop, networks.expression.topology.size)
    expected = networks.expression(network_input(square[None]).to(loaded.patcher.load_device))
    vector = loaded.expression(other)
    assert torch.equal(vector, expected.cpu())
    word = loaded.word(person(), vector)
    ids = [token for token, _ in tiny[2].tokenize(TEXT)["l"][0][: AT + 2]]
    tokens, places = (rows.half().float() for rows in embeddings())  # as core keeps them
    states = tokens[torch.tensor(ids)] + places[: len(ids)]
    states[AT:] = word
    seen = layer_norm(states, (WIDTH,)).cumsum(0) / torch.arange(1, len(ids) + 1)[:, None]
    alone = layer_norm(states + MIXTURE * seen, (WIDTH,))  # all this text model does
    got = encode(tiny, loaded, expression=other)[0][0][0, : AT + 2]
    assert torch.allclose(got, alone, atol=1e-4)
    assert changed(tiny, loaded, expression=other) and changed(tiny, loaded, expression=person())
    assert not torch.equal(word, loaded.word(person(), loaded.expression(person(6))))


def test_several_photos_of_an_expression_are_their_weighted_mean(loaded):
    one, other = person(1), person(2)
    both = identity(photos(1, 2), 3.0, append_to=one)
    expected = (loaded.expression(one) + 3 * loaded.expression(other)) / 4
    assert torch.allclose(loaded.expression(both), expected, atol=1e-5)
    without = identity(photos(1, 2), 0.0, append_to=one)
    assert torch.equal(loaded.expression(without), loaded.expression(one))


def test_without_an_expression_the_learned_vector_stands_in(tiny, loaded):
    networks = loaded.patcher.model
    learned = networks.mapping.null_exp[None].clone()
    assert torch.equal(loaded.word(person()), loaded.word(person(), learned))
    mapping = MappingNetwork(IDENTITY.vector_width, learned.shape[-1], 32, 768)
    mapping.load_state_dict(networks.mapping.state_dict() | {"null_exp": learned[0] + 1})
    moved = Face2Diffusion(Networks(networks.encoder, mapping, networks.expression))
    vector = loaded.expression(person(5))
    assert not torch.equal(moved.word(person()), loaded.word(person()))
    assert torch.equal(moved.word(person(), vector), loaded.word(person(), vector))


def test_an_expression_that_nothing_can_read_is_told_in_a_sentence(tiny, loaded, tmp_path):
    plain = load_face2diffusion(*write_small(tmp_path, expression=False))
    encode(tiny, plain)
    with pytest.raises(FlashFaceError, match="came without an expression network.* disconnect"):
        encode(tiny, plain, expression=person(5))
    group = join_people([person(1), person(2)])
    with pytest.raises(FlashFaceError, match="takes one person's expression, and was given a gr"):
        encode(tiny, loaded, expression=group)
    with pytest.raises(FlashFaceError, match="expression network needs one at least"):
        encode(tiny, loaded, expression=person(5, weight=0.0))


def test_networks_that_were_not_trained_together_are_errors(loaded, folder, tmp_path):
    mapping, encoder = write_small(tmp_path, told=9)
    words = "expression vectors of 9 values, expected the 16 of msid_small.safetensors"
    with pytest.raises(FlashFaceError, match=words):
        load_face2diffusion(mapping, encoder)
    load_face2diffusion(mapping, write_small(tmp_path, expression=False, told=9)[1])


@pytest.fixture(scope="module")
def flashface(tiny):
    """MODEL with a person whose photos are noise, for a guidance and a seed of the photos."""
    model, net, clip, vae = tiny
    negative = nodes.CLIPTextEncode().encode(clip, "")[0]

    def patched(seed: int = 0, **guidance):
        features = net.encode(placed(person(seed, count=4)), vae, negative)
        return apply_features(model, features, Guidance(launch_timestep=1000, **guidance))

    def sample(model, positive):
        return ksampler(model, positive, negative, cfg=3.0)

    return patched, sample


def test_flashface_of_strength_0_leaves_the_word_alone_exactly(tiny, loaded, flashface):
    patched, sample = flashface
    word = encode(tiny, loaded)
    alone = sample(tiny[0], word)
    assert torch.equal(sample(patched(**OFF), word), alone)
    assert not torch.equal(sample(tiny[0], encode(tiny, loaded, person(1))), alone)


def test_word_and_reference_attention_both_count_in_one_graph(tiny, loaded, flashface):
    patched, sample = flashface
    both = sample(patched(), encode(tiny, loaded))
    assert both.isfinite().all()
    assert torch.equal(sample(patched(), encode(tiny, loaded)), both)
    assert not torch.equal(sample(tiny[0], encode(tiny, loaded)), both)
    assert not torch.equal(sample(patched(1), encode(tiny, loaded)), both)
    assert not torch.equal(sample(patched(), encode(tiny, loaded, person(1))), both)
    smiling = encode(tiny, loaded, expression=person(5))
    assert not torch.equal(sample(patched(), smiling), both)


def test_a_word_that_says_what_the_prompt_says_leaves_flashface_alone(tiny, loaded, flashface):
    """S* equal to the embeddings of its own placeholder, whoever the person is."""
    patched, sample = flashface
    text_model = tiny[2].cond_stage_model.clip_l.transformer.text_model.embeddings
    tokens = text_model.token_embedding.weight.float().cpu()
    places = text_model.position_embedding.weight.float().cpu()
    networks = loaded.patcher.model
    state = networks.mapping.state_dict()
    for k, (token, name) in enumerate(((325, "i2t_first"), (331, "i2t_last"))):
        state[f"{name}.fc_out.weight"] = torch.zeros_like(state[f"{name}.fc_out.weight"])
        state[f"{name}.fc_out.bias"] = tokens[token] + places[AT + k]
    mapping = MappingNetwork(IDENTITY.vector_width, networks.mapping.expression_width, 32, 768)
    mapping.load_state_dict(state)
    same = Face2Diffusion(Networks(networks.encoder, mapping))
    plain = nodes.CLIPTextEncode().encode(tiny[2], TEXT)[0]
    word = encode(tiny, same)
    assert torch.allclose(word[0][0], plain[0][0], atol=1e-5)
    assert relative_error(sample(patched(), word), sample(patched(), plain)) <= 1e-4


def test_half_precision_files_give_nearly_the_same_word(tiny, loaded, folder, tmp_path):
    halves = []
    for path in write_small(folder):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        pairs = load_file(path).items()
        half = {key: v.half() if v.is_floating_point() else v for key, v in pairs}
        halves.append(tmp_path / path.name)
        save_file(half, halves[-1], metadata)
    halved = load_face2diffusion(*halves)
    got, expected, other = (
        encode(tiny, *given, expression=person(5))[0][0]
        for given in ((halved,), (loaded,), (loaded, person(1)))
    )
    assert got.isfinite().all()
    at = slice(AT, AT + 2)
    error = relative_error(got[:, at], expected[:, at])
    assert 0 < error < 2e-2 and error < relative_error(other[:, at], expected[:, at]) / 2
