"""A list of 60 rows, with one server, with two, and with what may befall them."""

import json
import os
import signal
import time

import pyarrow.parquet
import pytest
from PIL import Image
from support.automation import (
    PEOPLE,
    PHOTOS,
    PROMPTS,
    ROWS,
    SEEDS,
    SMALL,
    STEPS,
    WORKFLOW,
    assert_same_pictures,
    command,
    ids_once,
    journal,
    pictures,
    run,
    said,
    start,
    start_servers,
    wait_for_pictures,
    write_grid,
)

import automation.run

pytestmark = pytest.mark.server
SOME = PEOPLE * 2 * len(SEEDS)


def test_photos_go_through_the_reference_net_once_per_person_and_step(whole):
    _, told, counted = whole
    assert counted == {"prompts": ROWS, "passes": PEOPLE * PHOTOS * STEPS}
    assert f"features were known already for {ROWS - PEOPLE} of them" in told


def test_the_table_has_every_row_with_its_values_and_scores(whole):
    out, _, _ = whole
    rows = pyarrow.parquet.read_table(out / "results.parquet").to_pylist()
    assert [row["row"] for row in rows] == list(range(1, ROWS + 1))
    assert len({row["id"] for row in rows}) == ROWS
    asked = [(f"person_{n}", p, s) for n in range(PEOPLE) for p in PROMPTS for s in SEEDS]
    assert [(row["person"], row["prompt"], row["seed"]) for row in rows] == asked
    for row in rows:
        assert (out / row["file"]).is_file() and row["KSampler.steps"] == STEPS
        assert row["seconds"] > 0 and row["tries"] == 1 and row["error"] is None
        assert -1 <= row["likeness"] <= 1 and row["looks_most_like"].startswith("person_")
        assert row["identified"] == (row["looks_most_like"] == row["person"])
        assert row["clip"] is None
    assert {row["server"] for row in rows} == {journal(out)[0]["server"]}
    assert sum(row["identified"] for row in rows) > ROWS / PEOPLE  # better than by chance
    assert "Agreement with the prompt is left out: --clip" in (out / "summary.txt").read_text()


def test_pictures_carry_their_workflow_and_row_and_no_path(whole, folder):
    out, _, _ = whole
    for path in (out / "pictures").iterdir():
        with Image.open(path) as picture:
            row, workflow = picture.info["flashface_row"], picture.info["prompt"]
        told = json.loads(row)
        assert told["id"] == path.stem
        assert told["prompt"] in PROMPTS and told["prompt"] in workflow
        assert len(told["photos"]) == 1 and len(told["photos"][0]) == PHOTOS
        for text in (row, workflow):
            assert str(folder) not in text and str(out) not in text and "people/" not in text


def test_there_is_a_contact_sheet_of_every_person(whole):
    out, _, _ = whole
    sheets = sorted((out / "sheets").glob("*.jpg"))
    assert [sheet.stem[4:] for sheet in sheets] == [f"person_{n}" for n in range(PEOPLE)]
    for sheet in sheets:
        with Image.open(sheet) as picture:
            assert picture.width > 6 * 192 and picture.height > 3 * 192


def test_what_is_done_is_not_done_again(whole, grid, servers):
    out, _, _ = whole
    before = servers[0].get("/seen")["prompts"]
    times = {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
    told = run(grid, out, servers[:1])
    assert f"{ROWS} of {ROWS} pictures are there." in told
    assert servers[0].get("/seen")["prompts"] == before
    assert {path: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()} == times


def test_scores_and_sheets_can_be_stopped(whole, grid, servers, monkeypatch):
    went_on = []

    def slow(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(3)
        went_on.append(True)

    monkeypatch.setattr(automation.run, "end", slow)
    _python, _m, _module, *asked = command(grid, whole[0], servers[:1])
    assert automation.run.main(asked) == automation.run.STOPPED
    assert not went_on


@pytest.fixture(scope="module")
def some(folder):
    """A third of the grid."""
    return write_grid(folder / "some.yaml", prompts=PROMPTS[:2])


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    with start_servers(tmp_path_factory.mktemp("victim"), 1) as (server,):
        yield server


def test_a_server_that_stops_answering_loses_nothing(whole, some, servers, victim, tmp_path):
    out = tmp_path / "out"
    process = start(some, out, [servers[1], victim], "--patience", "2")
    wait_for_pictures(out, 4)
    os.kill(victim._process.pid, signal.SIGSTOP)
    try:
        assert process.wait(120) == 0, said(out)
    finally:
        os.kill(victim._process.pid, signal.SIGCONT)
    assert f"{victim.url} is lost" in said(out)
    assert len(ids_once(out)) == SOME
    assert_same_pictures(out, whole[0], SOME)


def test_a_server_that_is_killed_loses_and_repeats_no_finished_row(
    whole, some, servers, victim, tmp_path
):
    out = tmp_path / "out"
    before = servers[1].get("/seen")["passes"]
    process = start(some, out, [servers[1], victim])
    wait_for_pictures(out, 6)
    victim._process.kill()
    assert process.wait(120) == 0, said(out)
    assert f"{victim.url} is lost" in said(out)
    assert len(ids_once(out)) == SOME
    assert {entry["server"] for entry in journal(out)} == {servers[1].url, victim.url}
    assert_same_pictures(out, whole[0], SOME)
    # Whoever is with another person first is computed there alone.
    assert servers[1].get("/seen")["passes"] - before <= PEOPLE * PHOTOS * STEPS


def test_a_killed_command_goes_on_with_the_missing_rows_alone(whole, some, servers, tmp_path):
    out = tmp_path / "out"
    process = start(some, out, servers)
    wait_for_pictures(out, 6)
    process.kill()
    process.wait()
    there = pictures(out)
    times = {name: (out / "pictures" / name).stat().st_mtime_ns for name in there}
    told = run(some, out, servers)
    assert f"{SOME - len(there)} were made now" in told
    assert {name: (out / "pictures" / name).stat().st_mtime_ns for name in there} == times
    assert len(ids_once(out)) >= SOME - 1  # one may have been written and not yet noted
    assert_same_pictures(out, whole[0], SOME)
    assert not list((out / "pictures").glob("*.part"))


def test_a_polite_stop_leaves_no_prompt_behind(grid, servers, tmp_path):
    out = tmp_path / "out"
    process = start(grid, out, servers)
    wait_for_pictures(out, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, said(out)
    assert "Stopped; the same command goes on" in said(out)
    for server in servers:
        assert server.get("/queue")["queue_pending"] == []


def test_rows_that_fail_end_in_the_report_with_what_comfyui_says(folder, servers, tmp_path):
    out = tmp_path / "out"
    lines = [
        {"photos": "people/person_0/*", "prompt": PROMPTS[0], "seed": 1, "KSampler.steps": 1},
        {"photos": "people/person_0/*", "prompt": PROMPTS[0], "seed": 2, "KSampler.steps": 1},
    ]
    # Wholly outside of the picture: known only when it runs.
    lines[1]["FlashFace Identity Place.x"] = 1.0
    manifest = folder / "failing.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    told = run(manifest, out, servers, "--tries", "2", code=1)
    (row,) = [row for row in _table(out) if row["error"]]
    assert row["row"] == 2 and row["tries"] == 2 and row["file"] is None
    assert row["error"].startswith("node 6 (FlashFaceIdentityPlace): The place of the face is out")
    assert "1 of 2 pictures are there." in told and row["error"] in told


@pytest.fixture
def waits(tmp_path):
    """A workflow with a node that waits before the picture is saved."""
    workflow = json.loads(WORKFLOW.read_text())
    (save,) = (node for node in workflow.values() if node["class_type"] == "SaveImage")
    wait = {"image": save["inputs"]["images"], "seconds": 0.0, "deaf": False}
    workflow["90"] = {"class_type": "TestWait", "inputs": wait, "_meta": {"title": "Wait"}}
    save["inputs"]["images"] = ["90", 0]
    path = tmp_path / "waits.json"
    path.write_text(json.dumps(workflow))
    return "--workflow", str(path)


def rows_of(folder, name: str, *values: dict):
    """A manifest of one person, a row for each of the values."""
    own = {"photos": "people/person_0/*", "prompt": PROMPTS[0], **SMALL}
    manifest = folder / name
    lines = ({**own, "seed": n, **more} for n, more in enumerate(values))
    manifest.write_text("\n".join(map(json.dumps, lines)))
    return manifest


def test_a_row_that_takes_too_long_is_interrupted_and_the_others_are_drawn(
    folder, servers, waits, tmp_path
):
    out = tmp_path / "out"
    manifest = rows_of(folder, "late.jsonl", {}, {"Wait.seconds": 300}, {}, {}, {})
    told = run(manifest, out, servers[:1], *waits, "--tries", "2", "--row-seconds", "8", code=1)
    assert "4 of 5 pictures are there." in told
    (row,) = [row for row in _table(out) if row["error"]]
    assert row["row"] == 2
    assert row["error"] == "It took longer than 8 seconds and was interrupted."
    assert [row["tries"] for row in _table(out)] == [1, 2, 1, 1, 1]


def test_waiting_in_a_long_queue_is_no_delay_of_a_row(folder, servers, waits, tmp_path):
    out = tmp_path / "out"
    manifest = rows_of(folder, "queue.jsonl", *[{"Wait.seconds": 1.5}] * 7)
    told = run(manifest, out, servers[:1], *waits, "--queued", "7", "--row-seconds", "3.5")
    assert "7 of 7 pictures are there." in told and "is lost" not in told
    assert {row["tries"] for row in _table(out)} == {1}


def test_a_server_that_cannot_be_interrupted_is_lost_to_its_other_rows(
    folder, servers, waits, tmp_path
):
    out = tmp_path / "out"
    deaf = {"Wait.seconds": 25, "Wait.deaf": True}
    manifest = rows_of(folder, "deaf.jsonl", deaf, {}, {}, {}, {}, {})
    told = run(manifest, out, servers, *waits, "--tries", "1", "--row-seconds", "3", code=1)
    assert "5 of 6 pictures are there." in told
    assert "it cannot be interrupted, and has ended nothing for 6 seconds" in told
    assert [row["tries"] for row in _table(out)] == [1] * 6


def test_a_stop_while_a_prompt_is_on_its_way_leaves_none_behind(folder, servers, waits, tmp_path):
    """Neither that one nor those that the server has."""
    out, server = tmp_path / "out", servers[0]
    long = {"Wait.seconds": 60}
    manifest = rows_of(folder, "stopped.jsonl", {}, long, long, long, long)
    server.post("/late", {"seconds": 2.0, "skip": 4})
    process = start(manifest, out, [server], *waits, "--queued", "4")
    try:
        until = time.monotonic() + 60
        while not server.get("/late")["waiting"] and time.monotonic() < until:
            time.sleep(0.05)
        assert server.get("/late")["waiting"] == 1, said(out)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, said(out)
        time.sleep(3)
    finally:
        process.kill()
        server.post("/late", {"seconds": 0.0})
    assert server.get("/late")["waiting"] == 0
    assert server.get("/queue") == {"queue_running": [], "queue_pending": []}


def _table(out):
    return pyarrow.parquet.read_table(out / "results.parquet").to_pylist()
