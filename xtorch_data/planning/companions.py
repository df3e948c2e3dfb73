"""Costs of other sources: what they decode and hold beside blocks of the first one.

Along a sample axis, windows of several dims of a source may begin together, as those of an init and
its leads do; so costs are worked out for all dims of an axis at once. Pure arithmetic, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .chunks import Layout
from .cuts import SAMPLED_INTERVALS, Cut, EachWindow
from .frames import Frame, SampleSpace
from .index_maps import IndexMap, IntArray
from .intervals import Box, Interval

__all__ = [
    "Beside",
    "along_dim",
    "blocks_cost",
    "costs_of",
    "frames_of",
    "kept_beside",
    "nbytes_once",
    "nbytes_used",
    "order_of_cells",
    "region_nbytes",
]

FloatArray = npt.NDArray[np.float64]

# A source that is decoded more often than this is worth keeping.
OFTEN = 1.02


@dataclass(frozen=True)
class Beside:
    """The memory of other sources.

    Attributes
    ----------
    resident : tuple of int
        Places of the sources that are kept whole.
    nbytes : int
        Bytes that these take, and cells of the others.
    passing : tuple of int
        By source, bytes for cells that blocks share; 0 for those that are kept whole.
    """

    resident: tuple[int, ...] = ()
    nbytes: int = 0
    passing: tuple[int, ...] = ()


def frames_of(space: SampleSpace, layouts: Sequence[Sequence[Layout]]) -> tuple[Frame, ...]:
    """The frames of the other sources, with how these are stored; none if that is not given."""
    if not layouts:
        return ()
    scattered = bool(space.axes) and space.axes[0].scattered
    return tuple(
        replace(
            frame,
            layouts=tuple(each),
            along_scattered=scattered and any(0 in along.terms for along in frame.maps),
        )
        for frame, each in zip(space.frames[1:], layouts, strict=True)
    )


def order_of_cells(frames: Sequence[Frame], space: SampleSpace) -> IntArray | None:
    """Windows of a scattered axis cell by cell, of the source that is largest; else None."""
    cells = [frame for frame in frames if frame.along_scattered and frame.layouts]
    if not cells:
        return None
    return max(cells, key=lambda frame: nbytes_once(frame, space)).scattered.order()


def everything(space: SampleSpace) -> Box:
    """The box of all windows."""
    return tuple((0, count) for count in space.shape)


def nbytes_used(frame: Frame, space: SampleSpace) -> int:
    """Bytes that are decoded if every chunk that windows touch is, once."""
    if not frame.along_scattered:
        return nbytes_once(frame, space)
    found = 0.0
    region = frame.named(frame.region(everything(space)))
    for each in frame.layouts:
        dims = [dim for dim in each.chunks if dim not in frame.scattered.maps]
        places = (int(each.chunks[dim].decoded(*region[dim])) for dim in dims)
        found += each.itemsize * math.prod(places) * frame.scattered.used(each)
    return int(found)


def nbytes_once(frame: Frame, space: SampleSpace) -> int:
    """Bytes that are decoded if every chunk from the first to the last window is, once."""
    region = frame.named(frame.region(everything(space)))
    return sum(each.itemsize * frame.decoded(each, region)[1] for each in frame.layouts)


def along_dim(dims: int, place: int, values: Sequence[float]) -> FloatArray:
    """Values along one of so many dims."""
    shape = [-1 if at == place else 1 for at in range(dims)]
    return np.array(values, dtype=np.float64).reshape(shape)


def costs_of(
    frame: Frame, counts: Sequence[int], options: Sequence[Sequence[Cut]], budget: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Bytes decoded in an epoch and bytes of a region, for every combination of cuts.

    Of scattered windows the chunks that they are cut from have to fit, too: where these take more
    than `budget`, they count.
    """
    shape = tuple(len(cuts) for cuts in options)
    groups: dict[int, list[IndexMap]] = {}
    whole: list[IndexMap] = []
    for each in frame.maps:
        # Dims that follow two axes are counted along the first, over all windows of the other.
        axis = min(each.terms, default=None)
        (whole if axis is None else groups.setdefault(axis, [])).append(each)
    decoded, held, in_chunks = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for layout in frame.layouts:
        along = [each for each in whole if each.dim in layout.chunks]
        grids = (layout.chunks[each.dim].decoded(0, each.length) for each in along)
        read = np.full(shape, float(layout.itemsize * math.prod(map(int, grids))))
        size = np.full(shape, float(layout.itemsize * math.prod(each.length for each in along)))
        chunks = size
        uncut = np.ones(shape, dtype=bool)
        repeats = np.ones(shape)
        for place, cuts in enumerate(options):
            intervals = along_dim(len(shape), place, [cut.intervals for cut in cuts])
            dims = [each for each in groups.get(place, []) if each.dim in layout.chunks]
            if not dims:
                repeats = repeats * intervals
                continue
            apart = frame.along_scattered and place == 0
            found: list[tuple[float, ...]] = [
                frame.scattered.costs(layout, cut.numbers)
                if apart and not isinstance(cut.numbers, EachWindow)
                else _of_cut(layout, dims, place, counts, cut.numbers)
                for cut in cuts
            ]
            factors = [
                along_dim(len(shape), place, [each[at] for each in found]) for at in (0, 1, -1)
            ]
            read, size, chunks = read * factors[0], size * factors[1], chunks * factors[2]
            uncut = uncut & (intervals == 1)
        decoded += read * np.where(uncut, 1, repeats)
        held += size
        in_chunks += chunks
    if frame.along_scattered:
        held = np.where(in_chunks > budget, np.maximum(held, in_chunks), held)
    return decoded, held


def _of_cut(
    layout: Layout,
    dims: Sequence[IndexMap],
    place: int,
    counts: Sequence[int],
    numbers: IntArray | EachWindow,
) -> tuple[float, float]:
    """Places decoded along the dims of an axis over all of its intervals, and the most held."""
    count = len(numbers) - 1
    some = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_INTERVALS)).astype(np.int64))
    decoded: Any = 1.0
    held: Any = 1.0
    for each in dims:
        boxes: dict[int, tuple[Any, Any]] = {axis: (0, counts[axis]) for axis in each.terms}
        boxes[place] = numbers[some], numbers[some + 1]
        start, stop = each.spans(boxes)
        decoded = decoded * layout.chunks[each.dim].decoded(start, stop)
        held = held * (stop - start)
    return float(np.sum(decoded)) * count / len(some), float(np.max(held))


def kept_beside(
    frames: Sequence[Frame],
    space: SampleSpace,
    cuts: Sequence[IntArray | EachWindow],
    memory: int,
    shuffle: bool,
) -> Beside:
    """The sources that are kept whole in so much memory: those decoded most often first.

    Of the others, cells that neighboring blocks share are kept.
    """
    once = [nbytes_once(frame, space) for frame in frames]
    costs = [blocks_cost(frame, space, cuts) for frame in frames]
    often = [
        read / max(1, nbytes) if shuffle or frame.along_scattered else _laps(frame, space)
        for frame, (read, _), nbytes in zip(frames, costs, once, strict=True)
    ]
    left, kept = memory, []
    for place in sorted(range(len(frames)), key=lambda place: -often[place]):
        if often[place] > OFTEN and once[place] <= left:
            kept.append(place)
            left -= once[place]
    # Chunks that are wanted again are anywhere, where windows are scattered.
    wanted = [
        0
        if place in kept
        else nbytes
        if frames[place].along_scattered
        else min(nbytes, int(2 * held))
        for place, ((_, held), nbytes) in enumerate(zip(costs, once, strict=True))
    ]
    share = min(1.0, left / max(1, sum(wanted)))
    passing = tuple(int(share * nbytes) for nbytes in wanted)
    return Beside(tuple(sorted(kept)), memory - left + sum(passing), passing)


def blocks_cost(
    frame: Frame, space: SampleSpace, cuts: Sequence[IntArray | EachWindow]
) -> tuple[float, float]:
    """Bytes decoded and held of a source beside blocks that are cut so."""
    options = [[Cut(numbers, len(numbers) - 1, {}, 0, {})] for numbers in cuts]
    decoded, held = costs_of(frame, space.shape, options)
    return float(decoded.sum()), float(held.sum())


def _laps(frame: Frame, space: SampleSpace) -> float:
    """How often a walk in C order comes back to the first step of a source."""
    axes = {axis for each in frame.maps for axis in each.terms}
    if not axes:  # it is the same for every sample
        return math.inf
    return float(math.prod(count for axis, count in enumerate(space.shape) if axis < min(axes)))


def region_nbytes(frames: Sequence[Frame], box: Sequence[Interval]) -> int:
    """Bytes of the regions of some sources beside a box of windows."""
    return sum(frame.nbytes_beside(box) for frame in frames)
