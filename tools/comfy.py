"""Demo, tests and a server with a real ComfyUI, on a machine that has only Python.

    python tools/comfy.py demo
    python tools/comfy.py test [pytest arguments]
    python tools/comfy.py serve [--port P]
    python tools/comfy.py lint

The first call sets up a private environment under .comfy/, or uses the ComfyUI at $COMFYUI_PATH.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

import comfy_server
from environment import (
    DEMO_MODULES,
    LINT_MODULES,
    PRIVATE,
    REPO,
    TEST_MODULES,
    Environment,
    prepare,
)


def main(arguments: list[str]) -> int:
    commands = {
        "demo": (demo, "make a personalised picture with the shipped workflow"),
        "test": (test, "run the tests; arguments go to pytest, paths are relative to the pack"),
        "serve": (serve, "run ComfyUI with this pack, for a browser"),
        "lint": (lint, "check style, formatting and types"),
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
    run, _ = commands[parser.parse_args(arguments[:1]).command]
    return run(arguments[1:])


def demo(arguments: list[str]) -> int:
    argparse.ArgumentParser(prog="tools/comfy.py demo").parse_args(arguments)
    return _run(prepare(DEMO_MODULES), str(REPO / "tools" / "demo.py"))


def test(arguments: list[str]) -> int:
    return _run(prepare(TEST_MODULES), "-m", "pytest", *arguments)


def lint(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/comfy.py lint")
    parser.parse_args(arguments)
    environment = prepare(LINT_MODULES)
    # pyright finds ComfyUI as the interpreter would.
    types = environment._replace(
        variables={
            **environment.variables,
            "PYTHONPATH": str(environment.comfy),
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
    environment = prepare(DEMO_MODULES)
    # So that the shipped workflow runs at once; weights that are there are left alone.
    code = _run(environment, str(REPO / "tools" / "demo.py"), "--only-prepare")
    if code:
        return code
    base = PRIVATE / "base"
    comfy_server.make_base(base)
    line = comfy_server.command(environment.comfy, environment.python, base, port)
    print(f"Models and pictures are in {base}; stop with Ctrl-C.", flush=True)
    return _wait(subprocess.Popen(line, env=environment.variables))


def evaluate(arguments: list[str]) -> int:
    print("evaluate comes with the trained tiny model.", file=sys.stderr)
    return 2


def _run(environment: Environment, *arguments: str) -> int:
    command = [str(environment.python), *arguments]
    return _wait(subprocess.Popen(command, cwd=REPO, env=environment.variables))


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
