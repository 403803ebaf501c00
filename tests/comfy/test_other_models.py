"""Merged and community MODELs, and graphs that do not fit together."""

import json
from dataclasses import replace

import comfy.model_management
import pytest
import torch
from comfy_extras.nodes_model_merging import NODE_CLASS_MAPPINGS as MERGE_NODES
from comfy_extras.nodes_model_merging import ModelAdd, ModelMergeSimple, ModelSubtract
from flashface_pack.flashface_core.comfy_adapter.flashface.tiny import load_tiny_clip
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.apply import FlashFaceApply
from flashface_pack.nodes.features import FlashFaceEncode
from flashface_pack.nodes.identity import FlashFaceIdentity
from safetensors.torch import load_file, save_file
from support.core_nodes import tensors_listed_once
from support.harness import Guidance, apply_features, load_flashface, relative_error
from support.models import (
    WIDE,
    community_model,
    flux_model,
    random_vae,
    sdxl_model,
    wider_model,
)
from support.photos import photos
from support.sampling import (
    Counter,
    basic,
    classic,
    face_step,
    guided,
    ksampler,
    noise,
    noisy,
)
from support.tools import ROOT

import nodes

GUIDANCE = Guidance()
LATE = 501
# A merge has the GroupNorms of its first MODEL, whose epsilon is core's or FlashFace's.
EQUAL = 1e-4


@pytest.fixture(scope="module")
def sizes():
    return WIDE


@pytest.fixture(scope="module")
def community(flashface):
    return community_model(flashface.model, seed=31)


def attention_runs(flashface, model) -> int:
    """How often RA of the last site runs in one call of the UNet."""
    with Counter(flashface.net.network.attention_at(flashface.net.network.sites[-1])) as runs:
        guided(basic(model, flashface.positive), noisy(model, noise(7), LATE), LATE)
    return runs.count


def sample(flashface, model):
    return ksampler(model, flashface.positive, flashface.negative)


def merged(first, second, ratio=0.7):
    with tensors_listed_once(first):
        return ModelMergeSimple().merge(first, second, ratio)[0]


def test_a_merge_with_flashface_first_keeps_the_reference_attention(flashface, community):
    model = merged(flashface.model, community)
    assert attention_runs(flashface, model) == 1
    drawn = sample(flashface, model)
    assert not torch.equal(drawn, sample(flashface, flashface.model))


def test_a_merge_with_flashface_second_is_a_plain_model(flashface, community):
    model = merged(community, flashface.model)
    assert attention_runs(flashface, model) == 0
    assert not torch.equal(sample(flashface, model), sample(flashface, community))


@pytest.mark.parametrize("order", ["first", "second"])
def test_apply_works_on_a_merge_of_either_order(flashface, community, order):
    pair = (flashface.model, community) if order == "first" else (community, flashface.model)
    model = merged(*pair)
    features = flashface.features()
    # Apply installs reference attention where it is missing.
    patched = apply_features(model, features, GUIDANCE)
    assert attention_runs(flashface, patched) == 1
    with_attention = merged(flashface.model, community, 0.7 if order == "first" else 0.3)
    graph = replace(flashface, model=with_attention)
    x = noisy(model, noise(7), LATE)
    expected = face_step(graph, classic, features, GUIDANCE, x, LATE)
    got = guided(classic(patched, flashface.positive, flashface.negative), x, LATE)
    assert relative_error(got, expected) <= EQUAL


def test_merging_after_apply_keeps_the_face(flashface, community):
    features = flashface.features()
    after = merged(apply_features(flashface.model, features, GUIDANCE), community)
    before = apply_features(merged(flashface.model, community), features, GUIDANCE)
    assert torch.equal(sample(flashface, after), sample(flashface, before))


def test_model_subtract_runs_with_flashface_first(flashface, community):
    (model,) = ModelSubtract().merge(flashface.model, community, 0.1)
    assert attention_runs(flashface, model) == 1
    assert torch.isfinite(sample(flashface, model)).all()


@pytest.fixture(scope="module")
def sd15(flashface):
    """What FlashFace was fine-tuned from, for these tests: something in its neighbourhood."""
    model = community_model(flashface.model, seed=35)
    return merged(model, flashface.model, 0.1)


def on_base(flashface, sd15, base, first=True):
    """base + FlashFace - SD1.5 with core's nodes, FlashFace first or last."""
    with tensors_listed_once(flashface.model):
        (difference,) = ModelSubtract().merge(flashface.model, sd15, 1.0)
    pair = (difference, base) if first else (base, difference)
    with tensors_listed_once(pair[0]):
        return ModelAdd().merge(*pair)[0]


def weights_of(model) -> dict:
    comfy.model_management.load_models_gpu([model])
    unet = model.model.diffusion_model.state_dict()
    return {key: value.clone() for key, value in unet.items()}


@pytest.mark.parametrize("first", [True, False], ids=["FlashFace first", "FlashFace last"])
def test_the_merge_graph_gives_base_plus_flashface_minus_sd15(flashface, sd15, community, first):
    merged = on_base(flashface, sd15, community, first)
    got = weights_of(merged)
    parts = [weights_of(model) for model in (community, flashface.model, sd15)]
    for key, value in got.items():
        base, fine_tuned, original = (part[key] for part in parts)
        torch.testing.assert_close(value, base + fine_tuned - original, rtol=1e-4, atol=1e-5)
    assert relative_error(got["out.2.weight"], parts[0]["out.2.weight"]) > 1e-2
    assert attention_runs(flashface, merged) == first


def test_after_apply_the_order_of_the_merge_graph_does_not_matter(flashface, sd15, community):
    features = flashface.features()
    drawn = {}
    for first in (True, False):
        merged = on_base(flashface, sd15, community, first)
        model = apply_features(merged, features, GUIDANCE)
        assert attention_runs(flashface, model) == 1
        drawn[first] = sample(flashface, model)
    assert torch.isfinite(drawn[True]).all()
    assert relative_error(drawn[False], drawn[True]) <= EQUAL
    bare = sample(flashface, on_base(flashface, sd15, community))
    assert relative_error(drawn[True], bare) > 1e-3


def test_the_merge_graph_of_the_documentation_runs(flashface, sd15, community):
    text = (ROOT / "docs" / "OTHER_MODELS.md").read_text()
    graph = json.loads(text.split("```json")[1].split("```")[0])
    graph["12"]["inputs"] |= {"width": 64, "height": 64}
    graph["13"]["inputs"]["steps"] = 2
    clip, vae = load_tiny_clip(), random_vae(4)
    files = {
        "1": (flashface.model, flashface.net),
        "2": (sd15, clip, vae),
        "3": (community, clip, vae),
        "6": (photos(1), None),
    }
    outputs = run_graph(graph, files, until="14")
    features = outputs["10"][0]
    expected = apply_features(on_base(flashface, sd15, community), features, GUIDANCE)
    positive, negative = (outputs[node][0] for node in ("8", "9"))
    settings = dict(latent=outputs["12"][0], seed=1, steps=2, cfg=7.5)
    got = outputs["13"][0]["samples"]
    drawn = ksampler(expected, positive, negative, **settings)
    assert relative_error(got, drawn) <= 1e-5  # ddim is euler
    assert outputs["14"][0].shape == (1, 64, 64, 3)


def run_graph(graph: dict, given: dict, until: str) -> dict:
    """Outputs of the nodes of an API-format graph, in the order in which it is written."""
    classes = {**nodes.NODE_CLASS_MAPPINGS, **MERGE_NODES}
    ours = (FlashFaceIdentity, FlashFaceEncode, FlashFaceApply)
    classes |= {cls.__name__: cls for cls in ours}
    outputs = dict(given)
    for key, node in graph.items():
        if key in outputs:
            continue
        inputs = {
            name: outputs[value[0]][value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        cls = classes[node["class_type"]]
        if hasattr(cls, "define_schema"):
            outputs[key] = cls.execute(**inputs).args
        else:
            outputs[key] = getattr(cls(), cls.FUNCTION)(**inputs)
        if key == until:
            break
    return outputs


def test_a_community_model_draws_with_the_face_and_with_attention_on_the_picture(
    flashface, community
):
    features = flashface.features()
    model = apply_features(community, features, GUIDANCE)
    assert attention_runs(flashface, community) == 0
    assert attention_runs(flashface, model) == 1
    drawn = sample(flashface, model)
    assert torch.isfinite(drawn).all()
    assert relative_error(drawn, sample(flashface, community)) > 1e-3
    others = apply_features(community, flashface.features(seed=200), GUIDANCE)
    assert relative_error(drawn, sample(flashface, others)) > 1e-4
    # Without any strength RA on the picture itself stays: Apply has installed it.
    weightless = apply_features(community, flashface.features(2, weights=[0.0, 0.0]), GUIDANCE)
    assert attention_runs(flashface, weightless) == 1


def test_a_second_load_of_the_same_file_replaces_the_first_ones_attention(flashface, fresh):
    """Core runs the loader again after a change; its other output may come from before."""
    features = fresh.features()
    mixed = apply_features(flashface.model, features, GUIDANCE)
    expected = sample(fresh, apply_features(fresh.model, features, GUIDANCE))
    assert torch.equal(sample(flashface, mixed), expected)
    assert attention_runs(flashface, mixed) == 0 and attention_runs(fresh, mixed) == 1


def test_there_is_one_set_of_attention_patches_however_often_networks_come(flashface, fresh):
    def patches(model):
        lists = model.model_options["transformer_options"]["patches"]
        return {name: len(lists[name]) for name in ("attn1_patch", "middle_patch")}

    for features in (flashface.features(), fresh.features()):
        model = apply_features(flashface.model, features, GUIDANCE)
        assert patches(model) == patches(flashface.model)


def test_features_of_another_checkpoint_are_refused(flashface, checkpoint, tmp_path):
    tensors = {
        key: tensor + 0.01 if "self_attn_first.q" in key else tensor
        for key, tensor in load_file(checkpoint).items()
    }
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    other = replace(flashface, net=load_flashface(path, "fp32")[1])
    with pytest.raises(FlashFaceError) as error:
        apply_features(flashface.model, other.features(), GUIDANCE)
    assert "small.safetensors" in str(error.value) and "other.safetensors" in str(error.value)


def test_applying_twice_names_the_node_that_joins_people(flashface):
    model = apply_features(flashface.model, flashface.features(), GUIDANCE)
    with pytest.raises(FlashFaceError, match="FlashFace Identity Group"):
        FlashFaceApply.execute(model, flashface.features())
    with pytest.raises(FlashFaceError, match="FlashFace Identity Group"):
        FlashFaceApply.execute(model.clone(), flashface.features())


@pytest.mark.parametrize(
    ("make", "found"), [(sdxl_model, "SDXL, context width 2048"), (flux_model, "Flux, no UNet")]
)
def test_a_model_of_another_family_is_refused(flashface, make, found):
    with pytest.raises(FlashFaceError, match=found) as error:
        FlashFaceApply.execute(make(), flashface.features())
    assert "small.safetensors, context width 768" in str(error.value)


def test_a_model_of_another_width_is_refused(flashface):
    with pytest.raises(FlashFaceError, match="256 channels at block middle 0"):
        apply_features(wider_model(flashface.model), flashface.features(), GUIDANCE)
