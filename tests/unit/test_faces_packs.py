"""Which InsightFace model packs are found, and which one is taken."""

import pytest
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.packs import choose_pack, find_model_packs, model_folder


@pytest.fixture
def roots(tmp_path):
    """Two roots; antelopev2 as its zip unpacks it, a folder of something else, a loose file."""
    files = [
        "a/models/buffalo_l/det_10g.onnx",
        "a/models/antelopev2/antelopev2/scrfd_10g_bnkps.onnx",
        "a/models/notes/readme.txt",
        "a/models/loose.onnx",
        "a/inswapper_128.onnx",
        "b/models/buffalo_l/det_10g.onnx",
        "b/models/own/det.onnx",
    ]
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return [tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"]


def test_packs_are_folders_with_onnx_files_also_one_level_too_deep(roots):
    packs = find_model_packs(roots)
    assert list(packs) == ["antelopev2", "buffalo_l", "own"]
    assert packs["buffalo_l"] == roots[0] / "models" / "buffalo_l"
    assert model_folder(packs["antelopev2"]) == packs["antelopev2"] / "antelopev2"
    assert model_folder(packs["own"]) == packs["own"]
    assert model_folder(roots[0] / "models" / "notes") is None
    assert find_model_packs([roots[2]]) == {}


@pytest.mark.parametrize(
    ("detector", "name", "expected"),
    [
        ("insightface", "own", "own"),
        ("auto", "own", "own"),
        ("auto", "none", "antelopev2"),
        ("auto", "gone", "antelopev2"),
        ("mtcnn", "own", None),
        ("mtcnn", "gone", None),
    ],
)
def test_the_named_pack_is_taken_and_auto_takes_any(roots, detector, name, expected):
    packs = find_model_packs(roots)
    assert choose_pack(detector, name, packs, roots) == (expected and packs[expected])


def test_without_packs_auto_is_without_insightface(roots):
    assert choose_pack("auto", "none", {}, roots) is None


@pytest.mark.parametrize(("name", "wanted"), [("gone", "gone"), ("none", "buffalo_l")])
def test_a_missing_pack_is_told_with_what_there_is_and_where_it_goes(roots, name, wanted):
    with pytest.raises(FlashFaceError) as caught:
        choose_pack("insightface", name, find_model_packs(roots), roots)
    for words in (repr(name), "antelopev2, buffalo_l, own", str(roots[0] / "models" / wanted)):
        assert words in str(caught.value)
    with pytest.raises(FlashFaceError, match="among nothing; unpack"):
        choose_pack("insightface", name, {}, roots)
