"""Which samples an epoch holds, and how often: each once, only some, or as often as drawn.

Counted by blocks, so that the line can be laid without looking at each sample. Pure numpy, no IO.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .blocks import BlockGrid
from .cuts import EachWindow
from .intervals import Interval
from .streams import DRAWS, DRAWS_OF_BLOCKS, DRAWS_OF_RUNS, generator
from .windows import IntArray, Windows

__all__ = ["BlockSums", "Choice", "Drawn", "Everything", "Kept", "Table"]

# Blocks whose sums are worked out at a time.
SLAB = 2**20


@dataclass(frozen=True, eq=False)
class Table:
    """A value for every sample, the same along the axes that it lacks.

    Attributes
    ----------
    axes : tuple of int
        Places of its axes among those of the sample space, ascending.
    values : ndarray of bool or float64
        Its values, one for each window along each of these axes.
    """

    axes: tuple[int, ...]
    values: npt.NDArray[Any]

    def inside(self, box: Sequence[Interval]) -> npt.NDArray[Any]:
        """The values of the samples in a box of windows, in C order."""
        return self._broadcast(
            self.values[tuple(slice(*box[place]) for place in self.axes)],
            tuple(last - first for first, last in box),
        ).ravel()

    def _broadcast(self, values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        own = [size if place in self.axes else 1 for place, size in enumerate(shape)]
        return np.broadcast_to(values.reshape(own), shape)

    def full(self, axes: Sequence[int], shape: Sequence[int]) -> npt.NDArray[Any]:
        """The values over these axes, which have its own among them, and sizes."""
        own = [size if place in self.axes else 1 for place, size in zip(axes, shape, strict=True)]
        return np.broadcast_to(self.values.reshape(own), tuple(shape))

    def only(self, kept: Table | None, shape: Sequence[int]) -> Table:
        """The table with 0 where another one is False."""
        if kept is None:
            return self
        axes = tuple(sorted({*self.axes, *kept.axes}))
        sizes = [shape[place] for place in axes]
        return Table(axes, self.full(axes, sizes) * kept.full(axes, sizes))

    def over(self, windows: Windows, some: Windows) -> Table:
        """The table of some of the windows."""
        values = self.values
        for place, axis in enumerate(self.axes):
            old, new = windows.axes[axis], some.axes[axis]
            numbers = old.first_from(new.start(np.arange(len(new))))
            values = values.take(numbers, axis=place)
        return Table(self.axes, values)

    def digest(self) -> str:
        """What tells it from others."""
        found = hashlib.sha256(repr((self.axes, self.values.shape)).encode())
        found.update(np.ascontiguousarray(self.values).tobytes())
        return found.hexdigest()[:16]


class BlockSums:
    """The values of a table, summed over the samples of each block.

    Parameters
    ----------
    table : Table
        The values; True counts as 1.
    grid : BlockGrid
        The blocks.
    """

    def __init__(self, table: Table, grid: BlockGrid) -> None:
        self.table, self.grid = table, grid
        sums = table.values
        if sums.dtype == bool:
            sums = sums.view(np.uint8)
        dtype: Any = np.int64 if table.values.dtype == bool else np.float64
        for place, axis in enumerate(table.axes):
            cuts = grid.cuts[axis]
            if not isinstance(cuts, EachWindow):
                sums = np.add.reduceat(sums, cuts[:-1], axis=place, dtype=dtype)
        self._sums = sums.astype(dtype, copy=False)

    @cached_property
    def total(self) -> Any:
        """The sum over all samples."""
        others = [
            size
            for place, size in enumerate(self.grid.windows.shape)
            if place not in self.table.axes
        ]
        return self._sums.sum() * math.prod(others)

    def of_blocks(self, blocks: IntArray) -> npt.NDArray[Any]:
        """The sum over each of some blocks."""
        if not self.grid.shape:
            return np.repeat(self._sums, len(blocks))
        places = np.unravel_index(blocks, self.grid.shape)
        found: npt.NDArray[Any] = self._sums[tuple(places[axis] for axis in self.table.axes)]
        for axis, cuts in enumerate(self.grid.cuts):
            if axis not in self.table.axes and not isinstance(cuts, EachWindow):
                found = found * np.diff(cuts)[places[axis]]
        return found

    def of_runs(self, length: int) -> npt.NDArray[Any]:
        """The sum over each run of so many blocks."""
        return np.concatenate(list(self._of_runs(length)))

    def _of_runs(self, length: int) -> Iterator[npt.NDArray[Any]]:
        count, step = len(self.grid), max(1, SLAB // length) * length
        for start in range(0, count, step):
            blocks = np.arange(start, min(start + step, count))
            yield np.add.reduceat(self.of_blocks(blocks), np.arange(0, len(blocks), length))


class Choice(Protocol):
    """Which samples a line holds, and how often."""

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
class Everything:
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
class Kept:
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
        return np.flatnonzero(self.sums.table.inside(box))

    # In C order: rows along the last axis of the table; all samples below one of its windows are
    # kept, or none.

    @cached_property
    def _rows(self) -> tuple[npt.NDArray[np.bool_], int]:
        table, shape = self.sums.table, self.sums.grid.windows.shape
        upto = max(table.axes, default=-1) + 1
        axes = range(upto)
        return table.full(axes, [shape[place] for place in axes]), math.prod(shape[upto:])

    @cached_property
    def _ends(self) -> IntArray:
        """How many windows are kept up to the end of each row."""
        kept, _ = self._rows
        return np.cumsum(np.count_nonzero(kept, axis=-1) if kept.ndim else kept)

    def _row(self, number: int) -> npt.NDArray[np.bool_]:
        kept, _ = self._rows
        if not kept.ndim:
            return kept.reshape(1)
        row: npt.NDArray[np.bool_] = kept[np.unravel_index(number, kept.shape[:-1])]
        return row

    def sample(self, position: int) -> int:  # noqa: D102
        kept, below = self._rows
        window, rest = divmod(position, below)
        row = int(np.searchsorted(self._ends, window, side="right"))
        inside = window - (int(self._ends[row - 1]) if row else 0)
        place = int(np.flatnonzero(self._row(row))[inside])
        return (row * (kept.shape[-1] if kept.ndim else 1) + place) * below + rest

    def position(self, sample: int) -> int:  # noqa: D102
        kept, below = self._rows
        window, rest = divmod(sample, below)
        row, inside = divmod(window, kept.shape[-1] if kept.ndim else 1)
        if row == len(self._ends):
            return self.total
        values = self._row(row)
        before = int(self._ends[row - 1]) if row else 0
        before += int(np.count_nonzero(values[:inside]))
        return before * below + (rest if values[inside] else 0)


@dataclass(frozen=True, eq=False)
class Drawn:
    """As many samples as there are, drawn with replacement by weights: another draw each epoch.

    How many come from each block is drawn first, then which: the same as one draw over all.

    Attributes
    ----------
    sums : BlockSums
        The weights.
    total : int
        How many are drawn.
    seed, epoch : int
        What the draw depends on.
    length : int
        Blocks in a run; numbers are drawn for runs first.
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
        ends = np.cumsum(self.sums.table.inside(box))
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
