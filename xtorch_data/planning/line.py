"""An epoch is one line: its samples in an order that (seed, epoch) alone decides.

Walking along the line means loading one region after the other. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np

from ..common.random import BLOCKS, RUNS, SAMPLES, generator
from .blocks import BlockGrid
from .chunks import Layout
from .cuts import interval_of
from .intervals import Interval
from .selection import Choice, Everything
from .windows import IntArray, Windows

__all__ = [
    "Line",
    "Load",
    "Piece",
    "Stage",
    "as_indices",
    "reads",
    "run_length",
    "shared_box",
]

Box = tuple[Interval, ...]

# A full permutation of this many blocks is cheap; beyond it, runs of blocks are shuffled first.
GROUP_BLOCKS = 2**18
MAX_RUNS = 2**20


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples that lie in one array in memory.

    Attributes
    ----------
    box : tuple of (int, int)
        Window numbers ``[first, last)`` along every axis.
    region : tuple of (int, int)
        Data positions ``[start, stop)`` along every axis, from the first window's begin to the
        last one's end or beyond.
    """

    box: Box
    region: Box
    samples: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", math.prod(last - first for first, last in self.box))

    def place(self, numbers: Sequence[IntArray], count: int) -> IntArray:
        """Numbers inside the piece of `count` samples, from their window numbers per axis."""
        local = np.zeros(count, dtype=np.int64)
        for number, (first, last) in zip(numbers, self.box, strict=True):
            local = local * (last - first) + number - first
        return local

    def numbers(self, windows: Windows, local: IntArray) -> IntArray:
        """Sample numbers of samples that are numbered inside the piece."""
        if not windows.axes:
            return np.zeros_like(local)
        inside = np.unravel_index(local, [last - first for first, last in self.box])
        places = tuple(place + first for place, (first, _) in zip(inside, self.box, strict=True))
        return np.ravel_multi_index(places, windows.shape).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Load:
    """One region that is read from the store, and the pieces it gives.

    Attributes
    ----------
    block : int
        Number of the block in the grid.
    region : tuple of (int, int)
        Data positions to read along every axis.
    pieces : tuple of Piece
        Samples that can be cut once the region is there.
    axis : int
        The axis along which blocks follow each other.
    carried : int, optional
        Data position on `axis` from which steps are handed on by the load before, up to the
        begin of `region`; None if this load needs nothing of it.
    keep : int, optional
        Data position on `axis` from which the next load needs the steps; None if it needs none.
    whole_chunks : mapping of Hashable to (int, int)
        Variables of which other positions on `axis` are read: from where the load before has
        ended, perhaps beyond `region`, to the end of a chunk, perhaps beyond it, too. What lies
        before or behind comes from the load before or is kept for the next one.
    """

    block: int
    region: Box
    pieces: tuple[Piece, ...]
    axis: int = 0
    carried: int | None = None
    keep: int | None = None
    whole_chunks: Mapping[Hashable, Interval] = field(default_factory=dict)

    @property
    def key(self) -> Hashable:
        """The same for loads of which the same is made."""
        whole = tuple(self.whole_chunks.values())
        return self.block, self.region, self.carried, self.keep, whole, len(self.pieces)

    def slices(self, windows: Windows) -> dict[Hashable, slice]:
        """The region as ``isel`` takes it."""
        return {
            axis.dim: slice(*interval)
            for axis, interval in zip(windows.axes, self.region, strict=True)
        }


@dataclass(frozen=True, eq=False)
class Stage:
    """A stretch of the line whose samples are all in memory at the same time.

    Attributes
    ----------
    loads : tuple of Load
        What is read for it.
    first : int
        Position on the line of its first sample.
    start, stop : int
        The positions of the line that are wanted, ``first <= start < stop``.
    shuffle : tuple of int, optional
        Seed, epoch and number of the pool whose samples are shuffled; None for C order.
    choice : Choice
        Which of the samples that lie in the blocks are on the line, and how often.
    """

    loads: tuple[Load, ...]
    first: int
    start: int
    stop: int
    shuffle: tuple[int, int, int] | None
    choice: Choice

    def order(self) -> IntArray | range:
        """Number, among the samples of all pieces, of the sample at each wanted position."""
        start, stop = self.start - self.first, self.stop - self.first
        chosen = self._chosen()
        if self.shuffle is None:
            return range(start, stop) if chosen is None else chosen[start:stop]
        seed, epoch, pool = self.shuffle
        if chosen is None:
            chosen = sum(piece.samples for load in self.loads for piece in load.pieces)
        order: IntArray = generator(seed, epoch, SAMPLES, pool).permutation(chosen)
        return order[start:stop]

    def _chosen(self) -> Any:
        """Numbers, among the samples of all pieces, of those on the line; None if all are once."""
        found, passed = [], 0
        for load in self.loads:
            for piece in load.pieces:
                inside = self.choice.inside(load.block, piece.box)
                if inside is None:
                    return None
                found.append(inside + passed)
                passed += piece.samples
        return np.concatenate(found)

    def numbers(self, windows: Windows) -> IntArray:
        """Sample number at each wanted position."""
        pieces = [piece for load in self.loads for piece in load.pieces]
        ends = np.cumsum([piece.samples for piece in pieces])
        order = as_indices(self.order())
        of_piece = np.searchsorted(ends, order, side="right")
        by_piece = np.argsort(of_piece, kind="stable")
        numbers = np.empty_like(order)
        counts = np.bincount(of_piece, minlength=len(pieces))
        groups = np.split(by_piece, np.cumsum(counts)[:-1])
        for piece, end, group in zip(pieces, ends.tolist(), groups, strict=True):
            numbers[group] = piece.numbers(windows, order[group] - (end - piece.samples))
        return numbers


@dataclass(frozen=True, eq=False)
class Line:
    """The order of one epoch.

    With `shuffle`, blocks are shuffled, taken in pools, and the samples of each pool are shuffled;
    the pools lie end to end. Without, the line is the samples in C order.

    Attributes
    ----------
    grid : BlockGrid
        The blocks.
    shuffle : bool
        Whether blocks and samples are shuffled.
    seed, epoch : int
        What the order depends on.
    pool_blocks : int
        Number of blocks in a pool.
    chosen : Choice, optional
        Which samples the line holds, and how often; every sample once by default.
    """

    grid: BlockGrid
    shuffle: bool
    seed: int
    epoch: int
    pool_blocks: int = 1
    chosen: InitVar[Choice | None] = None
    choice: Choice = field(init=False)

    def __post_init__(self, chosen: Choice | None) -> None:
        object.__setattr__(self, "choice", chosen or Everything(self.grid))

    def __len__(self) -> int:
        return self.choice.total

    def stages(self, intervals: Iterable[Interval], independent: bool = False) -> Iterator[Stage]:
        """What to load, in order, to walk over the given intervals of the line.

        Parameters
        ----------
        intervals : iterable of (int, int)
            Positions ``[start, stop)`` on the line.
        independent : bool
            In order, read every block whole and on its own, handing nothing on: for a
            ``preprocess`` whose result depends on the block it gets.
        """
        for start, stop in intervals:
            if start < stop:
                if self.shuffle:
                    yield from self._pools(start, stop)
                else:
                    yield from self._blocks_in_order(start, stop, independent)

    # Shuffled: runs of blocks → groups → pools.

    def _pools(self, start: int, stop: int) -> Iterator[Stage]:
        count = len(self.grid)
        length = run_length(self.grid)
        runs = -(-count // length)
        group_runs = max(1, GROUP_BLOCKS // length)
        order = generator(self.seed, self.epoch, RUNS, 0).permutation(runs)
        samples = self.choice.of_runs(length)
        sizes = np.add.reduceat(samples[order], np.arange(0, runs, group_runs))
        ends = np.cumsum(sizes)
        group = int(np.searchsorted(ends, start, side="right"))
        pools_in_group = -(-group_runs * length // self.pool_blocks)
        while group < len(ends) and ends[group] - sizes[group] < stop:
            members = order[group * group_runs : (group + 1) * group_runs]
            blocks = (members[:, None] * length + np.arange(length)).ravel()
            blocks = blocks[blocks < count]
            generator(self.seed, self.epoch, BLOCKS, group).shuffle(blocks)
            counts = self.choice.of_blocks(blocks)
            blocks, counts = blocks[counts > 0], counts[counts > 0]  # others are not read
            position = int(ends[group] - sizes[group])
            starts = np.arange(0, len(blocks), self.pool_blocks)
            pool_sizes = np.add.reduceat(counts, starts)
            pool_ends = position + np.cumsum(pool_sizes)
            for pool in range(int(np.searchsorted(pool_ends, start, side="right")), len(starts)):
                first = int(pool_ends[pool] - pool_sizes[pool])
                if first >= stop:
                    break
                chosen = blocks[starts[pool] : starts[pool] + self.pool_blocks]
                yield Stage(
                    loads=tuple(self._whole(int(block)) for block in chosen),
                    first=first,
                    start=max(start, first),
                    stop=min(stop, int(pool_ends[pool])),
                    shuffle=(self.seed, self.epoch, group * pools_in_group + pool),
                    choice=self.choice,
                )
            group += 1

    def _whole(self, block: int) -> Load:
        box = self.grid.box(block)
        region = self.grid.region(box)
        return Load(block, region, (Piece(box, region),))

    # In order: blocks one after the other, steps shared by neighbors handed on.

    def _blocks_in_order(self, start: int, stop: int, independent: bool) -> Iterator[Stage]:
        # The axis that is cut is the last with several intervals or, if none is, the first.
        axis = max((place for place, count in enumerate(self.grid.shape) if count > 1), default=0)
        below = math.prod(self.grid.windows.shape[axis + 1 :])
        before: Load | None = None  # the load before, if the next block adjoins it
        # From here on, numbers of samples instead of positions on the line.
        upto = self.choice.sample(stop - 1) + 1
        following = self.choice.sample(start)  # the next sample that is on the line
        while start < stop:
            block, box, first, last = self._block_at(following, axis, below)
            begin = following if before is None else first
            end = min(last, upto)
            position = self.choice.position(end)
            following = self.choice.sample(position) if end < upto else upto
            if independent or not box:
                yield Stage(
                    (self._whole(block),),
                    self.choice.position(first),
                    start,
                    position,
                    None,
                    self.choice,
                )
            else:
                adjoins = last < upto and box[axis][1] < len(self.grid.windows.axes[axis])
                # The next block, if anything of it is on the line.
                goes_on = adjoins and following < self._block_at(last, axis, below)[3]
                load = self._consecutive(
                    block, box, axis, (first, begin, end, last), below, before, goes_on
                )
                piece_begin = self.choice.position(begin - (begin - first) % below)
                yield Stage((load,), piece_begin, start, position, None, self.choice)
                before = load if goes_on else None
            start = position

    def _block_at(self, sample: int, axis: int, below: int) -> tuple[int, Box, int, int]:
        """Block number and box around a sample, and the samples ``[first, last)`` in it."""
        shape = self.grid.windows.shape
        if not shape:
            return 0, (), 0, 1
        numbers = np.unravel_index(sample, shape)
        places = [
            interval_of(cuts, int(number))
            for cuts, number in zip(self.grid.cuts, numbers, strict=True)
        ]
        block = int(np.ravel_multi_index(places, self.grid.shape))
        box = self.grid.box(block)
        row = sample // (shape[axis] * below) * shape[axis] * below
        return block, box, row + box[axis][0] * below, row + box[axis][1] * below

    def _consecutive(
        self,
        block: int,
        box: Box,
        axis: int,
        positions: tuple[int, int, int, int],
        below: int,
        before: Load | None,
        goes_on: bool,
    ) -> Load:
        """The load for samples of one block, which reads what the load before has not read."""
        along = self.grid.windows.axes[axis]
        first, start, end, last = positions
        low, high = box[axis]
        if end < last:  # the walk ends inside this block
            high = low + -(-(end - first) // below)
        low += (start - first) // below
        begin, finish = along.span(low, high)
        stops = self.grid.stops[axis]
        if end == last and stops is not None:
            finish = max(finish, int(stops[interval_of(self.grid.cuts[axis], high - 1)]))
        upto = begin if before is None else before.region[axis][1]
        carried = begin if begin < upto else None
        read_from = max(begin, upto)
        # Windows that begin in what was handed on, then windows that lie in what is read.
        middle = min(max(int(along.first_from(read_from)), low), high)

        def piece(lower: int, upper: int) -> Piece:
            cut_box = (*box[:axis], (lower, upper), *box[axis + 1 :])
            return Piece(cut_box, self.grid.region(cut_box))

        pieces = tuple(
            piece(lower, upper) for lower, upper in ((low, middle), (middle, high)) if lower < upper
        )
        region = list(self.grid.region(box))
        region[axis] = (read_from, max(finish, read_from))
        keep = int(along.starts[high]) if goes_on else finish
        whole_chunks = {}
        for name, grid in self.grid.whole_chunks.items():
            done = before.whole_chunks[name][1] if before is not None else read_from
            needed = min(grid.end_of(finish - 1), along.span(0, len(along))[1])
            whole_chunks[name] = max(done, read_from), max(done, needed if goes_on else finish)
        return Load(
            block,
            tuple(region),
            pieces,
            axis,
            carried,
            keep if keep < finish else None,
            whole_chunks,
        )


def run_length(grid: BlockGrid) -> int:
    """Blocks that follow each other and are shuffled as one, where there are very many."""
    return -(-len(grid) // MAX_RUNS)


def as_indices(order: IntArray | range) -> IntArray:
    """An order, or a slice of one, as an array."""
    return np.arange(order.start, order.stop) if isinstance(order, range) else order


def shared_box(dims: Iterable[Hashable], region: Mapping[Hashable, slice]) -> tuple[Interval, ...]:
    """The part of a region that matters to a variable; neighbors with the same one share a read."""
    return tuple((region[dim].start, region[dim].stop) for dim in dims if dim in region)


def reads(
    stages: Iterable[Stage], windows: Windows, layouts: Sequence[Layout]
) -> tuple[list[int], list[int]]:
    """Chunks, and bytes of them, that are decoded to walk over some stages, for each variable.

    A variable that lacks a dim of the sample space is not read again while blocks that follow each
    other want the same of it.
    """
    counts, nbytes = [0] * len(layouts), [0] * len(layouts)
    last: dict[Hashable, tuple[Interval, ...]] = {}
    for stage in stages:
        for load in stage.loads:
            region = load.slices(windows)
            for place, layout in enumerate(layouts):
                box = shared_box(layout.chunks, region)
                found = dict(region)
                if layout.name in load.whole_chunks:
                    start, stop = load.whole_chunks[layout.name]
                    if start == stop:
                        continue
                    found[windows.axes[load.axis].dim] = slice(start, stop)
                elif len(layout.chunks) < len(windows.axes):
                    if last.get(layout.name) == box:
                        continue
                    last[layout.name] = box
                wanted = [
                    (chunks, found[dim].start, found[dim].stop)
                    for dim, chunks in layout.chunks.items()
                ]
                counts[place] += math.prod(int(c.touched(*steps)) for c, *steps in wanted)
                steps_of = math.prod(int(c.decoded(*steps)) for c, *steps in wanted)
                nbytes[place] += layout.itemsize * steps_of
    return counts, nbytes
