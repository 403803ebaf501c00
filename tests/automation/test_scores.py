"""Agreement with the prompt, by a CLIP made from a seed in the layout of transformers."""

import json

import pytest
import torch
from PIL import Image
from support.tools import load_tool

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from automation.problems import ListError
from automation.scores import Models, Person, Scorer, Shown


def make_clip(folder) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = dict(hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=2)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = dict(small, vocab_size=len(words), bos_token_id=52, eos_token_id=53, pad_token_id=53)
    vision = dict(small, image_size=32, patch_size=8)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    size = {"shortest_edge": 32}
    images = transformers.CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(folder)


def test_agreement_with_the_prompt_follows_picture_and_prompt(tmp_path):
    make_clip(tmp_path)
    pictures = []
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
        pictures.append(str(tmp_path / f"{name}.png"))
    scorer = Scorer(Models(clip=tmp_path), {})
    asked = [(p, prompt) for p in pictures for prompt in ("a red", "green and blue", None)]
    rows = scorer([Shown(path, None, None, prompt) for path, prompt in asked])
    values = [row["clip"] for row in rows if row]
    assert [bool(row) for row in rows] == [True, True, False] * 2
    assert len({round(value, 6) for value in values}) == 4
    assert all(-1 <= value <= 1 for value in values)
    (alone,) = scorer([Shown(pictures[0], None, None, "a red")])
    assert alone["clip"] == pytest.approx(values[0], abs=1e-5)


def test_other_photos_of_the_person_are_nobody_else(tmp_path):
    for person, photos in enumerate(load_tool("toy_people").draw_photos(4, 2)):
        for number, photo in enumerate(photos):
            photo.save(tmp_path / f"{person}{number}.png")
    people = {
        f"{name} {count}": Person(
            name, tuple(str(tmp_path / f"{name}{number}.png") for number in range(count)), name
        )
        for name in "01"
        for count in (1, 4)
    }
    shown = [
        Shown(str(tmp_path / f"{name}{number}.png"), f"{name} {count}", None, None)
        for name in "01"
        for number in range(4)
        for count in (1, 4)
    ]
    assert all(row["identified"] for row in Scorer(Models(looks=True), people)(shown))
    # People whose photos lie in one folder are called alike and are not the same.
    alike = {name: Person("photos", (str(tmp_path / f"{name}0.png"),), name) for name in "01"}
    swapped = [
        Shown(str(tmp_path / f"{name}1.png"), other, None, None) for name, other in ["01", "10"]
    ]
    assert not any(row["identified"] for row in Scorer(Models(looks=True), alike)(swapped))


def test_a_damaged_picture_costs_its_own_scores_alone(tmp_path, caplog):
    """A run would fail at it every time, and nobody had scores."""
    make_clip(tmp_path)
    photos = [own[0] for own in load_tool("toy_people").draw_photos(2, 3)]
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    half = tmp_path / "half.png"
    half.write_bytes((tmp_path / "0.png").read_bytes()[:2000])
    people = {name: Person(name, (paths[int(name)],), name) for name in "01"}
    people["2"] = Person("2", (str(half),), "2")
    pictures = [paths[0], str(half), paths[1]]
    asked = [Shown(path, name, None, "a red") for path, name in zip(pictures, "001", strict=True)]
    first, second, third = Scorer(Models(looks=True, clip=tmp_path), people)(asked)
    assert first["identified"] and third["identified"] and "clip" in first and "clip" in third
    assert second == {}
    assert f"{half} is not measured: image file is truncated" in caplog.text
    assert "delete it, and the same command makes it again" in caplog.text
    assert "2 is not compared: image file is truncated" in caplog.text


def test_a_folder_without_a_clip_model_is_told(tmp_path):
    with pytest.raises(ListError, match="is no CLIP model that can be used"):
        Scorer(Models(clip=tmp_path), {})


def test_what_is_left_out_has_its_reason():
    assert len(Models().remarks) == 2
    assert Models(looks=True).remarks == [
        "Agreement with the prompt is left out: --clip with a CLIP model gives it."
    ]
