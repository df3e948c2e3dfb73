"""Windows that are left out for lack of something in another source, and what is said of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..common.text import number_of
from ..planning.index_maps import IntArray, term_of
from ..planning.windows import Windows

__all__ = ["BREAKS", "CENTERS", "Loss", "losses_of", "warnings_of_losses", "with_lost"]

Bools = npt.NDArray[np.bool_]

# The reason of windows whose steps of another source would cross a break.
BREAKS = "breaks in its labels"
# The source of events, of those that have no window.
CENTERS = "centers"
# Of more windows that are left out through one source, users are warned.
MANY = 0.5


@dataclass(frozen=True)
class Loss:
    """Windows along a dim that are left out, for they lack something of a source.

    Attributes
    ----------
    source : str
        Name of the source.
    dim : Hashable
        Dim of the first source; one of two where samples are left out one by one.
    reason : str
        What they lack.
    count : int
        How many windows along the dim, or samples of two dims.
    starts : ndarray of int64
        First steps of the windows, in the data of the first source; none for two dims.
    """

    source: str
    dim: Hashable
    reason: str
    count: int
    starts: IntArray = field(
        default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False, compare=False
    )

    def __str__(self) -> str:
        if self.source == CENTERS:
            return f"{number_of(self.count, 'event')} left out: {self.reason}"
        if not len(self.starts):
            return f"{number_of(self.count, 'sample')} left out: {self.reason}"
        return f"{number_of(self.count, 'window')} along {self.dim!r} left out: {self.reason}"


def losses_of(losses: Sequence[Loss], laid: Windows, windows: Windows) -> list[Loss]:
    """The losses that are between some windows, those of a part of a split perhaps.

    Of windows that follow each other and are all left out, those count before and behind which
    there is a window of the part, or an end of the data. `laid` are the windows of all of the data
    before any was left out.
    """
    found, between = [], _between(losses, laid, windows)
    for each in losses:
        if not len(each.starts):
            found.append(each)
            continue
        numbers = laid.axis(each.dim).first_from(each.starts)
        count = int(np.count_nonzero(between[each.dim][numbers]))
        if count:
            found.append(replace(each, count=count))
    return found


def with_lost(losses: Sequence[Loss], laid: Windows, windows: Windows) -> Windows:
    """Some windows, and those between them that other sources leave out; of one source."""
    between = _between(losses, laid, windows)
    axes = []
    for axis in windows.axes:
        if axis.dim in between:
            lost = laid.axis(axis.dim).start(np.flatnonzero(between[axis.dim]))
            starts = np.union1d(axis.start(np.arange(len(axis))), lost)
            axis = replace(axis, starts=term_of(starts))
        axes.append(axis)
    return Windows.of(axes)


def _between(losses: Sequence[Loss], laid: Windows, windows: Windows) -> dict[Hashable, Bools]:
    """By dim, which of the windows of all of the data are left out between some windows."""
    found = {}
    for dim in {each.dim: None for each in losses if len(each.starts)}:
        every, axis = laid.axis(dim), windows.axis(dim)
        gone = np.zeros(len(every), dtype=bool)
        for each in losses:
            if each.dim == dim:
                gone[every.first_from(each.starts)] = True
        starts = every.start(np.arange(len(every)))
        there = axis.first_from(starts) < axis.first_from(starts + 1)
        found[dim] = gone & _enclosed(gone, there)
    return found


def _enclosed(gone: Bools, there: Bools) -> Bools:
    """Whether the nearest windows on both sides that are not `gone` are `there`, or none are."""
    numbers, count = np.arange(len(gone)), len(gone)
    before = np.maximum.accumulate(np.where(gone, -1, numbers))
    behind = np.minimum.accumulate(np.where(gone, count, numbers)[::-1])[::-1]
    left = (before < 0) | there[before.clip(0)]
    right = (behind == count) | there[behind.clip(max=count - 1)]
    enclosed: Bools = left & right
    return enclosed


def warnings_of_losses(losses: Sequence[Loss], laid: Windows) -> Iterator[tuple[str, Hashable]]:
    """What the user is to know of windows left out, and what it is about.

    Of events and breaks always; of other reasons where more than half of the windows are lost
    through a source.
    """
    events = [each for each in losses if each.source == CENTERS]
    if events:
        every = len(laid.axis(events[0].dim))
        reasons = "; ".join(f"{each.count:,}: {each.reason}" for each in events)
        yield (
            f"{sum(each.count for each in events):,} of {number_of(every, 'event')} of centers are "
            f"left out. {reasons}",
            ("events", *(each.starts.tobytes() for each in events)),
        )
    losses = [each for each in losses if each.source != CENTERS]
    for each in losses:
        if each.reason == BREAKS:
            are = "is" if each.count == 1 else "are"
            yield (
                f"source {each.source!r} has breaks in its labels, which no window of its steps "
                f"crosses: {number_of(each.count, 'window')} along {each.dim!r} {are} left out. "
                "Source(…, breaks='ignore') lets windows cross them",
                ("breaks of a source", each.source, each.dim, each.starts.tobytes()),
            )
    for source in dict.fromkeys(each.source for each in losses):
        own = [each for each in losses if each.source == source]
        for dim in dict.fromkeys(each.dim for each in own if len(each.starts)):
            along = [each for each in own if each.dim == dim and len(each.starts)]
            count, every = sum(each.count for each in along), len(laid.axis(dim))
            if count > MANY * every:
                reasons = ", ".join(f"{each.count:,} for {each.reason}" for each in along)
                yield (
                    f"source {source!r} leaves out {count:,} of {number_of(every, 'window')} "
                    f"along {dim!r}: {reasons}",
                    ("losses of a source", source, dim, count),
                )
