"""The threads that read and gather, and how they end, also after Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import dask.system

from ..processes.internals import before_threads_are_awaited, let_nobody_await
from ..reading.concurrency import FETCHED_BYTES, give_room
from ..reading.dask_graphs import DaskCompute, threads_for_graphs
from ..sources.zarr_stores import begun_loop
from .lookahead import GATHER_THREADS

__all__ = ["Threads", "decode_threads", "note_interrupt", "waited", "work_threads"]

T = TypeVar("T")

# Threads for reads without async, preprocess and preparation: one for each core, within bounds. Of
# few cores some wait for disks; many would wait for each other, as what they call holds the GIL.
# Those that decode are as many as there are cores, and no more than that.
FEWEST_WORK_THREADS, MOST_WORK_THREADS = 8, 32
# Seconds that threads have to end after Ctrl-C. Some may wait inside another package for a server
# that does not answer, where nothing can reach them.
INTERRUPTED_SECONDS = 0.5
# Seconds after which whoever waits looks up.
ATTENTIVE_SECONDS = 1.0


def work_threads() -> int:
    """Number of threads that read without async and prepare."""
    return max(FEWEST_WORK_THREADS, decode_threads())


def decode_threads() -> int:
    """Number of threads that decode."""
    return min(dask.system.CPU_COUNT, MOST_WORK_THREADS)


class Threads:
    """An event loop, on which reads go on, and pools for what would block it.

    Made by whoever reads: an iteration and a fit for as long as they go on, samples by number for
    as long as their dataset. Threads start when they are first needed, and are daemons where they
    are begun by one. Any thread may call any method.

    Parameters
    ----------
    begin_gathering : callable, optional
        What each thread that gathers calls first.
    gather_threads : int
        How many of these there are.
    fetched : int
        Bytes that may be fetched and not decoded yet.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
        The event loop.
    work : ThreadPoolExecutor
        For reads without async, preprocess and preparation: what blocks the loop.
    decode : ThreadPoolExecutor
        For chunks. What waits for a core waits here, and not on the loop: a core would be idle
        until that has a moment.
    dask : ThreadPoolExecutor
        For tasks of dask; see `threads_for_graphs`.
    gather : ThreadPoolExecutor
        For batches, or what else is made of regions.
    graphs : DaskCompute
        Computes collections of dask.
    """

    def __init__(
        self,
        begin_gathering: Callable[[], None] | None = None,
        gather_threads: int = GATHER_THREADS,
        fetched: int = FETCHED_BYTES,
    ) -> None:
        self.work = ThreadPoolExecutor(work_threads(), "xtorch_data-work")
        self.decode = ThreadPoolExecutor(decode_threads(), "xtorch_data-decode")
        self.dask = threads_for_graphs()
        self.gather = ThreadPoolExecutor(gather_threads, "xtorch_data-gather", begin_gathering)
        self.graphs = DaskCompute(self.dask, self.work)
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(self.work)
        self._fetched = fetched
        self._thread = threading.Thread(target=self._run, name="xtorch_data-reader", daemon=True)
        self._process = os.getpid()
        self._end_reading: Callable[[], None] = _nothing
        # The garbage collector may end it in the middle of a locked stretch.
        self._lock = threading.RLock()
        self._ended = False  # nothing is started any more
        self._told = False  # all that goes on was told to end

    def begin(self, end_reading: Callable[[], None] | None = None) -> None:
        """Start the event loop; it ends with the interpreter, or when it is closed.

        `end_reading` lets reading end, and wakes whoever waits for it.
        """
        self._end_reading = end_reading or self._end_reading
        give_room(self.loop, self._fetched, self.decode)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left
            self.loop.close()
            raise
        _open.add(self)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run something on the event loop; raises CancelledError if that has ended."""
        with self._lock:
            if self._ended:
                coroutine.close()
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def _run(self) -> None:
        while True:
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
                break
            # A store or a function raised this: whoever waits for it gets it, if the loop goes on.
        self.loop.close()  # and with it the pool of work
        self.dask.shutdown(wait=False)
        self.decode.shutdown(wait=False, cancel_futures=True)

    def end(self) -> None:
        """Let every thread come to its end, without waiting for any; may be called again."""
        if self._process != os.getpid():
            return  # a fork has the object, but not the threads
        with self._lock:
            self._ended = True
        if self._told:
            return
        self._end_reading()  # which takes a lock that may be held where reads are started
        self.gather.shutdown(wait=False, cancel_futures=True)
        stop = _stop()
        try:
            asyncio.run_coroutine_threadsafe(stop, self.loop)
        except RuntimeError:  # it has ended: this was interrupted before
            stop.close()
        self._told, self._end_reading = True, _nothing  # unless this was interrupted

    def close(self, interrupted: bool = False) -> None:
        """Let every thread come to its end, and wait for it; may be called again.

        First all that does not wait, so that threads end also if waiting is interrupted. For Ctrl-C
        (`interrupted`) it waits no longer than a moment.
        """
        if self._process != os.getpid():
            return
        self.end()
        if _collecting.here or threading.current_thread().name.startswith("xtorch_data-"):
            return  # the garbage collector runs this wherever it was called, under any lock
        self.gather.shutdown(wait=True)
        self._thread.join()
        if interrupted or _is_interrupted():
            _leave([self.work, self.dask, self.decode])
        else:
            for pool in (self.work, self.dask, self.decode):
                pool.shutdown(wait=True, cancel_futures=True)
        _open.discard(self)


class _Collecting(threading.local):
    here = False  # whether the garbage collector runs on this thread


_collecting = _Collecting()


def _note_collecting(phase: str, _: Any) -> None:
    _collecting.here = phase == "start"


gc.callbacks.append(_note_collecting)

_open: weakref.WeakSet[Threads] = weakref.WeakSet()
# Threads that nobody waits for any more.
_left: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_interrupted = threading.Event()


def waited(future: Future[T]) -> T:
    """Result of a future that is waited for with an ear for Ctrl-C.

    The system may give the signal to another thread of the process, and then the main thread, which
    alone acts on it, does so when it wakes next.
    """
    try:
        while True:
            try:
                return future.result(ATTENTIVE_SECONDS)
            except TimeoutError:
                if future.done():  # it may be an error of what was waited for
                    return future.result()
    finally:
        del future  # which has the error, whose traceback has this frame


def _nothing() -> None:
    """End no reading."""


def note_interrupt() -> None:
    """Note that this process was interrupted while it waited for threads."""
    _interrupted.set()


def _is_interrupted() -> bool:
    """Whether it is for Ctrl-C that an iteration is closed here."""
    error = sys.exception()  # of a generator that is closed, GeneratorExit comes last
    return any(
        isinstance(each, KeyboardInterrupt) for each in (error, getattr(error, "__context__", None))
    )


def _leave(pools: Iterable[ThreadPoolExecutor]) -> None:
    """Shut pools down, and let nobody wait for those of their threads that do not end soon."""
    # There is no public way to wait for a pool for a while, nor to end before its threads.
    threads = [thread for pool in pools for thread in getattr(pool, "_threads", ())]
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + INTERRUPTED_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive() and thread.daemon:
            let_nobody_await(thread)
            _left.add(thread)


def _end_those_left() -> None:
    """End what threads wait for that were left, if they do not end soon.

    Locks that they hold, such as that of HDF5, would never be given back.
    """
    end = time.monotonic() + 2 * INTERRUPTED_SECONDS
    while any(each.is_alive() for each in _left) and time.monotonic() < end:
        _cancel_requests()  # and those that take their turn after others
        time.sleep(0.01)


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
        _end_those_left()


# They may wait for what a cluster no longer computes.
before_threads_are_awaited(_close_all)


async def _stop() -> None:
    """Cancel everything on the event loop and let it end."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # outcomes of those that had just ended are still to be handed on
    asyncio.get_running_loop().stop()
