"""Which places of the data lie in a window. Pure numpy, no IO."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import numpy.typing as npt

from .choice import Table
from .windows import Axis, IntArray, Runs, Windows

__all__ = ["covered", "places_covered"]


def covered(axis: Axis) -> Axis:
    """The places along a dim that lie in a window, one by one."""
    if axis.size == 1:
        starts = axis.starts
    elif axis.stride <= axis.size:
        begins, ends = axis.stretches
        starts = Runs.of(begins, ends - begins, 1)
    else:  # windows with steps between them that are in none
        begins = axis.start(np.arange(len(axis)))
        starts = Runs.of(begins, np.full(len(axis), axis.size), 1)
    return Axis(axis.dim, axis.length, 1, starts, windowed=False)


def places_covered(
    table: Table, windows: Windows, positions: Mapping[Hashable, IntArray]
) -> tuple[list[Hashable], npt.NDArray[np.bool_]]:
    """Which places lie in a window that is wanted.

    Parameters
    ----------
    table : Table
        Which windows are wanted.
    windows : Windows
        The sample space.
    positions : mapping of Hashable to ndarray of int64
        Data positions along its dims. Along a dim that is left out, any window will do.

    Returns
    -------
    dims : list of Hashable
        Those of the table for which positions are given.
    covered : ndarray of bool
        The answer for every combination of positions along these dims.
    """
    axes = [windows.axes[place] for place in table.axes]
    others = tuple(place for place, axis in enumerate(axes) if axis.dim not in positions)
    axes = [axis for axis in axes if axis.dim in positions]
    wanted = np.asarray(table.values.any(axis=others))
    # The windows around a position are neighbors along every axis: they are counted as the
    # difference of sums, one axis after the other.
    touching = []
    for axis in axes:
        at = positions[axis.dim]
        touching.append((axis.first_from(at - axis.size + 1), axis.first_from(at + 1)))
    counts = wanted[tuple(slice(first.min(), last.max()) for first, last in touching)]
    for place, (first, last) in enumerate(touching):
        padding = [(int(place == other), 0) for other in range(counts.ndim)]
        sums = np.pad(counts.cumsum(axis=place, dtype=np.int64), padding)
        origin = first.min()
        counts = sums.take(last - origin, axis=place) - sums.take(first - origin, axis=place)
    return [axis.dim for axis in axes], np.asarray(counts > 0)
