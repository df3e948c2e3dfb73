"""Which chunks hold the samples: the sample space cut into blocks along the chunk grid.

A block is read once and decoded once; every sample in it is then a slice of memory. Pure integer
planning, no IO.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .windows import Axis, IntArray, Windows

__all__ = ["INDEX_BYTES", "BlockGrid", "Chunks", "Layout", "plan_in_order", "plan_shuffled"]

# Blocks whose halo costs no more than this are not made larger: more, smaller blocks mix better.
TOLERATED_AMPLIFICATION = 1.1
# Blocks in one pool, where the memory and the amplification allow it.
BLOCKS_PER_POOL = 8
# In order there is nothing to mix: blocks large enough to hide the cost of a read.
IN_ORDER_BLOCK_BYTES = 32 * 2**20
# Bytes that the shuffled order takes for each sample.
INDEX_BYTES = 8
# Intervals of an axis looked at to estimate a candidate cut; grids are regular, the rest is alike.
SAMPLED_INTERVALS = 4096
# Intervals along one axis at most; an axis of a billion windows is not cut window by window.
MAX_INTERVALS = 2**20
# Combinations of candidate cuts compared at most.
MAX_COMBINATIONS = 400_000


@dataclass(frozen=True, eq=False)
class Chunks:
    """The chunk grid of one variable along one dim.

    Attributes
    ----------
    length : int
        Size of the dim.
    size : int
        Steps in one chunk. 1 where any slice can be read for its own cost (memory, memory maps).
    offset : int
        Place of the data's first step inside its chunk: a lazily sliced array begins mid-chunk.
    edges : ndarray of int64, optional
        Where chunks begin, and the end, for a grid that is not regular.
    """

    length: int
    size: int = 1
    offset: int = 0
    edges: IntArray | None = None

    def touched(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> IntArray:
        """Number of chunks which the steps ``[start, stop)`` touch."""
        first, last = np.asarray(start, np.int64), np.asarray(stop, np.int64) - 1
        if self.edges is None:
            return (last + self.offset) // self.size - (first + self.offset) // self.size + 1
        lower = np.searchsorted(self.edges, first, side="right")
        return (np.searchsorted(self.edges, last, side="right") - lower + 1).astype(np.int64)

    def decoded(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> IntArray:
        """Steps that are decoded to get ``[start, stop)``: those of every chunk touched."""
        if self.edges is None:
            return self.touched(start, stop) * self.size
        first, last = np.asarray(start, np.int64), np.asarray(stop, np.int64) - 1
        lower = self.edges[np.searchsorted(self.edges, first, side="right") - 1]
        return self.edges[np.searchsorted(self.edges, last, side="right")] - lower

    def boundaries(self, every: int) -> IntArray:
        """Positions inside the dim at which every so many-th chunk begins."""
        if self.edges is not None:
            return self.edges[every:-1:every]
        step = self.size * every
        return np.arange(step - self.offset, self.length, step, dtype=np.int64)

    def end_of(self, position: int) -> int:
        """Where the chunk that holds a position ends."""
        if self.edges is not None:
            return int(self.edges[np.searchsorted(self.edges, position, side="right")])
        return min(
            ((position + self.offset) // self.size + 1) * self.size - self.offset, self.length
        )

    @property
    def chunked(self) -> bool:
        """Whether it matters where the dim is cut."""
        return self.size > 1 or self.edges is not None

    @property
    def largest(self) -> int:
        """Steps of the largest chunk."""
        return self.size if self.edges is None else int(np.diff(self.edges).max())

    @property
    def count(self) -> int:
        """Number of chunks along the dim."""
        return int(self.touched(0, self.length))


@dataclass(frozen=True, eq=False)
class Layout:
    """How one variable is stored, as far as planning needs to know.

    Attributes
    ----------
    name : Hashable
        Name of the variable.
    itemsize : int
        Bytes of one value in memory, times the places along dims outside the sample space.
    chunks : mapping of Hashable to Chunks
        Chunk grid along each dim of the sample space that the variable has.
    """

    name: Hashable
    itemsize: int
    chunks: Mapping[Hashable, Chunks]


@dataclass(frozen=True, eq=False)
class BlockGrid:
    """The sample space cut into blocks: the product of intervals along every axis.

    Attributes
    ----------
    windows : Windows
        The sample space.
    cuts : tuple of ndarray of int64
        Per axis, the window numbers at which intervals begin, and the number of windows.
    stops : tuple of (ndarray of int64 or None)
        Per axis, the data position up to which an interval is read, where that lies beyond the
        end of its last window (in order, chunks are read to their end).
    nbytes : int
        Bytes of the largest block in memory.
    amplification : float
        Estimate of the bytes decoded in an epoch over the bytes decoded if each chunk is
        decoded once.
    whole_chunks : mapping of Hashable to Chunks
        In order, the grids along the axis that is cut of variables whose chunks are read to their
        end, where blocks end inside chunks.
    """

    windows: Windows
    cuts: tuple[IntArray, ...]
    stops: tuple[IntArray | None, ...]
    nbytes: int
    amplification: float
    whole_chunks: Mapping[Hashable, Chunks] = field(default_factory=dict)
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(len(cut) - 1 for cut in self.cuts))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def box(self, block: int) -> tuple[tuple[int, int], ...]:
        """Window numbers ``[first, last)`` of a block along every axis."""
        places = np.unravel_index(block, self.shape) if self.shape else ()
        return tuple(
            (int(cut[place]), int(cut[place + 1]))
            for cut, place in zip(self.cuts, places, strict=True)
        )

    def samples(self, blocks: IntArray) -> IntArray:
        """Number of samples in each of `blocks`."""
        counts = np.ones(len(blocks), dtype=np.int64)
        if self.shape:
            for cut, places in zip(self.cuts, np.unravel_index(blocks, self.shape), strict=True):
                counts *= cut[places + 1] - cut[places]
        return counts

    def samples_before(self, blocks: IntArray) -> IntArray:
        """Number of samples in all blocks that come before each of `blocks` in C order.

        The number of blocks itself is allowed and gives the number of samples.
        """
        blocks = np.asarray(blocks, dtype=np.int64)
        total = np.zeros(blocks.shape, dtype=np.int64)
        rest = blocks
        leading = np.ones(blocks.shape, dtype=np.int64)
        for place, cut in enumerate(self.cuts):
            below = math.prod(self.shape[place + 1 :])
            number = rest // below
            rest = rest - number * below
            total += leading * cut[number] * math.prod(self.windows.shape[place + 1 :])
            inside = np.minimum(number, len(cut) - 2)
            leading = leading * (cut[inside + 1] - cut[inside])
        return total if self.cuts else blocks

    def region(self, box: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Data positions ``[start, stop)`` that the windows of a box cover along every axis."""
        return tuple(
            axis.span(first, last)
            for axis, (first, last) in zip(self.windows.axes, box, strict=True)
        )


@dataclass(frozen=True, eq=False)
class _Cut:
    """One way to cut an axis, and what it costs along that axis."""

    numbers: IntArray
    stops: IntArray | None
    intervals: int
    extents: dict[Hashable, int]  # by variable: steps held of the largest interval
    samples: int  # windows of the largest interval
    decoded: dict[Hashable, float]  # by variable: steps decoded over all intervals
    whole_chunks: bool = False  # whether reads go on to the end of each variable's chunk


def plan_shuffled(windows: Windows, layouts: Sequence[Layout], budget: int) -> BlockGrid:
    """Cut the sample space into blocks that are read each on its own, in any order.

    Parameters
    ----------
    windows : Windows
        The sample space.
    layouts : sequence of Layout
        The variables that are read.
    budget : int
        Bytes that one pool of blocks may hold.

    Returns
    -------
    BlockGrid
        The least read amplification that fits the budget, or a tolerable one if that leaves
        room for several blocks in a pool.
    """
    options = [
        [
            _independent(axis, layouts, numbers)
            for numbers in _thin(_candidates(axis, layouts), len(windows.axes))
        ]
        for axis in windows.axes
    ]
    decoded, held = _costs(windows, layouts, options, INDEX_BYTES)
    amplification = decoded / _decoded_once(windows, layouts)
    choice = _choose(amplification, held, budget, budget // BLOCKS_PER_POOL)
    return _grid(windows, options, choice, held, amplification)


def plan_in_order(windows: Windows, layouts: Sequence[Layout], budget: int) -> BlockGrid:
    """Cut the sample space into blocks whose samples follow each other in C order.

    One axis is cut, axes before it are taken window by window, those after it whole. Along the
    axis that is cut, a block is read up to a chunk boundary and the steps which the next block
    shares with it are handed on, so that no chunk on that axis is decoded twice.

    Parameters
    ----------
    windows : Windows
        The sample space.
    layouts : sequence of Layout
        The variables that are read.
    budget : int
        Bytes that one block may hold.
    """
    grids = []
    for place in range(len(windows.axes)):
        if any(count > MAX_INTERVALS for count in windows.shape[:place]):
            break  # too many places to take one by one
        grid = _cut_along(windows, layouts, budget, place)
        if grid.nbytes <= budget:  # the fewer axes are taken window by window, the fewer reads
            return grid
        grids.append(grid)
    everything = BlockGrid(windows, (), (), sum(layout.itemsize for layout in layouts), 1.0)
    return min(grids, key=lambda grid: grid.nbytes, default=everything)


def _cut_along(windows: Windows, layouts: Sequence[Layout], budget: int, place: int) -> BlockGrid:
    """Blocks in C order that are cut along one axis."""
    axis = windows.axes[place]
    before = [
        [_independent(other, layouts, np.arange(len(other) + 1, dtype=np.int64))]
        for other in windows.axes[:place]
    ]
    after = [
        [_independent(other, layouts, np.array([0, len(other)]))]
        for other in windows.axes[place + 1 :]
    ]
    candidates = _thin(_candidates(axis, layouts, by_end=True), 1)
    plain = [_consecutive(axis, layouts, cut) for cut in candidates]
    target = min(budget, IN_ORDER_BLOCK_BYTES)
    once = _decoded_once(windows, layouts)
    # Ends of blocks at ends of chunks, or else what is left of a chunk is kept.
    for cuts in (plain, plain + _with_whole_chunks(axis, layouts, plain)):
        options = [*before, cuts, *after]
        decoded, held = _costs(windows, layouts, options, index_bytes=0)
        amplification = decoded / once
        choice = _choose(amplification, held, budget, target, tolerated=1.0)
        grid = _grid(windows, options, choice, held, amplification)
        if grid.nbytes <= budget and grid.amplification <= 1.0:
            break
    if not cuts[choice[place]].whole_chunks:
        return grid
    grids = {each.name: each.chunks[axis.dim] for each in layouts if axis.dim in each.chunks}
    return replace(grid, whole_chunks={name: each for name, each in grids.items() if each.chunked})


def _decoded_once(windows: Windows, layouts: Iterable[Layout]) -> float:
    """Bytes that are decoded if every chunk that windows touch is decoded once."""
    total = 0.0
    for layout in layouts:
        nbytes = float(layout.itemsize)
        for axis in windows.axes:
            if axis.dim in layout.chunks:
                nbytes *= float(layout.chunks[axis.dim].decoded(*axis.span(0, len(axis))))
        total += nbytes
    return total


def _candidates(
    axis: Axis, layouts: Iterable[Layout], by_end: bool = False
) -> list[tuple[IntArray, IntArray | None]]:
    """Ways to cut an axis: from one window an interval to not at all, at chunk boundaries.

    With `by_end` a window belongs to the interval in which it ends, else in which it begins.
    Returns window numbers, and with `by_end` the position to which each interval is read.
    """
    count = len(axis)
    grids = _distinct_grids(axis, layouts)
    chunk = min((grid.size for grid in grids), default=axis.length)
    steps = max(1, int(axis.starts[min(1, count - 1)]) - int(axis.starts[0]))
    inner = [
        each
        for each in _steps(count)
        if count // each <= MAX_INTERVALS and (each == 1 or not grids or each * steps < 2 * chunk)
    ]
    found: list[tuple[IntArray, IntArray | None]] = []
    for each in inner:
        numbers = np.append(np.arange(0, count, each, dtype=np.int64), count)
        stops = axis.start(numbers[1:] - 1) + axis.size if by_end else None
        found.append((numbers, stops))
    for grid in grids:
        for every in _steps(grid.count):
            if grid.count // every > MAX_INTERVALS:
                continue
            positions = grid.boundaries(every)
            shift = axis.size - 1 if by_end else 0
            numbers = axis.first_from(positions - shift)
            numbers, place = np.unique(np.append(numbers, count), return_index=True)
            stops = np.append(positions, axis.length)[place]
            if numbers[0] == 0:
                numbers, stops = numbers[1:], stops[1:]
            stops[-1] = axis.span(0, count)[1]
            found.append((np.append(0, numbers), stops if by_end else None))
    end = axis.span(0, count)[1]
    found.append((np.array([0, count]), np.array([end]) if by_end else None))
    return found


def _distinct_grids(axis: Axis, layouts: Iterable[Layout]) -> list[Chunks]:
    """The different chunk grids along an axis, and the one at their common boundaries."""
    grids: dict[tuple[object, ...], Chunks] = {}
    for layout in layouts:
        chunks = layout.chunks.get(axis.dim)
        if chunks is not None and chunks.chunked:
            edges = None if chunks.edges is None else chunks.edges.tobytes()
            grids[chunks.size, chunks.offset, edges] = chunks
    regular = [grid for grid in grids.values() if grid.edges is None]
    if len(regular) > 1:
        common = math.lcm(*(grid.size for grid in regular))
        if common < axis.length and len({grid.offset % grid.size for grid in regular}) == 1:
            grids[common, regular[0].offset, None] = Chunks(axis.length, common, regular[0].offset)
    return list(grids.values())


def _steps(count: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 … below `count`."""
    powers = itertools.takewhile(lambda step: step < count, (2**power for power in range(63)))
    return sorted({step for power in powers for step in (power, power * 3 // 2) if step < count})


def _thin(
    cuts: list[tuple[IntArray, IntArray | None]], axes: int
) -> list[tuple[IntArray, IntArray | None]]:
    """At most as many candidates as can be compared; the finest and the coarsest stay."""
    most = max(4, int(MAX_COMBINATIONS ** (1 / max(1, axes))))
    if len(cuts) <= most:
        return cuts
    places = np.linspace(0, len(cuts) - 1, most).round().astype(int)
    return [cuts[place] for place in places]


def _independent(
    axis: Axis,
    layouts: Iterable[Layout],
    cut: tuple[IntArray, IntArray | None] | IntArray,
) -> _Cut:
    numbers = cut if isinstance(cut, np.ndarray) else cut[0]
    first, last = numbers[:-1][:SAMPLED_INTERVALS], numbers[1:][:SAMPLED_INTERVALS]
    starts = axis.start(first)
    stops = axis.start(last - 1) + axis.size
    return _measure(axis, layouts, numbers, None, starts, stops, stops - starts)


def _consecutive(
    axis: Axis, layouts: Iterable[Layout], cut: tuple[IntArray, IntArray | None]
) -> _Cut:
    numbers, ends = cut
    assert ends is not None
    stops = ends[:SAMPLED_INTERVALS]
    begin = axis.start(numbers[:-1][:SAMPLED_INTERVALS])
    starts = np.maximum(begin, np.append(0, stops[:-1]))
    starts[0] = begin[0]
    return _measure(axis, layouts, numbers, ends, starts, stops, stops - begin)


def _with_whole_chunks(axis: Axis, layouts: Sequence[Layout], cuts: Sequence[_Cut]) -> list[_Cut]:
    """Cuts that decode chunks twice, made to decode each once.

    Where blocks end inside a chunk, the chunk is read to its end and the rest kept for the next
    block, which takes the room of a chunk.
    """
    begin, end = axis.span(0, len(axis))
    grids = {
        layout.name: layout.chunks[axis.dim] for layout in layouts if axis.dim in layout.chunks
    }
    once = {name: float(grid.decoded(begin, end)) for name, grid in grids.items()}
    return [
        replace(
            cut,
            extents={
                name: extent + (grids[name].largest - 1 if name in grids else 0)
                for name, extent in cut.extents.items()
            },
            decoded=once,
            whole_chunks=True,
        )
        for cut in cuts
        if any(decoded > once[name] for name, decoded in cut.decoded.items())
    ]


def _measure(
    axis: Axis,
    layouts: Iterable[Layout],
    numbers: IntArray,
    ends: IntArray | None,
    starts: IntArray,
    stops: IntArray,
    extents: IntArray,
) -> _Cut:
    scale = (len(numbers) - 1) / len(starts)
    return _Cut(
        numbers=numbers,
        stops=ends,
        intervals=len(numbers) - 1,
        extents={layout.name: int(extents.max()) for layout in layouts},
        samples=int(np.diff(numbers).max()),
        decoded={
            layout.name: float(layout.chunks[axis.dim].decoded(starts, stops).sum()) * scale
            for layout in layouts
            if axis.dim in layout.chunks
        },
    )


def _costs(
    windows: Windows,
    layouts: Iterable[Layout],
    options: Sequence[Sequence[_Cut]],
    index_bytes: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bytes decoded in an epoch and bytes of a block, for every combination of cuts."""
    shape = tuple(len(cuts) for cuts in options)
    decoded, held = np.zeros(shape), np.zeros(shape)

    def along(place: int, values: list[float]) -> npt.NDArray[np.float64]:
        column = [1] * len(shape)
        column[place] = -1
        return np.array(values, dtype=np.float64).reshape(column)

    for layout in layouts:
        read = np.full(shape, float(layout.itemsize))
        size = np.full(shape, float(layout.itemsize))
        repeats = np.ones(shape)
        uncut = np.ones(shape, dtype=bool)
        for place, (axis, cuts) in enumerate(zip(windows.axes, options, strict=True)):
            intervals = along(place, [cut.intervals for cut in cuts])
            if axis.dim in layout.chunks:
                read = read * along(place, [cut.decoded[layout.name] for cut in cuts])
                size = size * along(place, [cut.extents[layout.name] for cut in cuts])
                uncut = uncut & (intervals == 1)
            else:
                repeats = repeats * intervals
        # What no cut touches is read once and kept.
        decoded += read * np.where(uncut, 1, repeats)
        held += size
    samples = np.full(shape, float(index_bytes))
    for place, cuts in enumerate(options):
        samples = samples * along(place, [cut.samples for cut in cuts])
    return decoded, held + samples


def _choose(
    amplification: npt.NDArray[np.float64],
    held: npt.NDArray[np.float64],
    budget: float,
    target: float,
    tolerated: float = TOLERATED_AMPLIFICATION,
) -> tuple[int, ...]:
    """The cut with the least amplification that fits; among tolerable ones the block size.

    The largest block not over the target, else the smallest there is.
    """
    fits = held <= budget
    if not fits.any():
        return tuple(int(place) for place in np.unravel_index(np.argmin(held), held.shape))
    limit = max(tolerated, float(amplification[fits].min()) * (1 + 1e-9))
    good = fits & (amplification <= limit)
    small = good & (held <= target)
    if small.any():
        score = np.where(small, -held + amplification, np.inf)
    else:
        score = np.where(good, held + amplification, np.inf)
    return tuple(int(place) for place in np.unravel_index(np.argmin(score), held.shape))


def _grid(
    windows: Windows,
    options: Sequence[Sequence[_Cut]],
    choice: tuple[int, ...],
    held: npt.NDArray[np.float64],
    amplification: npt.NDArray[np.float64],
) -> BlockGrid:
    cuts = [axis_options[place] for axis_options, place in zip(options, choice, strict=True)]
    return BlockGrid(
        windows,
        tuple(cut.numbers for cut in cuts),
        tuple(cut.stops for cut in cuts),
        int(held[choice]),
        float(amplification[choice]),
    )
