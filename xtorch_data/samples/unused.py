"""Places of a block that are in no sample, for functions that must know all the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt

from ..planning.intervals import Interval
from ..planning.windows import SourceWindows, Windows

__all__ = ["for_block", "for_trial", "used"]

BoolArray = npt.NDArray[np.bool_]

_used: ContextVar[Callable[[Hashable, int], BoolArray | None] | None]
_used = ContextVar("used", default=None)


@contextmanager
def for_block(windows: SourceWindows, region: Mapping[Hashable, Interval]) -> Iterator[None]:
    """Let `used` answer, in this context, for a block that is read for samples.

    `region` has its steps along each dim. Chunks that are read may have more than windows do, such
    as the labels of another part of a split.
    """

    def answer(dim: Hashable, size: int) -> BoolArray | None:
        if not isinstance(windows, Windows) or np.ptp(region.get(dim, (0, 0))) != size:
            return None
        steps = np.arange(*region[dim])
        begins, ends = windows.axis(dim).covered_stretches
        place = np.searchsorted(begins, steps, side="right") - 1
        return np.asarray((place >= 0) & (steps < ends[place]))

    with _answered(answer):
        yield


@contextmanager
def for_trial() -> Iterator[None]:
    """Let `used` answer, in this context, for a block of made-up values: no place is used."""
    with _answered(lambda dim, size: np.zeros(size, dtype=bool)):
        yield


@contextmanager
def _answered(answer: Callable[[Hashable, int], BoolArray | None]) -> Iterator[None]:
    token = _used.set(answer)
    try:
        yield
    finally:
        _used.reset(token)


def used(dim: Hashable, size: int) -> BoolArray | None:
    """Which of so many places along a dim are in a window of a sample; None if all count."""
    answer = _used.get()
    return None if answer is None else answer(dim, size)
