"""What the memory of a plan is used for: blocks, other sources, and what is read ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..common.text import format_bytes
from ..common.user_warnings import warn_user
from .blocks import BlockGrid, plan_blocks
from .chunks import Layout
from .companions import Beside, frames_of, kept_beside
from .frames import Frame
from .windows import Windows

__all__ = ["MemoryUse", "held_as", "memory_use"]

# In order, blocks held and read ahead at most, if the memory allows more.
BLOCKS_AHEAD = 8
# Of the memory, one in so many parts may be taken by other sources.
SHARE_BESIDE = 4
# The same where these are around events, and are kept for later epochs.
SHARE_AROUND = 2


@dataclass(frozen=True, eq=False)
class MemoryUse:
    """The blocks of a plan, and what they and other sources take.

    Attributes
    ----------
    grid : BlockGrid
        The blocks.
    beside : Beside
        What is kept of other sources.
    pool_blocks : int
        Blocks whose samples are shuffled together.
    budget : int
        Bytes of blocks that are held or read ahead.
    """

    grid: BlockGrid
    beside: Beside
    pool_blocks: int
    budget: int


def memory_use(
    windows: Windows,
    layouts: Sequence[Layout],
    others: Sequence[Sequence[Layout]],
    memory: int,
    *,
    shuffle: bool,
    cached: bool,
    warn: bool,
) -> MemoryUse:
    """Divide so many bytes between blocks and other sources; warn if one sample takes more.

    Other sources come first, as the blocks are cut in what they leave.
    """
    frames, total = frames_of(windows.space, others), memory
    grid, share = plan_blocks(windows, layouts, memory, shuffle, frames)
    beside = Beside()
    if frames and len(windows):
        # What is kept for later epochs, around events, is none of the blocks.
        around = cached and any(axis.scattered for axis in windows.space.axes)
        room = memory // (SHARE_AROUND if around else SHARE_BESIDE)
        beside = kept_beside(frames, windows.space, grid.cuts, room, shuffle)
        memory -= beside.nbytes
        passing = [each for place, each in enumerate(frames) if place not in beside.resident]
        grid, share = plan_blocks(windows, layouts, memory, shuffle, passing)
    if warn and len(windows) and grid.nbytes > memory:
        warn_user(
            f"one sample takes {format_bytes(grid.nbytes)}, more than memory="
            f"{format_bytes(total)}: blocks of one window are read, one at a "
            "time, and the memory is exceeded",
            key=(total, *(axis.size for axis in windows.axes), *(x.name for x in layouts)),
        )
    nbytes = max(1, grid.nbytes)
    # Memory that blocks have left, until the next ones are read; what is kept is not left.
    budget = memory if cached or share < 3 else memory - memory // 3
    if not shuffle:  # a few blocks ahead hide a read; more would only take fresh memory
        budget = min(budget, BLOCKS_AHEAD * nbytes)
    return MemoryUse(grid, beside, max(1, memory // share // nbytes), budget)


def held_as(grid: BlockGrid, frame: Frame, layouts: tuple[Layout, ...]) -> BlockGrid:
    """The same blocks of a frame, whose values take other memory."""
    if not len(grid):
        return grid
    region = frame.region(grid.box(len(grid) // 2))  # all are much the same
    now, then = (replace(frame, layouts=x).nbytes(region) for x in (frame.layouts, layouts))
    return replace(grid, nbytes=math.ceil(grid.nbytes * then / max(1, now)))
