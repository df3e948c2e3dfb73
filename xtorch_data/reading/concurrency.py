"""Waiting on an event loop: for threads that decode, for requests, for many things at once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = [
    "FEWEST_FETCHED", "fetched_bytes", "give_room", "note_outcome", "on_executor", "on_thread",
    "request_slots", "room_for", "together",
]  # fmt: skip

T = TypeVar("T")

# Requests to stores that are not local folders, under way in one event loop.
REQUESTS = 256
# Bytes that are asked for, or there and wait for a thread that decodes them: a share of all
# memory, within bounds. More would only make requests wait for each other. Of what is large, a
# few are asked for all the same: one at a time would not hide the delay of requests.
FETCHED_BYTES, MOST_FETCHED_BYTES, FETCHED_SHARE, FEWEST_FETCHED = 2**25, 2**27, 1 / 8, 16


class _Room:
    """Bytes of memory that tasks of one event loop take, each in its turn, and give back."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, nbytes: int) -> None:
        if not self._waiting and nbytes <= self._left:
            self._left -= nbytes
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((nbytes, place))
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # its turn had come
                self.give(nbytes)
            raise

    def give(self, nbytes: int) -> None:
        self._left += nbytes
        while self._waiting:
            wanted, place = self._waiting[0]
            if not place.cancelled():
                if wanted > self._left:
                    return
                self._left -= wanted
                place.set_result(None)
            self._waiting.popleft()


class _Shares:
    """The shares of one event loop; made when it first asks, for as long as the loop is open."""

    def __init__(self, fetched: int, decode: Executor | None) -> None:
        self.requests, self.decode = asyncio.Semaphore(REQUESTS), decode
        self.fetched, self.room = fetched, _Room(fetched)


_of_loops: dict[asyncio.AbstractEventLoop, _Shares] = {}


def _shares() -> _Shares:
    """The shares of the running loop."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loops:
        give_room(loop, FETCHED_BYTES)
    return _of_loops[loop]


def fetched_bytes(memory: int) -> int:
    """Bytes that may be fetched and not decoded yet, where all of memory is so many."""
    return max(FETCHED_BYTES, min(int(memory * FETCHED_SHARE), MOST_FETCHED_BYTES))


def give_room(
    loop: asyncio.AbstractEventLoop, fetched: int, decode: Executor | None = None
) -> None:
    """Let an event loop, on which nothing is read yet, fetch so many bytes before they are used.

    And decode on the threads of an executor; by default on those of the loop.
    """
    # Not by weak keys: a semaphore that was waited for refers to its loop.
    for ended in [each for each in list(_of_loops) if each.is_closed()]:
        _of_loops.pop(ended, None)
    _of_loops[loop] = _Shares(fetched, decode)


@contextlib.asynccontextmanager
async def room_for(nbytes: int) -> AsyncIterator[None]:
    """Wait until the running loop may fetch so many bytes; they count until they are used."""
    shares = _shares()
    nbytes = min(nbytes, shares.fetched // FEWEST_FETCHED)
    await shares.room.take(nbytes)
    try:
        yield
    finally:
        shares.room.give(nbytes)


def request_slots() -> asyncio.Semaphore:
    """Slots of requests to stores, on the running loop."""
    return _shares().requests


def on_thread(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    """Run a function that decodes on a thread, once a core is free for it: in the order of calls.

    What is asked for first is wanted first. Called on the running loop.
    """
    return on_executor(_shares().decode, function, *args)


def on_executor(
    executor: Executor | None, function: Callable[..., T], *args: Any
) -> asyncio.Future[T]:
    """Run a function, in the context of the caller, on a thread; by default on one of the loop."""
    run = contextvars.copy_context().run
    return asyncio.get_running_loop().run_in_executor(executor, run, _called, function, *args)


def _called(function: Callable[..., T], *args: Any) -> T:
    try:
        return function(*args)
    except StopIteration as error:  # which a future would not take: whoever waits would wait on
        raise RuntimeError("a function raised StopIteration") from error


def note_outcome(done: asyncio.Future[Any]) -> None:
    """Note that what went wrong is known: whoever gave something up does not ask."""
    if not done.cancelled():
        done.exception()


async def together(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """Run jobs at the same time; when all have ended, return results or raise the first error.

    Not before: they write into memory that must not be lent again.
    """
    results = await asyncio.gather(*jobs, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    try:
        if errors:
            raise errors[0]
        return results  # type: ignore[return-value]
    finally:  # an error has this frame in its traceback, and frames that have what was read
        del errors, jobs, results
