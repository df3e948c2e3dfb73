"""Waiting on an event loop: memory that is lent in turn, and errors that wait for all to end."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from xtorch_data.reading import concurrency
from xtorch_data.reading.concurrency import (
    fetched_bytes,
    give_room,
    on_thread,
    room_for,
    together,
)


@pytest.fixture
def few_bytes(monkeypatch):
    """Room for 16 bytes, of which one task takes 8 at most."""
    monkeypatch.setattr(concurrency, "FETCHED_BYTES", 16)
    monkeypatch.setattr(concurrency, "FEWEST_FETCHED", 2)


def test_room_is_lent_in_turn_and_never_more_than_there_is(few_bytes):
    held, most, order = 0, 0, []

    async def task(number, nbytes, free):
        nonlocal held, most
        async with room_for(nbytes):
            held += min(nbytes, 8)
            most = max(most, held)
            order.append(number)
            await free.wait()
            held -= min(nbytes, 8)

    async def all_of_them():
        frees = [asyncio.Event() for _ in range(6)]
        sizes = [8, 5, 8, 1, 1, 100]  # the third waits; the fourth, which would fit, does after it
        tasks = [
            asyncio.create_task(task(n, size, free))
            for n, (size, free) in enumerate(zip(sizes, frees, strict=True))
        ]
        await settled()
        assert order == [0, 1]
        for free in frees:
            free.set()
            await settled()
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())
    assert order == list(range(6))
    assert most <= 16 and held == 0


def test_with_more_memory_more_is_fetched_at_the_same_time(few_bytes):
    assert [fetched_bytes(nbytes) for nbytes in (0, 100, 800, 2**40)] == [16, 16, 100, 2**27]

    async def holding(free, begun):
        async with room_for(50):
            begun.append(free)
            await free.wait()

    async def all_of_them():
        give_room(asyncio.get_running_loop(), 100)
        begun, free = [], asyncio.Event()
        tasks = [asyncio.create_task(holding(free, begun)) for _ in range(4)]
        await settled()
        assert len(begun) == 2
        free.set()
        await asyncio.gather(*tasks)

    asyncio.run(all_of_them())


def test_who_is_cancelled_while_waiting_leaves_its_turn_to_the_next(few_bytes):
    async def holding(free, begun):
        async with room_for(8):
            begun.append(free)
            await free.wait()

    async def all_of_them():
        begun, frees = [], [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(holding(free, begun)) for free in frees]
        await settled()
        assert begun == frees[:2]
        tasks[2].cancel()
        frees[0].set()
        await settled()
        assert begun == [*frees[:2], frees[3]]
        tasks[3].cancel()  # while it holds room
        frees[1].set()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with room_for(8), room_for(8):  # all of it has come back
            pass

    asyncio.run(all_of_them())


async def settled():
    """Until every task waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_first_error_is_raised_when_all_have_ended():
    ended = []

    async def job(number, error=None):
        for _ in range(number):
            await asyncio.sleep(0)
        ended.append(number)
        if error is not None:
            raise error
        return number

    assert asyncio.run(together([job(2), job(0), job(1)])) == [2, 0, 1]
    ended.clear()
    with pytest.raises(OSError, match="second"):
        asyncio.run(together([job(1), job(3, OSError("second")), job(2, ValueError()), job(5)]))
    assert sorted(ended) == [1, 2, 3, 5]


def test_what_a_thread_returns_or_raises():
    async def divided(*numbers):
        return await on_thread(divmod, *numbers)

    assert asyncio.run(divided(7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(divided(7, 0))


def test_a_thread_takes_what_waits_without_the_event_loop():
    """Else a core would be idle for as long as the loop has other things to do."""
    done = threading.Semaphore(0)

    async def all_of_them():
        with ThreadPoolExecutor(2) as decode:
            give_room(asyncio.get_running_loop(), 100, decode)
            jobs = [on_thread(done.release) for _ in range(20)]
            assert all(done.acquire(timeout=10) for _ in jobs)  # the loop stands still meanwhile
            await together(jobs)

    asyncio.run(all_of_them())


def test_what_was_cancelled_before_a_thread_had_taken_it_is_not_run():
    go_on, run = threading.Event(), []

    async def all_of_them():
        with ThreadPoolExecutor(1) as decode:
            give_room(asyncio.get_running_loop(), 100, decode)
            first = on_thread(go_on.wait, 10)
            others = [on_thread(run.append, number) for number in range(3)]
            others[1].cancel()
            await settled()
            go_on.set()
            assert await first
            await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(all_of_them())
    assert run == [0, 2]


def test_what_is_asked_for_first_is_decoded_first():
    """A region of several chunks, too, before the next one of a single chunk."""
    order = []

    async def region(number, chunks):
        await together(on_thread(order.append, number) for _ in range(chunks))

    async def all_of_them():
        with ThreadPoolExecutor(1) as decode:
            give_room(asyncio.get_running_loop(), 100, decode)
            await together(region(number, 1 + number % 3) for number in range(6))

    asyncio.run(all_of_them())
    assert order == sorted(order) and len(order) == 12
