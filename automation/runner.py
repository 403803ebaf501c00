"""A list of pictures made by one server or many."""

import asyncio
import contextlib
import hashlib
import logging
import platform
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .answers import Lost, RowError, Strange
from .client import Server
from .jobs import Job
from .results import Results
from .work import Work

log = logging.getLogger("flashface.automation")

ASK_AGAIN = 2.0  # seconds between questions to a server that is gone


class Settings(NamedTuple):
    """queued: prompts at a server at a time. patience: seconds without an answer of any server.
    row_seconds: of work at a row; None: any."""

    tries: int = 3
    queued: int = 2
    patience: float = 60.0
    row_seconds: float | None = None


class Tally(NamedTuple):
    """Of one run. known: rows whose person's features a server had already."""

    done: Counter[str]
    known: int
    failed: int
    left: int
    seconds: float


def client_name(folder: Path) -> str:
    """The same for every run into a folder, so that what an earlier one left can be found."""
    text = f"{platform.node()} {folder.resolve()}"
    return "flashface-" + hashlib.sha256(text.encode()).hexdigest()[:16]


class Runner:
    """told: called after every row that ended, with the number of rows done, known and failed."""

    def __init__(
        self,
        servers: Sequence[Server],
        results: Results,
        settings: Settings,
        told: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self._servers, self._results, self._settings = servers, results, settings
        self._told = told
        self._done: Counter[str] = Counter()
        self._known = self._failed = 0

    async def run(self, jobs: Sequence[Job]) -> Tally:
        """What is done is not done again. Ends when all rows ended or no server is left."""
        self._began = self._heard = time.monotonic()
        missing = [job for job in jobs if not self._results.has(job)]
        self._work = Work(missing, (one.name for one in self._servers), self._settings.tries)
        self._gone: set[str] = set()
        for server in self._servers:
            with contextlib.suppress(Lost, RowError):
                await server.forget_ours()
        slots = [
            asyncio.create_task(self._slot(one))
            for one in self._servers
            for _ in range(self._settings.queued)
        ]
        everything = asyncio.gather(*slots)
        _on_terminate(everything.cancel)
        try:
            await everything
        except Exception:
            for slot in slots:
                slot.cancel()
            raise
        finally:
            # `everything` ends with the first slot that is cancelled; others still put prompts in.
            await asyncio.wait(slots)
            for server in self._servers:
                if server.name not in self._gone:
                    with contextlib.suppress(Lost, RowError):
                        await server.clean()
        return self._tally()

    def _tally(self) -> Tally:
        seconds = time.monotonic() - self._began
        return Tally(self._done, self._known, self._failed, self._work.left, seconds)

    async def _slot(self, server: Server) -> None:
        """One prompt of a server at a time."""
        while (job := await self._work.next(server.name)) is not None:
            try:
                await self._draw(server, job)
            except Lost as lost:
                if not await self._is_back(server, lost):
                    return

    async def _draw(self, server: Server, job: Job) -> None:
        work, results = self._work, self._results
        try:
            drawn = await server.draw(job)
        except RowError as error:
            if await work.failed(job, server.name, str(error)):
                self._give_up(job, server, str(error))
        except Lost as lost:
            if not lost.began and work.may_give_back(job):
                await work.give_back(job)
            elif await work.failed(job, server.name, f"{server.name} was lost: {lost}"):
                self._give_up(job, server, work.error[job.id])
            raise
        except BaseException:
            await work.give_back(job)
            raise
        else:
            tries = work.tries[job.id]
            await asyncio.to_thread(results.save, job, drawn, server.name, tries)
            self._done[server.name] += 1
            self._known += drawn.known
            await work.done(job)
            self._told(self._tally())

    def _give_up(self, job: Job, server: Server, error: str) -> None:
        self._results.fail(job, error, server.name, self._work.tries[job.id])
        self._failed += 1
        self._told(self._tally())

    async def _is_back(self, server: Server, lost: Lost) -> bool:
        """Waits for a server, while others do its rows. False: all is done, or nobody is left."""
        if server.name not in self._gone:
            self._gone.add(server.name)
            self._heard = time.monotonic()
            log.warning("%s is lost (%s); its rows go to the others.", server.name, lost)
            await self._work.lost(server.name)
        while self._work.left:
            if await server.answers():
                with contextlib.suppress(Lost, RowError):
                    await server.clean()
                if server.name in self._gone:
                    self._gone.discard(server.name)
                    log.warning("%s answers again.", server.name)
                    await self._work.found(server.name)
                return True
            if len(self._gone) == len(self._servers) and self._silent_for(self._settings.patience):
                log.error("No server answers; start again to go on with the rows that are left.")
                await self._work.stop()
                return False
            await asyncio.sleep(min(ASK_AGAIN, self._settings.patience))
        return False

    def _silent_for(self, seconds: float) -> bool:
        return time.monotonic() - self._heard > seconds


def _on_terminate(cancel: Callable[[], object]) -> None:
    """Ctrl-C and a polite kill leave no prompts behind; there are no such signals on Windows."""
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, cancel)
