"""Golden files: which there are, the networks they were made with, and the errors measured."""

import os
import shutil
from pathlib import Path

import psutil
import pytest
from support.golden import golden_files
from support.harness import load_flashface
from support.tools import load_tool

GIB = 1024**3
WORST = pytest.StashKey[dict]()


def pytest_generate_tests(metafunc):
    if "golden" in metafunc.fixturenames:
        files = golden_files()
        metafunc.parametrize(
            "golden",
            [
                pytest.param(
                    f,
                    id=f.name,
                    marks=[pytest.mark.slow] if f.is_full_width else [],
                )
                for f in files
            ],
        )


class Networks:
    """MODEL and REFERENCE_NET per topology, from rule-made files in the published layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, tuple] = {}

    def path(self, topology: str) -> Path:
        path = self.folder / f"{topology}.safetensors"
        if not path.exists():
            load_tool("rule_weights").write_rule_checkpoint(path, topology)
        return path

    def __call__(self, topology: str):
        if topology not in self._loaded:
            if topology == "sd15":
                self._check_room()
            self._loaded[topology] = load_flashface(self.path(topology), "fp32")
        return self._loaded[topology]

    def _check_room(self) -> None:
        memory = psutil.virtual_memory().total / GIB
        disk = shutil.disk_usage(self.folder).free / GIB
        if (memory < 16 or disk < 10) and not os.environ.get("FLASHFACE_REQUIRE_SLOW"):
            pytest.skip(
                "full width needs 16 GB of memory and 10 GB of free disk, "
                f"here are {memory:.0f} and {disk:.0f}"
            )


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rule_weights")
    yield Networks(folder)
    shutil.rmtree(folder, ignore_errors=True)  # 7 GB at full width


@pytest.fixture
def record(request, golden):
    """Notes an error, for the summary, and checks it."""
    worst = request.config.stash.setdefault(WORST, {}).setdefault(golden.name, {})

    def check(what: str, error: float, limit: float) -> None:
        worst[what] = max(worst.get(what, 0.0), error)
        assert error <= limit, f"{golden.name} {what}: relative error {error:.2e} above {limit:.0e}"

    return check


def pytest_terminal_summary(terminalreporter, config):
    worst = config.stash.get(WORST, {})
    if not worst:
        return
    terminalreporter.section(f"golden numbers: worst error per file ({len(worst)} files)")
    for name, errors in sorted(worst.items()):
        shown = "  ".join(f"{what} {error:.1e}" for what, error in errors.items())
        terminalreporter.write_line(f"{name:44} {shown}")
