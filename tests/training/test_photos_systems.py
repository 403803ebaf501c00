"""Face2Diffusion, FaceStudio and Face Fusion on prepared photographs, by the commands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.face2diffusion import EXPRESSION, IDENTITY, write_published, write_small
from support.facestudio import STYLE, write_facestudio
from support.tools import ROOT

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")
pytest.importorskip("webdataset", reason="preparing photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

from PIL import Image

from flashface_core.comfy_adapter.face2diffusion import load_face2diffusion
from flashface_core.comfy_adapter.face_fusion.photos import load_face_fusion
from flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_core.errors import FlashFaceError
from flashface_core.face2diffusion.encoder import network_input
from flashface_core.face2diffusion.files import load_encoder
from flashface_core.faces.align import align_face
from flashface_core.faces.detect import MtcnnDetector
from training import train
from training.clip import load_text_encoder
from training.face2diffusion import EXPRESSION_SEEN, FACE
from training.facestudio import FACE as UNIT_FACE
from training.facestudio import STYLE as STYLE_SEEN
from training.initial import fresh_checkpoint
from training.photos import encode, see
from training.photos.dataset import PeopleInShards
from training.systems import WEIGHTS
from training.tiny.text import ToyText


@pytest.fixture(scope="module")
def seen(data, vae, tmp_path_factory) -> Path:
    """Encoded for both systems with encoders; Face2Diffusion's are of the published sizes."""
    folder = tmp_path_factory.mktemp("systems")
    out = folder / "data"
    shutil.copytree(data, out)
    write_published(folder)
    write_small(folder)
    write_facestudio(folder / "studio.safetensors")
    look(out, vae, "face2diffusion", "--face-encoder", folder / "msid.safetensors")
    look(out, vae, "facestudio", *studio(folder))
    return out


def studio(folder: Path) -> list:
    face = folder / "msid_small.safetensors"
    return ["--clip-vision", folder / "studio.safetensors", "--face-encoder", face]


def look(out: Path, vae: Path, system: str, *more) -> None:
    encode.main([str(out), "--vae", str(vae), "--cpu", "--system", system, *map(str, more)])


def test_the_encoders_see_the_aligned_face_of_the_photograph(seen, source):
    photo = torch.from_numpy(np.array(Image.open(source / "anna" / "b.png").convert("RGB")))
    (face,) = MtcnnDetector().find(photo)
    encoder = load_encoder(seen.parent / "msid.safetensors")
    expected = encoder(network_input(align_face(photo, face.points)[None]))[0]
    got = PeopleInShards(seen, "face2diffusion").picture(0, 1).seen
    assert set(got) == {FACE} and got[FACE].shape == (1536,)
    # The stored picture is a JPEG of a quarter of the size.
    assert torch.cosine_similarity(got[FACE].float(), expected, 0) > 0.9
    other = PeopleInShards(seen, "face2diffusion").picture(1, 1).seen[FACE]
    assert not torch.equal(other, got[FACE])
    assert PeopleInShards(seen).picture(0, 1).seen == {}


def test_expressions_are_seen_where_the_file_has_a_network_for_them(data, vae, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(data, out)
    _, encoder = write_small(tmp_path)
    look(out, vae, "face2diffusion", "--face-encoder", encoder)
    got = PeopleInShards(out, "face2diffusion").picture(0, 0).seen
    widths = {name: len(value) for name, value in got.items()}
    expected = {FACE: IDENTITY.vector_width, EXPRESSION_SEEN: EXPRESSION.vector_width}
    assert widths == expected


def test_style_is_seen_without_the_face_and_faces_have_unit_length(seen):
    got = PeopleInShards(seen, "facestudio").picture(1, 0).seen
    assert {name: len(value) for name, value in got.items()} == {
        UNIT_FACE: IDENTITY.vector_width,
        STYLE_SEEN: STYLE,
    }
    assert got[UNIT_FACE].float().norm() == pytest.approx(1, abs=1e-3)


def test_other_encoders_are_an_error_and_a_killed_run_goes_on(seen, vae, tmp_path):
    out = tmp_path / "data"
    shutil.copytree(seen, out)
    whole = {path.name: path.read_bytes() for path in out.glob("seen-*")}
    last = out / "seen-face2diffusion-00002.safetensors"
    last.unlink()
    with pytest.raises(FlashFaceError, match="lacks what the encoders of face2diffusion see"):
        PeopleInShards(out, "face2diffusion")
    look(out, vae, "face2diffusion", "--face-encoder", seen.parent / "msid.safetensors")
    assert {path.name: path.read_bytes() for path in out.glob("seen-*")} == whole
    with pytest.raises(SystemExit, match="was made by other encoders; delete its seen-face2diff"):
        small = seen.parent / "msid_small.safetensors"
        look(out, vae, "face2diffusion", "--face-encoder", small)


def test_encoders_of_an_earlier_look_do_not_go_into_the_trained_file(tmp_path):
    msid = ({"face_encoder.x": torch.ones(2)}, {"face_encoder.num_heads": "12"})
    see.begin(tmp_path, "facestudio", see.Encoders(lambda _: {}, {"face": "an MSID"}, msid))
    assert train.load_encoders_to_keep(tmp_path, "facestudio")[0]
    see.begin(tmp_path, "facestudio", see.Encoders(lambda _: {}, {"face": "ArcFace"}, ({}, {})))
    assert train.load_encoders_to_keep(tmp_path, "facestudio") == ({}, {})


@pytest.mark.parametrize(
    ("system", "sentence"),
    [
        ("face2diffusion", "face encoder is missing; give msid.pt, .* with --face-encoder"),
        ("facestudio", "style encoder is missing; give one or more CLIP vision models with"),
    ],
)
def test_missing_encoders_are_one_sentence(data, vae, system, sentence):
    with pytest.raises(SystemExit, match=sentence):
        look(data, vae, system)


def test_facestudio_without_a_face_encoder_is_one_sentence(seen, vae):
    with pytest.raises(SystemExit, match="face encoder is missing; give an InsightFace model pack"):
        look(seen, vae, "facestudio", "--clip-vision", seen.parent / "studio.safetensors")


def arguments(data, checkpoint, clip, out, system, *more) -> list[str]:
    options = ["--data", data, "--checkpoint", checkpoint, "--clip", clip, "--out", out]
    recipe = "--steps 2 --groups 2 --log-every 1 --warmup-steps 1 --gradient-checkpointing"
    return [*map(str, options), "--system", system, *recipe.split(), *map(str, more)]


@pytest.fixture(scope="module")
def sd15(clip, tmp_path_factory) -> Path:
    """A whole checkpoint in SD1.5's layout, with a small UNet."""
    path = tmp_path_factory.mktemp("sd15") / "sd15.safetensors"
    unet = fresh_checkpoint("unet", width=64, heads=8).target
    save_file({f"model.diffusion_model.{key}": v.contiguous() for key, v in unet.items()}, path)
    return path


@pytest.mark.parametrize("start", ["sd15", "weights"])
@pytest.mark.parametrize("system", ["face2diffusion", "facestudio", "face_fusion"])
def test_two_steps_give_a_file_that_the_nodes_load(request, seen, clip, tmp_path, system, start):
    checkpoint = request.getfixturevalue(start)
    train.main(arguments(seen, checkpoint, clip, tmp_path, system, "--held-out", 1))
    held_out = (tmp_path / "held_out.csv").read_text().split()
    assert len(held_out) == 2 and held_out[1].startswith("2,")
    path = tmp_path / WEIGHTS[system]
    assert path.is_file() and len((tmp_path / "losses.csv").read_text().split()) == 3
    assert json.loads((tmp_path / "recipe.json").read_text())["system"] == system
    if system == "face2diffusion":
        load_face2diffusion(path, seen.parent / "msid.safetensors")
    elif system == "facestudio":
        facestudio = load_facestudio(path)
        assert facestudio.tokens == 4 and len(facestudio.unet) > 100
        kept = load_file(path)
        assert any(key.startswith("style_encoder.") for key in kept)
        assert any(key.startswith("face_encoder.") for key in kept)
        assert not any("expression" in key for key in kept)
    else:
        load_face_fusion(path)


@pytest.mark.parametrize("system", ["face2diffusion", "facestudio", "face_fusion"])
def test_the_next_stage_goes_on_from_what_was_trained(seen, weights, clip, tmp_path, system):
    """With no learning rate it ends where it began."""
    first, second = tmp_path / "first", tmp_path / "second"
    train.main(arguments(seen, weights, clip, first, system, "--learning-rate", 1e-3))
    more = ("--go-on-from", first / WEIGHTS[system], "--learning-rate", 0, "--seed", 5)
    train.main(arguments(seen, weights, clip, second, system, *more))
    one, two = (load_file(folder / WEIGHTS[system]) for folder in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_what_does_not_fit_is_no_start_of_a_stage(seen, weights, clip, tmp_path):
    small = seen.parent / "mapping_small.safetensors"
    given = arguments(seen, weights, clip, tmp_path, "face2diffusion", "--go-on-from", small)
    with pytest.raises(SystemExit, match="mapping_small.safetensors does not fit the networks of"):
        train.main(given)
    given = arguments(seen, weights, clip, tmp_path, "face_fusion", "--go-on-from", small)
    with pytest.raises(SystemExit, match="is not a Face Fusion file"):
        train.main(given)
    given = arguments(seen, weights, clip, tmp_path, "flashface", "--go-on-from", small)
    with pytest.raises(SystemExit, match="FlashFace goes on from --checkpoint"):
        train.main(given)


def test_a_recipe_of_another_system_is_one_sentence(seen, weights, clip, tmp_path):
    recipe = ROOT / "training" / "recipes" / "facestudio-fine.json"
    given = arguments(seen, weights, clip, tmp_path, "face_fusion", "--recipe", recipe)
    with pytest.raises(SystemExit, match="is a recipe of facestudio, and --system is face_fusion"):
        train.main(given)


def test_systems_with_encoders_need_prepared_photographs(source, weights, clip, tmp_path):
    given = arguments(source, weights, clip, tmp_path, "facestudio")
    with pytest.raises(SystemExit, match="prepare it, and encode it with --system facestudio"):
        train.main(given)


def test_sd15s_unet_is_as_it_is_for_the_other_systems(sd15):
    from training.face_fusion import FaceFusionNetworks

    networks = FaceFusionNetworks(train.load_start(sd15, "face_fusion"))
    assert networks.patches == {}
    state = load_file(sd15)
    for key, value in networks.unet.state_dict().items():
        assert torch.equal(value, state[f"model.diffusion_model.{key}"])
    norms = [m for m in networks.unet.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {1e-5, 1e-6}  # as core has them; FlashFace has one


def test_a_word_goes_through_clip_with_its_gradient(clip):
    word = torch.randn(3, 2, 768, generator=torch.Generator().manual_seed(0), requires_grad=True)
    got = load_text_encoder(clip).with_word("a photo of f l", word)
    expected = ToyText().with_word("a photo of f l", word)
    assert got.shape == (3, 77, 768)
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)
    got.square().sum().backward()
    assert word.grad is not None and all(row.any() for row in word.grad.flatten(0, 1))
