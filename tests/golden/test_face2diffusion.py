"""Face2Diffusion equal to its official modules, through the loaders and ComfyUI's own CLIP."""

import comfy.sd1_clip
import pytest
import torch
from flashface_pack.flashface_core.face2diffusion.denoising import (
    class_guided_target,
)
from flashface_pack.flashface_core.face2diffusion.encoder import network_input
from flashface_pack.flashface_core.face2diffusion.files import build_encoder, build_mapping
from flashface_pack.flashface_core.face2diffusion.word import (
    TOKENS,
    inject,
    placeholder_positions,
    word_tokens,
)
from flashface_pack.flashface_core.faces.align import (
    ARCFACE_POINTS,
    align_face,
    similarity_transform,
)
from safetensors.torch import load_file
from support.face2diffusion import published_shapes, rule_state
from support.golden import ROOT, golden_files
from torch.nn.functional import mse_loss

VECTOR, CLASS_TOKEN, TEXT, MATRIX, PIXELS, LOSS = 2e-5, 1e-4, 5e-5, 1e-4, 2, 1e-6
FILES = golden_files("face2diffusion")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@torch.inference_mode()
def test_golden_file(file, networks):
    kind = file.metadata.get("kind")
    assert kind in KINDS, f"{file.name} is of unknown kind {kind!r}; known: {', '.join(KINDS)}"
    check = Comparison(file.name)
    KINDS[kind](file.tensors(), file.metadata.get("salt", ""), networks, check)
    assert check.compared, f"nothing of {file.name} was compared"


def test_there_are_golden_files():
    assert FILES, "no golden file was found, so nothing was compared"


class Comparison:
    """Limits on the worst absolute error; pytest -rP shows what was measured."""

    def __init__(self, name: str) -> None:
        self.name, self.compared = name, 0

    def __call__(self, what: str, got: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
        assert got.shape == expected.shape
        error = float((got.double() - expected.double()).abs().max())
        print(f"{self.name} {what}: worst error {error:.1e}")
        assert error <= limit, f"{self.name} {what}: error {error:.2e} above {limit:.0e}"
        self.compared += 1


class RuleNetworks:
    """Networks with values made by rule, kept for the files that share a salt."""

    def __init__(self) -> None:
        self._made = {}

    def __call__(self, name: str, salt: str):
        if (name, salt) not in self._made:
            make = {"msid": build_encoder, "mapping": build_mapping}.get(name)
            self._made[name, salt] = (
                make(name, rule_state(published_shapes(name), salt)) if make else text_model(salt)
            )
        return self._made[name, salt]


@pytest.fixture(scope="module")
def networks():
    return RuleNetworks()


def text_model(salt: str) -> comfy.sd1_clip.SDClipModel:
    """Core's CLIP-L with two layers. The rule is given the names of the published text models."""
    config = {
        "num_hidden_layers": 2,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "quick_gelu",
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }
    model = comfy.sd1_clip.SDClipModel(textmodel_json_config=config, dtype=torch.float32)
    shapes = {
        key: tuple(value.shape)
        for key, value in model.transformer.state_dict().items()
        if key.startswith("text_model.")
    }
    missing, unexpected = model.transformer.load_state_dict(rule_state(shapes, salt), strict=False)
    assert set(missing) == {"text_projection.weight"} and not unexpected
    return model


def align(data, salt, networks, check):
    matrix = similarity_transform(data["landmarks5"].numpy(), ARCFACE_POINTS)
    check("M", torch.from_numpy(matrix), data["M"], MATRIX)
    warped = align_face(data["frame_u8"], data["landmarks5"].numpy())
    error = (warped.float() - data["warped_u8"].float()).abs().mean()
    check("warped, mean", error, torch.zeros(()), PIXELS)


def msid(data, salt, networks, check):
    encoder, faces = networks("msid", salt), network_input(data["image_u8"])
    check("cls_raw", encoder.class_tokens(faces), data["cls_raw"], CLASS_TOKEN)
    check("idvec", encoder(faces), data["idvec"], VECTOR)


def mapping(data, salt, networks, check):
    network = networks("mapping", salt)
    expression, mask = data["exp"], data["mask"]
    for case, guidance in (("null", ()), ("exp", (expression,)), ("mask", (expression, mask))):
        word = network(data["idvec"], *guidance)
        check(f"{case}_first", word[:, 0], data[f"{case}_first"], VECTOR)
        check(f"{case}_last", word[:, 1], data[f"{case}_last"], VECTOR)


def text(data, salt, networks, check):
    """By embeddings, and by tensors among core's token ids, as a node hands them over."""
    model = networks("text", salt)
    embeddings = model.transformer.text_model.embeddings
    places = embeddings.position_embedding.weight
    word = torch.stack([data["s_first"], data["s_last"]], dim=1)
    for key in (key for key in data if key.startswith("ids_")):
        ids, expected = data[key], data[key.replace("ids", "injected")]
        position = placeholder_positions(ids[0].tolist())[0]
        assert position == data[key.replace("ids", "pos")].item()
        embedded = inject(embeddings.token_embedding(ids, torch.float32), word, places, position)
        got = model.transformer(ids, embeds=embedded, num_tokens=[77])[0]
        check(f"{key} embeddings", got, expected, TEXT)
        tokens = ids[0].tolist()
        tokens[position : position + TOKENS] = word_tokens(word[0], places, position)
        check(f"{key} tokens", model([tokens])[0], expected, TEXT)


def cgdr(data, salt, networks, check):
    parts = data["eps"], data["class_pred"], data["mask"]
    check("target", class_guided_target(*parts), data["target"], LOSS)
    loss = mse_loss(data["pred"], class_guided_target(*parts))
    expected = data["loss"][0]
    check("loss, relative", loss / expected, torch.ones(()), LOSS)


KINDS = {"align": align, "msid": msid, "mapping": mapping, "text": text, "cgdr": cgdr}


@torch.inference_mode()
def test_from_a_face_to_its_word(networks):
    faces = load_file(ROOT / "face2diffusion" / "msid.safetensors")["image_u8"]
    expected = load_file(ROOT / "face2diffusion" / "text.safetensors")
    word = networks("mapping", "")(networks("msid", "")(network_input(faces[:1])))
    assert (word[:, 0] - expected["s_first"]).abs().max() <= VECTOR
    assert (word[:, 1] - expected["s_last"]).abs().max() <= VECTOR


@torch.inference_mode()
def test_a_position_embedding_added_twice_is_caught(networks):
    data, model = load_file(ROOT / "face2diffusion" / "text.safetensors"), networks("text", "")
    tokens, position = data["ids_1"][0].tolist(), data["pos_1"].item()
    tokens[position : position + TOKENS] = [data["s_first"][0], data["s_last"][0]]
    assert (model([tokens])[0] - data["injected_1"]).abs().max() > 0.1


@pytest.mark.parametrize("part", ["norm.weight", "norms.layer_5.0.running_mean", "blocks.9.mlp"])
@torch.inference_mode()
def test_only_the_final_norm_does_not_count(networks, part):
    data = load_file(ROOT / "face2diffusion" / "msid.safetensors")
    state = {
        key: value + 0.1 if key.startswith(part) else value
        for key, value in networks("msid", "").state_dict().items()
    }
    changed = build_encoder("changed", state)(network_input(data["image_u8"]))
    error = (changed - data["idvec"]).abs().max()
    assert error <= VECTOR if part == "norm.weight" else error > 100 * VECTOR
