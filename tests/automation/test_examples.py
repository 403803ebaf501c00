"""The scripts of api_examples against a real server, as README and docs/AUTOMATION.md call them."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from support.tools import ROOT

pytestmark = pytest.mark.server
EXAMPLES = ROOT / "api_examples"
SERVERS = 1


@pytest.fixture
def run(tmp_path):
    """In a folder of its own, in which the workflows are where the scripts look for them."""
    (tmp_path / "workflows").symlink_to(ROOT / "workflows", target_is_directory=True)
    variables = {**os.environ, "HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        variables.pop(name, None)

    def call(*line: str, code: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            line, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


def address(servers) -> str:
    return servers[0].url.removeprefix("http://")


@pytest.mark.parametrize("name", ["first", "with_library"])
def test_a_script_draws_the_person_of_a_photo(run, servers, folder, tmp_path, name):
    if name == "with_library" and importlib.util.find_spec("comfy_api_simplified") is None:
        pytest.skip("comfy-api-simplified is not installed")
    drawn = {}
    for person in (0, 1):
        photo = folder / "people" / f"person_{person}" / "0.png"
        run(sys.executable, str(EXAMPLES / f"{name}.py"), address(servers), str(photo))
        (path,) = tmp_path.glob("*.png")
        with Image.open(path) as picture:
            assert picture.size == (384, 384)
            drawn[person] = picture.tobytes()
        path.unlink()
    assert drawn[0] != drawn[1]


def test_the_first_script_ends_with_what_went_wrong(run, servers, folder, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    first = EXAMPLES / "first.py"
    told = run(sys.executable, str(first), address(servers), "broken.jpg", code=1)
    assert "broken" in told.stderr or "identify" in told.stderr
    other = tmp_path / "other.py"
    other.write_text(first.read_text().replace("01_start_here", "02_portrait_from_photos"))
    photos = [str(folder / "people/person_0/0.png")] * 4
    told = run(sys.executable, str(other), address(servers), *photos, code=1)
    assert "there is no file" in told.stderr and not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("name", ["first.py", "with_library.py", "run.sh"])
def test_a_script_without_arguments_says_how_it_is_called(run, name):
    if name == "with_library.py" and importlib.util.find_spec("comfy_api_simplified") is None:
        pytest.skip("comfy-api-simplified is not installed")
    with_what = "bash" if name.endswith(".sh") else sys.executable
    told = run(with_what, str(EXAMPLES / name), code=2 if name == "run.sh" else 1)
    assert "127.0.0.1:8188" in told.stderr and "Traceback" not in told.stderr


def test_the_first_script_has_25_lines():
    assert len((EXAMPLES / "first.py").read_text().splitlines()) <= 25


def test_a_workflow_runs_from_the_shell(run, servers):
    if shutil.which("comfy") is None:
        pytest.skip("comfy-cli is not installed")
    told = run("bash", str(EXAMPLES / "run.sh"), address(servers))
    assert ".png" in told.stdout
