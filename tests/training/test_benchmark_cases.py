"""The layouts in which benchmarks are published, made here, and what is taken of them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("webdataset", reason="reading photographs needs it")

from PIL import Image
from support.photographs import add, encoded

from flashface_core.errors import FlashFaceError
from training.photos.benchmark import write_cases
from training.photos.cases import Case, Subset, digest, with_subject
from training.photos.face2diffusion_protocol import read_protocol
from training.photos.multiid_bench import add_photos, read_multiid_bench, subsets_of


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
        "bboxes": json.dumps([[n, 2, n + 3, 4] for n in range(people)]),
        "subset": {1: "p1", 2: "p2"}.get(people, "p3"),
        "num_persons": people,
    }
    return found | changed


def write_tables(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the published table is a parquet file")
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    lacking = row(5, people=2)
    lacking["input_images"][1] = None
    first = [row(1), row(2, people=2)]
    second = [row(3), row(4, GT=None), lacking, row(6, people=4), row(7, people=5)]
    for name, rows in (("0", first), ("1", second)):
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table, folder / "data" / f"train-0000{name}-of-00002.parquet")


def write_index(folder: Path, names=("p1", "p2", "p3")) -> None:
    """names: of the subsets. The fourth case lacks its true picture, the fifth a reference."""
    entries: dict[int, list[dict]] = {1: [], 2: [], 4: []}
    for number, people in PEOPLE.items():
        subset, true = names[(1, 2, 4).index(people)], f"000{number}"
        own, photos = f"{subset}/untar", [f"{true}_{n}.jpg" for n in range(1, people + 1)]
        if people == 4:
            own, true = subset, f"num_4/{true}"
            photos = [f"refs/person_{n}/{photo}" for n, photo in enumerate(photos, 1)]
        if number != 4:
            add(folder, f"{own}/{true}.jpg", picture(10 * number))
        about = {"caption_en": "unused", "bboxes": json.loads(row(number, people)["bboxes"])}
        add(folder, f"{own}/{true}.json", json.dumps(about).encode())
        for n, photo in enumerate(photos, 1):
            if (number, n) != (5, 2):
                add(folder, f"{own}/{photo}", picture(10 * number + n))
        entry = {"prompt": f"prompt {number}", "image_paths": photos}
        entries[people].append(entry | {"ori_img_path": f"{true}.jpg"})
    for name, found in zip(names, entries.values(), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(found))


def write_index_by_other_names(folder: Path) -> None:
    write_index(folder, ("v200_single", "v202", "v200_m"))


PEOPLE = {1: 1, 2: 2, 3: 1, 4: 1, 5: 2, 6: 4}


def write_folders(folder: Path) -> None:
    for number, people in ({**PEOPLE, 4: 0, 5: 5}).items():
        name = f"000{number}"
        add(folder, f"{name}/ori.jpg", picture(10 * number))
        for n in range(1, people + 1):
            add(folder, f"{name}/ref_{n}.jpg", picture(10 * number + n))
        add(folder, f"{name}/meta.json", json.dumps({"prompt": f"prompt {number}"}).encode())


@pytest.mark.parametrize(
    "write", [write_tables, write_index, write_index_by_other_names, write_folders]
)
def test_every_published_layout_gives_the_cases_of_one_to_four_people(write, tmp_path, caplog):
    write(tmp_path)
    with caplog.at_level("INFO"):
        cases = read_multiid_bench(tmp_path)
    found = subsets_of(cases, most=4)
    assert list(found) == [Subset(), Subset((2,)), Subset((3, 4))]
    assert found[Subset()] == [
        Case("0001", "0001", "prompt 1", (picture(11),), picture(10)),
        Case("0003", "0003", "prompt 3", (picture(31),), picture(30)),
    ]
    (two,), (four,) = found[Subset((2,))], found[Subset((3, 4))]
    assert two[:5] == ("0002", "0002", "prompt 2", (), picture(20))
    assert two.group == (picture(21), picture(22)) and two.people == 2
    assert four.group == tuple(map(picture, (61, 62, 63, 64))) and four.truth == picture(60)
    assert four.name == ("num_4_0006" if "index" in write.__name__ else "0006")
    boxes = tuple((float(n), 2.0, float(n + 3), 4.0) for n in range(4))
    assert (two.boxes, four.boxes) == (((), ()) if write is write_folders else (boxes[:2], boxes))
    assert "are left out, which lack a picture or have over four people" in caplog.text


def test_people_beyond_the_most_are_left_out():
    cases = [Case(str(n), "a", "b", (), b"c", (b"d",) * n) for n in (2, 3, 4)]
    assert list(subsets_of(cases, most=2)) == [Subset((2,))]
    assert subsets_of(cases, most=3) == {Subset((2,)): cases[:1], Subset((3,)): cases[1:2]}
    assert subsets_of(cases, most=1) == {}


BIG = f"[[0, 0, 1{400 * '0'}, 1]]"


@pytest.mark.parametrize(
    "boxes",
    [None, "", "[", "{}", "[1, 2]", "[[1, 2, 3]]", "[[3, 0, 1, 2]]", "[[0, 0, NaN, 1]]", BIG],
)
def test_boxes_that_are_none_are_not_known(boxes, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the published table is a parquet file")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([row(1, 2, bboxes=boxes)]), tmp_path / "a.parquet")
    (case,) = read_multiid_bench(tmp_path)
    assert case.boxes == () and case.people == 2


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
    with pytest.raises(FlashFaceError, match="has 0 cases and none with one to four"):
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
    assert digest([case]).startswith("1ae9aa3dd7fa287e"), "runs of earlier versions could not go on"
    several = Case("a", "a", "b", (), b"truth", (b"c", b"d"), ((0.0, 0.0, 1.0, 1.0),) * 2)
    others = [
        several._replace(group=(b"d", b"c")),
        several._replace(truth=b"other"),
        several._replace(boxes=()),
    ]
    assert len({digest([one]) for one in [case, several, *others]}) == 5


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
    found = [case.prompt for case in read_multiid_bench(bench)]
    assert found == ["prompt 1", "prompt 3", "prompt 2", "prompt 6"]
