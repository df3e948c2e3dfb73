"""Batches are fetched on a thread while an earlier one is used; order is kept."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

Asked = TypeVar("Asked")
Got = TypeVar("Got")


def ahead(
    fetch: Callable[[Asked], Got], asked: Iterator[Asked], most: int
) -> Generator[Got, None, None]:
    """Yield what is fetched for each of `asked`, in order; the next ones are fetched meanwhile.

    An error comes in the place of what could not be fetched. `asked` is walked through by the
    consumer, so that what it draws from a global generator does not depend on the speed of threads.

    Parameters
    ----------
    fetch : callable
        Fetches one, on a thread that does one at a time: what bounds the memory of one fetch
        bounds it here, too.
    asked : iterator
        What to fetch.
    most : int
        How many are fetched and wait to be used.
    """
    thread = ThreadPoolExecutor(1, "xtorch_data-ahead")
    context = contextvars.copy_context()  # such as who is the client of dask
    waiting: deque[Future[Got]] = deque()
    going_on = True
    try:
        while True:
            while going_on and len(waiting) < most:
                try:
                    waiting.append(thread.submit(context.run, fetch, next(asked)))
                except StopIteration:
                    going_on = False
                except Exception as error:
                    failed: Future[Got] = Future()
                    failed.set_exception(error)
                    waiting.append(failed)
                    going_on = False
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        # Not waited for: a read may hang, and the garbage collector may run this anywhere.
        thread.shutdown(wait=False, cancel_futures=True)
