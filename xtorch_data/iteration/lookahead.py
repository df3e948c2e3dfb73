"""The look-ahead: what comes next is begun while an earlier one is used, and order is kept."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["GATHER_THREADS", "Lookahead", "ahead", "fetched_ahead"]

Item = TypeVar("Item")
Begun = TypeVar("Begun")
Done = TypeVar("Done")

# Of larger batches, fewer are gathered ahead.
LARGE_BATCH_BYTES = 16 * 2**20
# Small batches are gathered several at a time: as many as this, or as make so many bytes.
SMALL_BATCHES, JOB_BYTES = 64, 2**20
GATHER_THREADS = 2


@dataclass(frozen=True)
class Lookahead:
    """Number of batches to gather ahead: jobs that are begun, each of some batches together."""

    jobs: int
    together: int

    @property
    def threads(self) -> int:
        """Threads that gather. For small batches one: two would mostly wait for the GIL."""
        return 1 if self.together > 1 else GATHER_THREADS

    @classmethod
    def of(cls, batch_nbytes: int, functions: bool) -> Lookahead:
        """For batches of some bytes, and whether functions of the user take part."""
        small = max(1, min(SMALL_BATCHES, JOB_BYTES // max(1, batch_nbytes)))
        return cls(2 if batch_nbytes > LARGE_BATCH_BYTES else 4, 1 if functions else small)


def ahead(
    items: Iterator[Item],
    begin: Callable[[Item], Begun],
    finish: Callable[[Begun], Done],
    most: int,
) -> Generator[Done, None, None]:
    """Yield each item, finished after up to `most` behind it were begun.

    An error of `items` or `begin` comes in the place of what could not be had or begun. All of it
    runs on the thread of the consumer, so that what `items` draws from a global generator does not
    depend on the speed of others. When it is closed, nothing more is begun or finished.
    """
    begun: deque[Begun] = deque()
    failed: Exception | None = None
    going_on = True
    while True:
        while going_on and len(begun) <= most:
            try:
                begun.append(begin(next(items)))
            except StopIteration:
                going_on = False
            except Exception as error:
                failed, going_on = error, False
        if not begun:
            break
        yield finish(begun.popleft())
    if failed is not None:
        try:
            raise failed
        finally:
            failed = None  # its traceback has this frame


def fetched_ahead(
    fetch: Callable[[Item], Done], items: Iterator[Item], most: int
) -> Generator[Done, None, None]:
    """Yield what is fetched for each item; up to `most` are fetched or wait to be used.

    One thread of its own fetches one at a time: what bounds the memory of one fetch bounds it
    here, too.
    """
    thread = ThreadPoolExecutor(1, "xtorch_data-ahead")
    context = contextvars.copy_context()  # such as who is the client of dask

    def begin(item: Item) -> Future[Done]:
        return thread.submit(context.run, fetch, item)

    try:
        yield from ahead(items, begin, Future.result, most - 1)
    finally:
        # Not waited for: a read may hang, and the garbage collector may run this anywhere.
        thread.shutdown(wait=False, cancel_futures=True)
