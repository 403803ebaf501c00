"""The benchmarks run, and count what passes the ReferenceNet; how fast is not asked here."""

import json
import subprocess
import sys

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
