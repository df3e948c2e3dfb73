"""Stages of the line: which boxes of windows are read, and which samples are cut from them.

Made as a line is walked, and dropped when a stage has been handed out. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..common.cached import cached_property
from ..common.random import SAMPLES, generator
from .frames import Frame
from .index_maps import IntArray
from .intervals import Box, Interval
from .selection import Selection
from .windows import Windows

__all__ = ["BlockRead", "Stage", "StepsRead", "WindowBox", "as_indices", "reads", "shared_box"]


@dataclass(frozen=True, eq=False)
class WindowBox:
    """Samples that lie in one array in memory: a box of window numbers in a frame.

    The region is from the first begin of a window in the box to the last end or, where `of_some`
    has it, of some of them alone.
    """

    box: Box
    frame: Frame
    of_some: Box | None = None
    samples: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", math.prod(last - first for first, last in self.box))

    @cached_property
    def region(self) -> Box:
        """Data positions ``[start, stop)`` along every dim."""
        return self.frame.region(self.box) if self.of_some is None else self.of_some

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
class BlockRead:
    """A box of windows that is read from the store, and the pieces it gives.

    Made as a line is walked, and dropped with its stage. `axis` is that along which blocks follow
    each other, `steps` what is read along it where steps are handed on.
    """

    block: int
    box: Box
    frame: Frame
    pieces: tuple[WindowBox, ...]
    axis: int = 0
    steps: StepsRead | None = None

    @classmethod
    def whole(cls, block: int, box: Box, frame: Frame) -> BlockRead:
        """A box that is read on its own, as one piece."""
        return cls(block, box, frame, (WindowBox(box, frame),))

    @cached_property
    def region(self) -> Box:
        """Data positions to read along every dim."""
        if self.steps is None and self.pieces:  # one piece, the same box
            return self.pieces[0].region
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
    loads : tuple of BlockRead
        What is read for it.
    first : int
        Position on the line of its first sample.
    start, stop : int
        The positions of the line that are wanted, ``first <= start < stop``.
    shuffle : tuple of int, optional
        Seed, epoch and number of the pool whose samples are shuffled; None for C order.
    choice : Selection
        Which of the samples that lie in the blocks are on the line, and how often.
    repeated : bool
        Whether the wanted positions are walked for the sake of equal shares, on another rank, too.
    """

    loads: tuple[BlockRead, ...]
    first: int
    start: int
    stop: int
    shuffle: tuple[int, int, int] | None
    choice: Selection
    repeated: bool = False

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
