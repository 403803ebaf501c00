"""The recipes of the other systems, of a few steps, and the table that compares them."""

import dataclasses
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flashface_core.comfy_adapter.face2diffusion import encode_text, load_face2diffusion
from flashface_core.comfy_adapter.face_fusion.photos import collect_photos, load_face_fusion
from flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_core.comfy_adapter.flashface.tiny import FLASHFACE, FOLDER, load_tiny_clip
from toy_world.draw import CROP, draw, face_crop
from toy_world.people import People
from toy_world.scenes import Scenes
from training.batches import Sampling
from training.tiny import claims, compare, systems_under_test
from training.tiny.encoders import Views, without_faces, zoomed
from training.tiny.evaluation import ToyEvaluation
from training.tiny.pictures import draw_pictures
from training.tiny.systems import (
    FACE2DIFFUSION,
    FACE_FUSION,
    FACESTUDIO,
    PEOPLE,
    TRAIN,
    WEIGHTS,
    SystemRecipe,
    run,
)

SHORT = {
    **{"face_people": 60, "face_steps": 3, "style_people": 40, "style_steps": 5, "prior_steps": 3},
    **{"people": 6, "scenes": 3, "hidden": 16},
}


PAIRS = Sampling(targets_per_group=2)


def short(system, **changed):
    """precision: that of the other tests' trainers, which share this process."""
    return dataclasses.replace(TRAIN[system], steps=2, groups=2, precision="no", **changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every system trained for two steps, in a folder as the shipped tiny models are."""
    out = tmp_path_factory.mktemp("systems")
    for system in (FACE2DIFFUSION, FACESTUDIO, FACE_FUSION):
        train = short(system, sampling=PAIRS)
        run(SystemRecipe(system, train, **SHORT), out / "work", out / system)
    return out


@pytest.fixture(scope="module")
def evaluation():
    return ToyEvaluation(1, 1)


def test_a_run_leaves_weights_losses_and_its_recipe(folder):
    for system in (FACE2DIFFUSION, FACESTUDIO, FACE_FUSION):
        recipe = json.loads((folder / system / "recipe.json").read_text())
        assert recipe["system"] == system and recipe["train"]["steps"] == 2
        rows = (folder / system / "losses.csv").read_text().split()
        assert rows[0].startswith("step,loss") and rows[-1].startswith("2,")
        assert (folder / system / "curve.png").is_file()


def test_what_is_there_is_not_made_again(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "work").glob("*.safetensors")}
    train = short(FACESTUDIO, sampling=PAIRS)
    run(SystemRecipe(FACESTUDIO, train, **SHORT), folder / "work", folder / FACESTUDIO)
    assert len(before) == 4
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_run_goes_on_from_the_weights_of_another(folder, tmp_path):
    """At a rate that moves nothing, so that they are seen again."""
    name = WEIGHTS[FACE_FUSION]
    train = short(FACE_FUSION, learning_rate=1e-12, weight_decay=0.0)
    begun = load_file(folder / FACE_FUSION / name)
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(folder / "work" / PEOPLE, work)
    for begin_with in (folder / FACE_FUSION / name, None):
        out = tmp_path / f"from {begin_with and begin_with.name}"
        run(SystemRecipe(FACE_FUSION, train, **SHORT), work, out, begin_with=begin_with)
        shutil.rmtree(work / FACE_FUSION)
        same = [torch.equal(value, begun[key]) for key, value in load_file(out / name).items()]
        assert all(same) if begin_with else not all(same)
        assert ("begun_with_sha256" in json.loads((out / "recipe.json").read_text())) == all(same)


def test_the_weights_load_where_the_nodes_load_them(folder, evaluation):
    words = load_face2diffusion(
        folder / systems_under_test.MAPPING, folder / systems_under_test.FACES
    )
    identity = evaluation.identity(0, 2)
    clip = load_tiny_clip()
    plain, other = (
        encode_text(clip, words, identity, "a portrait of f l", "f l", expression)
        for expression in (None, words.expression(identity))
    )
    assert plain[0][0].shape == (1, 77, 768) and not torch.equal(plain[0][0], other[0][0])
    studio = load_facestudio(folder / systems_under_test.STUDIO)
    picture = torch.rand(1, 128, 128, 3)
    positive, negative = studio.encode(identity, style_image=picture)
    assert positive[0][0].shape == negative[0][0].shape == (1, 4, 768)
    text = [[torch.randn(1, 77, 768), {}]]
    assert not torch.equal(studio.encode(identity, 0.0, text=text)[0][0][0], positive[0][0])
    fusion = load_face_fusion(folder / systems_under_test.FUSION)
    collect_photos(fusion, identity, evaluation.models.vae, text)


def test_every_system_stands_in_the_table(folder, evaluation, monkeypatch):
    monkeypatch.setattr(ToyEvaluation, "settings", evaluation.settings._replace(steps=1))
    (folder / FLASHFACE).write_bytes((FOLDER / FLASHFACE).read_bytes())
    makers = systems_under_test.Systems(evaluation, folder).makers
    assert len(makers) == 8
    seen = {}
    for name, make in makers.items():
        system = make()
        row, pictures = compare.measure(evaluation, system)
        assert pictures.shape == (8, 3, 128, 128)
        assert set(compare.COLUMNS) - set(row) <= {"mark_recovery", "copied_pose"}
        low, high = row["identification_interval"]
        assert low <= row["identification"] <= high
        assert (row["trained_parameters"] == 0) == (
            name.startswith(("no ", "training-free")) or name.endswith("training-free")
        )
        seen[name] = draw_pictures(evaluation, system, 2, lambda person: [0])
    pictures = list(seen.values())
    for i, one in enumerate(pictures):
        assert not any(torch.equal(one, other) for other in pictures[:i])
    table = {"FlashFace": {"identification": 0.5, "trained_parameters": 12345}}
    told = compare.markdown(table).splitlines()
    assert told[0] == "| measure | FlashFace |"
    assert "| identification | 0.500 |" in told and "| trained parameters | 12,345 |" in told
    assert f"({row['text_accuracy_interval'][0]:.2f}-" in compare.markdown({"last": row})
    compare.plot(folder / "plot.png", {"last": row})
    with Image.open(folder / "plot.png") as plot:
        assert plot.size == (700, 500)
    drawn = {"nobody": evaluation.cast.drawings}
    compare.save_pictures(folder / "systems.png", evaluation, drawn)
    with Image.open(folder / "systems.png") as sheet:
        assert sheet.size == (2 * 132, 16 + 132)


def test_every_claim_is_measured(folder, evaluation, monkeypatch):
    """Of weights that know nothing yet: that numbers come out, and are shares."""
    monkeypatch.setattr(ToyEvaluation, "settings", evaluation.settings._replace(steps=1))
    people = ToyEvaluation(2, 1)
    systems = systems_under_test.Systems(people, folder)
    mapping = folder / systems_under_test.MAPPING
    found = claims.all_of(people, systems)
    found |= claims.class_guidance(people, systems, mapping, mapping)
    assert all(-1 <= value <= 1 for value in found.values())
    same = {name: value for name, value in found.items() if name.startswith("with_cgdr")}
    assert same and all(found[name.replace("with", "without", 1)] == same[name] for name in same)
    assert found["cgdr_elsewhere_gain"] == found["cgdr_agreement_gain_high"] == 0
    assert {"expression_of_photo", "style_alone_similarity", "two_people_own"} <= set(found)


def test_the_style_image_shows_the_scene_and_somebody_else(evaluation):
    image = systems_under_test.style_image(evaluation.cast, 0)
    assert image.shape == (1, 128, 128, 3)
    drawing = evaluation.cast.drawings[0].movedim(0, -1)
    corner = (image[0, :16, :16] - drawing[:16, :16]).abs().mean()
    assert corner < 0.05 < (image[0] - drawing).abs().amax()
    values = evaluation.probes.look_around(image.movedim(-1, 1))
    for name in ("background", "clothes"):
        assert values[name].argmax(1) == evaluation.cast.truth[name][0]


def test_a_face_painted_out_is_gone_and_all_else_is_left():
    people, scenes = People.draw_from(0, "test", 2), Scenes.draw_from(0, "test", 2)
    pictures, boxes = draw(people, scenes)
    masked = without_faces(pictures, boxes)
    inside = face_crop(masked, boxes, CROP)[:, :, 4:-4, 4:-4]
    assert inside.flatten(2).std(2).max() < 1e-3
    assert torch.equal(masked[:, :, :, :4], pictures[:, :, :, :4])
    assert (masked != pictures).any(1).float().mean() < 0.6


def test_of_a_clips_pictures_those_that_are_hidden_lose_the_face_and_close_ones_the_rest():
    views = Views(0, 2, 2)
    rows, near = torch.arange(4), torch.tensor([0.0, 0.0, 1.0, 1.0])
    hidden = torch.tensor([False, True, False, True])
    seen, whole, boxes = views.varied(rows, hidden, near), views.whole(rows), views.boxes
    torch.testing.assert_close(seen[0], whole[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[1], without_faces(whole, boxes)[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[2], zoomed(whole, boxes, near)[2])
    assert seen[3, :, 32:96, 32:96].flatten(1).std(1).max() < 1e-3 < seen[2].std()


def test_only_the_word_for_the_person_is_put_into_a_caption():
    caption = "a portrait of a child, smiling"
    assert systems_under_test.with_person(caption) == "a portrait of f l, a child, smiling"


def test_a_zoom_goes_from_the_picture_to_the_face():
    places = (torch.arange(128) + 0.5) / 128
    x, y = torch.meshgrid(places, places, indexing="xy")
    pictures = torch.stack([x, y, x * 0])[None].expand(3, -1, -1, -1)
    boxes = torch.tensor([[0.3, 0.4, 0.5, 0.7], [0.3, 0.4, 0.5, 0.7], [0.0, 0.8, 0.2, 1.0]])
    whole, face, at_the_edge = zoomed(pictures, boxes, torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(whole, pictures[0])
    half = 0.6 * 0.3  # a little more than the longer side
    for name, axis, centre in (("x", 0, 0.4), ("y", 1, 0.55)):
        seen = face[axis].amin(), face[axis].mean(), face[axis].amax()
        expected = torch.tensor([centre - half, centre, centre + half])
        torch.testing.assert_close(torch.stack(seen), expected, rtol=0, atol=0.005, msg=name)
    torch.testing.assert_close(at_the_edge[0].mean(), torch.tensor(0.12), rtol=0, atol=0.002)
    torch.testing.assert_close(at_the_edge[1].mean(), torch.tensor(0.88), rtol=0, atol=0.002)
