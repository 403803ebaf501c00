import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face_fusion.file import read_face_fusion
from safetensors.torch import save_file

SITES = {("input", 1, 0): 8, ("middle", 0, 0): 16, ("output", 3, 1): 8}


def state(**changed):
    tensors = {
        ".".join(map(str, (*site, part, "weight"))): torch.full((width, width), float(width))
        for site, width in SITES.items()
        for part in "kv"
    }
    return {key: value for key, value in (tensors | changed).items() if value is not None}


def read(tmp_path, tensors, metadata=None):
    path = tmp_path / "fusion.safetensors"
    save_file(tensors, path, metadata)
    return read_face_fusion(path)


def test_sites_and_widths_follow_from_the_keys(tmp_path):
    file = read(tmp_path, state())
    assert (file.name, file.widths, file.reference_size) == ("fusion.safetensors", SITES, None)
    assert all(torch.equal(file.k[site], file.v[site]) for site in SITES)
    assert read(tmp_path, state(), {"reference_size": "64"}).reference_size == 64


def test_the_noise_of_the_training_stands_in_the_file(tmp_path):
    assert read(tmp_path, state()).reference_noise == "current step"
    assert read(tmp_path, state(), {"reference_noise": "none"}).reference_noise == "none"
    with pytest.raises(FlashFaceError, match="with the noise 'much'"):
        read(tmp_path, state(), {"reference_noise": "much"})


FOREIGN = {
    "another model": (
        state(**{"linear.weight": torch.ones(2, 2)}),
        "not a Face Fusion file.*linear",
    ),
    "another block": (
        state(**{"decoder.1.0.k.weight": torch.ones(2, 2)}),
        "not a Face Fusion file",
    ),
    "nothing": ({}, "no tensors"),
    "a half": (state(**{"middle.0.0.v.weight": None}), "missing at middle.0.0"),
    "no square": (
        state(**{"input.1.0.k.weight": torch.ones(8, 4), "input.1.0.v.weight": torch.ones(8, 4)}),
        r"input.1.0 are \(8, 4\) and \(8, 4\)",
    ),
    "two sizes": (state(**{"input.1.0.k.weight": torch.ones(4, 4)}), r"\(4, 4\) and \(8, 8\)"),
    "no matrix": (state(**{"input.1.0.k.weight": torch.ones(8)}), r"\(8,\) and \(8, 8\)"),
    "whole numbers": (state(**{"input.1.0.k.weight": torch.ones(8, 8).int()}), "torch.int32"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_other_file_is_an_error_of_one_sentence(tmp_path, name):
    tensors, message = FOREIGN[name]
    with pytest.raises(FlashFaceError, match=f"fusion.safetensors .*{message}"):
        read(tmp_path, tensors)


@pytest.mark.parametrize("size", ["0", "-64", "large", "", "56", "100", "64.0"])
def test_a_size_that_no_latent_has_is_an_error(tmp_path, size):
    with pytest.raises(FlashFaceError, match=f"photos are {size!r} .* multiple of 8 and at least"):
        read(tmp_path, state(), {"reference_size": size})


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "fusion.safetensors"
    save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FlashFaceError, match="not a whole safetensors file"):
        read_face_fusion(path)
