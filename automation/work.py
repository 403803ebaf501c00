"""The list that servers take rows from: each person at one server while there is enough to do."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Iterable

from .jobs import Job, by_photos

GIVEN_BACK = 10  # times that do not count as a try


class Work:
    """tries: how often a row is begun at most. error: of rows that were given up, by id."""

    def __init__(self, jobs: Iterable[Job], servers: Iterable[str], tries: int) -> None:
        self.tries: dict[str, int] = {}
        self.error: dict[str, str] = {}
        self._most = tries
        self._waiting = {group: deque(own) for group, own in by_photos(jobs).items()}
        self._holders: dict[str, set[str]] = {group: set() for group in self._waiting}
        self._there = set(servers)
        self._failed_at: dict[str, set[str]] = {}
        self._given_back: Counter[str] = Counter()
        self._out, self._over = 0, False
        self._changed = asyncio.Condition()

    @property
    def left(self) -> int:
        return sum(map(len, self._waiting.values())) + self._out

    async def next(self, server: str) -> Job | None:
        """A row for a server; waits while others may still give theirs back. None: all is done."""
        async with self._changed:
            while True:
                job = self._take(server)
                if job is not None:
                    self._out += 1
                    self.tries[job.id] = self.tries.get(job.id, 0) + 1
                    return job
                if not self.left or self._over:
                    return None
                await self._changed.wait()

    async def done(self, job: Job) -> None:
        await self._put(job, None)

    async def failed(self, job: Job, server: str, error: str) -> bool:
        """Whether the row is given up; it goes to another server first, where there is one."""
        self._failed_at.setdefault(job.id, set()).add(server)
        if self.tries[job.id] >= self._most:
            self.error[job.id] = error
            await self._put(job, None)
            return True
        await self._put(job, "last")
        return False

    async def give_back(self, job: Job) -> None:
        """Of a server that did not begin with it; that was no try."""
        self._given_back[job.id] += 1
        self.tries[job.id] -= 1
        await self._put(job, "first")

    def may_give_back(self, job: Job) -> bool:
        """Not for ever: a row that takes its server down may do so before it can be told."""
        return self._given_back[job.id] < GIVEN_BACK

    async def stop(self) -> None:
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def wait_until_over(self, seconds: float) -> None:
        """Or for some seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_over(), seconds)

    async def _until_over(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._over or not self.left)

    async def lost(self, server: str) -> None:
        async with self._changed:
            self._there.discard(server)
            for holders in self._holders.values():
                holders.discard(server)
            self._changed.notify_all()

    async def found(self, server: str) -> None:
        async with self._changed:
            self._there.add(server)
            self._changed.notify_all()

    async def _put(self, job: Job, where: str | None) -> None:
        async with self._changed:
            self._out -= 1
            if where == "first":
                self._waiting[job.group].appendleft(job)
            elif where == "last":
                self._waiting[job.group].append(job)
            self._changed.notify_all()

    def _take(self, server: str) -> Job | None:
        """Of the person it has; of one that nobody has; else it helps where most is left."""
        if server not in self._there:
            return None
        there = [group for group, own in self._waiting.items() if own]
        order = sorted(there, key=lambda group: self._rank(group, server))
        for group in order:
            for job in self._waiting[group]:
                if self._may_take(job, server):
                    self._waiting[group].remove(job)
                    self._holders[group].add(server)
                    return job
        return None

    def _rank(self, group: str, server: str) -> tuple[int, int]:
        holders = self._holders[group]
        if server in holders:
            return 0, 0
        return (2, -len(self._waiting[group])) if holders else (1, 0)

    def _may_take(self, job: Job, server: str) -> bool:
        """A row that failed here waits for another server, if there is one that it is new to."""
        at = self._failed_at.get(job.id, set())
        return server not in at or not self._there - at
