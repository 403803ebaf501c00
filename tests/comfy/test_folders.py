"""Folders of models, and what the pack itself ships for them."""

import asyncio

import folder_paths
import pytest
from flashface_pack.nodes import FlashFaceExtension, folders, saved
from flashface_pack.nodes.face2diffusion import Face2DiffusionLoader
from support.photos import identity, photos

FOLDER, OTHER = "a_system", "flashface"
OURS = ("flashface", "identities", "face2diffusion", "facestudio", "face_fusion", "opencv_zoo")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """models/ of a user and tiny_models/ of the pack, which ships something for FOLDER alone."""
    user, shipped = tmp_path / "models", tmp_path / "tiny_models"
    for path in (user / FOLDER, user / OTHER, shipped / FOLDER):
        path.mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "models_dir", str(user))
    monkeypatch.setattr(folders, "SHIPPED", shipped)
    known = dict(folder_paths.folder_names_and_paths)
    for name in OURS:  # an earlier test may have asked the pack for its nodes
        known.pop(name, None)
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return user, shipped


def put(folder, *names: str, into: str = FOLDER) -> None:
    for name in names:
        (folder / into / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / into / name).write_bytes(b"x")


def paths(folder: str) -> list[str]:
    return folder_paths.get_folder_paths(folder)


def test_what_the_pack_ships_is_a_second_place(models):
    user, shipped = models
    for _ in range(2):
        folders.register(FOLDER, folders.CHECKPOINTS)
    assert paths(FOLDER) == [str(user / FOLDER), str(shipped / FOLDER)]
    put(shipped, "b_tiny.safetensors", "notes.md")
    assert folders.files(FOLDER) == ["b_tiny.safetensors"]
    assert folders.check(FOLDER, ["b_tiny.safetensors"], "file", "") is True
    found = folder_paths.get_full_path_or_raise(FOLDER, "b_tiny.safetensors")
    assert found == str(shipped / FOLDER / "b_tiny.safetensors")


def test_a_folder_for_which_nothing_is_shipped_is_as_before(models):
    user, _ = models
    folders.register(OTHER, folders.CHECKPOINTS)
    assert paths(OTHER) == [str(user / OTHER)]
    assert folders.files(OTHER) == [folders.NOTHING]


def test_files_of_the_pack_stand_behind_those_of_the_user(models):
    user, shipped = models
    folders.register(FOLDER, folders.CHECKPOINTS)
    assert folders.files(FOLDER) == [folders.NOTHING]
    put(shipped, "a_tiny.safetensors", "c_tiny.safetensors")
    put(user, "b.pt", "more/d.pt")
    expected = ["b.pt", "more/d.pt", "a_tiny.safetensors", "c_tiny.safetensors"]
    assert [name.replace("\\", "/") for name in folders.files(FOLDER)] == expected


def test_a_file_of_the_user_goes_before_one_of_the_same_name(models):
    user, shipped = models
    folders.register(FOLDER, folders.CHECKPOINTS)
    put(shipped, "a_tiny.safetensors", "c_tiny.safetensors")
    put(user, "c_tiny.safetensors")
    assert folders.files(FOLDER) == ["c_tiny.safetensors", "a_tiny.safetensors"]
    found = folder_paths.get_full_path_or_raise(FOLDER, "c_tiny.safetensors")
    assert found == str(user / FOLDER / "c_tiny.safetensors")


def test_the_pack_is_no_place_that_users_are_told_of(models):
    user, shipped = models
    folders.register(FOLDER, folders.CHECKPOINTS)
    put(shipped, "a_tiny.safetensors")
    answer = folders.check(FOLDER, ["b.pt"], "file", "put it there.")
    expected = f"no file 'b.pt' among a_tiny.safetensors in {user / FOLDER}: put it there."
    assert answer == f"there is {expected}"


def test_own_and_shipped_files_are_told_apart(models):
    user, shipped = models
    folders.register(FOLDER, folders.CHECKPOINTS)
    assert folders.own(FOLDER) == folders.shipped(FOLDER) == []
    put(shipped, "a_tiny.safetensors", "c_tiny.safetensors")
    put(user, "b.pt", "c_tiny.safetensors")
    assert folders.own(FOLDER) == ["b.pt", "c_tiny.safetensors"]
    assert folders.shipped(FOLDER) == ["a_tiny.safetensors"]


def test_a_workflow_may_have_the_separators_of_another_system(models):
    user, _ = models
    folders.register(FOLDER, folders.CHECKPOINTS)
    put(user, "fam/anna.pt")
    for name in ("fam/anna.pt", "fam\\anna.pt"):
        assert folders.check(FOLDER, [name], "file", "") is True
        assert folders.path(FOLDER, name) == str(user / FOLDER / "fam" / "anna.pt")
    assert "'fam\\\\bob.pt'" in str(folders.check(FOLDER, ["fam\\bob.pt"], "file", ""))
    for name in ("fam\\bob.pt", "fam/bob.pt"):
        with pytest.raises(FileNotFoundError):
            folders.path(FOLDER, name)


def test_a_person_is_saved_in_models_whatever_extra_model_paths_says(models):
    user, shipped = models
    put(shipped, "tiny.safetensors", into=saved.FOLDER)
    folder_paths.add_model_folder_path(saved.FOLDER, str(user / "yaml"))
    folders.register(saved.FOLDER, [".safetensors"])
    assert folders.users_places(saved.FOLDER) == [user / "yaml", user / saved.FOLDER]
    saved.FlashFaceIdentitySave.execute(identity(photos(1)), "fam\\anna")
    saved_there = user / saved.FOLDER / "fam" / "anna.safetensors"
    assert saved_there.is_file()
    load = saved.FlashFaceIdentityLoad
    assert len(load.execute("fam\\anna.safetensors").args[0].references) == 1
    assert load.fingerprint_inputs("fam\\anna.safetensors")[2] == saved_there.stat().st_size


def test_the_users_face_encoder_goes_before_the_shipped_one_whatever_its_name(models):
    user, shipped = models
    shipped_files = ("mapping_tiny.safetensors", "msid_tiny.safetensors")
    put(shipped, *shipped_files, into="face2diffusion")
    folders.register("face2diffusion", folders.CHECKPOINTS)
    put(user, "encoder.pt", "mapping.pt", into="face2diffusion")
    mapping, encoder = (i.options for i in Face2DiffusionLoader.define_schema().inputs)
    assert mapping == ["encoder.pt", "mapping.pt", *shipped_files]
    assert encoder == ["encoder.pt", "mapping.pt", *reversed(shipped_files)]
    put(user, "my_msid.pt", into="face2diffusion/more")
    folder_paths.filename_list_cache.clear()
    (_, encoder) = (i.options for i in Face2DiffusionLoader.define_schema().inputs)
    assert encoder[0].endswith("my_msid.pt") and encoder[-2:] == [*reversed(shipped_files)]


@pytest.mark.parametrize("folder", ["facestudio", "face_fusion"])
def test_folders_of_this_packs_own_formats_list_safetensors_alone(models, folder):
    asyncio.run(FlashFaceExtension().get_node_list())
    put(models[0], "a.safetensors", "b.sft", "c.pt", "d.ckpt", "e.bin", into=folder)
    assert folders.own(folder) == ["a.safetensors", "b.sft"]


def test_the_folders_for_files_exist_after_the_first_start(models):
    user, _ = models
    asyncio.run(FlashFaceExtension().get_node_list())
    assert all((user / name).is_dir() for name in OURS)


def test_a_models_folder_that_cannot_be_written_stops_nothing(models, monkeypatch):
    user, _ = models
    (user / "plain").write_bytes(b"")
    monkeypatch.setattr(folder_paths, "models_dir", str(user / "plain"))  # a file, not a folder
    asyncio.run(FlashFaceExtension().get_node_list())
    assert str(user / "plain" / "flashface") in paths("flashface")
