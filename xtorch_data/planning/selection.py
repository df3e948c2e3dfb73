"""The samples that an epoch holds, and how often: each once, only some, or as often as drawn.

Counted by blocks, so that the line can be laid without looking at each sample. Pure numpy, no IO.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from ..common.random import DRAWS, DRAWS_OF_BLOCKS, DRAWS_OF_RUNS, generator
from .blocks import BlockGrid
from .cuts import EachWindow
from .index_maps import IntArray
from .intervals import Interval
from .windows import Windows

__all__ = [
    "All",
    "BlockSums",
    "Masked",
    "SampleTable",
    "Selection",
    "Weighted",
    "factors",
    "product",
]

# Blocks whose sums are worked out at a time.
SLAB = 2**20


@dataclass(frozen=True, eq=False)
class SampleTable:
    """A value for every sample, the same along the axes that it lacks.

    `axes` are places among those of the sample space, ascending; `values` has one, bool or float64,
    for each window along each of them.
    """

    axes: tuple[int, ...]
    values: npt.NDArray[Any]

    def inside(self, box: Sequence[Interval]) -> npt.NDArray[Any]:
        """The values of the samples in a box of windows, in C order."""
        part = SampleTable(self.axes, self.values[tuple(slice(*box[place]) for place in self.axes)])
        return part.full(range(len(box)), [last - first for first, last in box]).ravel()

    def full(self, axes: Sequence[int], shape: Sequence[int]) -> npt.NDArray[Any]:
        """The values over these axes, which have its own among them, and sizes."""
        own = [size if place in self.axes else 1 for place, size in zip(axes, shape, strict=True)]
        return np.broadcast_to(self.values.reshape(own), tuple(shape))

    def over(self, windows: Windows, some: Windows) -> SampleTable:
        """The table of some of the windows."""
        values = self.values
        for place, axis in enumerate(self.axes):
            old, new = windows.axes[axis], some.axes[axis]
            numbers = old.first_from(new.start(np.arange(len(new))))
            values = values.take(numbers, axis=place)
        return SampleTable(self.axes, values)

    def along(self, place: int, count: int) -> IntArray:
        """Places along one axis of `count` at which any value is not 0, ascending."""
        if place not in self.axes:
            return np.arange(count if self.values.any() else 0)
        others = tuple(each for each, axis in enumerate(self.axes) if axis != place)
        return np.flatnonzero(self.values.any(axis=others))

    def digest(self) -> str:
        """What tells it from others."""
        found = hashlib.sha256(repr((self.axes, self.values.shape)).encode())
        found.update(np.ascontiguousarray(self.values).tobytes())
        return found.hexdigest()[:16]


class BlockSums:
    """The product of some tables, summed over the samples of each block.

    No two tables have an axis in common; True counts as 1.
    """

    def __init__(self, tables: Sequence[SampleTable], grid: BlockGrid) -> None:
        self.tables, self.grid = tuple(tables), grid
        self._sums = [_summed(table, grid) for table in tables]
        self._axes = {axis for table in tables for axis in table.axes}

    @cached_property
    def total(self) -> Any:
        """The sum over all samples."""
        shape = self.grid.windows.shape
        others = [size for place, size in enumerate(shape) if place not in self._axes]
        return math.prod(sums.sum() for sums in self._sums) * math.prod(others)

    def of_blocks(self, blocks: IntArray) -> npt.NDArray[Any]:
        """The sum over each of some blocks."""
        if not self.grid.shape:
            return np.repeat(math.prod(self._sums), len(blocks))
        places = np.unravel_index(blocks, self.grid.shape)
        found: Any = 1
        for table, sums in zip(self.tables, self._sums, strict=True):
            found = found * sums[tuple(places[axis] for axis in table.axes)]
        for axis, cuts in enumerate(self.grid.cuts):
            if axis not in self._axes and not isinstance(cuts, EachWindow):
                found = found * np.diff(cuts)[places[axis]]
        return np.broadcast_to(found, len(blocks))

    def of_runs(self, length: int) -> npt.NDArray[Any]:
        """The sum over each run of so many blocks."""
        return np.concatenate(list(self._of_runs(length)))

    def _of_runs(self, length: int) -> Iterator[npt.NDArray[Any]]:
        count, step = len(self.grid), max(1, SLAB // length) * length
        for start in range(0, count, step):
            blocks = np.arange(start, min(start + step, count))
            yield np.add.reduceat(self.of_blocks(blocks), np.arange(0, len(blocks), length))

    def inside(self, box: Sequence[Interval]) -> npt.NDArray[Any]:
        """The values of the samples in a box of windows, in C order."""
        values: npt.NDArray[Any] = math.prod(table.inside(box) for table in self.tables)  # type: ignore[assignment]
        return values


def _summed(table: SampleTable, grid: BlockGrid) -> npt.NDArray[Any]:
    """The values of a table, summed over each block along its axes."""
    dtype: Any = np.int64 if table.values.dtype == bool else np.float64
    sums = table.values.view(np.uint8) if table.values.dtype == bool else table.values
    for place, axis in enumerate(table.axes):
        cuts = grid.cuts[axis]
        if not isinstance(cuts, EachWindow):
            sums = np.add.reduceat(sums, cuts[:-1], axis=place, dtype=dtype)
    return sums.astype(dtype, copy=False)


def product(one: SampleTable, other: SampleTable, shape: Sequence[int]) -> SampleTable:
    """The product of two tables; of booleans, where both are True."""
    axes = tuple(sorted({*one.axes, *other.axes}))
    sizes = [shape[place] for place in axes]
    return SampleTable(axes, one.full(axes, sizes) * other.full(axes, sizes))


def factors(
    weights: SampleTable, kept: SampleTable | None, shape: Sequence[int]
) -> tuple[SampleTable, ...]:
    """Tables whose product is the weights, but 0 where another table is False.

    They have no axis in common, so that nothing is multiplied out that need not be.
    """
    if kept is None:
        return (weights,)
    if not set(weights.axes) & set(kept.axes):
        return weights, kept
    return (product(weights, kept, shape),)


class Selection(Protocol):
    """The samples that a line holds, and how often."""

    @property
    def total(self) -> int:
        """How many in all."""

    def of_runs(self, length: int) -> IntArray:
        """How many of each run of so many blocks."""

    def of_blocks(self, blocks: IntArray) -> IntArray:
        """How many of each of some blocks."""

    def inside(self, block: int, box: Sequence[Interval]) -> IntArray | None:
        """Numbers of the samples among those of a box in a block; None for each of them once."""

    def sample(self, position: int) -> int:
        """Number of the sample at a position, where samples come in C order."""

    def position(self, sample: int) -> int:
        """How many come before a sample, where samples come in C order."""


@dataclass(frozen=True, eq=False)
class All:
    """Each sample once."""

    grid: BlockGrid

    @property
    def total(self) -> int:  # noqa: D102
        return len(self.grid.windows)

    def of_runs(self, length: int) -> IntArray:  # noqa: D102
        count = len(self.grid)
        borders = np.minimum(np.arange(-(-count // length) + 1) * length, count)
        return np.diff(self.grid.samples_before(borders))

    def of_blocks(self, blocks: IntArray) -> IntArray:  # noqa: D102
        return self.grid.samples(blocks)

    def inside(self, block: int, box: Sequence[Interval]) -> None:  # noqa: D102
        return None

    def sample(self, position: int) -> int:  # noqa: D102
        return position

    def position(self, sample: int) -> int:  # noqa: D102
        return sample


@dataclass(frozen=True, eq=False)
class Masked:
    """The samples for which a table says True, each once."""

    sums: BlockSums

    @cached_property
    def total(self) -> int:  # noqa: D102
        return int(self.sums.total)

    def of_runs(self, length: int) -> IntArray:  # noqa: D102
        return self.sums.of_runs(length)

    def of_blocks(self, blocks: IntArray) -> IntArray:  # noqa: D102
        return self.sums.of_blocks(blocks)

    def inside(self, block: int, box: Sequence[Interval]) -> IntArray:  # noqa: D102
        return np.flatnonzero(self.sums.inside(box))

    # In C order. Before the first axis of the table all is repeated, and all samples below one
    # window along its last are kept, or none. In between there are rows along the last.

    @cached_property
    def _rows(self) -> _Rows:
        (table,) = self.sums.tables
        shape = self.sums.grid.windows.shape
        axes = range(min(table.axes, default=0), max(table.axes, default=-1) + 1)
        kept = table.full(axes, [shape[place] for place in axes])
        if not kept.ndim:
            kept = kept.reshape(1)
        ends = np.cumsum(np.count_nonzero(kept, axis=-1))
        return _Rows(kept, ends, math.prod(shape[axes.stop :]))

    def sample(self, position: int) -> int:  # noqa: D102
        rows = self._rows
        window, rest = divmod(position, rows.below)
        lap, window = divmod(window, int(rows.ends[-1]))
        row = int(np.searchsorted(rows.ends, window, side="right"))
        place = int(np.flatnonzero(rows.row(row))[window - rows.before(row)])
        found = lap * rows.kept.size + row * rows.kept.shape[-1] + place
        return int(found) * rows.below + rest

    def position(self, sample: int) -> int:  # noqa: D102
        rows = self._rows
        window, rest = divmod(sample, rows.below)
        lap, window = divmod(window, rows.kept.size)
        row, inside = divmod(window, rows.kept.shape[-1])
        values = rows.row(row)
        before = lap * int(rows.ends[-1]) + rows.before(row)
        before += int(np.count_nonzero(values[:inside]))
        return before * rows.below + (rest if values[inside] else 0)

    # The same for many at a time, in any order.

    def samples(self, positions: IntArray) -> IntArray:
        """Numbers of the samples at some positions."""
        rows = self._rows
        windows, rest = np.divmod(positions, rows.below)
        laps, windows = np.divmod(windows, int(rows.ends[-1]))
        of = np.searchsorted(rows.ends, windows, side="right")
        found = np.empty_like(positions)
        for row, here in _by_row(of):
            found[here] = np.flatnonzero(rows.row(row))[windows[here] - rows.before(row)]
        found += laps * rows.kept.size + of * rows.kept.shape[-1]
        return found * rows.below + rest

    def positions(self, samples: IntArray) -> IntArray:
        """Positions of some samples that there are, given their numbers."""
        rows = self._rows
        windows, rest = np.divmod(samples, rows.below)
        laps, windows = np.divmod(windows, rows.kept.size)
        of, inside = np.divmod(windows, rows.kept.shape[-1])
        found = np.empty_like(samples)
        for row, here in _by_row(of):
            found[here] = np.cumsum(rows.row(row))[inside[here]] - 1 + rows.before(row)
        return (laps * int(rows.ends[-1]) + found) * rows.below + rest


def _by_row(rows: IntArray) -> Iterator[tuple[int, IntArray]]:
    """Each row among some, with its places among them."""
    order = np.argsort(rows, kind="stable")
    found, begins = np.unique(rows[order], return_index=True)
    return zip(found.tolist(), np.split(order, begins[1:]), strict=True)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The windows that are kept, row by row, with their numbers up to the end of each row."""

    kept: npt.NDArray[np.bool_]
    ends: IntArray
    below: int  # samples of one window along the last axis

    def row(self, number: int) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.kept[np.unravel_index(number, self.kept.shape[:-1])]
        return found

    def before(self, row: int) -> int:
        return int(self.ends[row - 1]) if row else 0


@dataclass(frozen=True, eq=False)
class Weighted:
    """As many samples as there are, drawn with replacement by weights: another draw each epoch.

    How many come from each block is drawn first, then which: the same as one draw over all. Of very
    many blocks, numbers are drawn for runs of `length` blocks before.
    """

    sums: BlockSums
    total: int
    seed: int
    epoch: int
    length: int

    @cached_property
    def _counts(self) -> IntArray:
        rng = generator(self.seed, self.epoch, DRAWS_OF_RUNS, 0)
        return _multinomial(rng, self.total, self.sums.of_runs(self.length))

    def of_runs(self, length: int) -> IntArray:  # noqa: D102
        assert length == self.length
        return self._counts

    def of_blocks(self, blocks: IntArray) -> IntArray:  # noqa: D102
        if self.length == 1:
            return self._counts[blocks]
        found = np.empty(len(blocks), dtype=np.int64)
        runs = blocks // self.length
        for run in np.unique(runs).tolist():
            first = run * self.length
            members = np.arange(first, min(first + self.length, len(self.sums.grid)))
            rng = generator(self.seed, self.epoch, DRAWS_OF_BLOCKS, run)
            counts = _multinomial(rng, int(self._counts[run]), self.sums.of_blocks(members))
            here = runs == run
            found[here] = counts[blocks[here] - first]
        return found

    def inside(self, block: int, box: Sequence[Interval]) -> IntArray:  # noqa: D102
        count = int(self.of_blocks(np.array([block]))[0])
        ends = np.cumsum(self.sums.inside(box))
        # Random places, ascending: spacings of a Poisson process. Looked up in a row, they are
        # found ten times faster; the order on the line is another matter.
        rng = generator(self.seed, self.epoch, DRAWS, block)
        places = np.cumsum(rng.standard_exponential(count + 1))
        at = places[:-1] * (ends[-1] / places[-1])
        last = np.searchsorted(ends, ends[-1])  # the last that weighs anything
        found: IntArray = np.minimum(np.searchsorted(ends, at, side="right"), last)
        return found

    def sample(self, position: int) -> int:  # noqa: D102
        raise NotImplementedError("what is drawn is not in C order")

    position = sample


def _multinomial(
    rng: np.random.Generator, count: int, weights: npt.NDArray[np.float64]
) -> IntArray:
    """How often each is drawn; what weighs nothing never is, however sums are rounded."""
    found = np.zeros(len(weights), dtype=np.int64)
    some = np.flatnonzero(weights)
    if count:
        found[some] = rng.multinomial(count, weights[some] / weights[some].sum())
    return found
