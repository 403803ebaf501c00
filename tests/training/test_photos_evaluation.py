"""A FlashFace checkpoint on photographs: what is measured, with which files, and what is not.

Networks are made by rule. Core's CLIP vision loader runs for real on a model of the published
layout that is narrower than CLIP ViT-L/14, whose 1.2 GB are in no test.
"""

import json
import logging
from pathlib import Path

import comfy.clip_vision
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.models import write_flashface

pytest.importorskip("webdataset", reason="reading photographs needs it")
pytest.importorskip("facenet_pytorch", reason="these tests find faces with MTCNN")
pytest.importorskip("skimage", reason="the photographs come with it")

from support.model_packs import make_model_pack, photograph
from support.photographs import add, astronaut, beside, cameraman, different, encoded

from flashface_core.comfy_adapter.flashface.tiny import FOLDER, VAE
from flashface_core.errors import FlashFaceError
from flashface_core.faces.crop import crop_face
from flashface_core.faces.detect import MtcnnDetector
from flashface_core.tiny_text import clip_state_dict
from training import evaluate, evaluation
from training.clip import load_clip_score, load_text_encoder
from training.identity_measures import means
from training.photos.evaluation import (
    OFFICIAL,
    PROMPTS,
    Files,
    PhotoEvaluation,
    find_sitters,
    identity_measures,
    read_faces,
    read_prompts,
)

SEED, SIZE = 3, 64
TEXTS = ["a photo of a person in a forest, smiling", "a (watercolour:1.5) portrait"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Two people, and what cannot be used."""
    folder = tmp_path_factory.mktemp("photos") / "source"
    for person, picture in (("anna", astronaut()), ("carl", cameraman())):
        for name, variant in list(different(picture).items())[:2]:
            add(folder, f"{person}/{name}.png", encoded(variant, "PNG"))
    add(folder, "anna/crowd.jpg", encoded(beside(astronaut(), astronaut())))
    add(folder, "anna/empty.jpg", b"")
    add(folder, "dora/grey.png", encoded(Image.new("L", (90, 90), 120), "PNG"))
    add(folder, "nobody.png", encoded(astronaut(), "PNG"))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """flashface, and clip_l without its projection, as it is mostly handed round."""
    folder = tmp_path_factory.mktemp("models")
    write_flashface(folder / "flashface.safetensors")
    state = {key: value.half().contiguous() for key, value in clip_state_dict().items()}
    del state["text_projection.weight"]
    save_file(state, folder / "clip_l.safetensors")
    return folder


@pytest.fixture(scope="module")
def whole_clip():
    """The published implementation: the rule's text encoder, of whose layers the first alone does
    something, and a vision model of 24 narrow layers."""
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 768, "num_hidden_layers": 1, "eos_token_id": 49407}
    text |= {"intermediate_size": 3072, "num_attention_heads": 12}
    vision = {"hidden_size": 64, "num_hidden_layers": 24, "num_attention_heads": 2}
    vision |= {"intermediate_size": 128, "patch_size": 14, "image_size": 224}
    torch.manual_seed(SEED)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision" in name and "norm" not in name:
                parameter.normal_(std=0.2)  # as initialised, all pictures are nearly alike
    whole = {k: v.half().float() for k, v in clip_state_dict().items()}
    given = {k: v for k, v in whole.items() if "layers" not in k or "layers.0." in k}
    del given["text_projection.weight"]
    assert not model.load_state_dict(given, strict=False).unexpected_keys
    return model


@pytest.fixture(scope="module")
def clip_vision(whole_clip, models) -> Path:
    path = models / "clip_vision.safetensors"
    save_file({key: value.contiguous() for key, value in whole_clip.state_dict().items()}, path)
    return path


@pytest.fixture
def narrow(whole_clip, tmp_path, monkeypatch):
    """Core takes the sizes from a file of its own; here from one with those of the model."""
    config = whole_clip.config.vision_config.to_dict()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "projection_dim": 768}))
    real = comfy.clip_vision.ClipVisionModel
    monkeypatch.setattr(comfy.clip_vision, "ClipVisionModel", lambda _: real(path))


def arguments(source: Path, models: Path, *more) -> list[str]:
    checkpoint, clip = models / "flashface.safetensors", models / "clip_l.safetensors"
    files = ("--photos", source, "--checkpoint", checkpoint, "--clip", clip, "--vae", FOLDER / VAE)
    return [str(one) for one in (*files, "--size", SIZE, "--steps", 1, *more)]


def as_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(p)).movedim(-1, 0) / 255 for p in pictures])


def test_the_command_measures_what_its_files_allow(
    source, models, clip_vision, narrow, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(evaluation, "SWEEPS", {"references": (1, 4), "face_guidance": (0,)})
    monkeypatch.setattr(evaluation, "AT_ONCE", 2)
    (tmp_path / "prompts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0] + " again"]))
    out, file = tmp_path / "out", tmp_path / "numbers" / "all.json"
    more = ("--prompts", tmp_path / "prompts.txt", "--clip-vision", clip_vision, "--sweep")
    with caplog.at_level(logging.INFO):
        evaluate.main(arguments(source, models, *more, "--out", out, "--json", file))
    numbers = json.loads(file.read_text())
    assert set(numbers) == {
        "face_found", "face_found_without", "clip_score", "clip_score_without",
        "people", "prompts", "seed", "seconds_per_picture",
    }  # fmt: skip
    assert (numbers["people"], numbers["prompts"]) == (2, 3)
    assert numbers["clip_score"] != numbers["clip_score_without"]
    said = [line for line in caplog.messages if "left out" in line]
    assert said[0].startswith("anna/crowd.jpg is left out: several faces 2.")
    assert said[1].startswith("anna/empty.jpg is left out: unreadable file UnidentifiedImageError")
    assert said[2] == "dora/grey.png is left out: no face."
    assert said[3] == "nobody.png is left out: it lies in no person's folder."
    assert said[4].startswith("similarity and identification are left out: --model-pack")
    assert len(said) == 5
    table = (out / "measures.md").read_text()
    assert said[4] in table and "| clip score |" in table and "| references | face found |" in table
    assert len((out / "measures.csv").read_text().splitlines()) == 1 + 2 + 3
    assert Image.open(out / "grid.png").size == (5 * 132, 16 + 2 * 132)
    assert {path.name for path in out.glob("*.png")} == {
        "grid.png", "sweep_references.png", "sweep_face_guidance.png"
    }  # fmt: skip


def test_the_defaults_are_the_official_ones_and_every_picture_has_its_own_noise(
    source, models, monkeypatch, caplog
):
    files = Files(models / "flashface.safetensors", models / "clip_l.safetensors", FOLDER / VAE)
    with caplog.at_level(logging.INFO):
        photos = PhotoEvaluation(source, files, SEED)
    assert (photos.settings, photos.size, photos.labels) == (OFFICIAL, 768, list(PROMPTS))
    assert (OFFICIAL.steps, OFFICIAL.cfg, OFFICIAL.scheduler) == (25, 7.5, "simple")
    assert OFFICIAL.guidance.launch_timestep == 750 and photos.compared == ["face_found"]
    assert "clip_score is left out: --clip-vision" in caplog.text
    monkeypatch.setattr(evaluation, "AT_ONCE", 1)
    monkeypatch.setattr(photos, "_prompts", ["a face"] * 2)
    photos.size, settings = SIZE, OFFICIAL._replace(steps=1)
    plain, drawn = (photos.draw(settings, references) for references in (0, None))
    assert plain.shape == drawn.shape == (4, 3, SIZE, SIZE)
    everything = [*plain, *drawn]
    for n, picture in enumerate(everything):
        assert all(not torch.equal(picture, other) for other in everything[:n])
    assert torch.equal(plain, photos.draw(settings, 0))


def test_references_are_the_packs_own_crops_at_full_resolution(source):
    detector = MtcnnDetector()
    anna, carl = find_sitters(source, detector)
    assert len(anna.crops) == len(carl.crops) == 2 and anna.embedding is None
    photo = torch.from_numpy(np.array(astronaut()))
    (face,) = detector.find(photo)
    assert torch.equal(anna.crops[0], crop_face(photo, face.box, face.eyes))


def test_mtcnn_alone_tells_whether_there_is_a_face():
    pictures = as_tensor([astronaut(), Image.new("RGB", (512, 512), (90, 110, 130))])
    found, cosines = read_faces(pictures, MtcnnDetector(), None)
    assert found.tolist() == [True, False] and cosines.shape == (2, 0)


@pytest.fixture(scope="module")
def model_pack(tmp_path_factory) -> Path:
    return make_model_pack(tmp_path_factory.mktemp("packs") / "models" / "tiny")


def test_insightface_tells_whether_they_are_the_people_of_the_folder(model_pack, models, tmp_path):
    for person in (1, 2):
        for number in range(2):
            add(tmp_path, f"{person}/{number}.png", encoded(photograph(person, number), "PNG"))
    weights = (models / "flashface.safetensors", models / "clip_l.safetensors", FOLDER / VAE)
    files = Files(*weights, model_pack=model_pack)
    photos = PhotoEvaluation(tmp_path, files, SEED, dict(a=TEXTS[0], b=TEXTS[1]), SIZE, 1)
    assert photos.compared == ["face_found", "similarity", "identification"]
    own = [photograph(person, number) for person in (1, 2) for number in (7, 8)]
    measures = photos.measure(as_tensor(own))
    assert measures["face_found"] == measures["identification"] == 1
    assert measures["similarity"] > 0.5
    swapped = photos.measure(as_tensor(own[2:] + own[:2]))
    assert swapped["identification"] == 0 and swapped["similarity"] < 0.25
    without_face = as_tensor([*own[:3], Image.new("RGB", own[0].size)])
    three = photos.measure(without_face)
    assert three["face_found"] == three["identification"] == 0.75
    assert three["similarity"] < measures["similarity"]
    result = photos.compare()
    assert result["identification_among"] == 2 and "similarity_without" in result


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        (0, {"face_found": 0.75}),
        (1, {"face_found": 0.75, "similarity": (0.8 + 0.4 + 0.6) / 4}),
        (2, {"face_found": 0.75, "similarity": (0.8 + 0.4 + 0.1) / 4, "identification": 0.5}),
    ],
)
def test_a_picture_without_a_face_is_like_nobody(people, expected):
    found = torch.tensor([True, True, True, False])
    cosines = torch.tensor([[0.8, 0.1], [0.4, 0.3], [0.6, 0.1], [0.9, 0.9]])[:, :people]
    owner = torch.tensor([0, 0, 1, 1]) if people > 1 else torch.zeros(4, dtype=torch.long)
    assert identity_measures(found, cosines, owner) == pytest.approx(expected)


def test_clip_score_is_that_of_the_published_implementation(
    whole_clip, models, clip_vision, narrow
):
    import comfy.sd1_clip
    from transformers import CLIPTokenizer

    text = load_text_encoder(models / "clip_l.safetensors")
    score = load_clip_score(clip_vision, text)
    pictures = as_tensor([p.resize((224, 224)) for p in (astronaut(), cameraman())])
    got = score(pictures, TEXTS)
    words = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    tokens = CLIPTokenizer.from_pretrained(words)(TEXTS, padding=True, return_tensors="pt")
    mean, spread = (
        torch.tensor(values)[:, None, None]
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    with torch.no_grad():
        out = whole_clip(**tokens, pixel_values=(pictures - mean) / spread)
    cosines = out.image_embeds @ out.text_embeds.T
    torch.testing.assert_close(got, cosines.diagonal(), rtol=0, atol=2e-4)
    assert (cosines[0] - cosines[1]).abs().min() > 0.005  # or nothing would be tested


def test_half_a_clip_is_one_sentence(whole_clip, models, narrow, tmp_path):
    text, half = load_text_encoder(models / "clip_l.safetensors"), tmp_path / "half.safetensors"
    parts = ("vision_model.", "visual_projection.")
    state = {key: value for key, value in whole_clip.state_dict().items() if key.startswith(parts)}
    save_file(state, half)
    with pytest.raises(FlashFaceError, match="Neither --clip nor half.safetensors has a text_proj"):
        load_clip_score(half, text)
    del state["vision_model.encoder.layers.23.mlp.fc1.weight"]
    save_file(state, half)
    with pytest.raises(FlashFaceError, match="half.safetensors is not a whole vision model"):
        load_clip_score(half, text)


def test_means_of_a_negative_cosine_are_zero():
    assert means(0.6, 0.3) == pytest.approx({"harmonic_mean": 0.4, "geometric_mean": 0.18**0.5})
    assert means(-0.3, 0.3) == {"harmonic_mean": 0, "geometric_mean": 0}


def test_files_of_other_models_are_one_sentence(source, models, tmp_path):
    sdxl = tmp_path / "clip_g.safetensors"
    save_file({"text_model.embeddings.token_embedding.weight": torch.zeros(9, 1280)}, sdxl)
    with pytest.raises(SystemExit, match="^clip_g.safetensors is not CLIP-L, SD1.5's text enc"):
        evaluate.main(arguments(source, models, "--clip", sdxl, "--out", tmp_path / "out"))
    text = load_text_encoder(models / "clip_l.safetensors")
    for other in (sdxl, models / "clip_l.safetensors", FOLDER / VAE):
        with pytest.raises(FlashFaceError, match="not a whole vision model of CLIP ViT-L/14"):
            load_clip_score(other, text)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_usable_photograph_is_one_sentence(tmp_path):
    add(tmp_path, "dora/grey.png", encoded(Image.new("L", (90, 90), 120), "PNG"))
    with pytest.raises(FlashFaceError, match="Nobody in .* give a folder per person"):
        find_sitters(tmp_path, MtcnnDetector())
    (tmp_path / "prompts.txt").write_text("\n \n")
    with pytest.raises(FlashFaceError, match="prompts.txt holds no prompts; write one per line"):
        read_prompts(tmp_path / "prompts.txt")


FILE = __file__
NEEDED = ["--photos", ".", "--checkpoint", FILE, "--clip", FILE, "--vae", FILE, "--json", "x"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--photos", ".", "--json", "x"], "--photos needs --checkpoint, --clip, --vae as well"),
        (NEEDED[:-2], "nothing to write"),
        ([*NEEDED, "--people", "3"], "--people goes without --photos"),
        (["--json", "x", "--clip-vision", FILE], "--clip-vision needs --photos FOLDER"),
        ([*NEEDED, "--vae", "nowhere.safetensors"], "--vae is nowhere.safetensors, which is no"),
        ([*NEEDED, "--prompts", "nowhere.txt"], "--prompts is nowhere.txt, which is not a file"),
        ([*NEEDED, "--size", "100"], "--size is 100; a multiple of 8 is needed"),
        ([*NEEDED, "--steps", "0"], "--steps is 0; 1 to 1000 are possible"),
    ],
)
def test_options_that_do_not_go_together_are_told_in_a_sentence(given, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(given)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
