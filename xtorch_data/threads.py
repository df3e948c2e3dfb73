"""The threads of one iteration."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .graphs import threads_for_graphs

__all__ = ["Threads"]

GATHER_THREADS = 2
# Threads for reads without async, preprocess and preparation.
WORK_THREADS = 8


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

    def close(self) -> None:
        """Let every thread come to its end, and wait for it; may be called again.

        First all that does not wait, so that threads end also if waiting is interrupted.
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
        self.work.shutdown(wait=True, cancel_futures=True)
        self.dask.shutdown(wait=True, cancel_futures=True)
        _open.discard(self)


_open: weakref.WeakSet[Threads] = weakref.WeakSet()


def _close_all() -> None:
    """End iterations that are still open, while there are threads to end them."""
    for threads in list(_open):
        threads.close()


# Before executors wait for their threads, which may wait for what a cluster no longer computes.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


async def _stop() -> None:
    """Cancel everything on the event loop and let it end."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    asyncio.get_running_loop().stop()
