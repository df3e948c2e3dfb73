"""Blocks: the sample space, cut along the chunk grid.

A block is read once and decoded once; every sample in it is then a slice of memory. Pure integer
planning, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .chunks import Chunks, Layout, merged
from .companions import along_dim, costs_of, nbytes_once, nbytes_used
from .cuts import (
    Cut,
    EachWindow,
    candidates,
    consecutive,
    independent,
    thin,
    with_whole_chunks,
)
from .frames import Frame, SampleSpace
from .index_maps import IntArray
from .windows import Windows

__all__ = [
    "BLOCKS_PER_POOL",
    "ENOUGH_AMPLIFICATION",
    "INDEX_BYTES",
    "BlockGrid",
    "plan_blocks",
    "plan_in_order",
    "plan_shuffled",
]

# Blocks whose halo costs no more than this are not made larger: more, smaller blocks mix better.
TOLERATED_AMPLIFICATION = 1.1
# Shuffled, a pool that decodes a chunk no more often than this need not be larger.
ENOUGH_AMPLIFICATION = 1.25
# Blocks in one pool, where the memory and the amplification allow it.
BLOCKS_PER_POOL = 8
# In order there is nothing to mix: a block reads enough, at once and of each variable, to hide what
# a read costs beside its bytes. Of more than is read at once in any case there are several blocks,
# so that one is read while another is in use.
IN_ORDER_READ_BYTES, IN_ORDER_VARIABLE_BYTES = 32 * 2**20, 4 * 2**20
IN_ORDER_BLOCKS = 4
# Bytes that the shuffled order takes for each sample.
INDEX_BYTES = 8


@dataclass(frozen=True, eq=False)
class BlockGrid:
    """The sample space cut into blocks: the product of intervals along every axis.

    Made with a plan, and lives as long.

    Attributes
    ----------
    windows : Windows
        The sample space.
    cuts : tuple of (ndarray of int64 or EachWindow)
        Per axis, the window numbers at which intervals begin, and the number of windows.
    stops : tuple of (ndarray of int64 or None)
        In order, per axis: the data position up to which an interval is read, which may lie beyond
        its last window, for chunks are read to their end.
    nbytes : int
        Bytes of the largest block in memory.
    amplification : float
        Bytes decoded in an epoch over those decoded if each chunk is decoded once, about.
    whole_chunks : mapping of Hashable to Chunks
        In order, where blocks end inside chunks: by variable, the grid along the axis that is cut.
    """

    windows: Windows
    cuts: tuple[IntArray | EachWindow, ...]
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
        """Number of samples in all blocks before each of some, or before the end, in C order."""
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


def plan_blocks(
    windows: Windows,
    layouts: Sequence[Layout],
    memory: int,
    shuffle: bool,
    beside: Sequence[Frame] = (),
) -> tuple[BlockGrid, int]:
    """The blocks, and the part of the memory, one in so many, that a pool or block may take.

    A third: one is in use while the next is read, and a third is for memory that is used again.
    Where chunks are so large that this decodes them often, reading less comes first: a half leaves
    no spare memory, the whole no room to read ahead. What is read of other sources, `beside` a
    block, is held with it.
    """
    planner = plan_shuffled if shuffle else plan_in_order
    enough = ENOUGH_AMPLIFICATION if shuffle else 1.0
    found: list[tuple[BlockGrid, int]] = []
    for share in (3, 2, 1):
        grid = planner(windows, layouts, memory // share, beside)
        if share == 1 and not shuffle and any(other.nbytes <= memory // 2 for other, _ in found):
            break  # in order, the block before is held, too, for the steps that it hands on
        found.append((grid, share))
        if grid.nbytes <= memory // share and grid.amplification <= enough:
            return grid, share
    return min(found, key=lambda each: round(each[0].amplification, 2))


def plan_shuffled(
    windows: Windows, layouts: Sequence[Layout], budget: int, beside: Sequence[Frame] = ()
) -> BlockGrid:
    """Cut the sample space into blocks that are read each on its own, in any order.

    Of blocks that fit `budget`, the bytes that one pool may hold, those of the least read
    amplification, or of a tolerable one if that leaves room for several in a pool.
    """
    frame = replace(windows.frame, layouts=tuple(merged(layouts)))
    options = [
        [
            independent(frame, place, numbers)
            for numbers in _ways_to_cut(windows, place, frame.layouts, beside)
        ]
        for place in range(len(windows.axes))
    ]
    decoded, held = _costs(frame, options, INDEX_BYTES)
    once = sum(map(frame.nbytes_once, frame.layouts))
    for other in beside:
        more, region = costs_of(other, windows.shape, options, budget)
        decoded, held = decoded + more, held + region
        once += nbytes_used(other, windows.space)
    amplification = decoded / max(1, once)
    choice = _choose(amplification, held, budget, held <= budget // BLOCKS_PER_POOL)
    return _grid(windows, options, choice, held, amplification)


def _ways_to_cut(
    windows: Windows, place: int, layouts: Sequence[Layout], beside: Sequence[Frame]
) -> list[IntArray]:
    """Ways to cut an axis: along a scattered one between cells of the source that is largest.

    Other axes of a space that has such an axis are cut between chunks of all sources.
    """
    scattered = windows.space.axes[0].scattered
    cells = [frame for frame in beside if frame.along_scattered and frame.layouts]
    if scattered and place == 0 and cells:
        largest = max(cells, key=lambda frame: nbytes_once(frame, windows.space))
        return largest.scattered.cuts
    if scattered:
        layouts = [each for frame in beside for each in frame.layouts]
    axis = windows.axes[place]
    return [numbers for numbers, _ in thin(candidates(axis, layouts), len(windows.axes))]


def plan_in_order(
    windows: Windows, layouts: Sequence[Layout], budget: int, beside: Sequence[Frame] = ()
) -> BlockGrid:
    """Cut the sample space into blocks whose samples follow each other in C order.

    One axis is cut, axes before it are taken window by window, those after it whole. Along the
    axis that is cut, a block is read up to a chunk boundary and the steps which the next block
    shares with it are handed on, so that no chunk on that axis is decoded twice. `budget` is the
    bytes that one block may hold.
    """
    grids, once = [], _once(windows.frame, layouts, beside, windows.space)
    for place in range(len(windows.axes)):
        grid = _cut_along(windows, layouts, budget, place, beside, once)
        if grid.nbytes <= budget:  # the fewer axes are taken window by window, the fewer reads
            return grid
        grids.append(grid)
    everything = BlockGrid(windows, (), (), sum(layout.itemsize for layout in layouts), 1.0)
    return min(grids, key=lambda grid: grid.nbytes, default=everything)


class _Once(NamedTuple):
    """Bytes that are decoded in an epoch in order, if every chunk is decoded once."""

    own: int
    others: int  # of other sources
    block: float  # that a block reads at most


def _once(
    frame: Frame, layouts: Sequence[Layout], beside: Sequence[Frame], space: SampleSpace
) -> _Once:
    sizes = _sizes_once(frame, layouts)
    others = [nbytes_once(other, space) for other in beside]
    own, every = sum(sizes), max(1, sum(sizes)) + sum(others)
    many = every / max([1, *sizes, *map(_size_of_one, others, beside)])
    most = min(IN_ORDER_VARIABLE_BYTES * many, every / IN_ORDER_BLOCKS)
    return _Once(own, sum(others), max(IN_ORDER_READ_BYTES, most))


def _cut_along(
    windows: Windows,
    layouts: Sequence[Layout],
    budget: int,
    place: int,
    beside: Sequence[Frame],
    once: _Once,
) -> BlockGrid:
    """Blocks in C order that are cut along one axis."""
    axis, counts = windows.axes[place], windows.shape
    frame = replace(windows.frame, layouts=tuple(merged(layouts)))
    before = [[independent(frame, at, EachWindow(counts[at]))] for at in range(place)]
    after = [
        [independent(frame, at, np.array([0, counts[at]]))] for at in range(place + 1, len(counts))
    ]
    ways = thin(candidates(axis, frame.layouts, by_end=True), 1)
    plain = [consecutive(frame, place, cut) for cut in ways]
    # Ends of blocks at ends of chunks, or else what is left of a chunk is kept.
    for whole in (False, True):
        cuts = plain + with_whole_chunks(frame, place, plain) if whole else plain
        options = [*before, cuts, *after]
        # Where nothing is read, samples alone have a size.
        decoded, held = _costs(frame, options, index_bytes=0 if frame.layouts else INDEX_BYTES)
        samples = along_dim(len(counts), place, [cut.samples for cut in cuts])
        blocks = math.prod(counts[: place + 1]) / samples  # as many, were all like the largest
        # A block is given by the one before what both need, and cells of other sources are kept.
        read = (decoded + once.others) / blocks if frame.layouts or beside else held
        for other in beside:
            held = held + costs_of(other, windows.shape, options, budget)[1]
        amplification = decoded / max(1, once.own)  # others alone may be read
        choice = _choose(amplification, held, budget, read <= once.block, tolerated=1.0)
        grid = _grid(windows, options, choice, held, amplification)
        if grid.nbytes <= budget and grid.amplification <= 1.0:
            break
    if not cuts[choice[place]].whole_chunks:
        return grid
    grids = replace(frame, layouts=tuple(layouts)).grids(place)
    return replace(grid, whole_chunks={name: each for name, each in grids.items() if each.chunked})


def _costs(
    frame: Frame, options: Sequence[Sequence[Cut]], index_bytes: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bytes decoded in an epoch and bytes of a block, for every combination of cuts."""
    shape = tuple(len(cuts) for cuts in options)
    decoded, held = np.zeros(shape), np.zeros(shape)
    along = partial(along_dim, len(shape))
    for layout in frame.layouts:
        read = np.full(shape, float(layout.itemsize))
        size = np.full(shape, float(layout.itemsize))
        repeats = np.ones(shape)
        uncut = np.ones(shape, dtype=bool)
        for place, cuts in enumerate(options):
            intervals = along(place, [cut.intervals for cut in cuts])
            if frame.maps[place].dim in layout.chunks:
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


def _sizes_once(frame: Frame, layouts: Sequence[Layout]) -> list[int]:
    """Bytes of each variable, each chunk decoded once; worked out once for those stored alike."""
    of_one: dict[Hashable, int] = {}
    for layout in layouts:
        if layout.key not in of_one:
            of_one[layout.key] = frame.nbytes_once(replace(layout, itemsize=1))
    return [layout.itemsize * of_one[layout.key] for layout in layouts]


def _size_of_one(nbytes: int, frame: Frame) -> float:
    """Bytes of a variable of another source, were all as large."""
    return nbytes / max(1, len(frame.layouts))


def _choose(
    amplification: npt.NDArray[np.float64],
    held: npt.NDArray[np.float64],
    budget: float,
    allowed: npt.NDArray[np.bool_],
    tolerated: float = TOLERATED_AMPLIFICATION,
) -> tuple[int, ...]:
    """The cut with the least amplification that fits; among tolerable ones the block size.

    The largest of those allowed, else the smallest there is.
    """
    fits = held <= budget
    if not fits.any():
        return tuple(int(place) for place in np.unravel_index(np.argmin(held), held.shape))
    limit = max(tolerated, float(amplification[fits].min()) * (1 + 1e-9))
    good = fits & (amplification <= limit)
    if (good & allowed).any():
        score = np.where(good & allowed, -held + amplification, np.inf)
    else:
        score = np.where(good, held + amplification, np.inf)
    return tuple(int(place) for place in np.unravel_index(np.argmin(score), held.shape))


def _grid(
    windows: Windows,
    options: Sequence[Sequence[Cut]],
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
