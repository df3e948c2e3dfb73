"""Windows that lie anywhere, as those around events do: which chunks they want, and in which order.

Neighbors of a scattered axis are not near each other in the data. So windows of a block go by the
chunk cell in which they begin, and what lies between cells is nobody's. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .chunks import Chunks, Layout
from .index_maps import IndexMap, IntArray
from .intervals import Interval

__all__ = ["Groups", "Scattered"]

# Windows that are looked at to tell what a cut costs, and chunks that they touch.
LOOKED_AT, TOUCHED = 2**15, 2**18
# Intervals of a cut of which the cost is worked out; they hold about as many bytes each.
INTERVALS = 32
# Chunks that are counted to tell how many there are in all.
COUNTED = 2**23
# Sizes of blocks that are compared.
SIZES = 24
# Windows along a dim that is not stored in chunks which make a cell, side by side.
SIDE_BY_SIDE = 2


@dataclass(frozen=True, eq=False)
class Groups:
    """Windows of a stretch of a scattered axis, by the cell in which they begin.

    Attributes
    ----------
    of : ndarray of int64
        The group of each window.
    low, high : mapping of Hashable to ndarray of int64
        By dim, data positions ``[low, high)`` that the windows of each group cover.
    """

    of: IntArray
    low: Mapping[Hashable, IntArray]
    high: Mapping[Hashable, IntArray]

    def __len__(self) -> int:
        return int(self.of.max()) + 1

    def region(self, group: int) -> dict[Hashable, tuple[int, int]]:
        """Data positions of a group along each dim that follows the axis."""
        return {dim: (int(low[group]), int(self.high[dim][group])) for dim, low in self.low.items()}


class Scattered:
    """The windows of a frame along its scattered axis, the first of the sample space.

    Made with a frame that has layouts, and lives as long.
    """

    def __init__(self, maps: Iterable[IndexMap], layouts: Sequence[Layout]) -> None:
        self.maps = {each.dim: each for each in maps if 0 in each.terms}
        self._layouts = layouts
        self._costs: dict[Hashable, tuple[float, float, float]] = {}

    @cached_property
    def count(self) -> int:
        """Number of windows along the axis."""
        return next((len(each.terms[0]) for each in self.maps.values()), 0)

    @cached_property
    def _starts(self) -> dict[Hashable, IntArray]:
        numbers = np.arange(self.count)
        return {dim: each.base + each.terms[0].at(numbers) for dim, each in self.maps.items()}

    @cached_property
    def _grids(self) -> dict[Hashable, Chunks]:
        """By dim, the cells in which windows begin: the largest chunks of any variable."""
        found = {}
        for dim, each in self.maps.items():
            grids = [layout.chunks[dim] for layout in self._layouts if dim in layout.chunks]
            if not grids:
                continue
            grid = max(grids, key=lambda grid: grid.largest)
            found[dim] = grid if grid.in_chunks else grid.joined(SIDE_BY_SIDE * each.extent)
        return found

    @cached_property
    def cells(self) -> IntArray:
        """Number of the cell in which each window begins, the first dim slowest."""
        found = np.zeros(self.count, dtype=np.int64)
        for dim, grid in self._grids.items():
            along = grid.number(self._starts[dim])
            found = found * (int(grid.number(grid.length - 1)) + 1) + along
        return found

    def order(self) -> IntArray:
        """The windows cell by cell, as they come in each."""
        return np.argsort(self.cells, kind="stable")

    def groups(self, start: int, stop: int) -> Groups:
        """The windows ``[start, stop)`` by cell."""
        return self.groups_of(slice(start, stop))

    def groups_of(self, windows: IntArray | slice, box: Sequence[Interval] | None = None) -> Groups:
        """Some windows by cell; of a box, where dims follow other axes as well."""
        cells = self.cells[windows]
        order: IntArray | slice = slice(None)
        if (cells[1:] < cells[:-1]).any():
            order = np.argsort(cells, kind="stable")
        return self._runs(windows, order, box)

    def _runs(
        self,
        windows: IntArray | slice,
        order: IntArray | slice,
        box: Sequence[Interval] | None = None,
    ) -> Groups:
        """Some windows in an order: those that follow each other in a cell are a group."""
        cells = self.cells[windows][order]
        new = np.append(True, cells[1:] != cells[:-1])
        begins, of = np.flatnonzero(new), np.empty(len(cells), dtype=np.int64)
        of[order] = np.cumsum(new) - 1
        low, high = {}, {}
        for dim, each in self.maps.items():
            own = self._starts[dim][windows][order]
            low[dim] = np.minimum.reduceat(own, begins)
            high[dim] = np.maximum.reduceat(own, begins) + each.extent
            for axis, term in each.terms.items():
                if axis:
                    least, most = term.lohi(*((0, len(term)) if box is None else box[axis]))
                    low[dim], high[dim] = low[dim] + least, high[dim] + most
        return Groups(of, low, high)

    # What it costs to cut the axis.

    @cached_property
    def cuts(self) -> list[IntArray]:
        """Ways to cut the axis between windows of different cells.

        From one interval to one for each cell; those of one way hold about as many bytes each.
        Where windows come cell by cell of another source, a cell may be cut into several.
        """
        every = self._runs(slice(None), slice(None))
        begins = np.searchsorted(every.of, np.arange(len(every)))
        held = np.zeros(len(every))
        for layout in self._layouts:
            held += layout.itemsize * self.places(layout, every)
        before = np.append(0.0, np.cumsum(held)[:-1])
        found: dict[int, IntArray] = {}
        for power in range(SIZES):
            target = held.sum() / 2**power
            block = (before // max(target, 1.0)).astype(np.int64)
            first = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
            found.setdefault(len(first), np.append(begins[first], self.count))
            if len(first) == len(every):
                break
        return list(found.values())

    def places(self, layout: Layout, groups: Groups) -> npt.NDArray[np.float64]:
        """Places of a variable that each group holds, along dims that follow the axis."""
        found = np.ones(len(groups))
        for dim in groups.low:
            if dim in layout.chunks:
                found *= groups.high[dim] - groups.low[dim]
        return found

    def costs(self, layout: Layout, numbers: IntArray) -> tuple[float, float, float]:
        """Places along dims that follow the axis: decoded over all intervals, and held of one.

        The last ones are those of the chunks of an interval, from which its windows are cut.
        """
        key = layout.name, id(numbers)
        if key not in self._costs:
            self._costs[key] = self._cost(layout, numbers)
        return self._costs[key]

    def _cost(self, layout: Layout, numbers: IntArray) -> tuple[float, float, float]:
        count = len(numbers) - 1
        most = max(1, min(count, INTERVALS, LOOKED_AT * count // max(1, self.count)))
        decoded, held, chunks, seen = 0.0, 0.0, 0.0, 0
        for at in np.unique(np.linspace(0, count - 1, most).astype(np.int64)).tolist():
            start, stop = int(numbers[at]), int(numbers[at + 1])
            some = min(stop, start + LOOKED_AT)
            groups = self.groups(start, some)
            share = (stop - start) / (some - start)
            own = share * self._distinct(layout, groups, TOUCHED)
            decoded, chunks = decoded + own, max(chunks, own)
            held = max(held, share * float(self.places(layout, groups).sum()))
            seen += 1
        return decoded * count / seen, held, chunks

    def used(self, layout: Layout) -> float:
        """Places in all the chunks that windows touch, each once, along dims of the axis."""
        return self._distinct(layout, self.groups(0, self.count), COUNTED)

    def _distinct(self, layout: Layout, groups: Groups, most: int) -> float:
        """Places in the chunks that groups touch, each counted once; of very many, about."""
        grids = {dim: layout.chunks[dim] for dim in self.maps if dim in layout.chunks}
        if not grids:
            return 1.0
        first = {dim: grid.number(groups.low[dim]) for dim, grid in grids.items()}
        counts = {dim: grid.number(groups.high[dim] - 1) - first[dim] + 1
                  for dim, grid in grids.items()}  # fmt: skip
        touched = np.ones(len(groups), dtype=np.int64)
        for each in counts.values():
            touched *= each
        ends = np.cumsum(touched)
        some = max(1, int(np.searchsorted(ends, most, side="right")))
        shape = [int(grid.number(grid.length - 1)) + 1 for grid in grids.values()]
        of = np.repeat(np.arange(some), touched[:some])
        left = np.arange(ends[some - 1]) - np.repeat(ends[:some] - touched[:some], touched[:some])
        cells = []
        for dim in reversed(list(grids)):
            left, inside = np.divmod(left, counts[dim][of])
            cells.append(first[dim][of] + inside)
        flat = np.ravel_multi_index(cells[::-1], shape)
        if math.prod(shape) <= 8 * len(flat):
            there = np.zeros(math.prod(shape), dtype=bool)
            there[flat] = True
            flat = np.flatnonzero(there)
        else:
            flat = np.unique(flat)
        places = np.ones(len(flat))
        for number, grid in zip(np.unravel_index(flat, shape), grids.values(), strict=True):
            places *= grid.steps(number, number + 1)
        return float(places.sum()) * float(ends[-1] / ends[some - 1])
