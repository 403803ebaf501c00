"""One ComfyUI server: what it knows, and pictures of it. Nothing else is ever asked."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from .answers import (
    Lost,
    RowError,
    as_comfyui,
    check_status,
    parsed,
    raise_failure,
    raise_refused,
    read_status,
)
from .jobs import Job
from .photos import SUBFOLDER, Photo, PhotoError

LOOK_EVERY = 5.0  # seconds, where the socket says nothing
GOODBYE = 0.2  # seconds that a silent socket may take to close
PNG = b"\x89PNG\r\n\x1a\n"


class Drawn(NamedTuple):
    """pictures: PNG files. seconds: of the server's work. known: the person's features were."""

    pictures: list[bytes]
    seconds: float
    known: bool


class _Asked:
    def __init__(self) -> None:
        self.look = asyncio.Event()
        self.began = False
        self.since = 0.0  # when it began


class Server:
    """Use as `async with`. client: by which it tells our prompts from those of others.

    patience: seconds without an answer after which it counts as lost. row_seconds: of work at a row
    after which it is interrupted; None: any.
    """

    def __init__(
        self, url: str, client: str, patience: float, row_seconds: float | None = None
    ) -> None:
        given = URL(url.rstrip("/"))
        if given.scheme not in ("http", "https") or not given.host:
            raise ValueError(f"--server is {url}; give an address such as http://127.0.0.1:8188")
        self.name = str(given.with_user(None))
        self.patience, self._row_seconds = patience, row_seconds
        self._url, self._client = given, client
        self._asked: dict[str, _Asked] = {}
        self._moved = time.monotonic()  # when a prompt of ours was put in, began or ended
        self._abandoned: list[str] = []
        self._uploaded: dict[str, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Server":
        limit = aiohttp.ClientTimeout(
            total=None, sock_connect=self.patience, sock_read=self.patience
        )
        # Neither a proxy of the environment nor a redirect leads to another machine.
        self._session = aiohttp.ClientSession(timeout=limit, trust_env=False)
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._listening is not None
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        await self._session.close()

    async def answers(self) -> bool:
        try:
            await self._get("/system_stats")
        except Lost:
            return False
        return True

    async def describe(self, classes: Iterable[str]) -> dict[str, Any]:
        """/object_info of some classes; None for one that it lacks."""
        every = {}
        for name in sorted(set(classes)):
            path = "/object_info/" + name
            node = (await self._get(path)).get(name)
            with as_comfyui(path):
                every[name] = node and {**node}
        return every

    async def forget_ours(self) -> None:
        """Take what an earlier run left in the queue out of it."""
        queue = await self._get("/queue")
        with as_comfyui("/queue"):
            every = [*queue["queue_running"], *queue["queue_pending"]]
            ours = [item[1] for item in every if item[3].get("client_id") == self._client]
        await self._take_out(ours)

    async def draw(self, job: Job) -> Drawn:
        """Raises RowError or Lost."""
        prompt = str(uuid.uuid4())
        asked = self._asked[prompt] = _Asked()
        done = False
        try:
            await self._upload(job.uploads)
            body = {"prompt": job.graph, "client_id": self._client, "prompt_id": prompt}
            await self._put_in(body)
            self._moved = time.monotonic()
            entry = await self._finished(prompt, asked)
            done = True
            with as_comfyui("/history"):
                raise_failure(entry["status"])
                outputs = entry["outputs"]
                files = [f for node in job.outputs for f in outputs.get(node, {}).get("images", ())]
                told = read_status(entry["status"], job)
            pictures = [await self._picture(file) for file in files]
            if not pictures:
                raise RowError("The workflow ran and gave no picture.")
            return Drawn(pictures, *told)
        except Lost as lost:
            self._uploaded.clear()
            lost.began = lost.began or asked.began
            raise
        finally:
            del self._asked[prompt]
            self._moved = time.monotonic()
            if not done:
                self._abandoned.append(prompt)

    async def _put_in(self, body: dict[str, Any]) -> None:
        """A prompt on its way cannot be called back. So who is cancelled meanwhile waits until the
        server has it, where `clean` finds it."""
        posting = asyncio.create_task(self._post("/prompt", body))
        try:
            answer = await asyncio.shield(posting)
        except asyncio.CancelledError:
            with contextlib.suppress(Lost, RowError):
                await posting
            raise
        try:
            with as_comfyui("/prompt"):
                raise_refused(answer)
        except RowError:
            await self._take_out([body["prompt_id"]])
            raise

    async def clean(self) -> None:
        """Take prompts that nobody waits for any more out of the queue."""
        prompts, self._abandoned = self._abandoned, []
        await self._take_out(prompts)

    async def _take_out(self, prompts: list[str]) -> None:
        """Of the queue, or of work."""
        if prompts:
            await self._post("/queue", {"delete": prompts})
        for prompt in prompts:
            await self._post("/interrupt", {"prompt_id": prompt})

    async def _finished(self, prompt: str, asked: _Asked) -> dict[str, Any]:
        every = min(LOOK_EVERY, self.patience / 2, (self._row_seconds or LOOK_EVERY) / 2)
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asked.look.wait(), every)
            asked.look.clear()
            await self._stop_when_late(prompt, asked)
            for last in (False, True):
                entry = (await self._get(f"/history/{prompt}")).get(prompt)
                if entry is not None:
                    return entry
                if last:
                    raise Lost("it knows the prompt no more: it was started again, or cleared")
                queue = await self._get("/queue")
                with as_comfyui("/queue"):
                    waits = any(prompt == item[1] for key in queue for item in queue[key])
                if waits:
                    break

    async def _stop_when_late(self, prompt: str, asked: _Asked) -> None:
        """A row that takes too long has failed. A server that goes on with it all the same, and
        gets to no other row, is lost."""
        limit, now = self._row_seconds, time.monotonic()
        if limit is None:
            return
        if asked.began:
            if now - asked.since > limit:
                await self._post("/interrupt", {"prompt_id": prompt})
                raise RowError(f"It took longer than {limit:g} seconds and was interrupted.")
        elif now - self._moved > 2 * limit and await self._is_at_an_abandoned_row():
            raise Lost(f"it cannot be interrupted, and has ended nothing for {2 * limit:g} seconds")

    async def _is_at_an_abandoned_row(self) -> bool:
        """And not at somebody else's, of which we know nothing."""
        queue = await self._get("/queue")
        with as_comfyui("/queue"):
            return any(item[1] in self._abandoned for item in queue["queue_running"])

    async def _upload(self, photos: Iterable[Photo]) -> None:
        for photo in photos:
            if photo.name not in self._uploaded:
                self._uploaded[photo.name] = asyncio.create_task(self._send(photo))
            await asyncio.shield(self._uploaded[photo.name])

    async def _send(self, photo: Photo) -> None:
        try:
            data = photo.read()
        except (OSError, PhotoError) as error:
            raise RowError(str(error)) from None
        form = aiohttp.FormData()
        form.add_field("image", data, filename=photo.file, content_type="application/octet-stream")
        form.add_field("subfolder", SUBFOLDER)
        form.add_field("overwrite", "true")
        await self._request("POST", "/upload/image", data=form)

    async def _picture(self, file: dict[str, str]) -> bytes:
        with as_comfyui("/history"):
            query = {key: file[key] for key in ("filename", "subfolder", "type")}
        data = await self._request("GET", "/view", params=query)
        if not data.startswith(PNG):
            raise RowError(f"{file['filename']} is no PNG file.")
        return data

    async def _get(self, path: str) -> dict[str, Any]:
        return parsed(path, await self._request("GET", path))

    async def _post(self, path: str, data: Any) -> dict[str, Any]:
        return parsed(path, await self._request("POST", path, json=data))

    async def _request(self, method: str, path: str, **given: Any) -> bytes:
        url = self._url / path.lstrip("/")
        try:
            async with self._session.request(method, url, allow_redirects=False, **given) as got:
                body = await got.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Lost(f"{type(error).__name__} {error}".strip()) from None
        check_status(path, got.status, body)
        return body

    async def _listen(self) -> None:
        """The socket only says when to look, so that nothing hangs where it is silent."""
        url = (self._url / "ws").with_query(clientId=self._client)
        limit = aiohttp.ClientWSTimeout(ws_close=GOODBYE)  # pyright: ignore[reportCallIssue]
        while True:
            try:
                async with self._session.ws_connect(url, max_msg_size=0, timeout=limit) as socket:
                    async for message in socket:
                        if message.type == aiohttp.WSMsgType.TEXT:
                            with as_comfyui("/ws"):
                                self._note(json.loads(message.data))
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, Lost):
                pass
            for asked in self._asked.values():
                asked.look.set()
            await asyncio.sleep(1)

    def _note(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        asked = self._asked.get(data.get("prompt_id", ""))
        if asked is None:
            return
        if event["type"] == "execution_start":
            asked.began = True
            asked.since = self._moved = time.monotonic()
        elif event["type"] == "executing" and data.get("node") is None:
            asked.look.set()
