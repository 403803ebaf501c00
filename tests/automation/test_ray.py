"""The same list through Ray Data on this machine: two actors with a ComfyUI each, one killed."""

import os
import signal
import time

import psutil
import pyarrow.parquet
import pytest
from support.automation import (
    ROWS,
    assert_same_pictures,
    ids_once,
    run,
    said,
    start,
    wait_for_pictures,
)
from support.tools import load_tool

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not os.environ.get("FLASHFACE_RAY"),
        reason="two ComfyUIs and Ray take minutes on two cores; FLASHFACE_RAY=1 runs it",
    ),
]
pytest.importorskip("ray.data", reason="automation.ray_run needs ray[data]")


def test_two_actors_of_which_one_is_killed_make_the_same_pictures(whole, grid, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    load_tool("comfy_server").make_base(base)
    more = ["--actors", "2", "--base", str(base), "--comfy-argument=--cpu", "--looks"]
    process = start(grid, out, [], *more, module="ray_run")
    wait_for_pictures(out, 16, 180)
    servers = comfy_processes(base)
    assert len(servers) == 2
    os.kill(servers[0].ppid(), signal.SIGKILL)
    assert process.wait(240) == 0, said(out)
    assert len(ids_once(out)) == ROWS
    assert len({path.name for path in out.glob("journal_*.jsonl")}) >= 2
    assert_same_pictures(out, whole[0])
    ours, plain = (
        pyarrow.parquet.read_table(folder / "results.parquet").to_pylist()
        for folder in (out, whole[0])
    )
    compared = ("id", "row", "person", "prompt", "seed", "file", "likeness", "identified")
    for name in compared:
        assert [row[name] for row in ours] == [row[name] for row in plain], name
    no_server_is_left(base)


def test_a_killed_command_goes_on_with_the_missing_rows_alone(whole, grid, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    load_tool("comfy_server").make_base(base)
    more = ["--actors", "2", "--base", str(base), "--comfy-argument=--cpu"]
    process = start(grid, out, [], *more, module="ray_run")
    wait_for_pictures(out, 16, 180)
    process.kill()
    process.wait()
    no_server_is_left(base)
    times = {path: path.stat().st_mtime_ns for path in (out / "pictures").glob("*.png")}
    assert 16 <= len(times) < ROWS
    run(grid, out, [], *more, module="ray_run")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(ids_once(out)) >= ROWS - 2  # one of each actor may be written and not noted
    assert_same_pictures(out, whole[0])
    no_server_is_left(base)


def no_server_is_left(base) -> None:
    deadline = time.monotonic() + 20
    while left := comfy_processes(base):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def comfy_processes(base) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(base) in line and any(part.endswith("main.py") for part in line):
            found.append(process)
    return found
