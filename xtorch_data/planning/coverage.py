"""Which places of the data lie in a window. Pure numpy, no IO."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping

import numpy as np
import numpy.typing as npt

from .index_maps import IntArray, runs_of
from .selection import Table
from .windows import Axis, Windows

__all__ = ["covered", "places_covered", "wanted_along"]


def covered(axis: Axis) -> Axis:
    """The places along a dim that lie in a window, one by one."""
    if axis.size == 1:
        starts = axis.starts
    else:
        begins, ends = axis.covered_stretches
        starts = runs_of(begins, ends - begins, 1)
    return Axis(axis.dim, axis.length, 1, starts, windowed=False)


def wanted_along(table: Table, windows: Windows, dims: Container[Hashable]) -> Table:
    """Which windows along some dims are wanted with any window along the others."""
    others = [place for place, axis in enumerate(table.axes) if windows.axes[axis].dim not in dims]
    if not others:
        return table
    axes = tuple(axis for place, axis in enumerate(table.axes) if place not in others)
    return Table(axes, np.asarray(table.values.any(axis=tuple(others))))


def places_covered(
    table: Table, windows: Windows, positions: Mapping[Hashable, IntArray]
) -> tuple[list[Hashable], npt.NDArray[np.bool_]]:
    """Which places lie in a window that is wanted.

    `table` says which windows are wanted, along dims for which there are positions; see
    `wanted_along`. Found are the dims of the table, and the answer for every combination of
    positions along these.
    """
    axes = [windows.axes[place] for place in table.axes]
    # The windows around a position are neighbors along every axis: they are counted as the
    # difference of sums, one axis after the other.
    touching = []
    for axis in axes:
        at = positions[axis.dim]
        touching.append((axis.first_from(at - axis.size + 1), axis.first_from(at + 1)))
    counts = table.values[tuple(slice(first.min(), last.max()) for first, last in touching)]
    for place, (first, last) in enumerate(touching):
        padding = [(int(place == other), 0) for other in range(counts.ndim)]
        sums = np.pad(counts.cumsum(axis=place, dtype=np.int64), padding)
        origin = first.min()
        counts = sums.take(last - origin, axis=place) - sums.take(first - origin, axis=place)
    return [axis.dim for axis in axes], np.asarray(counts > 0)
