"""Saved identities: everything comes back, nothing is overwritten, bad files are refused."""

import dataclasses
import errno
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from flashface_pack.flashface_core import weights_file
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people import identity_file
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from flashface_pack.flashface_core.people.identity_file import load_identity, save_identity
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.flashface_core.weights_file import save_whole
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def pixels(*shape, seed=0) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def anna(**changes) -> Identity:
    photos = (
        FaceReference.from_crop(
            pixels(40, 30, 3),
            0.1,
            box=(1.5, -2.25, 31.5, 37.0),
            points=torch.linspace(0, 30, 10, dtype=torch.float64).reshape(5, 2) / 3,
            aligned=pixels(112, 112, 3, seed=1),
        ),
        FaceReference.from_crop(pixels(7, 9, 3, seed=2), 1 / 3),
    )
    mask = torch.zeros(2, 16, 24, dtype=torch.bool)
    mask[:, 3:9, 4:11] = True
    place = Place((0.1, 0.2, 0.3, 0.4), mask, strength=0.7, inside_region=True)
    return dataclasses.replace(Identity(photos, "\u00c4nn\u00e4", False, place), **changes)


def same(a, b) -> bool:
    if dataclasses.is_dataclass(a):
        names = [field.name for field in dataclasses.fields(a)]
        return type(a) is type(b) and all(same(getattr(a, n), getattr(b, n)) for n in names)
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def saved(tmp_path, identity=None):
    return save_identity(identity or anna(), tmp_path, "anna")


@pytest.mark.parametrize(
    "identity",
    [anna(), anna(place=None, as_four_photos=True), anna(place=Place((0.1, 0.2, 0.3, 0.4)))],
    ids=["mask", "no place", "box"],
)
def test_everything_comes_back(tmp_path, identity):
    path = saved(tmp_path, identity)
    assert path == tmp_path / "anna.safetensors"
    assert same(load_identity(path), identity)
    assert not list(tmp_path.glob("*.part"))


def test_the_metadata_says_what_it_is(tmp_path):
    with safe_open(saved(tmp_path), "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "flashface identity" and metadata["version"] == "1"
    assert metadata["saved_by"].startswith("FlashFace") and metadata["saved"][:2] == "20"
    assert json.loads(metadata["identity"])["name"] == "\u00c4nn\u00e4"


def test_nothing_is_overwritten_and_nothing_is_saved_twice(tmp_path):
    first = saved(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert saved(tmp_path) == first and first.stat().st_mtime_ns == stamp
    other = saved(tmp_path, anna(name="other"))
    assert other.name == "anna_2.safetensors"
    assert saved(tmp_path, anna(name="other")) == other
    assert same(load_identity(first), anna())
    first.write_bytes(b"somebody else's file")
    assert saved(tmp_path).name == "anna_3.safetensors"
    assert first.read_bytes() == b"somebody else's file"


def test_two_servers_that_save_at_once_keep_both_people(tmp_path, monkeypatch):
    both_have_looked, calls = threading.Barrier(2), itertools.count()
    write = identity_file.save_whole

    def late(*given, **options):
        if next(calls) < 2:
            both_have_looked.wait(10)
        return write(*given, **options)

    monkeypatch.setattr(identity_file, "save_whole", late)
    people = [anna(name="one"), anna(name="other")]
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda person: saved(tmp_path, person), people))
    assert {path.name for path in paths} == {"anna.safetensors", "anna_2.safetensors"}
    for person, path in zip(people, paths, strict=True):
        assert same(load_identity(path), person)
    assert len(list(tmp_path.iterdir())) == 2


def test_where_no_links_can_be_made_nothing_is_overwritten_either(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert saved(tmp_path).name == "anna.safetensors"
    with pytest.raises(FileExistsError):
        save_whole({}, tmp_path / "anna.safetensors", replace=False)
    assert same(load_identity(tmp_path / "anna.safetensors"), anna())


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "family").touch()
    with pytest.raises(FlashFaceError, match="anna.safetensors cannot be written"):
        save_identity(anna(), tmp_path, "family/anna")


def test_names_and_folders(tmp_path):
    assert save_identity(anna(), tmp_path, "").name == "\u00c4nn\u00e4.safetensors"
    assert save_identity(anna(), tmp_path, "a/b c.safetensors") == tmp_path / "a/b c.safetensors"
    assert save_identity(anna(), tmp_path, "v1.5").name == "v1.5.safetensors"


@pytest.mark.parametrize(
    "name",
    ["../anna", "/anna", "a//b", "a\\..\\b", "c:x", "a\nb", "..", "a.", "a\ud83d", "\ude00/a"],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    folder = tmp_path / "identities"
    with pytest.raises(FlashFaceError, match="not a name for a file"):
        save_identity(anna(), folder, name)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_identity_named_with_half_an_emoji_by_older_versions_needs_a_filename(tmp_path):
    half = anna(name="Anna \ud83d")
    with pytest.raises(FlashFaceError, match="not a name for a file"):
        save_identity(half, tmp_path, "")
    assert load_identity(save_identity(half, tmp_path, "anna")).name == half.name


def test_without_any_name_or_photo(tmp_path):
    with pytest.raises(FlashFaceError, match="not a name for a file"):
        save_identity(anna(name=""), tmp_path, " ")
    with pytest.raises(FlashFaceError, match="0 references"):
        save_identity(anna(references=()), tmp_path, "anna")


def rewritten(path, change):
    """The file with its tensors and metadata changed."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    described = json.loads(metadata["identity"])
    change(tensors, metadata, described)
    metadata["identity"] = json.dumps(described)
    save_file(tensors, path, metadata)
    return path


def drop(key):
    return lambda tensors, metadata, described: tensors.pop(key)


def set_version(value):
    return lambda tensors, metadata, described: metadata.update(version=value)


def change_pixel(tensors, metadata, described):
    tensors["photo.1.crop"] = tensors["photo.1.crop"] ^ 1


def other_shape(tensors, metadata, described):
    tensors["photo.0.points"] = torch.zeros(4, 2)


def float_crop(tensors, metadata, described):
    tensors["photo.0.crop"] = tensors["photo.0.crop"].float()


def endless_weight(tensors, metadata, described):
    described["photos"][0]["weight"] = float("inf")


def enormous_weight(tensors, metadata, described):
    described["photos"][0]["weight"] = 10**400


def place_nowhere(tensors, metadata, described):
    described["place"]["box"][0] = float("nan")


def negative_weight(tensors, metadata, described):
    described["photos"][0]["weight"] = -1


def no_photos(tensors, metadata, described):
    described["photos"] = []


def weight_in_words(tensors, metadata, described):
    described["photos"][0]["weight"] = "much"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_version("2"), "version 2, this pack reads version 1"),
        (lambda t, m, d: m.pop("version"), "version unknown"),
        (lambda t, m, d: m.update(format="x"), "not a saved identity .*'x'"),
        (drop("photo.0.crop"), "damaged .*photo.0.crop"),
        (change_pixel, "damaged .*photo 1"),
        (other_shape, "damaged .*photo.0.points"),
        (float_crop, "damaged .*float32"),
        (no_photos, "damaged .*no photo"),
        (weight_in_words, "damaged .*much"),
        (negative_weight, "weight is -1"),
        (endless_weight, "weight is inf"),
        (enormous_weight, "damaged .*too large"),
        (place_nowhere, "finite numbers"),
        (lambda t, m, d: d.pop("photos"), "damaged .*photos"),
        (drop("place.mask"), "damaged .*place.mask"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, change, message):
    path = rewritten(saved(tmp_path), change)
    with pytest.raises(FlashFaceError, match=message):
        load_identity(path)


@pytest.mark.parametrize("size", [0, 7, 300, -5])
def test_truncated_files(tmp_path, size):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FlashFaceError, match=r"anna.safetensors is not a whole safetensors file"):
        load_identity(path)


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "family").write_text("a file where a folder should be")
    for name in ("family/anna", "a" * 300):
        with pytest.raises(FlashFaceError, match="cannot be written"):
            save_identity(anna(), tmp_path, name)


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """A drive on which nothing can be written, also not by root; what is in it is read."""
    drive = tmp_path / "drive"
    drive.mkdir()

    def touch(path, real=Path.touch):
        if path.is_relative_to(drive):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path)

    monkeypatch.setattr(weights_file.Path, "touch", touch)
    return drive


def test_a_person_goes_where_asked_and_elsewhere_where_that_is_read_only(tmp_path, read_only):
    other = tmp_path / "other"
    assert save_identity(anna(), other, "f/a", [read_only, other]) == other / "f/a.safetensors"
    assert save_identity(anna(), read_only, "b", [read_only, other]) == other / "b.safetensors"
    with pytest.raises(FlashFaceError, match="c.safetensors cannot .*make its folder writable, or"):
        save_identity(anna(), read_only, "c", [read_only])


def test_a_name_that_another_place_has_would_hide_the_person(tmp_path):
    first, own = tmp_path / "first", tmp_path / "own"
    save_identity(anna(name="other"), first, "anna")
    path = save_identity(anna(), own, "anna", [first, own])
    assert path == own / "anna_2.safetensors"
    assert save_identity(anna(name="other"), own, "anna", [first, own]).parent == first


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of files are those of POSIX")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(FlashFaceError, match="anna.safetensors cannot be written .*too large"):
            save_identity(anna(), tmp_path, "anna")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("anna*"))


def test_a_loaded_identity_does_not_change_with_its_file(tmp_path):
    path = saved(tmp_path)
    loaded, data = load_identity(path), bytearray(path.read_bytes())
    with open(path, "r+b") as file:
        file.write(bytes(len(data)))
    assert same(loaded, anna())
