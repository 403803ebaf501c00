"""How an error of ours comes to the user, and to other processes."""

import copy
import pickle

import execution
import pytest
from flashface_pack.flashface_core.errors import FlashFaceError


def test_comfyui_shows_the_name_of_the_error_without_a_path():
    assert execution.full_type_name(FlashFaceError) == "FlashFaceError"


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_can_be_sent_to_another_process(again):
    error = again(FlashFaceError("The mask is empty."))
    assert type(error) is FlashFaceError and str(error) == "The mask is empty."
    assert isinstance(error, ValueError)
