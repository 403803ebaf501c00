"""FaceStudio's and Face Fusion's formulas, against numbers computed in float64 (README, part 4)."""

import re

import pytest
import torch
from flashface_pack.flashface_core.face_fusion.fusion import (
    FaceProjection,
    face_tokens,
    fuse_rows,
)
from flashface_pack.flashface_core.facestudio.condition import (
    HybridCondition,
    attend_to_identities,
    join_tokens,
    mix_faces,
)
from support.fused import fuse, person_keys
from support.golden import golden_files
from support.harness import relative_error

# The files are float64 numbers stored in float32; the README sets no limit for them.
LIMIT = 2e-6
HEADS = 4
SYSTEMS = ("facestudio", "face_fusion")
FILES = [file for system in SYSTEMS for file in golden_files(system)]


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
@torch.no_grad()
def test_formula(file):
    system, kind = file.metadata["system"], file.metadata.get("kind")
    assert kind == "formula", f"{file.name} is of unknown kind {kind!r}; known: formula"
    CHECKS[system](file.tensors())


@pytest.mark.parametrize("system", SYSTEMS)
def test_there_are_formulas_of(system):
    assert golden_files(system), f"no golden file of {system} was found: nothing was compared"


def check(what, got, expected):
    error = relative_error(got, expected)
    print(f"{what:20} {error:.1e}")
    assert got.shape == expected.shape, what
    assert error <= LIMIT, f"{what}: relative error {error:.2e} above {LIMIT:.0e}"


def facestudio(data):
    alpha, ratio = data["alpha"].item(), data["ratio"].item()
    width = data["Wk"].shape[1]
    faces = data["ef"]
    people = torch.cat([mix_faces(faces[:2], [1 - ratio, ratio]), mix_faces(faces[2:], [1.0])])
    check("ef_ids", people, data["ef_ids"])

    condition = HybridCondition(data["eh"].shape[1], faces.shape[1], width, len(data["b"]) // width)
    condition.linear.load_state_dict({"weight": data["W"], "bias": data["b"]})
    guidance = condition(people, data["eh"], data["eT"], alpha)
    check("eg", guidance, data["eg"])

    x, context = data["x"], join_tokens(guidance)
    q, k, v = x @ data["Wq"].T, context @ data["Wk"].T, context @ data["Wv"].T
    identities = data["region"].long().clamp(min=0).flatten()[None]

    def attention(identities):
        return attend_to_identities(q, k, v, identities, HEADS, len(people), condition.tokens)

    check("attn_out", attention(identities), data["attn_out"])
    for person in range(len(people)):
        got = attention(torch.full_like(identities, person))
        check(f"attn_per_id {person}", got, data["attn_per_id"][person : person + 1])


def face_fusion(data):
    x, context, features = data["x"], data["ctx"], data["href"]
    q, k, v = x @ data["Wq"].T, context @ data["Wk"].T, context @ data["Wv"].T
    project = FaceProjection(x.shape[-1])
    project.k.weight.copy_(data["Wk_face"])
    project.v.weight.copy_(data["Wv_face"])
    faces, owner = face_tokens(data["face"], data["face"].shape[1:]), data["owner"].long()
    regions = data["region"].flatten(1) > 0.5

    def references(with_regions):
        entries = []
        for person, region in enumerate(regions):
            photos = owner == person
            weights = [1.0] * int(photos.sum())
            chosen = features[photos], faces[photos]
            entries += person_keys(project, *chosen, weights, region if with_regions else None)
        return entries

    check("text_only", fuse(q, k, v, [], 1.0, HEADS), data["text_only"])
    outs = [re.fullmatch(r"out_s(\d{3})_(all|region)", key) for key in data]
    outs = [match for match in outs if match]
    assert outs, "the file has no output: nothing was compared"
    for match in outs:
        entries, strength = references(match[2] == "region"), int(match[1]) / 100
        got = fuse(q, k, v, entries, strength, HEADS)
        check(match[0], got, data[match[0]])
        if strength == 0:
            assert torch.equal(got, fuse(q, k, v, [], 1.0, HEADS))
    all_keys, all_values = project(features.flatten(0, 1)[None])
    got = fuse_rows(q, k, v, all_keys, all_values, faces.flatten()[None], HEADS)
    check("out_s100_all, rows", got, data["out_s100_all"])


CHECKS = {"facestudio": facestudio, "face_fusion": face_fusion}
