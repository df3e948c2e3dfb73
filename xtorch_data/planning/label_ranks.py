"""Windows by the labels in them: which have all of theirs in a part of a split.

Labels are ranks, their numbers among the different labels in order, and -1 where there is none.
Minima and maxima of windows come from sliding reductions, so that no window is looked at alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .index_maps import IntArray
from .windows import Axis

__all__ = ["Ranks", "ends_of_windows", "in_stretches", "members"]

Ranks = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]


def members(
    ranks: Ranks,
    starts: IntArray,
    stops: IntArray,
    axes: Sequence[Axis],
    targets: Sequence[IntArray] | None,
) -> BoolArray:
    """Windows of a part that has the ranks ``[start, stop)``, ascending and apart.

    All labels of such a window are in the part. With `targets`, the steps of a window that are
    targets along each axis, only theirs need be, but a label of the window that is not in the part
    lies before the stretch of the part in which its targets begin.
    """
    inside = in_stretches(ranks, starts, stops)
    windows = [np.arange(axis.size) for axis in axes]
    if targets is None:
        return _reduced(inside, np.logical_and, axes, windows)
    kept = _reduced(inside, np.logical_and, axes, targets)
    first = _reduced(ranks, np.minimum, axes, targets)
    begins = starts[np.searchsorted(starts, first, side="right") - 1] if len(starts) else first
    outside = np.where(inside, np.int32(-1), ranks)
    found: BoolArray = kept & (_reduced(outside, np.maximum, axes, windows) < begins)
    return found


def in_stretches(ranks: Ranks, starts: IntArray, stops: IntArray) -> BoolArray:
    """Which ranks lie in stretches ``[start, stop)`` that ascend and are apart."""
    edges = np.stack([starts, stops], axis=1).ravel().astype(ranks.dtype)
    found: BoolArray = np.searchsorted(edges, ranks, side="right") % 2 == 1
    return found


def ends_of_windows(
    ranks: Ranks, axes: Sequence[Axis], steps: Sequence[IntArray]
) -> tuple[Ranks, Ranks]:
    """Least and largest rank among some steps of each window; -1 where no label is."""
    none = np.iinfo(np.int32).max
    least = _reduced(np.where(ranks < 0, none, ranks), np.minimum, axes, steps)
    return np.where(least == none, -1, least), _reduced(ranks, np.maximum, axes, steps)


def _reduced(
    values: npt.NDArray[Any],
    function: np.ufunc,
    axes: Sequence[Axis],
    steps: Sequence[IntArray],
) -> npt.NDArray[Any]:
    """A reduction over some steps of each window along each axis of the values."""
    for place, (axis, some) in enumerate(zip(axes, steps, strict=True)):
        first, count = int(some.min()), int(some.max() - some.min()) + 1
        starts = axis.start(np.arange(len(axis)))
        if len(np.unique(some)) == count:
            values = _slid(values, function, count, place).take(starts + first, axis=place)
            continue
        taken = values.take(starts + some[0], axis=place)
        for step in some[1:].tolist():
            taken = function(taken, values.take(starts + step, axis=place))
        values = taken
    return values


def _slid(values: npt.NDArray[Any], function: np.ufunc, size: int, place: int) -> npt.NDArray[Any]:
    """The reduction over `size` places from each one on, in as many passes as `size` has digits."""
    done = 1
    while done < size:
        more = min(done, size - done)
        along = [slice(None)] * place
        values = function(values[(*along, slice(0, -more))], values[(*along, slice(more, None))])
        done += more
    return values
