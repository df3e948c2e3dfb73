"""The places of another source that samples have, each counted once."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .index_maps import IndexMap, IntArray, Regular, term_of
from .selection import SampleTable
from .windows import Axis, SourceWindows, Windows

__all__ = ["places_of"]

BoolArray = npt.NDArray[np.bool_]

# Samples that are looked at together.
SLAB = 2**22


def places_of(
    windows: SourceWindows, wanted: SampleTable | None, laid: Mapping[Hashable, IntArray]
) -> tuple[Windows, tuple[SampleTable, ...]]:
    """The places that wanted samples have of a source, as a sample space of their own.

    Parameters
    ----------
    windows : SourceWindows
        What samples have of it.
    wanted : SampleTable, optional
        Which of them count; all by default.
    laid : mapping of Hashable to ndarray of int64
        By dim of which steps come more than once: what each step is. Of those that are the same,
        the first one is a place.

    Returns
    -------
    windows : Windows
        Places along each dim, in the order of the source, or windows of them; a dim that every
        sample has whole is one.
    tables : tuple of SampleTable
        Which combinations along several dims count, where that is not all of them.
    """
    laid = {dim: steps for dim, steps in laid.items() if len(np.unique(steps)) < len(steps)}
    places: dict[int, IntArray] = {}
    own: dict[int, Axis] = {}
    tables = []
    for group, axes in _groups(windows, wanted):
        apart = _apart(windows, group, wanted, laid)
        if apart is not None:
            own.update(zip(group, apart[0], strict=True))
            tables.append(apart[1])
            continue
        found = _marked(windows, group, axes, wanted)
        for at, place in enumerate(group):
            dim = windows.axes[place].dim
            steps = np.arange(found.shape[at])
            if dim in laid:
                found, steps = _folded(found, at, laid[dim])
            there = found.any(axis=tuple(other for other in range(found.ndim) if other != at))
            found, places[place] = found.compress(there, axis=at), steps[there]
        if not found.all():
            tables.append(SampleTable(tuple(group), found))
    for place, steps in places.items():
        each = windows.axes[place]
        if len(steps) == each.length and each.whole:
            own[place] = Axis(each.dim, each.length, each.length, Regular(0, 1), windowed=True)
        else:
            own[place] = Axis(each.dim, each.length, 1, term_of(steps), windowed=False)
    return Windows.of(own[place] for place in sorted(own)), tuple(tables)


def _groups(
    windows: SourceWindows, wanted: SampleTable | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Dims whose places depend on each other, and the sample axes that these depend on."""
    of_dims = [set(each.terms) for each in windows.frame.maps]
    joined = [*of_dims, set(wanted.axes)] if wanted is not None else of_dims
    left = set(range(len(of_dims)))
    while left:
        group, axes = {min(left)}, set(of_dims[min(left)])
        while more := [each for each in joined if each & axes and not each <= axes]:
            axes.update(*more)
        group |= {place for place in left if of_dims[place] & axes}
        left -= group
        yield sorted(group), sorted(axes)


def _apart(
    windows: SourceWindows,
    group: Sequence[int],
    wanted: SampleTable | None,
    laid: Mapping[Hashable, IntArray],
) -> tuple[list[Axis], SampleTable] | None:
    """Windows along dims of which each has a sample axis of its own, and which of them count.

    These are fewer than their places. None where it is not so.
    """
    maps = [windows.frame.maps[place] for place in group]
    used = [axis for each in maps for axis in each.terms]
    if wanted is None or not used or not set(used) <= set(wanted.axes):
        return None
    if len(set(used)) < len(used) or any(len(each.terms) != 1 for each in maps):
        return None
    if any(each.dim in laid for each in maps):
        return None
    others = tuple(at for at, axis in enumerate(wanted.axes) if axis not in used)
    values = np.asarray(wanted.values.any(axis=others), dtype=bool)
    values = values.transpose(np.argsort(np.argsort(used)))
    found = []
    for at, (each, axis) in enumerate(zip(maps, used, strict=True)):
        starts = _start(each, {axis: np.arange(windows.shape[axis])})
        values, first = _folded(values, at, starts)
        order = np.argsort(starts[first])
        values, starts = values.take(order, axis=at), starts[first][order]
        found.append(
            Axis(each.dim, each.length, each.size, term_of(starts), windowed=each.windowed)
        )
    return found, SampleTable(tuple(group), values)


def _marked(
    windows: SourceWindows, group: Sequence[int], axes: Sequence[int], wanted: SampleTable | None
) -> BoolArray:
    """Which combinations of steps along some dims lie in a wanted sample."""
    maps = [windows.frame.maps[place] for place in group]
    used = sorted(set().union(*(each.terms for each in maps)))
    table = None
    if wanted is not None and set(wanted.axes) & set(axes):
        others = tuple(at for at, axis in enumerate(wanted.axes) if axis not in used)
        own = tuple(axis for axis in wanted.axes if axis in used)
        table = SampleTable(own, np.asarray(wanted.values.any(axis=others), dtype=bool))
    found = np.zeros([each.length for each in maps], dtype=bool)
    counts = [windows.shape[axis] for axis in used]
    if not used:
        found[...] = table is None or bool(table.values)
        return found
    rows = max(1, SLAB // max(1, int(np.prod(counts[1:], dtype=np.int64))))
    for first in range(0, counts[0], rows):
        sizes = [min(rows, counts[0] - first), *counts[1:]]
        grid = np.ogrid[tuple(slice(size) for size in sizes)]
        numbers = dict(zip(used, (grid[0] + first, *grid[1:]), strict=True))
        starts = [_start(each, numbers) for each in maps]
        if table is not None:
            values = table.values
            if used[0] in table.axes:
                values = values[first : first + rows]
            mask = SampleTable(table.axes, values).full(used, sizes)
            starts = [np.broadcast_to(start, sizes)[mask] for start in starts]
        found[tuple(starts)] = True
    for at, each in enumerate(maps):
        _widen(found, at, each.size)
    return found


def _start(along: IndexMap, numbers: Mapping[int, IntArray]) -> IntArray:
    terms = (term.at(numbers[axis]) for axis, term in along.terms.items())
    return np.asarray(sum(terms, np.int64(along.base)))


def _widen(found: BoolArray, at: int, size: int) -> None:
    """Let each step that is marked mark the next ones, so many in all."""
    along = np.moveaxis(found, at, 0)
    for width in itertools.count():
        done = 2**width
        if done >= size:
            return
        more = min(done, size - done)
        along[more:] |= along[:-more].copy()


def _folded(found: BoolArray, at: int, steps: IntArray) -> tuple[BoolArray, IntArray]:
    """Marks of steps that are the same as one, and the first of each of these."""
    order = np.argsort(steps, kind="stable")
    begins = np.flatnonzero(np.append(True, np.diff(steps[order]) != 0))
    folded = np.logical_or.reduceat(found.take(order, axis=at), begins, axis=at)
    places = order[begins]
    ascending = np.argsort(places)
    return folded.take(ascending, axis=at), places[ascending]
