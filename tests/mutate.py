"""Break one line of the pack at a time, as tests/README.md lists them, and see its test fail."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = (".git", ".comfy", "__pycache__", ".pytest_cache", ".ruff_cache")


class Mutant(NamedTuple):
    """line and becomes: a part of one line of `file`, below flashface_core/. test: below tests/."""

    family: str
    file: str
    line: str
    becomes: str
    test: str


def listed() -> list[Mutant]:
    rows = (ROOT / "tests" / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rows]
    return [Mutant(*row) for row in cells if len(row) == 5 and row[1].endswith(".py")]


def is_noticed(mutant: Mutant, copy: Path) -> bool:
    path = copy / "flashface_core" / mutant.file
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace(mutant.line, mutant.becomes), encoding="utf-8")
    command = ["tools/comfy.py", "test", "-q", "-x", f"tests/{mutant.test}"]
    try:
        done = subprocess.run([sys.executable, *command], cwd=copy, capture_output=True, text=True)
    finally:
        path.write_text(before, encoding="utf-8")
    if done.returncode not in (0, 1):  # pytest found no such test, or could not start
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode == 1


def main(families: list[str]) -> int:
    os.environ.setdefault("COMFYUI_PATH", str(ROOT / ".comfy" / "ComfyUI"))
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(
            shutil.copytree(ROOT, Path(folder, "pack"), ignore=shutil.ignore_patterns(*LEFT_OUT))
        )
        for mutant in listed():
            if families and mutant.family not in families:
                continue
            noticed = is_noticed(mutant, copy)
            missed += not noticed
            print("noticed" if noticed else "MISSED ", mutant.family, mutant.becomes, flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
