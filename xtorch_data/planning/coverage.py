"""The places of the data that lie in a window, and what an epoch decodes for one of them."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .chunks import Layout
from .edges import ExtendedDim
from .index_maps import IntArray, runs_of
from .intervals import total
from .plan import Plan
from .selection import SampleTable
from .windows import Axis, Windows

__all__ = ["amplification_of", "covered", "places_covered", "used_nbytes", "wanted_along"]


def covered(axis: Axis, beyond: ExtendedDim | None = None) -> Axis:
    """The places along a dim that lie in a window, one by one.

    Where windows find something beyond the ends of the data, that is the place it stands for, once.
    """
    if beyond is not None:
        inside = np.array(beyond.stretches(*axis.covered_stretches), dtype=np.int64) + beyond.before
        starts = runs_of(inside[:, 0], inside[:, 1] - inside[:, 0], 1)
    elif axis.size == 1:
        starts = axis.starts
    else:
        begins, ends = axis.covered_stretches
        starts = runs_of(begins, ends - begins, 1)
    return Axis(axis.dim, axis.length, 1, starts, windowed=False)


def wanted_along(table: SampleTable, windows: Windows, dims: Container[Hashable]) -> SampleTable:
    """The windows along some dims that are wanted with any window along the others."""
    others = [place for place, axis in enumerate(table.axes) if windows.axes[axis].dim not in dims]
    if not others:
        return table
    axes = tuple(axis for place, axis in enumerate(table.axes) if place not in others)
    return SampleTable(axes, np.asarray(table.values.any(axis=tuple(others))))


def places_covered(
    table: SampleTable,
    windows: Windows,
    positions: Mapping[Hashable, IntArray],
    beyond: Mapping[Hashable, ExtendedDim] | None = None,
) -> tuple[list[Hashable], npt.NDArray[np.bool_]]:
    """The places that lie in a window that is wanted.

    `table` says which windows are wanted, along dims for which there are positions; see
    `wanted_along`. Found are the dims of the table, and the answer for every combination of
    positions along these. A place counts where something stands for it `beyond` the data, too.
    """
    beyond = beyond or {}
    everywhere = {dim: np.arange(len(each)) for dim, each in beyond.items()}
    asked, positions = positions, {**positions, **everywhere}
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
    there = np.asarray(counts > 0)
    for place, axis in enumerate(axes):
        if axis.dim in beyond:
            folded = beyond[axis.dim].folded(np.moveaxis(there, place, 0))
            at = asked[axis.dim] - beyond[axis.dim].before
            there = np.moveaxis(folded[at], 0, place)
    return [axis.dim for axis in axes], there


def used_nbytes(
    layout: Layout,
    windows: Windows,
    where: SampleTable | None = None,
    beyond: Mapping[Hashable, ExtendedDim] | None = None,
) -> int:
    """Bytes of a variable that are in a window, or one that `where` wants, each counted once.

    What windows find `beyond` the data stands for a place there.
    """
    beyond = beyond or {}
    axes = {axis.dim: axis for axis in windows.axes if axis.dim in layout.chunks}
    places = 1
    if where is not None:
        positions = {
            dim: np.arange(*beyond[dim].inside) if dim in beyond else np.arange(axis.length)
            for dim, axis in axes.items()
        }
        table = wanted_along(where, windows, axes)
        dims, wanted = places_covered(table, windows, positions, beyond)
        places = int(np.count_nonzero(wanted))
        for dim in dims:
            del axes[dim]
    steps = [
        min(len(axis) * axis.size, int(np.subtract(*axis.stretches[::-1]).sum()))
        if dim not in beyond
        else total(beyond[dim].stretches(*axis.covered_stretches))
        for dim, axis in axes.items()
    ]
    return layout.itemsize * places * math.prod(steps)


def amplification_of(plan: Plan, layouts: Sequence[Layout] | None = None) -> float:
    """Bytes that an epoch decodes for one that it uses, about, if no sample is left out."""
    layouts = plan.layouts if layouts is None else layouts
    used = sum(used_nbytes(layout, plan.windows) for layout in layouts)
    once = sum(plan.frame.nbytes_once(layout) for layout in layouts)
    return once * plan.amplification / used if used else 1.0
