"""What ends a run before its time, and a second one beside it. No ComfyUI is needed."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from support.automation import pictures
from support.tools import ROOT

import automation.results
import automation.runner
from automation.lock import only_run
from automation.problems import ListError
from automation.run import DONE, INCOMPLETE, REFUSED, STOPPED


def test_a_list_goes_through(ask, tmp_path):
    assert ask() == DONE
    assert len(pictures(tmp_path / "out")) == 2


def test_a_full_disk_says_where_and_how_to_go_on(ask, tmp_path, caplog, monkeypatch):
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(automation.results.os, "fsync", full)
    assert ask("--queued", "1", rows=3) == INCOMPLETE
    assert ".png: No space left on device; put that right, and the same command" in caplog.text
    assert "1 of 3 pictures are there." in caplog.text
    assert len(pictures(tmp_path / "out")) == 1
    assert not list((tmp_path / "out").rglob("*.part"))
    assert ask(rows=3) == DONE


def test_a_disk_that_is_full_at_the_table_is_no_refused_list(ask, tmp_path, caplog, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(automation.results.parquet, "write_table", full)
    assert ask() == INCOMPLETE
    assert "results.parquet: No space left on device; put that right" in caplog.text
    assert "2 of 2 pictures are there." in caplog.text


def test_what_a_crash_left_unfinished_is_removed(ask, tmp_path):
    left = tmp_path / "out" / "pictures" / "0123.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert ask() == DONE
    assert not left.exists()


HOLD = """
import sys, time
from pathlib import Path
from automation.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_into_a_folder_is_refused_until_the_first_is_gone(ask, tmp_path, caplog):
    out = tmp_path / "out"
    out.mkdir()
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        assert ask() == REFUSED
        assert f"Another run writes into {out} (process {first.pid} of " in caplog.text
        assert not pictures(tmp_path / "out")
    finally:
        first.kill()
        first.wait()
    assert ask() == DONE
    with only_run(out), pytest.raises(ListError, match="Another run"), only_run(out):
        pass


def interrupt_when(happened, times: int = 1) -> threading.Thread:
    def send() -> None:
        until = time.monotonic() + 30
        while not happened() and time.monotonic() < until:
            time.sleep(0.02)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_soon_though_a_server_hangs(ask, stub, caplog, monkeypatch, times):
    """In a second where it is asked for twice."""
    monkeypatch.setattr(automation.runner, "STOP_SECONDS", 1.0 if times == 1 else 60.0)
    stub.hangs = {"/prompt", "/queue_", "/interrupt"}
    thread = interrupt_when(lambda: len(stub.times("/prompt")) == 2, times)
    began = time.monotonic()
    assert ask() == STOPPED
    assert time.monotonic() - began < 6
    thread.join()
    assert "Stopping; Ctrl-C again ends at once and leaves prompts at the servers." in caplog.text
    assert ("did not answer in 1 seconds; prompts of this run may be left" in caplog.text) == (
        times == 1
    )


def test_the_bar_of_a_run_that_goes_on_begins_where_it_was(ask, capsys, stub):
    assert ask(rows=2) == DONE
    capsys.readouterr()
    assert ask(rows=4) == DONE
    said = capsys.readouterr().err
    assert "50%" in said and " 2/4 " in said and "0/4" not in said and "-" not in said
