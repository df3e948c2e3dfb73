"""Many calls, a few at a time: on threads of this process, or on the cluster of a dask client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import dask
from dask.delayed import delayed
from dask.system import CPU_COUNT

from ..iteration.lookahead import ahead
from ..iteration.threads import Threads
from ..reading.dask_graphs import active_client
from .copy_tasks import Task

__all__ = ["Call", "Runner"]

# Calls at the same time in this process, at most: what they do uses threads of its own.
MOST_THREADS = 4
# Calls on a cluster for each of its threads: one that runs, and one to go on with.
CALLS_PER_THREAD = 2


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
    """Runner of calls: on the cluster of the active client, if there is one, else here.

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
        """The results of calls as they come, with what they are for; made as they can run.

        When it is closed, calls that have not begun are given up, and others waited for.
        """
        return self._on_threads(calls) if self._client is None else self._on_cluster(calls)

    def _on_threads(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        threads, running = Threads(gather_threads=self.threads), dict[Future[Any], Task]()

        def begin(call: Call) -> None:
            running[threads.gather.submit(_called, call)] = call.task

        def finish_any(_: None) -> tuple[Task, Any]:
            future = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
            return running.pop(future), future.result()

        threads.begin()
        try:
            yield from ahead(iter(calls), begin, finish_any, self.threads - 1)
        finally:
            threads.close()

    def _on_cluster(self, calls: Iterable[Call]) -> Iterator[tuple[Task, Any]]:
        from distributed import as_completed

        assert self._client is not None
        client, running = self._client, dict[Any, Task]()
        results: Any = as_completed()  # type: ignore[no-untyped-call]

        def begin(call: Call) -> None:
            future = client.compute(call.delayed())
            running[future] = call.task
            results.add(future)

        def finish_any(_: None) -> tuple[Task, Any]:
            future = next(results)
            return running.pop(future), future.result()

        most = max(1, CALLS_PER_THREAD * sum(client.nthreads().values()))
        try:
            yield from ahead(iter(calls), begin, finish_any, most - 1)
        finally:
            client.cancel(list(running))


def _called(call: Call) -> Any:
    # On this thread alone: there are others.
    return dask.compute(call.delayed(), scheduler="synchronous")[0]  # type: ignore[attr-defined, no-untyped-call]
