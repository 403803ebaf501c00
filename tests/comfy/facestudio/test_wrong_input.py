"""What FaceStudioLoader and FaceStudioEncode refuse, and what they say."""

import json

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.nodes.facestudio import FaceStudioEncode
from safetensors.torch import load_file, save_file
from support.facestudio import (
    CONFIG,
    STYLE,
    TOKENS,
    WIDTH,
    clip_vision,
    encode,
    face,
    person,
    style,
    write_facestudio,
)
from support.sampling import prompt

TEXT = prompt(3)


SDXL_TEXT = [[torch.randn(1, 77, 2048), {}]]
WRONG = {
    "no style": (dict(style=False), "takes a style image and was given none"),
    "NaN": (
        dict(style=False, style_image=style() * torch.nan),
        "The style image has pixels that are no numbers",
    ),
    "no text": (dict(alpha=0.5), "takes a text embedding and was given none"),
    "no photo": (dict(identity=person(name="Anna")), "identity Anna has no photo left"),
    "no detector": (dict(mask_face=True), "mask_face is on and no detector is connected"),
    "SDXL": (dict(alpha=0.5, text=SDXL_TEXT), "2048 wide, own.safetensors takes 768"),
    "two texts": (dict(alpha=0.5, text=TEXT + TEXT), "2 entries, FaceStudio takes exactly one"),
    "clip vision": (dict(clip_vision=object()), "a style encoder of its own, and 1 CLIP_VISION"),
    "clip vision at 0": (
        dict(alpha=0.0, text=TEXT, style=False, clip_vision_3=object()),
        "a style encoder of its own, and 1 CLIP_VISION models are connected; disconnect them",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_a_sentence(own, case):
    given, words = WRONG[case]
    given = {"identity": person(1), "alpha": 1.0, "mask_face": False, **given}
    if given.pop("style", True):
        given["style_image"] = style()
    with pytest.raises(FlashFaceError, match=words):
        FaceStudioEncode.execute(own, **given)


def test_what_a_file_does_not_bring_must_be_connected(connected, folder, tmp_path):
    with pytest.raises(FlashFaceError, match="ArcFace embeddings, and no detector is connected"):
        encode(connected)
    nobody = person(1, weights=[0.0])
    with pytest.raises(FlashFaceError, match="no style encoder of its own.* 24 values in all.$"):
        encode(connected, nobody)
    style_only, _ = encode(connected, nobody, clip_vision=clip_vision(STYLE, 1, tmp_path))
    assert style_only.shape == (1, TOKENS, WIDTH)
    cropped = Identity((FaceReference.from_crop(face(1)),))

    class Mtcnn:
        name, can_embed = "mtcnn", False

    with pytest.raises(FlashFaceError, match="ArcFace embeddings, and mtcnn has none"):
        encode(connected, cropped, detector=Mtcnn())


def test_text_without_a_prior_is_an_error(folder, tmp_path):
    state = load_file(folder / "connected.safetensors")
    without = {key: value for key, value in state.items() if not key.startswith("prior.")}
    save_file(without, tmp_path / "b.safetensors", {"tokens": str(TOKENS)})
    facestudio = load_facestudio(tmp_path / "b.safetensors")
    with pytest.raises(FlashFaceError, match="b.safetensors has no prior"):
        FaceStudioEncode.execute(facestudio, person(1, weights=[0.0]), 0.5, False, text=TEXT)


def test_another_style_encoder_than_its_configuration_says_is_an_error(tmp_path):
    def load(**config):
        text = json.dumps({**CONFIG, **config})
        path = tmp_path / "c.safetensors"
        return load_facestudio(write_facestudio(path, style_encoder__config=text))

    with pytest.raises(FlashFaceError, match="makes 7 values and a linear.weight that takes 24"):
        load(projection_dim=7)
    with pytest.raises(FlashFaceError, match=r"style_encoder.vis.+ of the shape"):
        load(hidden_size=32)
    with pytest.raises(FlashFaceError, match="lacks style_encoder.vision_model.encoder.layers.2"):
        load(num_hidden_layers=3)
    with pytest.raises(FlashFaceError, match="cannot build, siglip_vision_model"):
        load(model_type="siglip_vision_model")
    with pytest.raises(FlashFaceError, match="cannot build, .*KeyError: 'other'"):
        load(hidden_act="other")


def test_arcfaces_of_another_width_are_an_error(connected, tmp_path):
    class Narrow:
        name, can_embed, recognition = "narrow", True, "ArcFace"

        def embed(self, photo, face):
            return np.ones(128, np.float32)

    with pytest.raises(FlashFaceError, match="of 128 values, connected.* trained with 512"):
        encode(connected, detector=Narrow())
