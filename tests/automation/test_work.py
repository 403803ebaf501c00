"""Who takes which row: no server is needed for that."""

import asyncio

import pytest

pytest.importorskip("pyarrow", reason="automation/ needs pyarrow")

from automation.jobs import Job
from automation.work import GIVEN_BACK, Work

A, B = "http://a", "http://b"


def job(person: str, number: int) -> Job:
    return Job(f"{person}{number}", number, person, True, person, {}, (), {}, (), ())


def jobs(**people: int) -> list[Job]:
    return [job(person, n) for person, count in people.items() for n in range(count)]


async def take(work: Work, *servers: str) -> list[str]:
    return [taken.id for server in servers if (taken := await work.next(server)) is not None]


def test_a_person_stays_at_one_server_until_there_is_nobody_new():
    async def scene():
        work = Work(jobs(x=3, y=2, z=1), [A, B], 3)
        assert await take(work, A, B, A, B) == ["x0", "y0", "x1", "y1"]
        assert await take(work, B) == ["z0"]  # nobody has z yet
        assert await take(work, B) == ["x2"]  # it helps

    asyncio.run(scene())


def test_a_failed_row_goes_to_another_server_first_and_is_given_up_after_its_tries():
    async def scene():
        work = Work(jobs(x=1), [A, B], 2)
        row = await work.next(A)
        assert row is not None and not await work.failed(row, A, "no memory")
        waiting = asyncio.create_task(work.next(A))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await work.next(B) == row
        assert await work.failed(row, B, "no memory either")
        assert work.error == {row.id: "no memory either"} and await waiting is None

    asyncio.run(scene())


def test_the_last_server_tries_its_own_failures_again():
    async def scene():
        work = Work(jobs(x=1), [A, B], 3)
        row = await work.next(A)
        assert row is not None
        await work.failed(row, A, "no memory")
        await work.lost(B)
        assert await work.next(A) == row

    asyncio.run(scene())


def test_what_a_server_did_not_begin_is_no_try_but_not_for_ever():
    async def scene():
        work = Work(jobs(x=1), [A], 1)
        for _ in range(GIVEN_BACK):
            row = await work.next(A)
            assert row is not None and work.may_give_back(row) and work.tries[row.id] == 1
            await work.give_back(row)
        row = await work.next(A)
        assert row is not None and not work.may_give_back(row)

    asyncio.run(scene())
