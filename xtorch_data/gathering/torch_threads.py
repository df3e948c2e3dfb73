"""The threads of torch: none beside a thread that gathers, those that it was given elsewhere.

Threads that gather share the cores; if each of them had torch start more, they would be in each
other's way. OpenMP counts threads for each thread that asks, and torch has no way to tell it so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["alone", "as_given", "gather_alone"]


class _Here(threading.local):
    limit: Any = None  # what gives this thread back the threads of torch, if it gathers


_here = _Here()


@cache
def _openmp() -> Any:
    return ThreadpoolController().select(user_api="openmp")


def _limited() -> Any:
    torch.get_num_threads()  # where it is the first to ask, it sets the number anew
    return _openmp().limit(limits=1)


def gather_alone() -> None:
    """Let torch start no threads for this one, as long as it lives."""
    _here.limit = _limited()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let torch start no threads for this one in between."""
    if _here.limit is not None:
        yield
        return
    with _limited():
        yield


@contextlib.contextmanager
def as_given() -> Iterator[None]:
    """Let torch start as many as it was given in between: functions of the user may be slow."""
    if _here.limit is None:
        yield
        return
    _here.limit.restore_original_limits()
    _here.limit = None
    try:
        yield
    finally:
        gather_alone()
