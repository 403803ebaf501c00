"""Answers that a list cannot use, of servers and of what stands before them, without a ComfyUI."""

import copy
import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

import pyarrow.parquet
from aiohttp import web
from PIL import Image
from support.automation import pictures
from support.stub_server import WORKFLOW, stub_server, write_list

import automation.runner
from automation.run import DONE, INCOMPLETE, REFUSED, main


def table(out: Path) -> list[dict]:
    return pyarrow.parquet.read_table(out / "results.parquet").to_pylist()


def test_a_row_of_which_a_part_is_refused_is_not_drawn(ask, stub, tmp_path, caplog):
    """ComfyUI answers 200, runs the other pictures, and says nothing of it again."""
    error = {"message": "Value not in list", "details": "sampler: 'eulr'"}

    def refuse(_):
        errors = {"4": {"errors": [error], "class_type": "TestDraw"}}
        return web.json_response({"prompt_id": "1", "number": 1, "node_errors": errors})

    stub.answer["/prompt"] = refuse
    assert ask("--tries", "1", rows=1) == INCOMPLETE
    assert not pictures(tmp_path / "out")
    assert [row["error"] for row in table(tmp_path / "out")] == [
        "Value not in list sampler: 'eulr'"
    ]
    (prompt,) = (body["prompt_id"] for path, body in stub.bodies if path == "/prompt")
    assert ("/queue", {"delete": [prompt]}) in stub.bodies
    assert ("/interrupt", {"prompt_id": prompt}) in stub.bodies


def test_links_that_are_missing_are_told_before_anything_runs(ask, stub, tmp_path, caplog):
    two = copy.deepcopy(WORKFLOW)
    two["4"] = {"class_type": "TestBlur", "inputs": {}, "_meta": {"title": "Soft"}}
    two["5"] = {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "b"}}
    two["6"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "c"}}
    del two["1"]["inputs"]["text"]
    assert ask(workflow=two) == REFUSED
    assert "Soft (node 4 of the workflow), image: is not connected (IMAGE); a node" in caplog.text
    assert "SaveImage (node 6 of the workflow), images: is not connected" in caplog.text
    assert "TestDraw (node 1 of the workflow), text: has no value; give it one in" in caplog.text
    assert not stub.times("/prompt") and not (tmp_path / "out").exists()


def test_what_rows_give_or_nobody_sends_may_be_missing(stub, tmp_path, caplog):
    """Pictures are asked for as previews, which have no name."""
    less = copy.deepcopy(WORKFLOW)
    del less["3"]["inputs"]["filename_prefix"], less["1"]["inputs"]["text"]
    manifest, path = write_list(tmp_path, workflow=less)
    given = ["--workflow", str(path), "--out", str(tmp_path / "out"), "--server", stub.url]
    manifest.write_text("TestDraw.text\na pilot\n")
    assert main([str(manifest), *given]) == DONE
    manifest.write_text("TestDraw.text,seed\na pilot,1\n,2\n")
    assert main([str(manifest), *given]) == REFUSED
    assert "text: has no value" in caplog.text


def test_links_in_a_circle_are_told(ask, caplog):
    circle = copy.deepcopy(WORKFLOW)
    circle["4"] = {"class_type": "TestBlur", "inputs": {"image": ["2", 0]}}
    circle["2"]["inputs"]["image"] = ["4", 0]
    assert ask(workflow=circle) == REFUSED
    assert "has links that go in a circle, through the nodes " in caplog.text


def test_a_workflow_may_begin_with_the_mark_that_windows_writes(ask, tmp_path, stub):
    manifest, path = write_list(tmp_path)
    path.write_text(json.dumps(WORKFLOW), encoding="utf-8-sig")
    given = ["--workflow", str(path), "--out", str(tmp_path / "out"), "--server", stub.url]
    assert main([str(manifest), *given]) == DONE


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (dict(status=400, text="<html>"), "/object_info/LoadImage answered 400; it may want https"),
        (dict(status=401), "answered 401; a login is given as in http://user:password@host"),
        (dict(status=302), "answered 302; give the address that it leads to"),
        (dict(status=502), "answered 502."),
        (dict(text="<html>"), "/object_info/LoadImage answered what ComfyUI would not"),
        (dict(text="[1, 2]"), "answered what ComfyUI would not"),
        (dict(text="null"), "answered what ComfyUI would not"),
        (dict(text='{"LoadImage": 3}'), "answered what ComfyUI would not"),
    ],
)
def test_a_server_that_is_no_comfyui_is_told_by_what_it_answers(ask, stub, caplog, answer, says):
    stub.answer["/object_info/LoadImage"] = lambda _: web.Response(**answer)
    assert ask() == REFUSED
    assert f"No server answers as ComfyUI does. {stub.url}: /object_info/" in caplog.text
    assert says in caplog.text


def test_others_begin_where_one_server_is_no_comfyui(ask, stub, caplog):
    with stub_server() as other:
        other.answer["/object_info/LoadImage"] = lambda _: web.Response(status=400)
        assert ask("--server", other.url) == DONE
    assert f"{other.url} cannot be used (/object_info/LoadImage answered 400" in caplog.text


def with_photo(folder: Path) -> list[str]:
    """A list of one person with a photo."""
    Image.new("RGB", (8, 8)).save(folder / "anna.png")
    (folder / "photo.csv").write_text("Load.image\nanna.png\n")
    graph = copy.deepcopy(WORKFLOW)
    meta = {"title": "Load"}
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": meta}
    (folder / "photo.json").write_text(json.dumps(graph))
    return [str(folder / "photo.csv"), "--workflow", str(folder / "photo.json")]


@pytest.mark.parametrize(
    ("status", "says"), [(413, "a photo is larger than"), (403, "takes no photo")]
)
def test_a_photo_that_is_not_taken_is_the_rows_fault(stub, tmp_path, caplog, status, says):
    stub.answer["/upload/image"] = lambda _: web.Response(status=status)
    given = with_photo(tmp_path)
    out = ["--out", str(tmp_path / "out"), "--server", stub.url]
    assert main([*given, *out]) == INCOMPLETE
    (row,) = table(tmp_path / "out")
    assert row["error"].startswith(f"/upload/image answered {status}: ") and says in row["error"]
    assert "is lost" not in caplog.text
    assert len(stub.times("/upload/image")) == 1


def test_a_server_that_refuses_is_asked_more_and_more_seldom_and_then_no_more(
    ask, stub, caplog, monkeypatch
):
    monkeypatch.setattr(automation.runner, "ASK_AGAIN", 0.02)
    monkeypatch.setattr(automation.runner, "REFUSALS", 5)
    stub.answer["/prompt"] = lambda _: web.Response(status=429)
    assert ask("--queued", "1") == INCOMPLETE
    times = stub.times("/prompt")
    pauses = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert len(times) == 5
    assert all(pause >= 0.02 * 2**n for n, pause in enumerate(pauses))
    assert "is asked no more, after 5 refusals (/prompt answered 429)" in caplog.text
    assert "2 rows are left; the same command goes on with them." in caplog.text


def test_a_server_that_was_busy_makes_all_rows(ask, stub, monkeypatch):
    monkeypatch.setattr(automation.runner, "ASK_AGAIN", 0.02)
    left = [429, 503, 500, 429]
    stub.answer["/prompt"] = lambda _: web.Response(status=left.pop()) if left else None
    assert ask("--queued", "1") == DONE


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon"])
@pytest.mark.parametrize("option", ["--patience", "--row-seconds"])
def test_seconds_are_above_zero(ask, capsys, option, given):
    with pytest.raises(SystemExit):
        ask(f"{option}={given}")
    assert f"{given} is no number of seconds above 0" in capsys.readouterr().err
