"""The measures of the toy world: probes on clean drawings, and the sums of an evaluation."""

import json
import subprocess
import sys

import pytest
import torch
from support.tools import ROOT, run_module

from flashface_core.comfy_adapter.flashface.tiny import FOLDER
from flashface_core.errors import FlashFaceError
from toy_world.draw import draw
from toy_world.people import People
from toy_world.scenes import Scenes
from training.sampling import region_masks
from training.tiny import together
from training.tiny.evaluation import ToyEvaluation
from training.tiny.measure import AGES, REFERENCES, cast, copying, intervals, read, summary
from training.tiny.probes import FACE, PICTURE, load_probes, overlap, score

TOLD = ("age", "expression", "clothes", "background", "style")


@pytest.fixture(scope="module")
def probes():
    return load_probes(FOLDER / "probes.safetensors")


@pytest.fixture(scope="module")
def people(probes):
    return cast(3, 10, probes)


def test_the_probes_read_clean_drawings_of_unseen_people(probes):
    """Of a seed on which the shipped ones were never scored; floors of what may be shipped."""
    scores = score(probes, seed=77, device="cpu", people=100)
    assert scores["identified among 50"] >= 0.97
    assert min(scores[name] for name in TOLD) >= 0.95
    assert scores["box IoU"] >= 0.9
    assert set(scores) == {*FACE, *PICTURE, "identified among 50", "box IoU"}


def test_a_cast_does_not_depend_on_how_many_are_asked_for(probes, people):
    fewer = cast(3, 2, probes)
    each = len(AGES)
    assert fewer.captions == people.captions[: 2 * each]
    assert torch.equal(fewer.crops, people.crops[:2])
    torch.testing.assert_close(fewer.gallery, people.gallery)
    assert len(fewer.gallery) == 50
    assert not set(people.captions) & set(cast(4, 2, probes).captions)


def test_true_drawings_get_full_marks_and_somebody_elses_get_chance(probes, people):
    measures = summary(read(people.drawings, people, probes), people)
    assert measures["identification"] >= 0.97
    assert measures["text_accuracy"] >= 0.95
    assert measures["mark_recovery"] >= 0.9
    assert measures["box_iou"] >= 0.9
    assert measures["child_age"] >= 0.9 and measures["elder_age"] >= 0.9
    shifted = people.drawings.roll(len(AGES), dims=0)
    others = summary(read(shifted, people, probes), people)
    assert others["identification"] <= 0.1
    assert others["text_accuracy"] <= 0.5
    assert others["child_age"] >= 0.9  # the ages are in the same order for everybody


def test_the_photo_again_is_a_copy_and_the_true_drawing_is_none(probes, people):
    count, each = len(people.crops), len(AGES)
    rows = torch.tensor([n for n in range(count * each) if AGES[n % each] == "adult"])
    true = copying(people.drawings[rows], rows, people, probes)
    assert true.truth >= 0.98 and true.expression <= 0.05
    assert true.copy_paste <= -0.5
    own = people.owner[rows]
    scenes = Scenes.draw_from(3, "test", (own * (REFERENCES + each)).tolist())
    again, _ = draw(people.people[own * each], scenes.with_values(age="adult"))
    copied = copying(again, rows, people, probes)
    assert copied.photo >= 0.95 and copied.copy_paste >= 0.5
    assert copied.expression >= 0.95
    # The probes read the lean of .92 of 200 drawings; of a misread one it may be the photo's.
    assert true.pose <= 0.25 and copied.pose >= 0.9


def test_intervals_hold_the_means_and_narrow_with_more_people(probes, people):
    """Every second person is drawn as another one, or there would be little to doubt."""
    widths = []
    for cast_of in (cast(3, 4, probes), people):
        other = cast_of.drawings.roll(len(AGES), dims=0)
        swapped = (cast_of.owner % 2 == 0)[:, None, None, None]
        readings = read(torch.where(swapped, other, cast_of.drawings), cast_of, probes)
        means, found = summary(readings, cast_of), intervals(readings, cast_of)
        for name, (low, high) in found.items():
            assert low <= means[name] <= high, name
        low, high = found["identification"]
        widths.append(high - low)
    assert widths[0] > widths[1] > 0


def test_a_mark_is_recovered_only_with_its_colour_and_place(probes, people):
    """Drawn again with the mark of another colour, in another place, or not at all."""
    marked = people.people.mark != People.names("mark").index("none")
    colour = (people.people.mark_colour + 1) % len(People.names("mark_colour"))
    place = (people.people.mark_place + 1) % len(People.names("mark_place"))
    for changed in (
        people.people.with_values(mark_colour=colour),
        people.people.with_values(mark_place=place),
        people.people.with_values(mark="none"),
    ):
        pictures, _ = draw(changed, people.scenes)
        measures = summary(read(pictures, people, probes), people)
        assert measures["mark_recovery"] <= 0.1
    assert marked.any()


def test_more_than_fifty_people_are_identified_in_blocks_of_fifty(probes):
    people = cast(3, 51, probes, ages=("adult",))
    assert len(people.gallery) == 100
    readings = read(people.drawings, people, probes)
    assert readings.identified[50] and readings.identified.float().mean() >= 0.97


def test_overlap_is_intersection_over_union():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [0, 0, 1, 1], [2, 2, 3, 3]])
    assert overlap(a, b).tolist() == pytest.approx([1 / 3, 1, 0])


def test_region_masks_are_the_boxes():
    masks = region_masks(torch.tensor([[0.25, 0.5, 0.5, 1.0], [-0.5, 0, 1.5, 0.125]]), 16)
    assert masks.sum().item() == 4 * 8 + 16 * 2
    assert masks[0, 8:, 4:8].all() and masks[1, :2].all()


def test_the_command_writes_one_flat_object_a_table_and_a_grid(tmp_path):
    file = tmp_path / "numbers.json"
    more = ("--json", file, "--out", tmp_path, "--device", "cpu")
    run_module("training.evaluate", "--people", 1, "--seed", 5, *more)
    numbers = json.loads(file.read_text())
    assert {"identification", "identification_without", "text_accuracy", "text_accuracy_without",
            "child_age", "child_identification", "elder_age", "elder_identification", "box_iou",
            "people", "prompts", "seconds_per_picture"} <= set(numbers)  # fmt: skip
    assert numbers["people"] == 1 and numbers["prompts"] == len(AGES)
    assert all(0 <= value <= 1 for name, value in numbers.items() if name.endswith("accuracy"))
    for name in ("measures.csv", "measures.md", "grid.png"):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--people", "0", "--json", "f"], "at least one person"), ([], "nothing to write")],
)
def test_wrong_arguments_are_told_in_a_sentence(arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.parametrize("name", ["training.tiny.together", "training.tiny.bounds"])
def test_commands_find_comfyui_themselves(name):
    """In a process of their own, which has not found it yet as that of the tests has."""
    run_module(name, "--help")


def test_a_folder_without_the_tiny_models_is_told_in_a_sentence(tmp_path):
    with pytest.raises(FlashFaceError, match=r"no flashface_tiny.safetensors in .*--models\."):
        ToyEvaluation(1, 1, tmp_path)


def test_children_hide_no_mark():
    """What the summary counts on: every age of a marked person shows the mark."""
    people = People.draw_from(3, "test", 20).with_values(mark="star")
    plain = people.with_values(mark="none")
    for age in Scenes.names("age"):
        scenes = Scenes.draw_from(3, "test", 20).with_values(age=age)
        changed = (draw(people, scenes)[0] - draw(plain, scenes)[0]).abs().amax(dim=(1, 2, 3))
        assert (changed > 0.2).all()


@pytest.fixture(scope="module")
def evaluation():
    return ToyEvaluation(1, 5)


def test_pictures_hold_no_graph(evaluation):
    """A VAE's weights ask for gradients, and every picture would keep all of its activations."""
    settings = evaluation.settings._replace(steps=1)
    for references in (0, 1):
        assert not evaluation.draw(settings, references).requires_grad


def test_other_ages_are_drawn_with_the_preset_for_them_and_sweeps_with_one_setting(evaluation):
    own, swept = evaluation.settings, evaluation.settings._replace(steps=3)
    used = [evaluation.settings_of(own, n).guidance.feature_strength for n in range(len(AGES))]
    assert used == [1.2 if age == "adult" else 0.9 for age in AGES]
    assert {evaluation.settings_of(swept, n) for n in range(len(AGES))} == {swept}
    slices = [part for part, _ in evaluation._parts(own, len(AGES))]
    assert [n for part in slices for n in range(len(AGES))[part]] == list(range(len(AGES)))


def test_two_people_and_mixes_are_measured_by_one_command(tmp_path, monkeypatch):
    """Of any quality: one pair says nothing about that, and few steps less."""
    monkeypatch.setattr(ToyEvaluation, "settings", ToyEvaluation.settings._replace(steps=2))
    line = ["--pairs", "1", "--seed", "5", "--json", tmp_path / "numbers.json", "--out", tmp_path]
    together.main([str(word) for word in line])
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["two_people_own"] in (0, 0.5, 1) and numbers["pairs"] == 1
    assert -1 <= numbers["mix_to_further_parent"] <= numbers["mix_to_parents"] <= 1
    assert (tmp_path / "two_people.png").is_file() and (tmp_path / "mixes.png").is_file()
