"""Waiting on an event loop: for threads that decode, for requests, for many things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import dask.system
import zarr
from zarr.core.sync import _get_loop
from zarr.storage import FsspecStore

from .stores import innermost

__all__ = ["on_loop_of", "on_thread", "request_slots", "together"]

T = TypeVar("T")

# Requests to stores that are not local folders, under way in one event loop.
REQUESTS = 256


# For each event loop: threads that decode at the same time (more than there are cores would only
# take the GIL from each other), and requests under way.
_Slots = dict[asyncio.AbstractEventLoop, asyncio.Semaphore]
_cores: _Slots = {}
_requests: _Slots = {}


def _slots(of: _Slots, count: int) -> asyncio.Semaphore:
    """What the running loop has of some slots."""
    loop = asyncio.get_running_loop()
    if loop not in of:
        # Not by weak keys: a semaphore that was waited for refers to its loop.
        for ended in [each for each in list(of) if each.is_closed()]:
            of.pop(ended, None)
        of[loop] = asyncio.Semaphore(count)
    return of[loop]


def request_slots() -> asyncio.Semaphore:
    """What a request to a store waits for, on the running loop."""
    return _slots(_requests, REQUESTS)


async def on_thread(function: Callable[..., Any], *args: Any) -> Any:
    """What a function that decodes returns, run on a thread once a core is free for it."""
    async with _slots(_cores, dask.system.CPU_COUNT):
        return await asyncio.to_thread(function, *args)


async def together(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """What jobs return that run at the same time; when all have ended, raise the first error.

    Not before: they write into memory that must not be lent again.
    """
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def on_loop_of(array: zarr.Array[Any], reading: Coroutine[Any, Any, Any]) -> Any:
    """What awaits a read of an array from any loop.

    Sessions of fsspec belong to the loop in which a store was opened, and that is zarr's own.
    """
    if not isinstance(innermost(array.store), FsspecStore):
        return reading
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(reading, _get_loop()))
