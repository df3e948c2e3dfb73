"""An epoch is one line: its samples in an order that (seed, epoch) alone decides.

Walking along the line means loading one region after the other. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..common.random import BLOCKS, RUNS, SAMPLES, generator
from .blocks import BlockGrid
from .cuts import interval_of
from .frames import Frame
from .index_maps import IntArray
from .intervals import Box, Interval
from .selection import Choice, Everything
from .windows import Windows

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

# A full permutation of this many blocks is cheap; beyond it, runs of blocks are shuffled first.
GROUP_BLOCKS = 2**18
MAX_RUNS = 2**20


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples that lie in one array in memory: a box of window numbers in a frame."""

    box: Box
    frame: Frame
    samples: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", math.prod(last - first for first, last in self.box))

    @cached_property
    def region(self) -> Box:
        """Data positions ``[start, stop)`` along every dim, from first begin to last end."""
        return self.frame.region(self.box)

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


@dataclass(frozen=True)
class StepsRead:
    """Positions along the dim of the axis that is cut, where blocks hand on steps in order.

    Attributes
    ----------
    start, stop : int
        What is read.
    carried : int, optional
        Where steps begin that the load before hands on, up to `start`; None if none are needed.
    keep : int, optional
        Where steps begin that the next load needs; None if it needs none.
    whole_chunks : mapping of Hashable to (int, int)
        Variables of which other positions are read: from where the load before has ended, perhaps
        beyond `stop`, to the end of a chunk, perhaps beyond it, too. What lies before or behind
        comes from the load before or is kept for the next one.
    """

    start: int
    stop: int
    carried: int | None = None
    keep: int | None = None
    whole_chunks: Mapping[Hashable, Interval] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Load:
    """A box of windows that is read from the store, and the pieces it gives.

    Made as a line is walked, and dropped with its stage. `axis` is that along which blocks follow
    each other, `steps` what is read along it where steps are handed on.
    """

    block: int
    box: Box
    frame: Frame
    pieces: tuple[Piece, ...]
    axis: int = 0
    steps: StepsRead | None = None

    @classmethod
    def whole(cls, block: int, box: Box, frame: Frame) -> Load:
        """A box that is read on its own, as one piece."""
        return cls(block, box, frame, (Piece(box, frame),))

    @cached_property
    def region(self) -> Box:
        """Data positions to read along every dim."""
        region = self.frame.region(self.box)
        if self.steps is None:
            return region
        along = (self.steps.start, self.steps.stop)
        return (*region[: self.axis], along, *region[self.axis + 1 :])

    @property
    def carried(self) -> int | None:
        """Where steps begin that the load before hands on; see `StepsRead`."""
        return None if self.steps is None else self.steps.carried

    @property
    def keep(self) -> int | None:
        """Where steps begin that the next load needs; see `StepsRead`."""
        return None if self.steps is None else self.steps.keep

    @property
    def whole_chunks(self) -> Mapping[Hashable, Interval]:
        """Variables of which other positions are read; see `StepsRead`."""
        return self.steps.whole_chunks if self.steps else {}

    @property
    def key(self) -> Hashable:
        """The same for loads of which the same is made."""
        whole = tuple(self.whole_chunks.values())
        return self.block, self.region, self.carried, self.keep, whole, len(self.pieces)

    def slices(self) -> dict[Hashable, slice]:
        """The region as ``isel`` takes it."""
        return {dim: slice(*along) for dim, along in self.frame.named(self.region).items()}


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
    """The order of one epoch, which depends on seed and epoch alone.

    With `shuffle`, blocks are shuffled, taken in pools of `pool_blocks`, and the samples of each
    pool are shuffled; the pools lie end to end. Without, the line is the samples in C order. Every
    sample is on it once, unless `chosen` says otherwise.
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
        """What to load, in order, to walk over intervals ``[start, stop)`` of the line.

        With `independent`, blocks in order are read whole and each on its own, handing nothing on:
        for a ``preprocess`` whose result depends on the block it gets.
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
        return Load.whole(block, self.grid.box(block), self.grid.windows.frame)

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
        first, start, end, last = positions
        low, high = box[axis]
        if end < last:  # the walk ends inside this block
            high = low + -(-(end - first) // below)
        low += (start - first) // below
        taken_over = None if before is None else before.steps
        steps = self._steps(axis, low, high, end == last, goes_on, taken_over)
        # Windows that begin in what was handed on, then windows that lie in what is read.
        begins_in = int(self.grid.windows.axes[axis].first_from(steps.start))
        middle = min(max(begins_in, low), high)
        frame = self.grid.windows.frame
        pieces = tuple(
            Piece((*box[:axis], cut, *box[axis + 1 :]), frame)
            for cut in ((low, middle), (middle, high))
            if cut[0] < cut[1]
        )
        read = (*box[:axis], (low, high), *box[axis + 1 :])
        return Load(block, read, frame, pieces, axis, steps)

    def _steps(
        self,
        axis: int,
        low: int,
        high: int,
        to_end: bool,
        goes_on: bool,
        before: StepsRead | None,
    ) -> StepsRead:
        """Positions that are read and handed on for windows of a block, perhaps to its end."""
        along = self.grid.windows.axes[axis]
        begin, finish = along.span(low, high)
        stops = self.grid.stops[axis]
        if to_end and stops is not None:
            finish = max(finish, int(stops[interval_of(self.grid.cuts[axis], high - 1)]))
        upto = begin if before is None else before.stop
        start = max(begin, upto)
        keep = int(along.starts.at(high)) if goes_on else finish
        whole_chunks = {}
        for name, grid in self.grid.whole_chunks.items():
            done = start if before is None else before.whole_chunks[name][1]
            needed = min(grid.end_of(finish - 1), along.span(0, len(along))[1])
            whole_chunks[name] = max(done, start), max(done, needed if goes_on else finish)
        return StepsRead(
            start=start,
            stop=max(finish, start),
            carried=begin if begin < upto else None,
            keep=keep if keep < finish else None,
            whole_chunks=whole_chunks,
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


def reads(stages: Iterable[Stage], frame: Frame) -> tuple[list[int], list[int]]:
    """Chunks, and bytes of them, that are decoded to walk over some stages, for each variable.

    A variable that lacks a dim of the sample space is not read again while blocks that follow each
    other want the same of it.
    """
    counts, nbytes = [0] * len(frame.layouts), [0] * len(frame.layouts)
    last: dict[Hashable, list[Interval]] = {}
    for load in (load for stage in stages for load in stage.loads):
        region = frame.named(load.region)
        for place, layout in enumerate(frame.layouts):
            found = region
            if layout.name in load.whole_chunks:
                start, stop = load.whole_chunks[layout.name]
                if start == stop:
                    continue
                found = {**region, frame.maps[load.axis].dim: (start, stop)}
            elif len(layout.chunks) < len(frame.maps):
                wanted = [region[dim] for dim in layout.chunks]
                if last.get(layout.name) == wanted:
                    continue
                last[layout.name] = wanted
            chunks, steps = frame.decoded(layout, found)
            counts[place] += chunks
            nbytes[place] += layout.itemsize * steps
    return counts, nbytes
