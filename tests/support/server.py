"""A real ComfyUI over HTTP with models made by rule, and the shipped workflow made small."""

import copy
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .tools import ROOT, load_tool

API_WORKFLOW = ROOT / "workflows" / "api" / "photo_to_portrait.json"
UI_WORKFLOW = ROOT / "workflows" / "photo_to_portrait.json"

Workflow = dict[str, dict[str, Any]]


@contextmanager
def rule_server(base: Path) -> Iterator:
    """A ComfyServer on the CPU with everything that the shipped workflow names."""
    data = pytest.importorskip("skimage.data", reason="the photo comes with scikit-image")
    maker = ROOT / "tools" / "demo_models.py"
    subprocess.run([sys.executable, str(maker), str(base / "models")], check=True)
    (base / "input").mkdir()
    shutil.copy(Path(data.__file__).parent / "astronaut.png", base / "input")
    with start_server(base) as server:
        yield server


@contextmanager
def start_server(base: Path) -> Iterator:
    # Networks this small gain nothing from threads, and lose much where others use the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with load_tool("comfy_server").ComfyServer(base, cpu=True) as server:
        yield server


def small_workflow(seed: int = 1) -> Workflow:
    """The shipped workflow at 64 x 64 pixels and two steps."""
    workflow = json.loads(API_WORKFLOW.read_text())
    inputs(workflow, "EmptyLatentImage").update(width=64, height=64)
    inputs(workflow, "KSampler").update(steps=2, seed=seed)
    return workflow


def node_id(workflow: Workflow, class_type: str) -> str:
    (found,) = (key for key, node in workflow.items() if node["class_type"] == class_type)
    return found


def inputs(workflow: Workflow, class_type: str) -> dict[str, Any]:
    return workflow[node_id(workflow, class_type)]["inputs"]


def add_node(workflow: Workflow, class_type: str, **given: Any) -> str:
    """Id of a node put into the workflow; links are [node id, number of the output]."""
    key = str(1 + max(map(int, workflow)))
    workflow[key] = {"class_type": class_type, "inputs": given}
    return key


def bare(workflow: Workflow) -> dict[str, tuple]:
    """What two forms of a workflow must agree in: classes, links and values."""
    plain = copy.deepcopy(workflow)
    return {key: (node["class_type"], node["inputs"]) for key, node in plain.items()}


def fetch(server, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.url + path, timeout=60) as response:
        return response.read()
