"""Demo, tests and a server with a real ComfyUI, on a machine that has only Python.

    python tools/comfy.py demo
    python tools/comfy.py test [pytest arguments]
    python tools/comfy.py serve [--port P]
    python tools/comfy.py evaluate [--people N] [--seed S] [--json FILE] [--out FOLDER] [--systems]
    python tools/comfy.py benchmark step|pipeline|likeness|automation [--help]
    python tools/comfy.py lint

The first call sets up a private environment under .comfy/, or uses the ComfyUI at $COMFYUI_PATH.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import comfy_server
from environment import (
    EVALUATE_MODULES,
    LINT_MODULES,
    PRIVATE,
    REPO,
    TEST_MODULES,
    Environment,
    prepare,
)

# What commands are made of that the registry's archive leaves out.
NEEDS = {
    "demo": "training",
    "evaluate": "training",
    "benchmark": "benchmarks",
    "test": "tests",
    "lint": "tests",
}

MAX_SEED = 10**12  # the noise's seeds are counted up from a million times it


def main(arguments: list[str]) -> int:
    commands = {
        "demo": (demo, "draw three people, with and without FlashFace, as one grid"),
        "test": (test, "run the tests; arguments go to pytest, paths are relative to the pack"),
        "serve": (serve, "run ComfyUI with this pack, for a browser"),
        "lint": (lint, "check style, formatting and types"),
        "benchmark": (benchmark, "measure what a step costs, or a whole picture"),
        "evaluate": (evaluate, "measure the tiny model on people it has not seen"),
    }
    rows = [f"  {name:10}{text}" for name, (_, text) in commands.items()]
    parser = argparse.ArgumentParser(
        prog="tools/comfy.py",
        description=__doc__,
        epilog="\n".join(["commands:", *rows]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=commands, metavar="command")
    name = parser.parse_args(arguments[:1]).command
    if name in NEEDS and not (REPO / NEEDS[name]).is_dir():
        print(
            f"`{name}` needs {NEEDS[name]}/, which the archive of the Comfy registry leaves out; "
            f"run it in a git clone of {repository()}.",
            file=sys.stderr,
        )
        return 2
    run, _ = commands[name]
    return run(arguments[1:])


def repository() -> str:
    lines = (REPO / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("Repository = "))


def demo(arguments: list[str]) -> int:
    argparse.ArgumentParser(prog="tools/comfy.py demo").parse_args(arguments)
    return _run(prepare(), str(REPO / "tools" / "demo.py"))


def test(arguments: list[str]) -> int:
    return _run(prepare(TEST_MODULES), "-m", "pytest", *arguments)


def lint(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/comfy.py lint")
    parser.parse_args(arguments)
    environment = prepare(LINT_MODULES)
    # pyright finds ComfyUI as the interpreter would.
    paths = [str(environment.comfy), environment.variables.get("PYTHONPATH", "")]
    types = environment._replace(
        variables={
            **environment.variables,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYRIGHT_PYTHON_CACHE_DIR": str(PRIVATE / "pyright"),
        }
    )
    codes = [
        _run(environment, "-m", "ruff", "check", "."),
        _run(environment, "-m", "ruff", "format", "--check", "."),
        _run(types, "-m", "pyright", "--pythonpath", str(environment.python)),
    ]
    return max(codes)


def serve(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/comfy.py serve")
    parser.add_argument("--port", type=int, default=8188)
    port = parser.parse_args(arguments).port
    environment = prepare()
    base = PRIVATE / "base"
    comfy_server.make_base(base)
    line = comfy_server.command(environment.comfy, environment.python, base, port)
    print(f"Models and pictures are in {base}; stop with Ctrl-C.", flush=True)
    return _wait(subprocess.Popen(line, env=environment.variables))


def benchmark(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/comfy.py benchmark")
    parser.add_argument("what", choices=("step", "pipeline", "likeness", "automation"))
    what = parser.parse_args(arguments[:1]).what
    environment = prepare()
    # glibc gives large blocks back at once; to get them again takes longer than to compute.
    keep = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    given = environment.variables.get("PYTHONPATH")
    found = {"PYTHONPATH": os.pathsep.join([str(REPO), given] if given else [str(REPO)])}
    environment = environment._replace(variables={**environment.variables, **keep, **found})
    # Where this was called, as paths are of there.
    return _run(environment, "-m", f"benchmarks.{what}", *arguments[1:], folder=Path.cwd())


def evaluate(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/comfy.py evaluate")
    parser.add_argument("--people", type=int, default=20, help="how many; nobody trained on")
    parser.add_argument("--seed", type=int, default=1, help="which people, and the noise")
    parser.add_argument("--json", type=Path, help="file for the numbers, by name, or by system")
    parser.add_argument("--out", type=Path, help="folder for a table and a grid of pictures")
    parser.add_argument("--systems", action="store_true", help="a table of all systems instead")
    options = parser.parse_args(arguments)
    if problem := _problem(options):
        print(problem, file=sys.stderr)
        return 2
    module = "training.tiny.compare" if options.systems else "training.evaluate"
    line = ["-m", module, "--people", str(options.people), "--seed", str(options.seed)]
    for name, path in (("--json", options.json), ("--out", options.out)):
        if path is not None:
            line += [name, str(path.resolve())]  # the child runs elsewhere
    return _run(prepare(EVALUATE_MODULES), *line)


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments of `evaluate`, before anything is set up."""
    if options.people < 1:
        return f"--people is {options.people}; give 1 or more."
    if not 0 <= options.seed <= MAX_SEED:
        return f"--seed is {options.seed}; give a number from 0 to {MAX_SEED}."
    if options.json is None and options.out is None:
        return "There is nothing to write; give --json FILE, --out FOLDER, or both."
    if options.json is not None and options.json.is_dir():
        return f"--json is {options.json}, which is a folder; name a file."
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        return f"--out is {options.out}, which is a file; name a folder."
    return None


def _run(environment: Environment, *arguments: str, folder: Path = REPO) -> int:
    command = [str(environment.python), *arguments]
    return _wait(subprocess.Popen(command, cwd=folder, env=environment.variables))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The child's exit code. It gets Ctrl-C as well, and never outlives this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait()
    finally:
        comfy_server.stop(process)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
