"""A condition of FaceStudio on a MODEL that does not know of it."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from support.facestudio import person
from support.facestudio_pictures import apply, encode, for_any_model, predict, two
from support.sampling import basic, prompt


@pytest.mark.parametrize("batch", [1, 3])
def test_a_model_without_facestudio_apply_refuses_the_conditions(tiny, studio, batch):
    for conds in (encode(studio, person(1)), two(studio)):
        with pytest.raises(
            FlashFaceError, match="^A condition of FaceStudio .*FaceStudio Apply"
        ) as e:
            predict(tiny[0], conds, batch)
        assert "tiny.safetensors" in str(e.value) and "\n" not in str(e.value)


def test_one_condition_beside_a_text_is_refused_as_well(tiny, studio):
    positive, negative = encode(studio, person(1))
    with pytest.raises(FlashFaceError, match="FaceStudio Apply"):
        predict(tiny[0], (positive, prompt(1)))
    with pytest.raises(FlashFaceError, match="FaceStudio Apply"):
        predict(tiny[0], (prompt(1), negative))
    with pytest.raises(FlashFaceError, match="FaceStudio Apply"):
        predict(tiny[0], (positive,), guider=basic)


def test_behind_facestudio_apply_nothing_of_the_mark_is_left(tiny, studio):
    model = apply(tiny[0], studio)
    for conds in (encode(studio, person(1)), two(studio)):
        assert torch.equal(predict(model, conds), predict(model, for_any_model(conds)))
    with pytest.raises(FlashFaceError):  # the conditions are as they were
        predict(tiny[0], conds)
