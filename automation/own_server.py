"""A ComfyUI of one's own for as long as it is needed, from the folder at $COMFYUI_PATH."""

import contextlib
import ctypes
import importlib.util
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TOOL = Path(__file__).resolve().parent.parent / "tools" / "comfy_server.py"
START_SECONDS = 300.0


def _tool():
    """By its file: the folder holds a comfy.py that would hide ComfyUI's `comfy`."""
    spec = importlib.util.spec_from_file_location("flashface_comfy_server", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OwnServer:
    """Starts at once. base: with models/ and custom_nodes/; several servers may share it."""

    def __init__(self, comfy: Path, base: Path, arguments: tuple[str, ...] = ()) -> None:
        tool = _tool()
        port = tool.free_port()
        self.url = f"http://127.0.0.1:{port}"
        # A starting server empties its folder of temporary files.
        self._temporary = Path(tempfile.mkdtemp(prefix="flashface-automation-"))
        arguments = ("--temp-directory", str(self._temporary), *arguments)
        line = tool.command(comfy, sys.executable, base, port, None, arguments)
        self._log = self._temporary / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        self._stop = tool.stop
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._stop(self._process)
        shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline and self.runs:
            with contextlib.suppress(OSError):
                opener.open(f"{self.url}/system_stats", timeout=10).close()
                return
            time.sleep(0.2)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"ComfyUI did not start; its log ends with:\n{tail}")


def _end_with_parent() -> None:
    """The thread that started it may be killed without a chance to stop it (Linux)."""
    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
