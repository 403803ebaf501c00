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
LONGEST_PAUSE = 30.0  # which grows to that where a server comes back and is lost again
REFUSALS = 8  # one after the other, after which a server is asked no more
STOP_SECONDS = 5.0  # that servers have to let go of prompts after Ctrl-C


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
        self._left: set[str] = set()
        self._losses: Counter[str] = Counter()  # since a row of the server ended
        await asyncio.gather(*map(_forget, self._servers))
        slots = {
            one: [asyncio.create_task(self._slot(one)) for _ in range(self._settings.queued)]
            for one in self._servers
        }
        every = [slot for own in slots.values() for slot in own]
        limit: float | None = None
        this = asyncio.current_task()
        assert this is not None
        _on_terminate(this.cancel)
        try:
            ended, _ = await asyncio.wait(every, return_when=asyncio.FIRST_EXCEPTION)
            for slot in ended:
                slot.result()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                limit = STOP_SECONDS
                log.warning(
                    "Stopping; Ctrl-C again ends at once and leaves prompts at the servers."
                )
            for slot in every:
                slot.cancel()
            raise
        finally:
            await asyncio.gather(*(self._let_go(one, own, limit) for one, own in slots.items()))
        return self._tally()

    async def _let_go(
        self, server: Server, slots: Iterable[asyncio.Task[None]], limit: float | None
    ) -> None:
        try:
            await asyncio.wait_for(self._cleaned(server, slots), limit)
        except asyncio.TimeoutError:
            log.warning(
                "%s did not answer in %g seconds; prompts of this run may be left there, until the "
                "next run into the same folder.",
                server.name,
                limit,
            )

    async def _cleaned(self, server: Server, slots: Iterable[asyncio.Task[None]]) -> None:
        """Who is cancelled may still put a prompt in; who is cancelled again ends."""
        await asyncio.gather(*slots, return_exceptions=True)
        if server.name not in self._gone:
            with contextlib.suppress(Lost, RowError):
                await server.clean()

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
            self._losses[server.name] = 0
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
            self._losses[server.name] = 0
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
        name = server.name
        if name not in self._gone:
            self._gone.add(name)
            self._losses[name] += 1
            self._heard = time.monotonic()
            log.warning("%s is lost (%s); its rows go to the others.", name, lost)
            await self._work.lost(name)
        if isinstance(lost, Strange) and not lost.began and self._losses[name] >= REFUSALS:
            await self._leave(name, lost)
            return False
        await self._work.wait_until_over(self._pause(name))
        while self._work.left:
            if await server.answers():
                with contextlib.suppress(Lost, RowError):
                    await server.clean()
                if name in self._gone:
                    self._gone.discard(name)
                    log.warning("%s answers again.", name)
                    await self._work.found(name)
                return True
            if len(self._gone) == len(self._servers) and self._silent_for(self._settings.patience):
                log.error("No server answers; start again to go on with the rows that are left.")
                await self._work.stop()
                return False
            await self._work.wait_until_over(min(ASK_AGAIN, self._settings.patience))
        return False

    async def _leave(self, name: str, lost: Lost) -> None:
        """A server that is there and takes no row."""
        if name not in self._left:
            self._left.add(name)
            log.error("%s is asked no more, after %d refusals (%s).", name, REFUSALS, lost)
        if len(self._left) == len(self._servers):
            await self._work.stop()

    def _pause(self, name: str) -> float:
        grown = ASK_AGAIN * 2.0 ** (self._losses[name] - 1)
        return min(grown, LONGEST_PAUSE, self._settings.patience / 2)

    def _silent_for(self, seconds: float) -> bool:
        return time.monotonic() - self._heard > seconds


async def _forget(server: Server) -> None:
    with contextlib.suppress(Lost, RowError):
        await server.forget_ours()


def _on_terminate(cancel: Callable[[], object]) -> None:
    """Ctrl-C and a polite kill leave no prompts behind, the second ends at once; there are no such
    signals on Windows."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        cancel()

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, stop)
