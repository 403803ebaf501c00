"""Every shipped workflow of the tiny models on a real server: does it do what it says?

As it is, but for the number of steps: how good the pictures are is not tested here.
"""

import re

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from support.server import (
    OTHER_MODELS,
    PUBLISHED,
    SAVED,
    SIDE,
    UNLISTED,
    api_workflow,
    inputs,
    made_small,
    make_photo,
    without_checkpoints,
)

pytestmark = pytest.mark.server

STEPS = 5
# The pictures of 128 x 128 and 256 x 128 are shown enlarged.
SQUARE, WIDE, FACE, PLOT = (384, 384), (768, 384), (224, 224), (1024, 682)

# workflow: title of every node that shows pictures, how many, and their width and height
SHOWN = {
    "toy_several_photos": {"From one photo": (1, SQUARE), "From four photos": (1, SQUARE)},
    "toy_two_people": {"Save Image": (1, WIDE)},
    "toy_mixing": {"A": (1, SQUARE), "The mix": (1, SQUARE), "B": (1, SQUARE)},
    "toy_save_identity": {"Faces": (4, FACE)},
    "toy_saved_identity": {"Save Image": (1, SQUARE)},
    "toy_best_of_n": {
        "What the guidance does": (1, PLOT),
        "All eight": (8, SQUARE),
        "The best": (1, SQUARE),
    },
    "toy_style_portrait": {"Style image": (1, SQUARE), "Save Image": (1, SQUARE)},
    "toy_style_two_people": {"Style image": (1, SQUARE), "Save Image": (1, WIDE)},
}
SHOWN |= {name: {"Save Image": (1, (128, 128))} for name in UNLISTED}


def shipped(name: str) -> dict:
    workflow = api_workflow(name)
    for node in workflow.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = STEPS
    return workflow


@pytest.fixture(scope="module")
def outputs(server):
    """Of a shipped workflow, run once: what nodes report, by their titles."""
    done = {}

    def run(name: str) -> dict:
        if name not in done:
            workflow = shipped(name)
            ran = server.prompt(workflow)
            done[name] = {workflow[node]["_meta"]["title"]: out for node, out in ran.items()}
        return done[name]

    return run


@pytest.fixture
def pictures(server, outputs):
    def shown(name: str) -> dict[str, list[np.ndarray]]:
        return {
            title: [np.asarray(Image.open(path).convert("RGB")) for path in server.files({0: out})]
            for title, out in outputs(name).items()
            if "images" in out and not title.startswith("Photos")
        }

    return shown


@pytest.mark.parametrize("name", SHOWN)
def test_it_runs_and_shows_what_it_promises(pictures, name):
    shown = pictures(name)
    sizes = {title: (len(all_), all_[0].shape[1::-1]) for title, all_ in shown.items()}
    assert sizes == SHOWN[name]
    for picture in (one for all_ in shown.values() for one in all_):
        assert picture.std() > 10  # not of one colour, as failed sampling gives


def test_more_photos_give_another_picture(server, pictures):
    """Than the first one alone, and than the last three alone."""
    one, four = (
        pictures("toy_several_photos")[f"From {n}"][0] for n in ("one photo", "four photos")
    )
    assert not np.array_equal(one, four)
    workflow = shipped("toy_several_photos")
    (adding,) = (n for n in workflow.values() if "append_to" in n["inputs"])
    del adding["inputs"]["append_to"]
    (node,) = (key for key, n in workflow.items() if n["_meta"]["title"] == "From four photos")
    (path,) = server.files({node: server.prompt(workflow)[node]})
    assert not np.array_equal(np.asarray(Image.open(path).convert("RGB")), four)


def test_the_mix_is_neither_of_the_two(pictures):
    a, mix, b = (pictures("toy_mixing")[title][0] for title in ("A", "The mix", "B"))
    assert not np.array_equal(mix, a)
    assert not np.array_equal(mix, b)
    assert not np.array_equal(a, b)


def test_the_second_person_of_two_does_something(server, pictures):
    workflow = shipped("toy_two_people")
    (other,) = (n for n in workflow.values() if n["_meta"]["title"] == "Photos of B")
    other["inputs"]["person"] = 0
    (path,) = server.files(server.prompt(workflow))
    twice, both = (
        np.asarray(Image.open(path).convert("RGB")),
        pictures("toy_two_people")["Save Image"],
    )
    right = np.s_[:, 480:]
    assert np.abs(twice[right].astype(int) - both[0][right]).mean() > 5


def test_save_identity_leaves_the_file_that_saved_identity_takes(server, outputs):
    (text,) = outputs("toy_save_identity")["FlashFace Identity Save"]["text"]
    taken = inputs(shipped("toy_saved_identity"), "FlashFaceIdentityLoad")["filename"]
    assert taken == f"{SAVED}.safetensors"
    folder = server.base / "models" / "identities"
    assert text == f"4 photos in {folder / taken}"
    assert (folder / taken).is_file()


def test_an_identity_saved_under_another_name_draws_the_same_picture(server, pictures):
    saving, loading = shipped("toy_save_identity"), shipped("toy_saved_identity")
    inputs(saving, "FlashFaceIdentitySave")["filename"] = "family/anna"
    path = server.base / "models" / "identities" / "family" / "anna.safetensors"
    assert not path.exists()
    server.prompt(saving)
    assert path.is_file()
    inputs(loading, "FlashFaceIdentityLoad")["filename"] = "family/anna.safetensors"
    (drawn,) = server.files(server.prompt(loading))
    (expected,) = pictures("toy_saved_identity")["Save Image"]
    assert np.array_equal(np.asarray(Image.open(drawn).convert("RGB")), expected)


def test_a_deleted_identity_is_saved_again(server):
    saving = shipped("toy_save_identity")
    inputs(saving, "FlashFaceIdentitySave")["filename"] = "family/bob"
    path = server.base / "models" / "identities" / "family" / "bob.safetensors"
    for _ in range(2):
        server.prompt(saving)
        path.unlink()


def test_the_best_is_the_picture_that_the_report_calls_best(outputs, pictures):
    (report,) = outputs("toy_best_of_n")["Report"]["text"]
    best = int(re.search(r"best +image (\d)", report)[1])
    shown = pictures("toy_best_of_n")
    assert np.array_equal(shown["The best"][0], shown["All eight"][best])


# Of workflows for photographs: title of every node that shows pictures, how many, width and height.
PORTRAITS = {
    "02_portrait_from_photos": {
        "Save Image": (1, (96, 96)),
        "Face crops of the last photo": (1, FACE),
    },
    "03_child_and_elder": {"The child": (1, (96, 96)), "The elder": (1, (96, 96))},
    "04_face_into_picture": {"Save Image": (1, (SIDE, SIDE))},
    "05_two_people": {"Save Image": (1, (128, 80))},
    "06_mixing": {"Save Image": (1, (96, 96))},
    "07_hires_fix": {"Save Image": (1, (144, 144))},
    "08_drawing_to_person": {"Save Image": (1, (96, 96))},
    "09_best_of_four": {"All four": (4, (96, 96)), "The best": (1, (96, 96))},
    "10_face_pass": {"Save Image": (1, (SIDE, SIDE))},
    "11_character_sheet": {
        f"Picture {title}": (1, (96, 96))
        for title in ("smiling", "from the side", "at work", "in a coat")
    },
    "12_save_identity": {"What was found in the last photo": (1, (SIDE, SIDE))},
    "13_saved_identity": {"Save Image": (1, (96, 96))},
    "14_lora_and_controlnet": {"Lines": (1, (96, 96)), "Save Image": (1, (96, 96))},
    "15_other_base": {"Save Image": (1, (96, 96))},
    "16_face2diffusion": {"Save Image": (1, (64, 64))},
    "17_training_free": {"Save Image": (1, (128, 128))},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_workflow_for_photographs_runs_with_weights_in_the_published_layout(server, name):
    workflow = made_small(name)
    if name in OTHER_MODELS:
        workflow = without_checkpoints(workflow)
    shown = {
        workflow[node]["_meta"]["title"]: [
            np.asarray(Image.open(path).convert("RGB")) for path in server.files({0: out})
        ]
        for node, out in server.prompt(workflow).items()
        if "images" in out
    }
    assert {n: (len(all_), all_[0].shape[1::-1]) for n, all_ in shown.items()} == PORTRAITS[name]
    for picture in (one for all_ in shown.values() for one in all_):
        assert picture.std() > 3


@pytest.mark.parametrize(
    "width_height", [(SIDE, SIDE), (250, 203)], ids=["256", "no multiple of 8"]
)
def test_outside_of_the_mask_a_picture_keeps_its_pixels(server, width_height):
    photo = make_photo().resize(width_height)
    photo.save(server.base / "input" / "scene.png")
    workflow = made_small("04_face_into_picture")
    (scene,) = (n for n in workflow.values() if n["_meta"]["title"].startswith("The picture"))
    scene["inputs"]["image"] = "scene.png"
    (path,) = server.files(server.prompt(workflow))
    picture, photo = np.asarray(Image.open(path).convert("RGB")), np.asarray(photo)
    assert picture.shape[:2] == photo.shape[:2]
    kept = scipy.ndimage.minimum_filter(photo[..., 3], 19) == 255  # the mask is grown by 8
    assert np.array_equal(picture[kept], photo[kept][:, :3])
    painted = photo[..., 3] == 0
    changed = (picture != photo[..., :3]).any(2)
    assert changed[painted].mean() > 0.95


def test_a_face_pass_changes_the_face_of_a_picture_and_nothing_else(server):
    """The eyes of the photograph, where a face was found, and what is far away from it."""
    workflow = made_small("10_face_pass")
    crop = next(n for n in workflow.values() if n["class_type"] == "FlashFaceCropFace")
    box = dict(x=88, y=30, width=50, height=60)
    del crop["inputs"]["detector"]
    crop["inputs"].update(boxes=box)
    done = server.prompt(workflow)
    (saved,) = (key for key, node in workflow.items() if node["class_type"] == "SaveImage")
    (path,) = server.files({saved: done[saved]})
    picture, before = np.asarray(Image.open(path).convert("RGB")), np.asarray(make_photo())[..., :3]
    changed = (picture != before).any(2)
    assert changed[30:90, 88:138].mean() > 0.95
    side = 3 * 60  # the face and its margin of 1 on every side
    left, top = 113 - side // 2, 0
    changed[top : top + side, left : left + side] = False
    assert not changed.any()
    reports = [
        done[key]["text"][0]
        for key, node in workflow.items()
        if node["_meta"]["title"].startswith("Report ")
    ]
    assert len(reports) == 2 and all("1 picture" in one or "image 0" in one for one in reports)
