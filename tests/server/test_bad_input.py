"""Bad input over HTTP: one clear sentence each, and the server goes on."""

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.server import add_node, complaint, inputs, node_id, small_workflow

pytestmark = pytest.mark.server

GOOD = "flashface.safetensors"


class RunsCode:
    """Pickles to a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


@pytest.fixture(scope="module")
def folder(server) -> Path:
    """models/flashface with files that a user may have put there."""
    folder = server.base / "models" / "flashface"
    good = (folder / GOOD).read_bytes()
    (folder / "half.safetensors").write_bytes(good[: len(good) // 2])
    torch.save({"ori_encoder.0.weight": torch.zeros(64, 5, 3, 3)}, folder / "half.ckpt")
    (folder / "half.ckpt").write_bytes((folder / "half.ckpt").read_bytes()[:2000])
    torch.save({"x": RunsCode(folder / "code_ran")}, folder / "code.ckpt")
    save_file(
        {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)},
        folder / "sd15.safetensors",
    )
    state = load_file(folder / GOOD)
    save_file(
        {key: value for key, value in state.items() if not key.startswith("ref_decoder.0.")},
        folder / "incomplete.safetensors",
    )
    changed = {key: -value for key, value in state.items() if "self_attn_first.q" in key}
    save_file({**state, **changed}, folder / "other.safetensors")
    return folder


def load(name):
    def change(workflow):
        inputs(workflow, "FlashFaceLoader")["model_name"] = name

    return change


def place(**numbers):
    def change(workflow):
        inputs(workflow, "FlashFaceIdentityPlace").update(numbers)

    return change


def empty_mask(workflow):
    mask = add_node(workflow, "SolidMask", value=0.0, width=64, height=64)
    inputs(workflow, "FlashFaceIdentityPlace")["mask"] = [mask, 0]


def apply_twice(workflow):
    first = node_id(workflow, "FlashFaceApply")
    second = add_node(
        workflow, "FlashFaceApply", model=[first, 0], features=workflow[first]["inputs"]["features"]
    )
    inputs(workflow, "KSampler")["model"] = [second, 0]


def features_of_another_checkpoint(workflow):
    other = add_node(
        workflow, "FlashFaceLoader", model_name="other.safetensors", weight_dtype="default"
    )
    inputs(workflow, "FlashFaceEncode")["reference_net"] = [other, 1]


def two_negatives(workflow):
    negative = [node_id_of_negative(workflow), 0]
    both = add_node(
        workflow, "ConditioningCombine", conditioning_1=negative, conditioning_2=negative
    )
    inputs(workflow, "FlashFaceEncode")["negative"] = [both, 0]


def node_id_of_negative(workflow):
    return inputs(workflow, "KSampler")["negative"][0]


def never(workflow):
    inputs(workflow, "FlashFaceGuidance").update(start_percent=0.6, end_percent=0.5)


def photo_count_of_zero(workflow):
    inputs(workflow, "FlashFaceIdentity").update(select="index", index=3, no_face="skip image")


def face_that_is_not_there(workflow):
    inputs(workflow, "FlashFaceIdentity").update(select="index", index=3)


# What is wrong: the change to the workflow, the node that complains, words of its sentence.
BAD = {
    "model file that is not there": (
        load("nowhere.safetensors"),
        "FlashFaceLoader",
        ["nowhere.safetensors", "flashface.ckpt", "tools/convert.py", "press R"],
    ),
    "half a safetensors file": (
        load("half.safetensors"),
        "FlashFaceLoader",
        ["half.safetensors", "not a whole", "again"],
    ),
    "half a ckpt file": (
        load("half.ckpt"),
        "FlashFaceLoader",
        ["half.ckpt", "damaged or incomplete", "again"],
    ),
    "a file that would run code": (
        load("code.ckpt"),
        "FlashFaceLoader",
        ["code.ckpt", "refused", "safetensors"],
    ),
    "a Stable Diffusion checkpoint": (
        load("sd15.safetensors"),
        "FlashFaceLoader",
        ["sd15.safetensors", "Stable Diffusion", "core's checkpoint loader"],
    ),
    "a checkpoint with missing tensors": (
        load("incomplete.safetensors"),
        "FlashFaceLoader",
        ["incomplete.safetensors", "is incomplete", "missing", "again"],
    ),
    "a place outside the picture": (
        place(x=1.0),
        "FlashFaceIdentityPlace",
        ["outside the picture", "x 1", "width 0.3"],
    ),
    "a place without size": (
        place(width=0.0),
        "FlashFaceIdentityPlace",
        ["no size", "width 0"],
    ),
    "a place of a fraction of a pixel": (
        place(x=0.99, y=0.99, width=0.001, height=0.001),
        "KSampler",
        ["place of the face", "64x64", "larger"],
    ),
    "an empty mask": (empty_mask, "FlashFaceIdentityPlace", ["mask is empty", "64"]),
    "Apply twice": (apply_twice, "FlashFaceApply", ["already", "FlashFace Identity Group"]),
    "two checkpoints mixed": (
        features_of_another_checkpoint,
        "FlashFaceApply",
        ["flashface.safetensors", "other.safetensors", "one FlashFace Loader"],
    ),
    "a negative of two entries": (two_negatives, "FlashFaceEncode", ["2 entries", "exactly one"]),
    "an empty part of sampling": (
        never,
        "FlashFaceGuidance",
        ["start_percent 0.6", "end_percent 0.5"],
    ),
    "a face that is not in the photo": (
        face_that_is_not_there,
        "FlashFaceIdentity",
        ["1 faces", "number 3", "index below 1"],
    ),
    "an identity without photos": (
        photo_count_of_zero,
        "FlashFaceEncode",
        ["no photo left", "FlashFace Identity", "use whole image"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_with_one_sentence_and_the_next_run_works(server, folder, case):
    change, class_type, words = BAD[case]
    workflow = small_workflow()
    change(workflow)
    line = complaint(server, workflow)
    # Some are refused before anything runs; of an exception the dialog shows type and sentence.
    assert re.match(rf"node \d+ \({class_type}\)(:| raised FlashFaceError:) ", line), line
    for word in words:
        assert word in line, line
    assert not (folder / "code_ran").exists()
    server.prompt(small_workflow(seed=100 + list(BAD).index(case)))


def test_a_model_file_added_while_the_server_runs_is_found(server, folder):
    (folder / "new.safetensors").hardlink_to(folder / GOOD)
    options = server.get("/object_info/FlashFaceLoader")["FlashFaceLoader"]["input"]["required"]
    assert "new.safetensors" in options["model_name"][1]["options"]
    workflow = small_workflow()
    load("new.safetensors")(workflow)
    server.prompt(workflow)
