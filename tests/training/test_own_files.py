"""What users' own files may have in them."""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("webdataset", reason="reading photographs needs it")

from PIL import Image
from support.tools import ROOT

from flashface_core.errors import FlashFaceError
from training import options, train
from training.photos.cases import Case, digest
from training.photos.dataset import PeopleInShards
from training.photos.face2diffusion_protocol import read_protocol
from training.photos.multiid_bench import add_photos, read_multiid_bench
from training.photos.prepare import _write_reports
from training.photos.select import Dropped


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_names_that_are_no_utf8_are_written_as_they_are(tmp_path):
    """As zips from Windows leave them; Python hands them on as surrogates."""
    name = os.fsdecode(b"anna/caf\xe9.png")
    _write_reports(tmp_path, {"kept": 3}, [Dropped(name, "anna", "no face")])
    assert b"anna/caf\xe9.png,anna,no face" in (tmp_path / "report.csv").read_bytes()
    assert (tmp_path / "report.json").is_file()
    assert digest([Case(name, "anna", "a man", (b"c",))])


def test_pictures_csv_is_utf8_wherever_it_is_written(tmp_path):
    code = (
        "import sys; from pathlib import Path; from training.comfyui import find_comfyui\n"
        "find_comfyui(cpu=True)\n"
        "from training.photos.benchmark import Score\n"
        "from training.photos.benchmark_report import save_benchmark\n"
        "from training.photos.cases import Subset\n"
        "one = Score('\\u674e_00', '\\u674e', 'ArcFace', True, 0.1, 0.2, 0.3, 0.4)\n"
        "save_benchmark(Path(sys.argv[1]), ['| a |'], {Subset(): [one]})\n"
    )
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **plain})
    with open(tmp_path / "pictures.csv", newline="", encoding="utf-8") as file:
        assert [row["person"] for row in csv.DictReader(file)] == ["\u674e"]


def test_a_case_with_a_damaged_picture_is_left_out(tmp_path, caplog):
    for name, photo, truth in (
        ("0001", picture(1), picture(2)),
        ("0002", picture(3)[:900], picture(4)),
        ("0003", picture(5), b"no picture"),
    ):
        put(tmp_path / name / "ref_1.jpg", photo)
        put(tmp_path / name / "ori.jpg", truth)
        put(tmp_path / name / "meta.json", b'{"prompt": "a man"}')
    with caplog.at_level("INFO"):
        assert [case.name for case in read_multiid_bench(tmp_path)] == ["0001"]
    assert "0002 is left out: a picture of it cannot be read (" in caplog.text
    assert "0003 is left out: a picture of it cannot be read (" in caplog.text


def test_the_first_photograph_that_can_be_read_counts(tmp_path, caplog):
    put(tmp_path / "faces/anna/a.png", picture(1)[:900])
    put(tmp_path / "faces/anna/b.png", picture(2))
    put(tmp_path / "prompts.txt", b"S* at sea\n")
    with caplog.at_level("INFO"):
        (case,) = read_protocol(tmp_path / "faces", tmp_path / "prompts.txt")
    assert case.photos == (picture(2),) and "anna/a.png is left out: it cannot" in caplog.text
    (tmp_path / "faces/anna/b.png").unlink()
    with pytest.raises(FlashFaceError, match="No photograph in .* can be read"):
        read_protocol(tmp_path / "faces", tmp_path / "prompts.txt")


def test_hidden_files_are_no_photographs(tmp_path):
    cases = [Case("0001", "0001", "a man", (picture(0),), picture(9))]
    for n in (1, 2, 3):
        put(tmp_path / f"0001/{n}.png", picture(n))
        put(tmp_path / f"0001/._{n}.png", b"\x00\x05\x16\x07")
    (four,) = add_photos(cases, tmp_path)
    assert four.photos == tuple(map(picture, range(4)))


@pytest.mark.parametrize("name", ["prompt", "image_paths", "ori_img_path"])
def test_an_entry_with_null_is_no_traceback(tmp_path, name):
    put(tmp_path / "p1/untar/t.png", picture(1))
    put(tmp_path / "p1/untar/r.png", picture(2))
    entry = {"prompt": "a man", "image_paths": ["r.png"], "ori_img_path": "t.png"}
    (tmp_path / "p1.json").write_text(json.dumps([entry, {**entry, name: None}]))
    if name == "prompt":
        assert [case.prompt for case in read_multiid_bench(tmp_path)] == ["a man"]
    else:
        with pytest.raises(FlashFaceError, match="has an entry without prompt, image_paths or"):
            read_multiid_bench(tmp_path)


def people(folder: Path, names: list[str], side: int = 16) -> PeopleInShards:
    folder.mkdir()
    (folder / "latents-00000.tar").touch()
    np.savez(
        folder / "index.npz",
        shards=np.array(["latents-00000.tar"]), shard_bytes=np.array([0]),
        people=np.array(names), starts=np.array([0, 2, 4]), shard=np.zeros(4, dtype=int),
        places=np.zeros((4, 3, 2), dtype=int), boxes=np.full((4, 4), 0.5),
        shapes=np.full((4, 2), side),
    )  # fmt: skip
    return PeopleInShards(folder)


def test_a_run_tells_its_photographs_and_files_from_others(tmp_path):
    one, same = people(tmp_path / "a", ["anna", "bob"]), people(tmp_path / "b", ["anna", "bob"])
    other, larger = (
        people(tmp_path / "c", ["carl", "dora"]),
        people(tmp_path / "d", ["anna", "bob"], 32),
    )
    assert one.digest == same.digest
    assert len({one.digest, other.digest, larger.digest}) == 3
    file, another = tmp_path / "1", tmp_path / "2"
    file.write_bytes(b"1")
    another.write_bytes(b"2")
    given = dict(system="facestudio", clip=file, vae=file, go_on_from=None, identity_embedder=None)
    first = train.files_of(argparse.Namespace(**given))
    for name in ("clip", "go_on_from", "identity_embedder"):
        changed = train.files_of(argparse.Namespace(**{**given, name: another}))
        assert changed != first
    # The state of the others holds all that a file gave them.
    given |= dict(system="flashface", go_on_from=file)
    assert train.files_of(argparse.Namespace(**given)) == {
        name: told for name, told in first.items() if name != "go on from"
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--save-every", "0"], "save_every is 0; 1 is the least"),
        (["--accumulate", "0"], "accumulate is 0; 1 is the least"),
        (["--targets-per-group", "0"], "targets_per_group is 0; 1 is the least"),
        (["--drop-references", "10"], "drop_references is 10; a chance is between 0 and 1"),
        (["--drop-text", "0.6", "--drop-both", "0.6"], "exclude each other; they are 1.3 together"),
        (
            ["--favoured", "300", "2000", "0.5"],
            "favoured is 300 2000 0.5; it takes two",
        ),
        (["--favoured", "900", "300", "0.5"], "favoured is 900 300 0.5; it takes two"),
    ],
)
def test_numbers_that_no_run_can_have_are_one_sentence(given, said):
    parser = argparse.ArgumentParser()
    options.add_recipe_options(parser)
    with pytest.raises(FlashFaceError, match=said):
        options.make_recipe("flashface", parser.parse_args(given))
