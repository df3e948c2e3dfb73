"""The threads of one iteration, and threads that are not waited for after Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ..processes.internals import before_threads_are_awaited, let_nobody_await
from ..reading.dask_graphs import threads_for_graphs
from ..sources.zarr_stores import begun_loop

__all__ = ["Threads", "leaving_on_interrupt", "note_interrupt"]

GATHER_THREADS = 2
# Threads for reads without async, preprocess and preparation.
WORK_THREADS = 8
# Seconds that threads have to end after Ctrl-C. Some may wait inside another package for a server
# that does not answer, where nothing can reach them.
INTERRUPTED_SECONDS = 0.5


class Threads:
    """The threads of one iteration: an event loop, and pools for what would block it."""

    def __init__(self, begin_gathering: Callable[[], None] | None = None) -> None:
        self.work = ThreadPoolExecutor(WORK_THREADS, "xtorch_data-work")
        self.dask = threads_for_graphs()
        self.gather = ThreadPoolExecutor(GATHER_THREADS, "xtorch_data-gather", begin_gathering)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(self.work)
        self._thread = threading.Thread(target=self._run, name="xtorch_data-reader", daemon=True)
        self._process = os.getpid()
        self._end_reading: Callable[[], None] | None = None

    def begin(self, end_reading: Callable[[], None]) -> None:
        """Start the event loop, on which reading goes on until it is told to end."""
        self._end_reading = end_reading
        _open.add(self)
        self._thread.start()

    def _run(self) -> None:
        self.loop.run_forever()
        self.loop.close()  # and with it the pool of work
        self.dask.shutdown(wait=False)

    def close(self, interrupted: bool = False) -> None:
        """Let every thread come to its end, and wait for it; may be called again.

        First all that does not wait, so that threads end also if waiting is interrupted.

        Parameters
        ----------
        interrupted : bool
            Whether to wait no longer than a moment, as where this is called for Ctrl-C.
        """
        if self._process != os.getpid():
            return  # a fork has the object, but not the threads
        if self._end_reading is not None:
            self._end_reading()
            self._end_reading = None
            self.gather.shutdown(wait=False, cancel_futures=True)
            asyncio.run_coroutine_threadsafe(_stop(), self.loop)
        if threading.current_thread().name.startswith("xtorch_data-"):
            return  # the garbage collector may run this on one of the threads
        self.gather.shutdown(wait=True)
        self._thread.join()
        if interrupted or _is_interrupted():
            _leave([self.work, self.dask])
        else:
            self.work.shutdown(wait=True, cancel_futures=True)
            self.dask.shutdown(wait=True, cancel_futures=True)
        _open.discard(self)


_open: weakref.WeakSet[Threads] = weakref.WeakSet()
# Other pools that are left, if need be, when the interpreter ends.
_pools: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()
# Threads that nobody waits for any more.
_left: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_interrupted = threading.Event()


def leaving_on_interrupt(*pools: ThreadPoolExecutor) -> None:
    """Let the interpreter not wait for the threads of some pools where Ctrl-C ends it.

    Parameters
    ----------
    *pools : concurrent.futures.ThreadPoolExecutor
        Pools that get their work from threads that are daemons, so that theirs are, too.
    """
    _pools.update(pools)


def note_interrupt() -> None:
    """Note that this process was interrupted while it waited for threads."""
    _interrupted.set()


def _is_interrupted() -> bool:
    """Whether it is for Ctrl-C that an iteration is closed here."""
    error = sys.exception()  # of a generator that is closed, GeneratorExit comes last
    return any(
        isinstance(each, KeyboardInterrupt) for each in (error, getattr(error, "__context__", None))
    )


def _leave(pools: Iterable[ThreadPoolExecutor], ending: bool = False) -> None:
    """Shut pools down, and let nobody wait for those of their threads that do not end soon.

    Where the interpreter ends, what they wait for is ended first: locks that they hold, such as
    that of HDF5, would never be given back.
    """
    # There is no public way to wait for a pool for a while, nor to end before its threads.
    threads = [thread for pool in pools for thread in getattr(pool, "_threads", ())]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + INTERRUPTED_SECONDS * (1 + ending)
    while ending and any(each.is_alive() for each in (*threads, *_left)):
        _cancel_requests()  # and those that take their turn after others
        if time.monotonic() > end:
            break
        time.sleep(0.01)
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive() and thread.daemon:
            let_nobody_await(thread)
            _left.add(thread)


def _cancel_requests() -> None:
    """Cancel what zarr and fsspec still wait for, on event loops of their own."""
    of_fsspec = getattr(sys.modules.get("fsspec.asyn"), "loop", [None])[0]
    for loop in (begun_loop(), of_fsspec):
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(_cancel_all, loop)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _close_all() -> None:
    """End iterations that are still open, while there are threads to end them."""
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt or _interrupted.is_set()
    for threads in list(_open):
        threads.close(interrupted)
    if interrupted:
        _leave(list(_pools), ending=True)


# They may wait for what a cluster no longer computes.
before_threads_are_awaited(_close_all)


async def _stop() -> None:
    """Cancel everything on the event loop and let it end."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.get_running_loop().stop()
