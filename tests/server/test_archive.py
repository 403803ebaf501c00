"""What the Comfy registry hands out: the tracked files without those that .comfyignore names."""

import ast
import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flashface_pack import comfy_entrypoint
from support.server import TINY, api_workflow, complaint, inputs
from support.tools import ROOT, load_tool

pytestmark = pytest.mark.server

MOST = 36_000_000  # bytes: the tiny models that the nodes load are 38 million, packed 33
# Between them they load every file of tiny_models/.
RUN = (TINY, "toy_face2diffusion", "toy_style_portrait", "toy_face_fusion")
MADE_FOR_A_CLONE = {"training", "tests", "support", "demo", "toy_people"}
MADE_FOR_A_CLONE |= {"shipped_pictures", "canvas", "workflow_parts", "toy_parts"}
MADE_FOR_A_CLONE |= {"automation", "api_examples"}


def listed(*options: str) -> set[str]:
    line = ["git", "ls-files", "-z", *options]
    try:
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the archive is made of what git tracks, and this is not a git clone")
    return set(filter(None, done.stdout.split("\0")))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An empty ComfyUI's folders, with the archive unpacked in custom_nodes/."""
    # comfy-cli's patterns are those of .gitignore.
    names = listed() - listed("--cached", "--ignored", "--exclude-from=.comfyignore")
    base = tmp_path_factory.mktemp("archive")
    zipped = base / "node.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            if (ROOT / name).exists():  # deleted but not yet committed
                archive.write(ROOT / name, name)
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(base / "custom_nodes" / "flashface")
    return base


@pytest.fixture(scope="module")
def unpacked(base) -> Path:
    return base / "custom_nodes" / "flashface"


@pytest.fixture(scope="module")
def server(base, unpacked):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with load_tool("comfy_server").ComfyServer(base, cpu=True, pack=unpacked) as server:
        assert not unpacked.is_symlink()
        yield server


def test_it_is_no_larger_than_what_the_nodes_load(base, unpacked):
    size = (base / "node.zip").stat().st_size
    print(f"The archive has {size / 1e6:.1f} MB.")
    assert size < MOST
    models = {path.suffix for path in (unpacked / "tiny_models").rglob("*") if path.is_file()}
    assert models == {".safetensors", ".md", ".png"}
    assert not (unpacked / "tiny_models" / "probes.safetensors").exists()
    left_out = {"automation", "api_examples", "tests", "training", ".ci", ".github"}
    assert not {path.name for path in unpacked.iterdir()} & left_out


def test_all_nodes_are_there(server):
    async def nodes():
        return await (await comfy_entrypoint()).get_node_list()

    ours = {node.define_schema().node_id for node in asyncio.run(nodes())}
    described = server.get("/object_info")
    assert ours
    assert ours == {
        name
        for name, info in described.items()
        if info["python_module"] == "custom_nodes.flashface"
    }
    assert "IMPORT FAILED" not in server.log_text()


def test_without_a_model_the_node_shows_and_says_which_file_to_put_where(server):
    loader = server.get("/object_info/FlashFaceLoader")["FlashFaceLoader"]
    assert loader["input"]["required"]["model_name"][1]["options"] == ["none"]
    workflow = {
        "1": {
            "class_type": "FlashFaceLoader",
            "inputs": {"model_name": "none", "weight_dtype": "default"},
        },
        "2": {"class_type": "ModelSave", "inputs": {"model": ["1", 0], "filename_prefix": "x"}},
    }
    line = complaint(server, workflow)
    folder = str(server.base / "models" / "flashface")
    for word in ("FlashFaceLoader", "flashface.ckpt", folder, "tools/convert.py", "nothing"):
        assert word in line, line


@pytest.mark.parametrize("name", RUN)
def test_the_tiny_models_draw(server, name):
    workflow = api_workflow(name)
    for node in workflow.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    inputs(workflow, "SaveImage")["filename_prefix"] = name
    assert all(path.exists() for path in server.files(server.prompt(workflow)))
    assert list((server.base / "output").glob(f"{name}*.png"))


def test_nothing_in_it_imports_what_is_left_out(unpacked):
    files = list(unpacked.rglob("*.py"))
    assert len(files) > 60
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                names = [folder / alias.name for alias in node.names]
                found = [at.with_suffix(".py").exists() or at.is_dir() for at in (folder, *names)]
                assert any(found), f"{path} imports {node.module}"
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] not in MADE_FOR_A_CLONE, path
            elif isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
                assert not tops & MADE_FOR_A_CLONE, path


@pytest.mark.parametrize("command", ["demo", "evaluate", "test", "lint"])
def test_a_command_that_needs_a_clone_says_so_in_one_sentence(unpacked, command):
    line = [sys.executable, str(unpacked / "tools" / "comfy.py"), command]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "run it in a git clone of https://" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (unpacked / ".comfy").exists()


def test_the_converter_is_there(unpacked):
    line = [sys.executable, str(unpacked / "tools" / "convert.py"), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
