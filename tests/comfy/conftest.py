"""A small FlashFace whose weights follow a rule, in the ComfyUI of this process."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from support.harness import load_flashface, make_features
from support.models import WIDE, write_flashface
from support.sampling import NEGATIVE, POSITIVE, noise
from support.systems import Bench

REFERENCE_SIZE = 8


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Networks this small gain nothing from threads, and lose much where others use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def as_the_server_does():
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def own_file_lists(monkeypatch):
    """Core remembers the folders that it has listed, and stumbles over those that are gone."""
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


@pytest.fixture(scope="module")
def sizes() -> dict:
    """Of `write_flashface`, for files of tests that need others."""
    return {}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, sizes) -> Path:
    return write_flashface(tmp_path_factory.mktemp("flashface") / "small.safetensors", **sizes)


@dataclass(frozen=True)
class FlashFace:
    """The loader's outputs, and inputs that most tests share."""

    model: Any
    net: Any
    positive: list
    negative: list

    def features(self, count: int = 2, weights=None, place=None, seed: int = 100):
        """FACE_FEATURES of `count` different photos."""
        photos = noise(seed, count, REFERENCE_SIZE, REFERENCE_SIZE)
        return make_features(self.net, photos, self.negative[0][0], weights, place)

    def people(self, *people):
        """FACE_FEATURES of several people, from the FACE_FEATURES of each."""
        return replace(people[0], people=tuple(p for person in people for p in person.people))


def load(checkpoint: Path, weight_dtype: str = "fp32") -> FlashFace:
    return FlashFace(*load_flashface(checkpoint, weight_dtype), POSITIVE, NEGATIVE)


@pytest.fixture(scope="module")
def flashface(checkpoint) -> FlashFace:
    return load(checkpoint)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> FlashFace:
    """For the tests of a file that need its width."""
    path = tmp_path_factory.mktemp("flashface") / "wide.safetensors"
    return load(write_flashface(path, **WIDE))


@pytest.fixture
def fresh(checkpoint) -> FlashFace:
    """Loaded for one test alone: nothing cached, nothing patched."""
    return load(checkpoint)


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    """Every system on a small UNet."""
    return Bench(tmp_path_factory.mktemp("systems"))
