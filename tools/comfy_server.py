"""A real ComfyUI as a child process, with this repository as its only custom node pack.

    with ComfyServer() as server:
        outputs = server.prompt(api_json)
        pictures = server.files(outputs)

Standard library only.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
PACK = "flashface"

# A proxy of the user's is not for this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class ComfyServer:
    """Starts on `with`, answers on `url`, and is stopped when the block ends.

    Without `base` the base directory (models, input, output, ...) is a temporary one, removed
    afterwards. `comfy` is the folder with main.py ($COMFYUI_PATH), `python` the one to run it.
    `cpu` None means: where torch finds no GPU. `pack` is another folder to take this pack from.
    """

    def __init__(
        self,
        base: Path | str | None = None,
        *,
        comfy: Path | str | None = None,
        python: Path | str = sys.executable,
        port: int | None = None,
        cpu: bool | None = None,
        arguments: Sequence[str] = (),
        start_timeout: float = 180,
        pack: Path = REPO,
    ) -> None:
        comfy = comfy or os.environ.get("COMFYUI_PATH")
        if not comfy:
            raise RuntimeError("ComfyServer needs COMFYUI_PATH or its argument `comfy`.")
        self._temporary = base is None
        self.base = Path(base or tempfile.mkdtemp(prefix="flashface-comfy-")).resolve()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.base / "server.log"
        self._pack = pack
        self._start_timeout = start_timeout
        self._command = command(comfy, python, self.base, self.port, cpu, arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        make_base(self.base, self._pack)
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            self._await_start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def prompt(self, api: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
        """Run an API-format workflow; outputs by node id. Errors of nodes are RuntimeErrors."""
        return self.wait(self.queue(api), timeout)

    def queue(self, api: dict[str, Any]) -> str:
        """Put a workflow into the queue without waiting; its prompt id."""
        answer = self.post("/prompt", {"prompt": api})
        if answer["node_errors"]:
            # ComfyUI would run the other outputs and say nothing of these again.
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            raise RuntimeError("\n".join(_node_lines(answer["node_errors"])))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 600) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._check_alive()
            history = self.get(f"/history/{prompt_id}").get(prompt_id)
            if history:
                _raise_failure(history["status"])
                return history["outputs"]
            time.sleep(0.05)
        self.interrupt()
        raise TimeoutError(f"Prompt {prompt_id} did not end in {timeout:g} s.\n{self._log_tail()}")

    def files(self, outputs: dict[str, Any], key: str = "images") -> list[Path]:
        """The files that SaveImage and the like report in the outputs of a prompt; where nothing is
        saved, those that are shown."""
        entries = [entry for output in outputs.values() for entry in output.get(key, ())]
        entries = [entry for entry in entries if entry["type"] == "output"] or entries
        return [self.base / e["type"] / e["subfolder"] / e["filename"] for e in entries]

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload the models and forget cached node outputs, before the next prompt runs."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def get(self, path: str) -> Any:
        return self._request(urllib.request.Request(self.url + path))

    def post(self, path: str, data: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        body = json.dumps(data).encode()
        return self._request(urllib.request.Request(self.url + path, body, headers))

    def _request(self, request: urllib.request.Request) -> Any:
        try:
            with _open(request, timeout=60) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            body = error.read().decode(errors="replace")
            text = f"{request.selector} answered {error.code}: {_readable(body)}"
            raise RuntimeError(text) from None
        return json.loads(body) if body else None

    def _await_start(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                self.get("/system_stats")
                return
            except OSError:  # not listening yet
                time.sleep(0.1)
        waited = f"ComfyUI did not answer within {self._start_timeout:g} s"
        raise TimeoutError(f"{waited}; its log ends with:\n{self._log_tail()}")

    def _check_alive(self) -> None:
        assert self._process is not None, "ComfyServer is used outside its `with` block"
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"ComfyUI ended with code {code}; its log:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-40:])


def command(
    comfy: Path | str,
    python: Path | str,
    base: Path,
    port: int,
    cpu: bool | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The command line of a ComfyUI that keeps its files in `base`."""
    line = [str(python), str(Path(comfy).resolve() / "main.py"), "--base-directory", str(base)]
    line += ["--listen", "127.0.0.1", "--port", str(port), "--disable-api-nodes"]
    line += ["--database-url", "sqlite:///:memory:"]
    if cpu or (cpu is None and not _has_gpu(str(python))):
        line.append("--cpu")
    return [*line, *arguments]


def make_base(base: Path, source: Path = REPO) -> None:
    """A base directory of ComfyUI in which this repository, or `source`, is the pack `flashface`.

    `source` may lie where the pack belongs already.
    """
    for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    pack = base / "custom_nodes" / PACK
    if pack.exists() and pack.resolve() == source.resolve():
        return
    if pack.is_symlink():
        pack.unlink()
    try:
        pack.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links, or a copy made there before
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=source, check=True, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = pack / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target)


def stop(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@functools.lru_cache
def _has_gpu(python: str) -> bool:
    code = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
    probe = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True)
    return probe.stdout.strip() == "True"


def _raise_failure(status: dict[str, Any]) -> None:
    if status["status_str"] == "success":
        return
    for kind, details in status["messages"]:
        if kind == "execution_error":
            where = f"node {details['node_id']} ({details['node_type']})"
            what = f"{details['exception_type']}: {details['exception_message'].strip()}"
            raise RuntimeError(f"{where} raised {what}\n{''.join(details['traceback'])}")
        if kind == "execution_interrupted":
            raise RuntimeError(f"interrupted in node {details['node_id']} ({details['node_type']})")
    raise RuntimeError(f"the prompt failed: {status}")


def _readable(body: str) -> str:
    """ComfyUI's answer to a workflow it refuses, as lines; any other text as it is."""
    try:
        answer = json.loads(body)
        lines = [_line(answer["error"]), *_node_lines(answer.get("node_errors") or {})]
    except (ValueError, KeyError, TypeError):
        return body
    return "\n".join(lines)


def _node_lines(node_errors: dict[str, Any]) -> list[str]:
    return [
        f"node {node_id} ({node['class_type']}): {_line(error)}"
        for node_id, node in node_errors.items()
        for error in node["errors"]
    ]


def _line(error: dict[str, str]) -> str:
    return f"{error['message']} {error['details']}".strip()
