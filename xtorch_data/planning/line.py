"""An epoch is one line: its samples in an order that (seed, epoch) alone decides.

Walking along the line means loading one box of windows after the other. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import InitVar, dataclass, field

import numpy as np

from ..common.random import BLOCKS, RUNS, generator
from .blocks import BlockGrid
from .cuts import interval_of
from .index_maps import IntArray
from .intervals import Box, Interval
from .selection import All, Selection
from .stages import BlockRead, Stage, StepsRead, WindowBox

__all__ = ["Line", "run_length"]

# A full permutation of this many blocks is cheap; beyond it, runs of blocks are shuffled first.
GROUP_BLOCKS = 2**18
MAX_RUNS = 2**20
# Blocks that are looked at to tell how many there are samples of.
LOOKED_AT = 2**16


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
    chosen: InitVar[Selection | None] = None
    choice: Selection = field(init=False)

    def __post_init__(self, chosen: Selection | None) -> None:
        object.__setattr__(self, "choice", chosen or All(self.grid))

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

    def filled_blocks(self) -> tuple[int, IntArray]:
        """How many blocks there are samples of, and how many samples in some of them, or in all.

        Of very many blocks some are looked at, and the number is an estimate.
        """
        count = len(self.grid)
        some = np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(np.int64)
        samples = self.choice.of_blocks(some)
        filled = samples[samples > 0]
        if not len(filled):
            return 1, np.array([max(1, len(self))])
        return max(1, round(count * len(filled) / len(some))), filled

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

    def _whole(self, block: int) -> BlockRead:
        return BlockRead.whole(block, self.grid.box(block), self.grid.windows.frame)

    # In order: blocks one after the other, steps shared by neighbors handed on.

    def _blocks_in_order(self, start: int, stop: int, independent: bool) -> Iterator[Stage]:
        # The axis that is cut is the last with several intervals or, if none is, the first.
        axis = max((place for place, count in enumerate(self.grid.shape) if count > 1), default=0)
        below = math.prod(self.grid.windows.shape[axis + 1 :])
        before: BlockRead | None = None  # the load before, if the next block adjoins it
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
        before: BlockRead | None,
        goes_on: bool,
    ) -> BlockRead:
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
            WindowBox((*box[:axis], cut, *box[axis + 1 :]), frame)
            for cut in ((low, middle), (middle, high))
            if cut[0] < cut[1]
        )
        read = (*box[:axis], (low, high), *box[axis + 1 :])
        return BlockRead(block, read, frame, pieces, axis, steps)

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
