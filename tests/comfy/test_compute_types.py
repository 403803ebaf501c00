"""Any MODEL's compute type beside networks of any other: core's ModelComputeDtype, half precision
files of other people, and fp8 storage.

Measured on what the network says at one step, every row with the face: the rounding of a pair of
types is at most twice that of the plain MODEL in the coarser one.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelComputeDtype
from flashface_pack.flashface_core.comfy_adapter.face_fusion.photos import (
    FaceFusion,
    load_face_fusion,
)
from flashface_pack.flashface_core.comfy_adapter.facestudio.networks import load_facestudio
from support.face_fusion import Fusion, write_file
from support.facestudio import person, write_facestudio
from support.facestudio_pictures import apply, encode
from support.harness import Place, load_flashface, make_features, observe, relative_error
from support.models import community_model, random_vae
from support.own_attention import from_node
from support.photos import identity
from support.sampling import NEGATIVE, POSITIVE, classic, everywhere, guided, noise, noisy

STEP = 501
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
COARSENESS = ["fp32", "fp16", "bf16", "fp8"]  # the later, the more is rounded
LOADER_MODEL = [(weights, compute) for weights in DTYPES for compute in ("default", *DTYPES)]
STORED = {**DTYPES, "fp8": torch.float8_e4m3fn}
PLACE = Place((0.1, 0.1, 0.6, 0.6))


@dataclass
class World:
    """Files of all systems for the small MODEL, and what was measured already."""

    checkpoint: Any
    folder: Any
    vae: Any
    known: dict

    def nets(self, dtype: str):
        return self.once(dtype, lambda: load_flashface(self.checkpoint, dtype))

    def community(self, stored: str, compute: str = "default"):
        """Somebody's MODEL: FlashFace's attention is put on it by Apply."""
        dtype = STORED[stored]
        cast = torch.float32 if stored == "fp8" else None
        model = community_model(self.nets("fp32")[0], 31, dtype, cast)
        # The node's "default" takes away fp8's compute type, and core cannot compute in fp8.
        return model if compute == "default" else computing(model, compute)

    def once(self, key, make):
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]


@pytest.fixture(scope="module")
def world(checkpoint, tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("types")
    world = World(checkpoint, folder, random_vae(4), {})
    with torch.inference_mode():
        model, _ = world.nets("fp32")
        for name, dtype in DTYPES.items():
            write_file(folder / f"fusion_{name}.safetensors", model, dtype=dtype)
        write_facestudio(folder / "studio.safetensors", model)
    return world


def computing(model, dtype: str):
    return ModelComputeDtype().patch(model, dtype)[0]


def eps(model, conds=(POSITIVE, NEGATIVE)) -> torch.Tensor:
    """UNet outputs of both rows, in float32."""
    model, seen = observe(model)
    guided(classic(model, *conds), noisy(model, noise(7), STEP), STEP)
    return torch.cat([part.float() for part in seen.eps])


def with_face(model, net, place=PLACE):
    return everywhere(
        model, make_features(net, noise(100, 2, 8, 8), NEGATIVE[0][0], place=place), 1
    )


def coarser(*dtypes: str) -> str:
    return max(dtypes, key=COARSENESS.index)


def assert_rounded_as(got, exact, plain: float) -> None:
    error = relative_error(got, exact)
    assert torch.isfinite(got).all() and error <= 2 * plain + 1e-6, (error, plain)


def loader_rounding(world, dtype: str) -> float:
    """Of the loader's MODEL computing in a type."""

    def measured():
        one, exact = (eps(computing(world.nets("fp32")[0], name)) for name in (dtype, "fp32"))
        return relative_error(one, exact)

    return world.once(("loader", dtype), measured)


def community_rounding(world, stored: str, compute: str = "default") -> float:
    def measured():
        return relative_error(eps(world.community(stored, compute)), eps(world.community("fp32")))

    return world.once((stored, compute), measured)


def exact_community(world) -> torch.Tensor:
    """With a face, in fp32 throughout."""
    return world.once(
        "exact", lambda: eps(with_face(world.community("fp32"), world.nets("fp32")[1]))
    )


@pytest.mark.parametrize(("weights", "compute"), LOADER_MODEL)
def test_the_loaders_model_computes_in_every_type(world, weights, compute):
    model, net = world.nets(weights)
    exact, exact_face = world.once(
        "loader exact",
        lambda: [eps(m) for m in (world.nets("fp32")[0], with_face(*world.nets("fp32")))],
    )
    plain = loader_rounding(world, coarser(weights, weights if compute == "default" else compute))
    model = computing(model, compute)
    assert_rounded_as(eps(model), exact, plain)
    assert_rounded_as(eps(with_face(model, net)), exact_face, plain)


@pytest.mark.parametrize("networks", DTYPES)
@pytest.mark.parametrize("stored", STORED)
def test_anybodys_model_beside_networks_of_every_type(world, stored, networks):
    got = eps(with_face(world.community(stored), world.nets(networks)[1]))
    plain = max(community_rounding(world, stored), community_rounding(world, networks))
    assert_rounded_as(got, exact_community(world), plain)


@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_fp8_storage_that_computes_in_half_precision(world, compute):
    for networks in DTYPES:
        got = eps(with_face(world.community("fp8", compute), world.nets(networks)[1]))
        assert_rounded_as(got, exact_community(world), community_rounding(world, "fp8", compute))


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("stored", STORED)
def test_a_model_that_looks_at_the_photos_itself(world, stored, compute):
    def drawn(stored, compute="default"):
        model = world.community(stored, compute)
        return eps(with_face(model, from_node(model), place=None))

    exact = world.once("training-free", lambda: drawn("fp32"))
    assert_rounded_as(drawn(stored, compute), exact, community_rounding(world, stored, compute))


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("file", [*DTYPES, "training-free"])
def test_face_fusion(world, file, compute):
    def drawn(file, compute="default"):
        path = world.folder / f"fusion_{file}.safetensors"
        fusion = FaceFusion() if file == "training-free" else load_face_fusion(path)
        model = world.community("fp32", compute)
        graph = Fusion(model, fusion, world.vae, POSITIVE, NEGATIVE, 64)
        return eps(graph.applied(identity()))

    stored, free = ("fp32", True) if file == "training-free" else (file, False)
    exact = world.once(f"Face Fusion {free}", lambda: drawn(file if free else "fp32"))
    plain = max(community_rounding(world, "fp32", compute), community_rounding(world, stored))
    assert_rounded_as(drawn(file, compute), exact, plain)


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("stored", STORED)
def test_facestudio(world, stored, compute):
    studio = world.once("studio", lambda: load_facestudio(world.folder / "studio.safetensors"))

    def drawn(stored, compute="default"):
        model = apply(world.community(stored, compute), studio)
        return eps(model, encode(studio, person(1)))

    exact = world.once("FaceStudio", lambda: drawn("fp32"))
    assert_rounded_as(drawn(stored, compute), exact, community_rounding(world, stored, compute))
