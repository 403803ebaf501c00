"""Lists as spreadsheets and pandas write them; no server is needed."""

import pytest

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

import pyarrow as pa
from pyarrow import parquet

from automation.manifest import read_manifest
from automation.problems import ListError
from automation.values import Unfit, fitted

ROW = {"photos": "anna/*", "prompt": "a portrait, smiling"}
CELLS = 'anna/*,"a portrait, smiling"'


def read(folder, name: str, data: bytes):
    (folder / name).write_bytes(data)
    return read_manifest(folder / name)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"photos,prompt\r\n{CELLS}\r\n\r\n,\r\n,\r\n", id="cleared rows"),
        pytest.param(f"photos,prompt,\r\n{CELLS},\r\n", id="a cleared column"),
        pytest.param(f"photos,prompt,,\r\n{CELLS},,\r\n,,,\r\n", id="two cleared columns"),
        pytest.param("photos;prompt\r\nanna/*;a portrait, smiling\r\n;\r\n", id="semicolons"),
        pytest.param("photos\tprompt\nanna/*\ta portrait, smiling\n", id="tabs"),
        pytest.param(f"sep=,\r\nphotos,prompt\r\n{CELLS}\r\n", id="a line with the comma"),
        pytest.param('"sep=|"\nphotos|prompt\nanna/*|a portrait, smiling\n', id="any separator"),
        pytest.param(f" Photos,PROMPT \n{CELLS}\n", id="spaces and capitals"),
        pytest.param(f"\r\nphotos,prompt\r{CELLS}\r", id="line ends of old Macs"),
        pytest.param(f"\ufeffphotos,prompt\n{CELLS}\n", id="a mark at the beginning"),
    ],
)
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, text):
    lines, problems = read(tmp_path, "list.csv", text.encode())
    assert not problems and [(line.number, line.values) for line in lines] == [(1, ROW)]


def test_rows_after_an_empty_one_keep_their_number(tmp_path):
    lines, problems = read(tmp_path, "list.csv", b"photos,seed\na,1\n,\nb\nc,3\n")
    assert [(line.number, line.values["photos"]) for line in lines] == [(1, "a"), (4, "c")]
    assert [problem.row for problem in problems] == [3]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"photos,seed\n,\n,\n", "a.csv has no rows"),
        ("a.jsonl", b'{"seed": null}\n', "a.jsonl has no rows"),
        ("a.csv", b",photos\n0,a\n1,b\n", "values in column 1, which has no name; .*index=False"),
        ("a.csv", b"seed,Seed\n1,2\n", "has the column seed twice"),
        ("a.csv", "person\nbj\xf6rn\n".encode("cp1252"), "older encoding, expected UTF-8; save"),
        ("a.csv", "person\nanna\n".encode("utf-16"), "is in UTF-16, expected UTF-8; save it so"),
        ("a.jsonl", '{"seed": 1}'.encode("utf-16"), "is in UTF-16, expected UTF-8; save it so"),
        ("a.yaml", "prompts: [bj\xf6rn]".encode("cp1252"), "older encoding, expected UTF-8"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path, name, data, says):
    with pytest.raises(ListError, match=says):
        read(tmp_path, name, data)


def test_the_index_of_pandas_is_no_column(tmp_path):
    table = pa.table({name: [cell, None] for name, cell in ROW.items()})
    table = table.append_column("__index_level_0__", pa.array([0, 2]))
    parquet.write_table(table, tmp_path / "list.parquet")
    (line,), problems = read_manifest(tmp_path / "list.parquet")
    assert not problems and line.values == ROW


@pytest.mark.parametrize("value", ['"smile \\ud83d"', '["a.png", "\\ude00.png"]'])
def test_half_a_character_is_a_mistake_of_its_row(tmp_path, value):
    data = f'{{"seed": 1}}\n{{"photos": {value}}}\n{{"prompt": "\\ud83d\\ude00"}}\n'
    lines, (problem,) = read(tmp_path, "list.jsonl", data.encode())
    assert [line.number for line in lines] == [1, 3]
    assert (problem.row, problem.column) == (2, "photos") and "half a character" in problem.text


def test_a_column_given_twice_is_a_mistake_of_its_row(tmp_path):
    _, (problem,) = read(tmp_path, "list.jsonl", b'{"Seed": 1, "seed": 2}\n{"seed": 3}\n')
    assert (problem.row, problem.column) == (1, "seed") and "given twice" in problem.text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.0", 1),
        ("1e3", 1000),
        (" 7 ", 7),
        (str(2**64 - 1), 2**64 - 1),
        ("9007199254740993.0", 2**53 + 1),
    ],
)
def test_a_whole_number_may_have_a_point(text, number):
    found = fitted(text, ["INT", {"min": 0, "max": 2**64 - 1}])
    assert found == number and isinstance(found, int)


@pytest.mark.parametrize("text", ["1.5", "1,000", "inf", "nan", "1e999", "", "1" * 400])
def test_what_is_no_whole_number_is_none(text):
    with pytest.raises(Unfit, match="expected a whole number"):
        fitted(text, ["INT", {}])


def test_values_of_yaml_are_what_is_written(tmp_path):
    text = """
people: {007: a/*, yes: b/*, 1_0: c/*, 2024-01-01: d/*, ~: e/*}
Prompts: [no, 1.0, null]
seeds: [0x10]
12.steps: [1e3]
7: [a]
"""
    lines, problems = read(tmp_path, "list.yaml", text.encode())
    assert not problems and len(lines) == 15
    names = [line.values["person"] for line in lines[::3]]
    assert names == ["007", "yes", "1_0", "2024-01-01", "None"]
    given = {"photos": "a/*", "person": "007", "seed": "0x10", "12.steps": "1e3", "7": "a"}
    assert lines[0].values == {**given, "prompt": "no"}
    assert lines[1].values == {**given, "prompt": "1.0"} and lines[2].values == given


@pytest.mark.parametrize("spec", [["BOOLEAN", {}], [[False, True]]])
@pytest.mark.parametrize(("text", "value"), [("yes", True), ("true", True), ("off", False)])
def test_yes_and_no_may_be_texts(spec, text, value):
    assert fitted(text, spec) is value
