"""Many calls, a few at a time: on threads of this process, or on the cluster of a dask client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import dask
from dask.delayed import delayed
from dask.system import CPU_COUNT

from ..iteration.lookahead import ahead
from ..iteration.threads import Threads
from ..reading.dask_graphs import active_client
from .zarr_target import Task

__all__ = ["Call", "Runner"]

# Calls at the same time in this process, at most: what they do uses threads of its own.
MOST_THREADS = 4
# Calls begun for each thread: one that runs, and some to go on with, because order is kept.
CALLS_PER_THREAD = 3


@dataclass(frozen=True)
class Call:
    """A call ``function(task, *arguments)`` of a function of a module.

    A collection of dask among the arguments is computed for the call.
    """

    function: Callable[..., Any]
    task: Task
    arguments: tuple[Any, ...]

    def delayed(self) -> Any:
        """The call as dask computes it."""
        return delayed(self.function, pure=False)(self.task, *self.arguments)


class Runner:
    """Where calls run: on the cluster of the active client, if there is one, else here.

    Made for one copy; `threads` are calls at the same time in one process.
    """

    def __init__(self) -> None:
        self._client = active_client()
        self.threads = self.possible_threads()[0]

    def possible_threads(self) -> list[int]:
        """Numbers of calls at the same time in one process that can be had, largest first."""
        if self._client is not None:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
            return [max((worker["nthreads"] for worker in workers), default=1)]
        most = min(MOST_THREADS, CPU_COUNT)
        return sorted({most, *(power for power in (1, 2, 4) if power < most)}, reverse=True)

    def run(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        """The results of calls in order, with what they are for; calls are made as they can run.

        What is broken off ends: calls that have not begun are given up, others are waited for.
        """
        return self._on_threads(calls) if self._client is None else self._on_cluster(calls)

    def _on_threads(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        threads = Threads(gather_threads=self.threads)

        def begin(call: Call) -> tuple[Task, Future[Any]]:
            return call.task, threads.gather.submit(_called, call)

        threads.begin()
        try:
            yield from ahead(iter(calls), begin, _result, CALLS_PER_THREAD * self.threads - 1)
        finally:
            threads.close()

    def _on_cluster(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        assert self._client is not None
        client, running = self._client, set[Any]()

        def begin(call: Call) -> tuple[Task, Any]:
            future = client.compute(call.delayed())
            running.add(future)
            return call.task, future

        def finish(begun: tuple[Task, Any]) -> tuple[Task, Any]:
            found = _result(begun)
            running.discard(begun[1])
            return found

        threads = sum(client.nthreads().values())
        try:
            yield from ahead(iter(calls), begin, finish, max(1, CALLS_PER_THREAD * threads) - 1)
        finally:
            client.cancel(list(running))


def _result(begun: tuple[Task, Any]) -> tuple[Task, Any]:
    task, future = begun
    return task, future.result()


def _called(call: Call) -> Any:
    # On this thread alone: there are others.
    return dask.compute(call.delayed(), scheduler="synchronous")[0]  # type: ignore[attr-defined, no-untyped-call]
