"""Steps of other sources at the labels of the first one's dims and coordinates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..common.redact import printable
from ..planning import alignment
from ..planning.index_maps import IndexMap, IntArray
from ..planning.selection import SampleTable
from ..planning.windows import Axis
from ..sources.comparable import Comparable
from .aligning import AlignedDim, OtherSource, SampleAxes
from .source_rules import At

__all__ = ["at_labels", "same_labels"]

# Labels of two dims that can be looked up, and samples of a table of two axes, at most.
MOST_LABELS, LARGEST_TABLE = 2**27, 2**28
# Samples of a table that are worked out at a time.
SLAB = 2**22

LACKING = "labels that it lacks"


def same_labels(source: OtherSource, axes: SampleAxes, dim: Hashable) -> AlignedDim:
    """The steps with the same labels as those of the first source along a dim of that name."""
    place = axes.place(dim)
    assert place is not None
    axis, mine = axes.axis(dim), axes.labels(dim)
    if mine is None and dim not in source.data.coords:
        steps = _same_steps(source, axes, axis)
        present = steps >= 0
    elif mine is None or dim not in source.data.coords:
        raise _untold(source, axes, axis)
    else:
        steps, present = source.find(dim, mine)
    source.take(dim, steps[present])
    made = IndexMap(dim, source.data.sizes[dim], axis.size, {}, axis.windowed)
    if present.all():
        return AlignedDim(made, term=(place, axis.starts))
    starts = axes.starts(dim)
    there = alignment.whole_in(steps, starts, axis.size)
    axes.leave_out(source, dim, place, ~there, LACKING)
    return AlignedDim(made, {place: (np.cumsum(present) - 1)[starts]})


def _same_steps(source: OtherSource, axes: SampleAxes, axis: Axis) -> IntArray:
    """The steps at the places of those of the first source, where neither has labels."""
    beyond = axes.beyond.get(axis.dim)
    if source.data.sizes[axis.dim] != (axis.length if beyond is None else beyond.length):
        raise _untold(source, axes, axis)
    return np.arange(axis.length) if beyond is None else beyond.steps


def _untold(source: OtherSource, axes: SampleAxes, axis: Axis) -> ValueError:
    """The error that nothing tells which steps belong together."""
    beyond, dim = axes.beyond.get(axis.dim), axis.dim
    return ValueError(
        f"source {source.name!r} has {source.data.sizes[dim]} steps along {dim!r}, the first one "
        f"{axis.length if beyond is None else beyond.length}; labels would tell which are the "
        "same: give both a coordinate, or rename the dim"
    )


def at_labels(source: OtherSource, axes: SampleAxes, dim: Hashable, rule: At) -> AlignedDim:
    """The steps along a dim at the labels of a coordinate, whose dims take the place of it."""
    coord = axes.first.coords.get(rule.coord)
    if coord is None or not 1 <= coord.ndim <= 2:
        few = [name for name, each in axes.first.coords.items() if 1 <= each.ndim <= 2]
        raise ValueError(
            f"source {source.name!r}: At({rule.coord!r}) is no coordinate of one dim or two of the "
            f"first source, which has {list(map(printable, few))}"
        )
    lacking = [along for along in coord.dims if axes.place(along) is None]
    if lacking:
        raise ValueError(
            f"source {source.name!r}: {rule.coord!r} has the dim {lacking[0]!r}, which the samples "
            f"lack; theirs are {axes.dims}"
        )
    windowed = [axis for axis in map(axes.axis, coord.dims) if axis.windowed]
    if len(windowed) > 1:
        raise ValueError(
            f"source {source.name!r}: of the dims of {rule.coord!r}, {list(coord.dims)}, one at "
            "most may be in input_dims"
        )
    mine = axes.labels(rule.coord)
    assert mine is not None
    if coord.ndim == 1:
        begins = _at_one(source, axes, dim, mine, coord.dims[0])
    else:
        begins = _at_two(source, axes, dim, mine, coord.dims)
    size, kept = 1, bool(windowed)
    if windowed:
        size = windowed[0].size
        dim = _renamed(source, dim, windowed[0].dim)
    return AlignedDim(IndexMap(dim, source.data.sizes[dim], size, {}, kept), begins)


def _renamed(source: OtherSource, dim: Hashable, name: Hashable) -> Hashable:
    """Let a dim of a source have the name of the windowed one, whose place it takes."""
    if name == dim:
        return dim
    if name in source.data.dims:
        raise ValueError(
            f"source {source.name!r}: the dim {name!r} of the samples takes the place of {dim!r}, "
            "and the source has a dim of that name: rename it"
        )
    steps = source.laid.pop(dim, (dim, np.arange(source.data.sizes[dim])))[1]
    source.laid[name] = dim, steps
    source.data = source.data.drop_vars([name], errors="ignore").swap_dims({dim: name})
    return name


def _lay_out(source: OtherSource, dim: Hashable, steps: IntArray) -> None:
    """Let a source have these steps, where there are any; the others are in no sample."""
    source.take(dim, np.where(steps >= 0, steps, steps.max()))


def _at_one(
    source: OtherSource, axes: SampleAxes, dim: Hashable, mine: Comparable, along: Hashable
) -> dict[int, IntArray]:
    """Begins of windows in the source, laid out along a dim of the first one."""
    steps, _ = source.find(dim, mine)
    place, starts = axes.place(along), axes.starts(along)
    assert place is not None
    there = alignment.whole_in(steps, starts, axes.axis(along).size)
    axes.leave_out(source, dim, place, ~there, LACKING)
    _lay_out(source, dim, steps)
    return {place: starts}


@dataclass(frozen=True, eq=False)
class _Line:
    """Labels one after the other, among which windows of two dims are steps in a row.

    Attributes
    ----------
    labels : ndarray
        The labels.
    begins : tuple of ndarray of int64
        For each of the two dims, what a step of it adds to where a window begins.
    """

    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    begins: tuple[IntArray, IntArray]

    @classmethod
    def of_sums(cls, labels: npt.NDArray[np.int64], windowed: int | None) -> _Line | None:
        """The regular line of labels that are sums of one of each dim, as inits and leads are.

        It is short, for most labels come often. None if there is none; `windowed` is the dim of
        which windows have several steps.
        """
        rows, columns = labels[:, 0] - labels[0, 0], labels[0] - labels[0, 0]
        if (labels != labels[0, 0] + rows[:, None] + columns).any():
            return None
        unit = int(np.gcd.reduce([*np.unique(np.diff(rows)), *np.unique(np.diff(columns)), 0])) or 1
        inside = 1  # from a step of a window to the next
        if windowed is not None:
            steps = np.diff((rows, columns)[windowed])
            if (steps != steps[0]).any() or steps[0] <= 0:
                return None
            inside = int(steps[0]) // unit
        row, column = ((each - each.min()) // unit for each in (rows, columns))
        length = int(row.max() + column.max()) + 1
        width = -(-length // inside)
        if width * inside > max(labels.size, MOST_LABELS // 2**7):
            return None
        # Steps of a window lie side by side: the line is laid out phase by phase.
        laid = np.arange(inside)[:, None] + np.arange(width) * inside
        first, second = (each % inside * width + each // inside for each in (row, column))
        return cls(labels.min() + laid.ravel() * unit, (first, second))

    @classmethod
    def of_rows(cls, labels: npt.NDArray[np.int64], windowed: int | None) -> _Line:
        """The labels of each place along the dim that is not windowed, one place after another."""
        count = labels.shape
        if windowed == 0:
            begins = np.arange(count[0]), np.arange(count[1]) * count[0]
            return cls(labels.T.ravel(), begins)
        return cls(labels.ravel(), (np.arange(count[0]) * count[1], np.arange(count[1])))


def _at_two(
    source: OtherSource,
    axes: SampleAxes,
    dim: Hashable,
    mine: Comparable,
    dims: Sequence[Hashable],
) -> dict[int, IntArray]:
    """Begins of windows in the source, laid out along the labels of two dims."""
    if mine.values.size > MOST_LABELS:
        raise ValueError(
            f"source {source.name!r}: {mine.values.size:,} labels of two dims are wanted along "
            f"{dim!r}; {MOST_LABELS:,} can be looked up"
        )
    own: list[Axis] = [axes.axis(each) for each in dims]
    several = next((at for at, axis in enumerate(own) if axis.size > 1), None)
    line = None
    if mine.values.dtype.kind == "i" and not mine.missing.any():
        line = _Line.of_sums(mine.values, several)
    if line is None:
        line = _Line.of_rows(mine.values, several)
    steps, present = source.find(dim, replace(mine, values=line.labels))
    begins = [along[axes.starts(each)] for along, each in zip(line.begins, dims, strict=True)]
    places = [place for place in map(axes.place, dims) if place is not None]
    size = max(axis.size for axis in own)
    if places[0] == places[1]:  # both follow the events
        begins = [begins[0] + begins[1]]
        axes.leave_out(
            source,
            dim,
            places[0],
            ~alignment.whole_in(np.where(present, 0, -1), begins[0], size),
            LACKING,
        )
    else:
        _leave_out_samples(source, axes, places, begins, present, size)
    _lay_out(source, dim, steps)
    return dict(zip(places, begins, strict=False))


def _leave_out_samples(
    source: OtherSource,
    axes: SampleAxes,
    places: Sequence[int],
    begins: Sequence[IntArray],
    present: npt.NDArray[np.bool_],
    size: int,
) -> None:
    """Leave out samples of two axes whose labels the source lacks."""
    if present.all():
        return
    shape = tuple(map(len, begins))
    if math.prod(shape) > LARGEST_TABLE:
        raise ValueError(
            f"source {source.name!r} lacks labels, and there are {math.prod(shape):,} samples to "
            f"look up one by one; {LARGEST_TABLE:,} can be"
        )
    lost = np.append(0, np.cumsum(~present))
    there = np.empty(shape, dtype=bool)
    rows = max(1, SLAB // shape[1])
    for row in range(0, shape[0], rows):
        begin = begins[0][row : row + rows, None] + begins[1]
        there[row : row + rows] = lost[begin + size] == lost[begin]
    if places[0] > places[1]:
        places, there = places[::-1], there.T
    if not there.all():
        axes.leave_out_samples(source, SampleTable(tuple(places), there), LACKING)
