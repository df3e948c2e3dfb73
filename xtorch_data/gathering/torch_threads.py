"""Threads of torch: one where batches are gathered, as many as it was given elsewhere.

Threads that gather share the cores; if torch worked on several for each of them, these would be in
each other's way. OpenMP, on which torch is built, counts threads for each thread that asks, and
torch has no way to tell it so. Where torch is built on something else, it decides itself.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["all_threads", "limit_to_one_thread", "one_thread"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of libraries beside each other, which are not ours
    # Not that of Microsoft, which counts for the whole process.
    _openmp = ThreadpoolController().select(prefix=["libgomp", "libiomp", "libomp"])


class _Here(threading.local):
    limit: Any = None  # what gives this thread back the threads of torch, if it is limited


_here = _Here()


def _limited() -> Any:
    torch.get_num_threads()  # where it is the first to ask, it sets the number anew
    return _openmp.limit(limits=1)


def limit_to_one_thread() -> None:
    """Let torch work for this thread on it alone, as long as it lives."""
    _here.limit = _limited()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on this thread alone in between."""
    if _here.limit is not None:
        yield
        return
    with _limited():
        yield


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """Let torch work on as many threads as it was given in between, for a thread with a limit.

    For functions of the user, which may be slow, and for what is large.
    """
    if _here.limit is None:
        yield
        return
    _here.limit.restore_original_limits()
    _here.limit = None
    try:
        yield
    finally:
        limit_to_one_thread()
