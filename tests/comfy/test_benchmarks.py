"""The benchmarks run, and count what passes the ReferenceNet; how fast is not asked here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import folder_paths
import pytest
from support.tools import ROOT


def test_the_table_of_a_step(tmp_path):
    report = tmp_path / "report.json"
    line = [sys.executable, "-m", "benchmarks.step", "--topology", "mini", "--sizes", "16x24"]
    line += ["--photos", "2", "--rounds", "1", "--json", str(report)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(report.read_text())["tables"]
    assert (table["height"], table["width"], table["photos"]) == (16, 24, 2)
    passes = {row["case"]: row["photos through the ReferenceNet"] for row in table["rows"]}
    assert passes["below launch, first run"] == 2 and passes["below launch, cached"] == 0
    assert passes["official way, below launch"] == 2 and passes["plain UNet, 3 rows"] == 0
    operations = {row["case"]: row["operations"] for row in table["rows"]}
    assert operations["plain UNet, 2 rows"] == 1 < operations["loader's MODEL without Apply"]
    assert operations["above launch, cached"] < operations["above launch, first run"]
    assert operations["below launch, cached"] < operations["official way, below launch"]
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in table["rows"])
    assert all(row["case"] in done.stdout for row in table["rows"])


@pytest.mark.parametrize("is_there", [False, True])
def test_paths_are_of_where_the_command_is_given(tmp_path, is_there):
    """A file that is not there, or is no network, is told in a sentence."""
    folder = tmp_path / "opencv zoo"
    folder.mkdir()
    if is_there:
        (folder / "face_detection_yunet_2023mar.onnx").write_bytes(b"no network")
    line = [sys.executable, str(ROOT / "tools" / "comfy.py"), "benchmark", "likeness"]
    comfy = Path(folder_paths.__file__).parent
    done = subprocess.run(
        [*line, "--zoo", folder.name],
        cwd=tmp_path,
        env={**os.environ, "COMFYUI_PATH": str(comfy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    missing = "There is no face_detection_yunet_2023mar.onnx in opencv zoo"
    assert (missing in done.stderr) != is_there
