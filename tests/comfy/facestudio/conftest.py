"""FaceStudio files made by rule, and the shipped tiny MODEL with one of them."""

import pytest
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from support.facestudio import write_facestudio
from support.facestudio_pictures import apply


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facestudio")
    write_facestudio(folder / "own.safetensors")
    write_facestudio(folder / "connected.safetensors", own_encoders=False)
    return folder


@pytest.fixture(scope="package")
def own(folder):
    """With encoders of its own."""
    return load_facestudio(folder / "own.safetensors")


@pytest.fixture(scope="package")
def connected(folder):
    """For ArcFace and connected CLIP vision models."""
    return load_facestudio(folder / "connected.safetensors")


@pytest.fixture(scope="package")
def tiny():
    """MODEL, REFERENCE_NET, CLIP and VAE."""
    return FlashFaceTinyModels.execute().args


@pytest.fixture(scope="package")
def studio(tiny, tmp_path_factory):
    """With tensors for the tiny MODEL."""
    path = tmp_path_factory.mktemp("facestudio_tiny") / "tiny.safetensors"
    return load_facestudio(write_facestudio(path, tiny[0]))


@pytest.fixture
def model(tiny, studio):
    return apply(tiny[0], studio)
