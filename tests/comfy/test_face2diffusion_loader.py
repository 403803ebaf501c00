"""Face2DiffusionLoader: files in ComfyUI's folders, published and otherwise."""

import folder_paths
import pytest
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.face2diffusion import (
    FOLDER,
    Face2DiffusionLoader,
    Face2DiffusionTextEncode,
)
from flashface_pack.nodes.folders import CHECKPOINTS, register
from safetensors.torch import save_file
from support.face2diffusion import published_shapes, rule_state, write_published


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with both files."""
    folder = tmp_path_factory.mktemp("face2diffusion")
    write_published(folder)
    return folder


@pytest.fixture
def models(published, monkeypatch):
    folders = ([str(published)], set(CHECKPOINTS))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, folders)
    return published


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, FOLDER, ([str(tmp_path)], set(CHECKPOINTS))
    )
    return tmp_path


def test_folders_that_the_user_has_declared_stay_first(monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, (["/declared"], {".own"}))
    register(FOLDER, CHECKPOINTS)
    folders, extensions = folder_paths.folder_names_and_paths[FOLDER]
    assert folders[0] == "/declared" and folders[1].endswith("face2diffusion")
    assert extensions == {".own"} | set(CHECKPOINTS)


def test_the_published_files_load(models):
    made = Face2DiffusionLoader.execute("mapping.pt", "msid.safetensors").args[0]
    parameters = [*made.patcher.model.parameters()]
    assert parameters and not any(one.requires_grad for one in parameters)
    assert not made.patcher.model.training


def test_the_text_is_that_of_cores_node(models):
    text = next(i for i in Face2DiffusionTextEncode.define_schema().inputs if i.id == "text")
    described = text.as_dict()
    assert described["multiline"] is True and described["dynamicPrompts"] is True


def test_both_lists_show_the_folder_and_the_encoder_begins_with_msid(models):
    mapping, encoder = Face2DiffusionLoader.define_schema().inputs
    assert mapping.options == ["mapping.pt", "msid.safetensors"]
    assert encoder.options == ["msid.safetensors", "mapping.pt"]


def test_an_empty_folder_says_what_to_put_there(empty):
    assert [i.options for i in Face2DiffusionLoader.define_schema().inputs] == [["none"]] * 2
    answer = Face2DiffusionLoader.validate_inputs("none", "none")
    for words in ("'none' among nothing", str(empty), "mapping.pt and msid.pt", "press R"):
        assert words in answer


@pytest.mark.parametrize(
    ("mapping", "encoder", "missing"),
    [
        ("mapping.pt", "msid.safetensors", None),
        (None, None, None),
        ("other.pt", None, "other.pt"),
        ("mapping.pt", "other.pt", "other.pt"),
    ],
)
def test_file_names_are_validated(models, mapping, encoder, missing):
    answer = Face2DiffusionLoader.validate_inputs(mapping, encoder)
    assert answer is True if missing is None else f"no file {missing!r} among mapping.pt" in answer


def test_mixed_up_files_and_a_mapping_of_another_encoder_are_errors(models, tmp_path, monkeypatch):
    with pytest.raises(FlashFaceError, match=r"msid.safetensors is Face2Diffusion's face encoder"):
        Face2DiffusionLoader.execute("msid.safetensors", "mapping.pt")
    with pytest.raises(FlashFaceError, match=r"mapping.pt is Face2Diffusion's mapping network"):
        Face2DiffusionLoader.execute("mapping.pt", "mapping.pt")
    shapes = {
        key: (shape[0], 576) if key.endswith("layers.0.0.weight") else shape
        for key, shape in published_shapes("mapping").items()
    }
    save_file(rule_state(shapes), tmp_path / "arcface.safetensors")
    folders = ([str(models), str(tmp_path)], set(CHECKPOINTS))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, folders)
    with pytest.raises(FlashFaceError, match="vectors of 512 values, expected the 1536 of msid"):
        Face2DiffusionLoader.execute("arcface.safetensors", "msid.safetensors")
