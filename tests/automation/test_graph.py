"""Which input of a workflow a column means, and where photos go. No server is needed."""

import copy

import pytest

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from support.server import SHIPPED, api_workflow

from automation.graph import (
    NotFound,
    Target,
    find_chains,
    find_prompt,
    find_seeds,
    find_target,
    pruned,
    saves,
    sent,
    title,
    with_photos,
)
from automation.jobs import job_id
from automation.manifest import Line
from automation.png import with_text
from automation.prepare import photo_inputs

PORTRAIT, TWO = "02_portrait_from_photos", "05_two_people"


def chain_of(graph: dict) -> list[tuple[str, str]]:
    """Class and photo of the identity nodes that lead to the features, from the last one on."""
    (encode,) = (n for n in graph.values() if n["class_type"] == "FlashFaceEncode")
    node = graph[graph[encode["inputs"]["identity"][0]]["inputs"]["identity"][0]]
    found = []
    while node is not None:
        found.append(graph[node["inputs"]["image"][0]]["inputs"]["image"])
        before = node["inputs"].get("append_to")
        node = graph[before[0]] if before else None
    return found


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_as_many_identities_as_photos(count):
    graph = pruned(api_workflow(PORTRAIT))
    (chain,) = find_chains(graph)
    assert len(chain.nodes) == 4
    photos = [f"{n}.png" for n in range(count)]
    filled = pruned(with_photos(graph, chain, photos))
    assert chain_of(filled) == photos[::-1]
    identities = [n for n in filled.values() if n["class_type"] == "FlashFaceIdentity"]
    loaders = [n for n in filled.values() if n["class_type"] == "LoadImage"]
    assert len(identities) == len(loaders) == count
    assert all(n["inputs"]["detector"] == ["4", 0] for n in identities)
    assert graph == pruned(api_workflow(PORTRAIT))


def test_what_lies_between_a_photo_and_its_identity_is_kept():
    graph = pruned(api_workflow("01_start_here"))
    graph["20"] = {"class_type": "ImageCrop", "inputs": {"image": ["2", 0], "x": 3}}
    graph["3"]["inputs"]["image"] = ["20", 0]
    (chain,) = find_chains(graph)
    filled = pruned(with_photos(graph, chain, ["a.png", "b.png"]))
    crops = [n for n in filled.values() if n["class_type"] == "ImageCrop"]
    assert [n["inputs"]["x"] for n in crops] == [3, 3]
    photos = [filled[n["inputs"]["image"][0]]["inputs"]["image"] for n in crops]
    assert sorted(photos) == ["a.png", "b.png"]


def test_photos_of_every_row_may_stand_where_nothing_is_connected():
    graph = pruned(api_workflow("01_start_here"))
    (chain,) = find_chains(graph)
    own = {Target(node, "image") for node in chain.nodes}
    lines = [Line(1, {"photos": "a.png"}), Line(2, {"photos": "b.png", "seed": 1})]
    assert photo_inputs(lines, graph) == own
    assert photo_inputs([*lines, Line(3, {"seed": 2})], graph) == set()
    graph = pruned(api_workflow(TWO))
    _, second = find_chains(graph)
    assert photo_inputs([Line(1, {"Photo of B.photos": "b.png"})], graph) == {
        Target(node, "image") for node in second.nodes
    }


def test_people_are_told_apart_by_their_photos_titles():
    graph = pruned(api_workflow(TWO))
    first, second = find_chains(graph)
    assert "photo of a" in first.names and "photo of b" in second.names
    filled = with_photos(with_photos(graph, first, ["a.png"]), second, ["b.png", "c.png"])
    groups = [n for n in filled.values() if n["class_type"] == "FlashFaceIdentityPlace"]
    ends = [filled[n["inputs"]["identity"][0]] for n in groups]
    assert [filled[n["inputs"]["image"][0]]["inputs"]["image"] for n in ends] == ["a.png", "c.png"]


# They have no prompt of their own: a row names the texts that it means.
SEVERAL = {
    "03_child_and_elder": "2 texts that may be meant.*A child.text, An elder.text",
    "11_character_sheet": "4 texts that may be meant.*smiling.text, from the side.text",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_workflows_have_their_prompt_and_seed(name):
    graph = api_workflow(name)
    if not saves(graph):
        pytest.skip("it saves no picture")
    graph = pruned(graph)
    assert find_seeds(graph)
    if name in SEVERAL:
        with pytest.raises(NotFound, match=SEVERAL[name]):
            find_prompt(graph)
    elif "style" not in name:
        assert title(graph, find_prompt(graph).node) == "Positive prompt"


def test_a_title_that_several_nodes_have_is_refused_and_their_ids_are_taken():
    graph = pruned(api_workflow(PORTRAIT))
    with pytest.raises(NotFound, match="4 nodes have this title; use one of their ids, as in 9.we"):
        find_target(graph, "FlashFace Identity.weight")
    assert find_target(graph, "10.weight") == ("10", "weight")
    assert find_target(graph, "ksampler.cfg").input == "cfg"


def test_an_id_follows_from_what_determines_the_picture_and_nothing_else():
    graph = sent(pruned(api_workflow("01_start_here")))
    same = {key: {**graph[key], "_meta": {"title": "another"}} for key in reversed(graph)}
    assert job_id(graph, "1") == job_id(same, "1")
    assert job_id(graph, "1") != job_id(graph, "2")
    other = copy.deepcopy(graph)
    other["11"]["inputs"]["seed"] = 2
    assert job_id(graph, "1") != job_id(other, "1")


def test_text_is_put_into_a_png_only():
    with pytest.raises(ValueError, match="no PNG"):
        with_text(b"GIF89a", "key", "text")
