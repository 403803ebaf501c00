"""A server that speaks as much of ComfyUI's language as a list needs, draws nothing, and answers
whatever a test wants. It starts in no time."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from aiohttp import WSMsgType, web
from PIL import Image

NODES = {
    "TestDraw": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "seed": ["INT", {}]}},
        "output": ["IMAGE"],
    },
    "TestBlur": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"]},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}},
        "output": [],
    },
    "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": []},
    "LoadImage": {
        "input": {"required": {"image": [["a.png"], {"image_upload": True}]}},
        "output": ["IMAGE"],
    },
}
WORKFLOW = {
    "1": {"class_type": "TestDraw", "inputs": {"text": "a portrait", "seed": 1}},
    "2": {"class_type": "TestBlur", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "a"}},
}
Answer = Callable[[web.Request], web.Response | None]


class Stub:
    """answer: of a path, instead of the usual one where it gives any. hangs: paths that are never
    answered. asked: when, and for which path."""

    def __init__(self) -> None:
        self.answer: dict[str, Answer] = {}
        self.hangs: set[str] = set()
        self.asked: list[tuple[float, str]] = []
        self.bodies: list[tuple[str, dict]] = []
        self.url = ""
        self._history: dict[str, dict] = {}
        self._sockets: list[web.WebSocketResponse] = []

    def times(self, path: str) -> list[float]:
        return [at for at, asked in self.asked if asked == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append((time.monotonic(), path))
        if path in self.hangs:
            await asyncio.sleep(3600)
        body = await request.json() if request.content_type == "application/json" else {}
        self.bodies.append((path, body))
        own = self.answer.get(path, lambda _: None)(request)
        if own is not None:
            return own
        if path == "/ws":
            return await self._listen(request)
        if path == "/view":
            return web.Response(body=picture())
        if path == "/prompt":
            return web.json_response(await self._draw(body))
        kind, _, name = path[1:].partition("/")
        if kind == "object_info":
            return web.json_response({name: NODES[name]} if name in NODES else {})
        if kind == "history":
            return web.json_response({name: self._history[name]} if name in self._history else {})
        if kind == "queue" and request.method == "GET":
            return web.json_response({"queue_running": [], "queue_pending": []})
        return web.json_response({})

    async def _listen(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        async for message in socket:
            if message.type != WSMsgType.TEXT or "/ws" in self.hangs:
                break
        return socket

    async def _draw(self, body: dict) -> dict:
        name, graph = body["prompt_id"], body["prompt"]
        file = {"filename": "a.png", "subfolder": "", "type": "temp"}
        ends = [node for node in graph if graph[node]["class_type"] == "PreviewImage"]
        self._history[name] = {
            "status": {"status_str": "success", "messages": []},
            "outputs": {node: {"images": [file]} for node in ends},
        }
        while not self._sockets:
            await asyncio.sleep(0.01)
        done = {"type": "executing", "data": {"node": None, "prompt_id": name}}
        for socket in self._sockets:
            if not socket.closed:
                await socket.send_json(done)
        return {"prompt_id": name, "node_errors": {}}


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), "grey").save(file, "PNG")
    return file.getvalue()


@contextmanager
def stub_server():
    stub, loop, ready = Stub(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", stub.handle)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await ended.wait()
        await runner.cleanup()

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield stub
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()


def write_list(folder: Path, rows: int = 2, workflow: dict | None = None, name: str = "list"):
    """A manifest and a workflow."""
    manifest, path = folder / f"{name}.csv", folder / "workflow.json"
    lines = ["person,seed", *(f"anna,{seed}" for seed in range(rows))]
    manifest.write_text("\n".join(lines))
    path.write_text(json.dumps(workflow or WORKFLOW))
    return manifest, path
