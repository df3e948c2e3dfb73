"""Many calls, a few at a time: on threads of this process, or on the cluster of a dask client."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import dask
from dask.delayed import delayed
from dask.system import CPU_COUNT

from ..reading.dask_graphs import active_client
from .zarr_target import Task

__all__ = ["Call", "Runner"]

# Calls at the same time in this process, at most: what they do uses threads of its own.
MOST_THREADS = 4
# Calls on a cluster for each of its threads: one that runs, and one to go on with.
CALLS_PER_THREAD = 2


@dataclass(frozen=True)
class Call:
    """A call ``function(task, *arguments)``.

    Attributes
    ----------
    function : callable
        A function of a module.
    task : Task
        What it is for.
    arguments : tuple
        More arguments. A collection of dask is computed for the call.
    """

    function: Callable[..., Any]
    task: Task
    arguments: tuple[Any, ...]

    def delayed(self) -> Any:
        """The call as dask computes it."""
        return delayed(self.function, pure=False)(self.task, *self.arguments)


class Runner:
    """Where calls run: on the cluster of the active client, if there is one, else here.

    Attributes
    ----------
    threads : int
        Calls at the same time in one process.
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
        """The results of calls as they come, with what they are for.

        Parameters
        ----------
        calls : iterable of Call
            They are asked for as they can run.
        """
        return self._on_threads(calls) if self._client is None else self._on_cluster(calls)

    def _on_threads(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        calls, running = iter(calls), dict[Future[Any], Task]()
        with ThreadPoolExecutor(self.threads, "xtorch_data-rechunk") as threads:
            try:
                while True:
                    for call in itertools.islice(calls, self.threads - len(running)):
                        running[threads.submit(_called, call)] = call.task
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()

    def _on_cluster(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        from distributed import as_completed

        assert self._client is not None
        running: dict[Any, Task] = {}
        workers = self._client.nthreads().values()
        results: Any = as_completed()  # type: ignore[no-untyped-call]
        calls = iter(calls)
        try:
            while True:
                room = max(1, CALLS_PER_THREAD * sum(workers)) - len(running)
                for call in itertools.islice(calls, room):
                    future = self._client.compute(call.delayed())
                    running[future] = call.task
                    results.add(future)
                if not running:
                    return
                future = next(results)
                yield running.pop(future), future.result()
        finally:
            self._client.cancel(list(running))


def _called(call: Call) -> Any:
    # On this thread alone: there are others.
    return dask.compute(call.delayed(), scheduler="synchronous")[0]  # type: ignore[attr-defined, no-untyped-call]
