"""Intervals of the line: who gets which of them.

Ranks cut the line into contiguous shares, workers cut their rank's share between batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

__all__ = [
    "Box",
    "Interval",
    "Uneven",
    "batches",
    "cut",
    "repeated",
    "share",
    "share_total",
    "sharing",
    "total",
    "worker_share",
]

Interval = tuple[int, int]
Box = tuple[Interval, ...]
Uneven = Literal["drop", "pad", "keep"]


def total(intervals: Iterable[Interval]) -> int:
    """Number of positions in some intervals."""
    return sum(stop - start for start, stop in intervals)


def cut(intervals: Iterable[Interval], start: int, stop: int) -> list[Interval]:
    """The positions ``[start, stop)`` of intervals laid end to end."""
    found, passed = [], 0
    for begin, end in intervals:
        lower, upper = max(start - passed, 0), min(stop - passed, end - begin)
        if lower < upper:
            found.append((begin + lower, begin + upper))
        passed += end - begin
    return found


def share(
    intervals: Sequence[Interval], rank: int, world_size: int, uneven: Uneven
) -> list[Interval]:
    """The contiguous part of the line that one rank gets.

    ``"drop"`` leaves out the last samples that cannot be shared equally, ``"pad"`` goes on from
    the beginning until all ranks have as many (see `repeated`), with ``"keep"`` ranks may differ
    by one sample.
    """
    count = total(intervals)
    if uneven == "keep":
        return cut(intervals, rank * count // world_size, (rank + 1) * count // world_size)
    if uneven == "drop":
        each = count // world_size
        return cut(intervals, rank * each, (rank + 1) * each)
    each = -(-count // world_size)
    laps = -(-each * world_size // count) if count else 0
    return cut([*intervals] * laps, rank * each, (rank + 1) * each)


def share_total(count: int, rank: int, world_size: int, uneven: Uneven) -> int:
    """Number of positions that one rank gets of so many."""
    if uneven == "keep":
        return (rank + 1) * count // world_size - rank * count // world_size
    return count // world_size if uneven == "drop" else -(-count // world_size)


def repeated(count: int, rank: int, world_size: int, uneven: Uneven) -> int:
    """Number of positions, the last ones of a rank's share, that other ranks have, too.

    Or that a rank has again, where there are fewer positions than ranks.
    """
    if uneven != "pad":
        return 0
    each = share_total(count, rank, world_size, uneven)
    return min(each, max(0, (rank + 1) * each - count))


def sharing(
    count: int, world_size: int, uneven: Uneven, batch_size: int, drop_last: bool
) -> Uneven:
    """How so many samples are shared in fact.

    Where `drop_last` leaves out the last samples of every rank, there are as many batches without
    padding, which would only put repeated samples in the place of others.
    """
    most = -(-count // world_size)
    return "drop" if uneven == "pad" and drop_last and most % batch_size else uneven


def batches(count: int, batch_size: int, drop_last: bool) -> int:
    """Number of batches that so many samples make."""
    return count // batch_size if drop_last else -(-count // batch_size)


def worker_share(
    intervals: Sequence[Interval], worker: int, workers: int, batch_size: int, drop_last: bool
) -> list[Interval]:
    """The contiguous part of its rank's samples that one worker gets, cut between batches."""
    count = total(intervals)
    number = batches(count, batch_size, drop_last)
    start = worker * number // workers * batch_size
    stop = (worker + 1) * number // workers * batch_size
    return cut(intervals, start, min(stop, count))
