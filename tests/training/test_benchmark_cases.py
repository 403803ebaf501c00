"""The layouts in which benchmarks are published, made here, and what is taken of them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("webdataset", reason="reading photographs needs it")

from PIL import Image
from support.photographs import add, encoded

from flashface_core.errors import FlashFaceError
from training.photos.benchmark import write_cases
from training.photos.cases import Case, digest, with_subject
from training.photos.face2diffusion_protocol import read_protocol
from training.photos.multiid_bench import add_photos, read_multiid_bench


def picture(shade: int) -> bytes:
    return encoded(Image.new("RGB", (8, 8), (shade, 0, 0)), "PNG")


def row(number: int, people: int = 1, **changed) -> dict:
    """As the published table has them; pictures as the datasets library stores them."""
    photos = [{"bytes": picture(10 * number + n), "path": None} for n in range(1, people + 1)]
    found = {
        "ID": str(number),
        "GT": {"bytes": picture(10 * number), "path": "a.jpg"},
        "input_images": photos,
        "prompt": f"prompt {number}",
        "task_type": "id",
        "bboxes": "[[1, 2, 3, 4]]",
        "subset": "p1" if people == 1 else "p2",
        "num_persons": people,
    }
    return found | changed


def write_tables(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the published table is a parquet file")
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    for name, rows in (("0", [row(1), row(2, people=2)]), ("1", [row(3), row(4, GT=None)])):
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table, folder / "data" / f"train-0000{name}-of-00002.parquet")


def write_index(folder: Path) -> None:
    entries = []
    for number in (1, 3, 4):
        entry = {"prompt": f"prompt {number}", "image_paths": [f"000{number}_1.jpg"]}
        entries.append(entry | {"ori_img_path": f"000{number}.jpg"})
        if number != 4:
            add(folder, f"p1/untar/000{number}.jpg", picture(10 * number))
        add(folder, f"p1/untar/000{number}_1.jpg", picture(10 * number + 1))
    (folder / "p1.json").write_text(json.dumps(entries))
    (folder / "p2.json").write_text("[]")


def write_folders(folder: Path) -> None:
    for number, people in ((1, 1), (2, 2), (3, 1), (4, 0)):
        name = f"000{number}"
        add(folder, f"{name}/ori.jpg", picture(10 * number))
        for n in range(1, people + 1):
            add(folder, f"{name}/ref_{n}.jpg", picture(10 * number + n))
        add(folder, f"{name}/meta.json", json.dumps({"prompt": f"prompt {number}"}).encode())


@pytest.mark.parametrize("write", [write_tables, write_index, write_folders])
def test_every_published_layout_gives_the_cases_of_one_person(write, tmp_path, caplog):
    write(tmp_path)
    with caplog.at_level("INFO"):
        cases = read_multiid_bench(tmp_path)
    assert cases == [
        Case("0001", "0001", "prompt 1", (picture(11),), picture(10)),
        Case("0003", "0003", "prompt 3", (picture(31),), picture(30)),
    ]
    assert "are left out, which show several people or lack a picture" in caplog.text


def test_another_folder_is_one_sentence(tmp_path):
    with pytest.raises(FlashFaceError, match="is not MultiID-Bench: expected data/train-"):
        read_multiid_bench(tmp_path)
    (tmp_path / "p1.json").write_text("[")
    with pytest.raises(FlashFaceError, match=r"p1\.json is no JSON .*; copy it again"):
        read_multiid_bench(tmp_path)
    (tmp_path / "p1.json").write_text("{}")
    with pytest.raises(FlashFaceError, match=r"p1\.json holds a dict, expected a list"):
        read_multiid_bench(tmp_path)
    (tmp_path / "p1.json").write_text('[{"prompt": "a"}]')
    with pytest.raises(FlashFaceError, match="has an entry without prompt, image_paths or ori_img"):
        read_multiid_bench(tmp_path)
    (tmp_path / "p1.json").write_text("[]")
    with pytest.raises(FlashFaceError, match="has 0 cases and none with one person"):
        read_multiid_bench(tmp_path)


def test_other_tables_are_one_sentence(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the published table is a parquet file")
    from pyarrow import parquet

    path = tmp_path / "other.parquet"
    parquet.write_table(pa.table({"prompt": ["a"]}), path)
    with pytest.raises(FlashFaceError, match=r"other\.parquet has no column GT, input_images"):
        read_multiid_bench(tmp_path)
    path.write_bytes(b"no table")
    with pytest.raises(FlashFaceError, match=r"other\.parquet cannot be read .*; download it"):
        read_multiid_bench(tmp_path)


def test_cases_with_three_further_photographs_have_four(tmp_path):
    cases = [Case(name, name, "a man", (picture(1),), picture(2)) for name in ("0001", "0002")]
    for n in range(4):
        add(tmp_path, f"0001/{n}.png", picture(20 + n))
    for n in range(2):
        add(tmp_path, f"0002/{n}.png", picture(30 + n))
    (four,) = add_photos(cases, tmp_path)
    assert four.name == "0001" and four.photos == tuple(map(picture, (1, 20, 21, 22)))
    with pytest.raises(FlashFaceError, match=r"three photographs for none of the 1 cases; .*0002"):
        add_photos(cases[1:], tmp_path)


def test_every_face_is_drawn_with_every_prompt(tmp_path):
    add(tmp_path, "faces/anna/b.png", picture(2))
    add(tmp_path, "faces/anna/a.png", picture(1))
    add(tmp_path, "faces/carl.png", picture(3))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of S* at sea\n\n{} as a cook\nF L, smiling\n")
    cases = read_protocol(tmp_path / "faces", prompts)
    assert [(c.name, c.person, c.prompt) for c in cases[:4]] == [
        ("anna_00", "anna", "a photo of S* at sea"),
        ("anna_01", "anna", "S* as a cook"),
        ("anna_02", "anna", "S*, smiling"),
        ("carl_00", "carl", "a photo of S* at sea"),
    ]
    assert len(cases) == 6 and cases[0].photos == (picture(1),) and cases[0].truth is None
    prompts.write_text("a photo of S*\na photo of el faro\n")
    with pytest.raises(FlashFaceError, match="without a place for the person: 'a photo of el faro"):
        read_protocol(tmp_path / "faces", prompts)


def test_the_person_is_a_word_or_anybody():
    case = Case("a", "a", with_subject("a photo of f l, who is well l"), ())
    assert case.plain_prompt == "a photo of a person, who is well l"
    assert case.prompt_with("f l") == "a photo of f l, who is well l"
    free = case._replace(prompt="a man at sea")
    assert (free.plain_prompt, free.prompt_with("f l")) == ("a man at sea", "f l, a man at sea")


def test_a_digest_follows_names_prompts_and_photographs():
    case = Case("a", "a", "b", (b"c", b"d"))
    others = [
        case._replace(name="x"),
        case._replace(prompt="x"),
        case._replace(photos=(b"c",)),
        case._replace(photos=(b"cd", b"")),
    ]
    assert digest([case]) == digest([case._replace()])
    assert len({digest([one]) for one in [case, *others]}) == 5
    assert digest([]) != digest([case]) != digest([case, case])


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/b", "..", "a\\b", ""])
def test_a_case_is_written_below_the_folder_only(tmp_path, name):
    out = tmp_path / "in" / "out"
    with pytest.raises(FlashFaceError, match="which is not the name of a folder; rename"):
        write_cases(out, [Case(name, "anna", "a photo", (picture(1),))], {})
    assert not list(tmp_path.rglob("ref_1.jpg"))


def test_two_cases_of_one_name_are_refused(tmp_path):
    cases = [Case("a_1", who, "a photo", (picture(1),)) for who in ("a", "a_")]
    with pytest.raises(FlashFaceError, match="2 cases are called 'a_1'; rename"):
        write_cases(tmp_path, cases, {})


def test_an_index_reads_nothing_outside_of_the_benchmark(tmp_path):
    bench = tmp_path / "bench"
    write_index(bench)
    add(tmp_path, "secret.jpg", picture(200))
    entries = json.loads((bench / "p1.json").read_text())
    for path in ("../secret.jpg", "../../../secret.jpg", str(tmp_path / "secret.jpg")):
        entries.append({"prompt": "x", "image_paths": [path], "ori_img_path": "0001.jpg"})
    (bench / "p1.json").write_text(json.dumps(entries))
    assert [case.prompt for case in read_multiid_bench(bench)] == ["prompt 1", "prompt 3"]
