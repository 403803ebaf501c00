"""Servers for every file of this folder, a list of 60 rows, and what one server makes of it.
And a server that only talks, with the command in this process."""

import logging

import pytest
from support.automation import draw_people, run, start_servers, write_grid

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from support.stub_server import stub_server, write_list

from automation.run import main


# Of a file's own: a photo that a server has seen with others before is passed alone the next time,
# which moves the last bits of a person's pictures. Two, or as many as a file names.
@pytest.fixture(scope="module")
def servers(request, tmp_path_factory):
    count = getattr(request.module, "SERVERS", 2)
    with start_servers(tmp_path_factory.mktemp("servers"), count) as servers:
        yield servers


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    draw_people(folder)
    return folder


@pytest.fixture(scope="session")
def grid(folder):
    """5 people x 6 prompts x 2 seeds."""
    return write_grid(folder / "grid.yaml")


@pytest.fixture(scope="module")
def whole(grid, servers, tmp_path_factory):
    """The folder of a run without any fault, what was said, and what the server counted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    before = servers[0].get("/seen")
    told = run(grid, out, servers[:1], "--looks")
    after = servers[0].get("/seen")
    return out, told, {name: after[name] - before[name] for name in after}


@pytest.fixture
def stub():
    with stub_server() as stub:
        yield stub


@pytest.fixture
def ask(tmp_path, stub, caplog):
    """The command with a list of its own, in this process: its exit code."""
    caplog.set_level(logging.INFO)

    def ask(*more: str, rows: int = 2, workflow: dict | None = None) -> int:
        manifest, path = write_list(tmp_path, rows, workflow)
        out = ["--out", str(tmp_path / "out"), "--server", stub.url]
        return main([str(manifest), "--workflow", str(path), *out, *more])

    return ask
