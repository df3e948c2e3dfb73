"""Worker processes: their start, and the end of one that gives no more batches."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch.utils.data

from .internals import end_workers_of, is_fork, workers_of

__all__ = [
    "batches_of_workers",
    "hear_interrupts_again",
    "how_it_ended",
    "leave_interrupts_to_the_main_process",
    "preload",
    "sendable_errors",
    "sent",
    "started",
    "starts_workers",
]

T = TypeVar("T")

# After a worker has died, until the system says how.
_REAPING_SECONDS = 1.0


# Iterators of torch whose workers may be at work.
_iterators: weakref.WeakSet[Any] = weakref.WeakSet()


_starting: ContextVar[bool] = ContextVar("starting", default=False)


def starts_workers() -> bool:
    """Whether a loader of ours is starting workers, so that what is pickled goes to them."""
    return _starting.get()


def started(start: Callable[[], Any], forked: bool) -> Any:
    """An iterator of torch, whose workers begin now.

    An interrupt that comes meanwhile is the main process's alone, and waits. Raises OSError if
    there is no room for what the processes share, or for their files.
    """
    if not forked and os.name == "posix":
        resource_tracker.ensure_running()  # which would let interrupts through again
    with _interrupts_wait():
        token = _starting.set(True)
        try:
            iterator = start()
        except OSError as error:
            advice = _advice(error)
            if advice is None:
                raise
            raise OSError(error.errno, f"workers cannot be started: {advice}") from error
        finally:
            _starting.reset(token)
    _iterators.add(iterator)
    # Before torch and multiprocessing end them by force. The last that is registered comes first.
    atexit.unregister(_end_workers)
    atexit.register(_end_workers, os.getpid())
    return iterator


def _advice(error: OSError) -> str | None:
    """Advice about an error of the system that worker processes met with."""
    if error.errno == errno.EMFILE:
        return (
            f"{error.strerror}, of which this process may have too few: raise the limit "
            "(ulimit -n), or use fewer workers or num_workers=0"
        )
    if error.errno in (errno.ENOSPC, errno.ENOENT, errno.ENOSYS, errno.EACCES):
        return (
            f"there is no room for what they share in /dev/shm, {_size_of('/dev/shm')} "
            f"({error.strerror}): give it more (a container's --shm-size), or use num_workers=0"
        )
    return None


def _size_of(folder: str) -> str:
    try:
        found = os.statvfs(folder)
    except OSError:
        return "which is not there"
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return f"which has {total:,} bytes, {free:,} of them free"


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let what starts here not hear of Ctrl-C, and this process when it has started."""
    came: list[int] = []

    def wait(number: int, _: Any) -> None:
        if came:
            raise KeyboardInterrupt  # somebody is in a hurry
        came.append(number)

    before: Any = signal.getsignal(signal.SIGINT)
    waits = callable(before) and threading.current_thread() is threading.main_thread()
    if waits:
        signal.signal(signal.SIGINT, wait)
    blocked = None
    if hasattr(signal, "pthread_sigmask"):  # which is inherited
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if waits:
            signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def leave_interrupts_to_the_main_process() -> None:
    """In a worker: let Ctrl-C pass, which the terminal sends to all; the main process ends it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _pass)  # what is started by a worker does not inherit that
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def hear_interrupts_again() -> None:
    """In a fork server: no longer block Ctrl-C as when a loader started it; others inherit that."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # also one that came meanwhile
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _pass(*_: Any) -> None:
    pass


def _end_workers(process: int) -> None:
    if process == os.getpid():  # a fork has no workers
        for iterator in list(_iterators):
            end_workers_of(iterator)


@contextlib.contextmanager
def sendable_errors() -> Iterator[None]:
    """In a worker: replace an error whose class cannot be sent; the batch would never come.

    It is a RuntimeError then.
    """
    try:
        yield
    except Exception as error:
        kind: Any = type(error)
        try:
            pickle.dumps(kind)
            if getattr(kind, "message", None):  # which torch takes for the name of an argument
                kind(message="")
        except Exception:
            if torch.utils.data.get_worker_info() is not None:
                raise RuntimeError(f"{kind.__qualname__}: {error}") from error
        raise


def sent(batches: Generator[T, None, None]) -> Generator[T, None, None]:
    """Batches of a worker, with errors that can be sent."""
    with contextlib.closing(batches), sendable_errors():
        yield from batches


def batches_of_workers(batches: Any) -> Generator[Any, None, None]:
    """Batches of worker processes; if one has died, an error that says which, and of what."""
    try:
        yield from batches
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # where in torch it waited tells nobody anything
    except (RuntimeError, OSError, EOFError) as error:  # torch's own, and of a connection cut off
        # Of the error of a worker that lives torch says so: there is no end to wait for.
        lives = "DataLoader worker process" in str(error)
        how = _end_of_a_worker(workers_of(batches), 0.0 if lives else _REAPING_SECONDS)
        if how is None:
            if isinstance(error, OSError) and (advice := _advice(error)) is not None:
                raise OSError(error.errno, advice) from error
            raise
        raise RuntimeError(how) from error


def _end_of_a_worker(workers: Sequence[Any], seconds: float) -> str | None:
    """The end of the worker that has ended, or does so soon, in words; None if none has."""
    end = time.monotonic() + seconds
    while True:
        try:
            for number, worker in enumerate(workers):
                if worker.exitcode:
                    return how_it_ended(number, worker)
            if time.monotonic() >= end:
                return None
            time.sleep(0.01)
        except RuntimeError:  # torch's handler of SIGCHLD has noticed, too
            continue


def how_it_ended(number: int, worker: Any) -> str:
    """The end of a worker, in words."""
    exitcode = worker.exitcode
    if exitcode == -signal.SIGKILL:
        end = (
            "was killed (SIGKILL), most often because memory ran out: use fewer workers, a smaller "
            "memory= in each, or a smaller batch"
        )
    elif exitcode < 0:
        end = f"was ended by {signal.Signals(-exitcode).name}"
    else:
        end = f"ended with exit code {exitcode}; what it printed says why"
        if exitcode == 1 and not is_fork(worker):  # it has run the script once more
            end += (
                ". If that is of the bootstrapping phase, guard the script with "
                "`if __name__ == '__main__':`"
            )
    return f"worker {number} (process {worker.pid}) {end}"


def preload(context: Any) -> None:
    """Let a fork server import, once, this package and, where it is used, dask."""
    if context is not None and context.get_start_method() == "forkserver":
        names = ["__main__", "xtorch_data.loading.fork_server"]
        names += ["dask.array"] if "dask.array" in sys.modules else []
        context.set_forkserver_preload(names)
