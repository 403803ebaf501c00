"""The toy world: reproducible people, disjoint splits, marks and boxes where they should be."""

import re

import pytest
import torch

from toy_world.draw import draw, face_boxes, face_crop
from toy_world.marks import mark_box
from toy_world.people import MARK_PLACES, SKINS, People
from toy_world.scenes import AGES, PARTS, STYLES, Scenes, captions
from training.tiny.probes import (
    Probes,
    identified,
    load_probes,
    save_probes,
    true_values,
)


def columns(factors):
    return torch.stack([getattr(factors, name).double() for name in vars(factors)], dim=1)


def test_seed_split_and_index_alone_make_a_person_and_a_picture():
    many, one = People.draw_from(7, "train", 6), People.draw_from(7, "train", [4])
    assert torch.equal(columns(many)[4:5], columns(one))
    scene = Scenes.draw_from(7, "train", [4])
    first, again = draw(one, scene)[0], draw(People.draw_from(7, "train", [4]), scene)[0]
    assert torch.equal(first, again)
    far = People.draw_from(7, "train", [10**12])
    assert not torch.equal(columns(far), columns(one))


def test_no_one_of_the_training_stream_is_in_the_test_stream():
    train, test = (columns(People.draw_from(7, split, 1000)) for split in ("train", "test"))
    everyone = torch.cat([train, test])
    assert everyone.unique(dim=0).shape[0] == 2000
    # Not even nearly: no two share all of their continuous factors to a thousandth.
    shape = everyone[:, len(People.categories()) :]
    nearest = torch.cdist(shape[1000:], shape[:1000], p=float("inf")).min()
    assert nearest > 0.01
    with pytest.raises(ValueError, match="no split 'validation'"):
        People.draw_from(7, "validation", 1)


def test_every_value_of_every_factor_is_drawn():
    people, scenes = People.draw_from(1, "train", 400), Scenes.draw_from(1, "train", 400)
    for factors in (people, scenes):
        for name in factors.categories():
            found = getattr(factors, name).unique().tolist()
            assert found == list(range(len(factors.names(name)))), name


def test_a_batch_is_the_same_as_its_members_one_by_one():
    people, scenes = People.draw_from(2, "train", 6), Scenes.draw_from(2, "train", 6)
    together, boxes = draw(people, scenes)
    for n in range(6):
        alone, box = draw(people[n : n + 1], scenes[n : n + 1])
        assert (together[n : n + 1] - alone).abs().max() <= 1e-5
        assert (boxes[n : n + 1] - box).abs().max() <= 1e-6


def test_extreme_factors_and_other_sizes_give_finite_pictures_in_range():
    people, scenes = People.draw_from(3, "train", 4), Scenes.draw_from(3, "train", 4)
    for factors in (people, scenes):
        for name, field in factors.__dataclass_fields__.items():
            if "range" in field.metadata:
                low, high = field.metadata["range"]
                getattr(factors, name).copy_(torch.tensor([low, high, low, high]))
    for size in (128, 256):
        pictures, boxes = draw(people, scenes, size)
        assert pictures.shape == (4, 3, size, size)
        assert torch.isfinite(pictures).all() and torch.isfinite(boxes).all()
        assert pictures.min() >= 0 and pictures.max() <= 1
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_same_scene_at_twice_the_size_is_the_same_picture():
    people, scenes = People.draw_from(4, "train", 2), Scenes.draw_from(4, "train", 2)
    scenes = scenes.with_values(style="flat")
    small, large = draw(people, scenes)[0], draw(people, scenes, 256)[0]
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.01


def test_the_face_box_holds_the_face():
    people, scenes = People.draw_from(5, "test", 12), Scenes.draw_from(5, "test", 12)
    bare = {"hair_style": "bald", "facial_hair": "none", "mark": "none"}
    scenes = scenes.with_values(style="flat", light="soft")
    pale, dark = (people.with_values(skin=skin, **bare) for skin in ("porcelain", "deep"))
    boxes = face_boxes(people, scenes)
    skin = (draw(pale, scenes)[0] - draw(dark, scenes)[0]).abs().amax(dim=1) > 0.3
    steps = (torch.arange(128) + 0.5) / 128
    x1, y1, x2, y2 = (boxes[:, n, None, None] for n in range(4))
    inside = (steps > x1) & (steps < x2) & (steps[:, None] > y1) & (steps[:, None] < y2)
    share = (skin & inside).sum(dim=(1, 2)) / skin.sum(dim=(1, 2))
    assert (share > 0.85).all()  # the rest: ears, and the neck
    assert (
        (skin & inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)) > 0.4
    ).all()  # hair, eyes, mouth, corners
    assert (boxes > 0).all() and (boxes < 1).all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("age", AGES)
def test_only_the_box_of_the_mark_changes_with_the_mark(age, style):
    people, scenes = People.draw_from(6, "test", 4), Scenes.draw_from(6, "test", 4)
    people = people.with_values(mark_place=torch.arange(len(MARK_PLACES)))
    scenes = scenes.with_values(age=age, style=style)
    with_mark, without = people.with_values(mark="star"), people.with_values(mark="none")
    change = (draw(with_mark, scenes)[0] - draw(without, scenes)[0]).abs().amax(dim=1)
    boxes = mark_box(with_mark, scenes) * 128
    pixels = torch.arange(128) + 0.5
    x1, y1, x2, y2 = (boxes[:, n, None, None] for n in range(4))
    x_in = (pixels > x1 - 2) & (pixels < x2 + 2)
    y_in = (pixels[:, None] > y1 - 2) & (pixels[:, None] < y2 + 2)
    # Two pixels more: outlines are two wide.
    assert (change * ~(x_in & y_in)).max() < 1e-4
    assert ((change > 0.15).sum(dim=(1, 2)) > 30).all()
    side = boxes[:, 2] - boxes[:, 0]
    assert (side > 12).all() and (side < 21).all()


def test_a_crop_of_the_whole_picture_is_the_picture():
    pictures = torch.rand(2, 3, 64, 64)
    whole = face_crop(pictures, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), 32)
    assert (whole - torch.nn.functional.avg_pool2d(pictures, 2)).abs().max() < 0.3
    assert whole.mean() == pytest.approx(pictures.mean().item(), abs=0.01)
    outside = face_crop(pictures, torch.tensor([[-1.0, 0.0, 0.0, 1.0]] * 2), 32)
    assert outside[..., :31].abs().max() == 0


def test_captions_tell_every_value_apart_by_words_of_its_own():
    scene = Scenes.draw_from(8, "train", [0])
    values = {name: scene.names(name) for name in PARTS if name != "lean"}
    told = {
        (name, value): captions(scene.with_values(**{name: value}), {name})[0]
        for name in values
        for value in values[name]
    }
    for tilt in (-8.0, 0.0, 8.0):
        told["tilt", tilt] = captions(scene.with_values(tilt=tilt), {"lean"})[0]
    words = {key: set(re.findall(r"\w+", text)) for key, text in told.items()}
    for key, own in words.items():
        others = set().union(*(words[other] for other in words if other != key))
        assert own - others, told[key]


def test_captions_leave_out_what_they_are_told_to_and_never_tell_identity():
    scenes = Scenes.draw_from(9, "train", 2)
    assert captions(scenes, ())[0] == "a portrait"
    short, full = captions(scenes, [{"style"}, PARTS])
    assert short == f"a portrait, {STYLES[scenes.names('style')[scenes.style[0]]]}"
    assert full.count(",") == len(PARTS) - 1
    assert not set(re.findall(r"\w+", full)) & {*SKINS, "hair", "glasses", "mark", "beard"}


def test_what_a_drawing_cannot_show_has_no_label():
    people, scenes = People.draw_from(10, "test", 2), Scenes.draw_from(10, "test", 2)
    people = people.with_values(hair_style="bald", mark="none", facial_hair="beard")
    scenes = scenes.with_values(age=torch.tensor([0, 1]))
    values = true_values(people, scenes)
    for name in ("hair_colour", "mark_colour", "mark_place"):
        assert values[name].tolist() == [-1, -1], name
    assert values["facial_hair"].tolist() == [-1, 3]
    assert values["mark"].tolist() == [0, 0]


def test_a_person_is_identified_when_nobody_else_is_nearer():
    own = torch.eye(4)[:, None].expand(4, 3, 4)
    assert identified(own[:, :1], own) == 1
    assert identified(own[[1, 0, 2, 3]][:, :1], own) == 0.5


def test_saved_probes_read_the_same_to_half_precision(tmp_path):
    torch.manual_seed(0)
    model = Probes().eval()
    save_probes(model, tmp_path / "probes.safetensors")
    saved = load_probes(tmp_path / "probes.safetensors")
    pictures, boxes = draw(People.draw_from(1, "test", 2), Scenes.draw_from(1, "test", 2))
    ours, theirs = model.read(pictures, boxes)[0], saved.read(pictures, boxes)[0]
    assert (ours - theirs).abs().max() < 2e-2
    assert (tmp_path / "probes.safetensors").stat().st_size < 3 * 2**20
