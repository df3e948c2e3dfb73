"""Waiting on an event loop: for threads that decode, for requests, for many things at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import dask.system

__all__ = [
    "FETCHED_BYTES",
    "FEWEST_FETCHED",
    "on_thread",
    "request_slots",
    "room_for",
    "together",
]

T = TypeVar("T")

# Requests to stores that are not local folders, under way in one event loop.
REQUESTS = 256
# Bytes that are asked for, or there and wait for a thread that decodes them. Of what is large, a
# few are asked for all the same: one at a time would not hide the delay of requests.
FETCHED_BYTES, FEWEST_FETCHED = 2**25, 16


# For each event loop: threads that decode at the same time (more than there are cores would only
# take the GIL from each other), and requests under way.
_Slots = dict[asyncio.AbstractEventLoop, asyncio.Semaphore]
_cores: _Slots = {}
_requests: _Slots = {}


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


_rooms: dict[asyncio.AbstractEventLoop, _Room] = {}


@contextlib.asynccontextmanager
async def room_for(nbytes: int) -> AsyncIterator[None]:
    """Wait until the running loop may fetch so many bytes; they count until they are used."""
    room = _of_loop(_rooms, lambda: _Room(FETCHED_BYTES))
    nbytes = min(nbytes, FETCHED_BYTES // FEWEST_FETCHED)
    await room.take(nbytes)
    try:
        yield
    finally:
        room.give(nbytes)


def _slots(of: _Slots, count: int) -> asyncio.Semaphore:
    """Slots of the running loop."""
    return _of_loop(of, lambda: asyncio.Semaphore(count))


def _of_loop(of: dict[asyncio.AbstractEventLoop, T], make: Callable[[], T]) -> T:
    """The object of the running loop, made when it first asks."""
    loop = asyncio.get_running_loop()
    if loop not in of:
        # Not by weak keys: a semaphore that was waited for refers to its loop.
        for ended in [each for each in list(of) if each.is_closed()]:
            of.pop(ended, None)
        of[loop] = make()
    return of[loop]


def request_slots() -> asyncio.Semaphore:
    """Slots of requests to stores, on the running loop."""
    return _slots(_requests, REQUESTS)


async def on_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function that decodes on a thread, once a core is free for it."""
    async with _slots(_cores, dask.system.CPU_COUNT):
        return await asyncio.to_thread(function, *args)


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
        del errors, results
