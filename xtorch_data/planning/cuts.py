"""Ways to cut one axis into intervals, and what each costs along it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .chunks import Chunks, Layout
from .frames import Frame
from .index_maps import IntArray
from .windows import Axis

__all__ = [
    "MAX_INTERVALS",
    "Cut",
    "EachWindow",
    "candidates",
    "consecutive",
    "independent",
    "interval_of",
    "thin",
    "with_whole_chunks",
]

# Intervals of an axis looked at to estimate a candidate cut; grids are regular, the rest is alike.
SAMPLED_INTERVALS = 4096
# Intervals along one axis at most; an axis of a billion windows is not cut window by window.
MAX_INTERVALS = 2**20
# Combinations of candidate cuts compared at most.
MAX_COMBINATIONS = 400_000


@dataclass(frozen=True, eq=False)
class Cut:
    """One way to cut an axis, and what it costs along that axis."""

    numbers: IntArray | EachWindow
    intervals: int
    extents: dict[Hashable, int]  # by variable: steps held of the largest interval
    samples: int  # windows of the largest interval
    decoded: dict[Hashable, float]  # by variable: steps decoded over all intervals
    stops: IntArray | None = None
    whole_chunks: bool = False  # whether reads go on to the end of each variable's chunk


def candidates(
    axis: Axis, layouts: Sequence[Layout], by_end: bool = False
) -> list[tuple[IntArray, IntArray | None]]:
    """Ways to cut an axis: from one window an interval to not at all, at chunk boundaries.

    With `by_end` a window belongs to the interval in which it ends, else in which it begins.
    Returns window numbers, and with `by_end` the position to which each interval is read.
    """
    count = len(axis)
    grids = _distinct_grids(axis, layouts)
    chunk = min((grid.size for grid in grids), default=axis.length)
    inner = [
        each
        for each in _steps(count)
        if count // each <= MAX_INTERVALS
        and (each == 1 or not grids or each * axis.stride < 2 * chunk)
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
    if not layouts:  # nothing is read between windows
        return found
    hole = chunk if grids else axis.size
    return [_cut_at_holes(axis, numbers, stops, hole) for numbers, stops in found]


def _cut_at_holes(
    axis: Axis, numbers: IntArray, stops: IntArray | None, hole: int
) -> tuple[IntArray, IntArray | None]:
    """A cut no interval of which goes on beyond a hole of so many steps or more."""
    borders = axis.starts.runs[0][1:]
    borders = borders[axis.start(borders) - axis.start(borders - 1) >= axis.size + hole]
    if not len(borders) or len(borders) > MAX_INTERVALS:
        return numbers, stops
    places = np.searchsorted(numbers, borders)
    new = numbers[places] != borders
    both = np.insert(numbers, places[new], borders[new])
    if stops is None:
        return both, None
    last = axis.start(both[1:] - 1) + axis.size
    known = np.searchsorted(numbers, both[1:])
    kept = (numbers[known] == both[1:]) & ~np.isin(both[1:], borders)
    return both, np.where(kept, stops[known - 1], last)


def _distinct_grids(axis: Axis, layouts: Iterable[Layout]) -> list[Chunks]:
    """The different chunk grids along an axis, and the one at their common boundaries."""
    grids: dict[Hashable, Chunks] = {}
    for layout in layouts:
        chunks = layout.chunks.get(axis.dim)
        if chunks is not None and chunks.chunked:
            grids[chunks.key] = chunks
    regular = [grid for grid in grids.values() if grid.edges is None]
    if len(regular) > 1:
        common = math.lcm(*(grid.size for grid in regular))
        if common < axis.length and len({grid.offset % grid.size for grid in regular}) == 1:
            both = Chunks(axis.length, common, regular[0].offset)
            grids[both.key] = both
    return list(grids.values())


def _steps(count: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 … below `count`."""
    powers = itertools.takewhile(lambda step: step < count, (2**power for power in range(63)))
    return sorted({step for power in powers for step in (power, power * 3 // 2) if step < count})


def thin(
    cuts: list[tuple[IntArray, IntArray | None]], axes: int
) -> list[tuple[IntArray, IntArray | None]]:
    """At most as many candidates as can be compared; the finest and the coarsest stay."""
    most = max(4, int(MAX_COMBINATIONS ** (1 / max(1, axes))))
    if len(cuts) <= most:
        return cuts
    places = np.linspace(0, len(cuts) - 1, most).round().astype(int)
    return [cuts[place] for place in places]


class EachWindow:
    """The numbers between which every window is an interval of its own, without listing them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count + 1

    def __getitem__(self, place: Any) -> Any:
        return place


def interval_of(numbers: IntArray | EachWindow, window: int) -> int:
    """The interval in which a window lies."""
    if isinstance(numbers, EachWindow):
        return window
    return int(np.searchsorted(numbers, window, side="right")) - 1


def independent(frame: Frame, place: int, numbers: IntArray | EachWindow) -> Cut:
    """What a cut of an axis costs where every interval is read on its own."""
    sampled = min(len(numbers) - 1, SAMPLED_INTERVALS)
    some = np.append(np.arange(sampled, dtype=np.int64), _across_holes(frame, place, numbers))
    starts, stops = frame.maps[place].spans({place: (numbers[some], numbers[some + 1])})
    return _measured(frame, place, numbers, starts[:sampled], stops[:sampled], stops - starts)


def consecutive(frame: Frame, place: int, cut: tuple[IntArray, IntArray | None]) -> Cut:
    """What a cut of an axis costs where each interval takes over steps of the one before."""
    numbers, ends = cut
    assert ends is not None
    stops = ends[:SAMPLED_INTERVALS]
    holes = _across_holes(frame, place, numbers)
    some = np.append(np.arange(len(stops), dtype=np.int64), holes)
    begins, _ = frame.maps[place].spans({place: (numbers[some], numbers[some] + 1)})
    begin = begins[: len(stops)]
    starts = np.maximum(begin, np.append(begin[:1], stops[:-1]))
    found = _measured(frame, place, numbers, starts, stops, ends[some] - begins)
    return replace(found, stops=ends)


def _across_holes(frame: Frame, place: int, numbers: IntArray | EachWindow) -> IntArray:
    """Some of the intervals that have a hole in them, for they reach further than others."""
    borders = frame.maps[place].terms[place].runs[0][1 : SAMPLED_INTERVALS + 1]
    if isinstance(numbers, EachWindow) or not len(borders):
        return np.empty(0, dtype=np.int64)
    places = np.searchsorted(numbers, borders, side="right") - 1
    return places[numbers[places] < borders]


def with_whole_chunks(frame: Frame, place: int, cuts: Sequence[Cut]) -> list[Cut]:
    """Cuts that decode chunks twice, made to decode each once.

    Where blocks end inside a chunk, the chunk is read to its end and the rest kept for the next
    block, which takes the room of a chunk.
    """
    grids = frame.grids(place)
    once = {name: float(frame.steps_once(place, grid)) for name, grid in grids.items()}
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


def _measured(
    frame: Frame,
    place: int,
    numbers: IntArray | EachWindow,
    starts: IntArray,
    stops: IntArray,
    extents: IntArray,
) -> Cut:
    """A cut, from the positions that some of its intervals read and hold."""
    scale = (len(numbers) - 1) / len(starts)
    return Cut(
        numbers=numbers,
        intervals=len(numbers) - 1,
        extents={layout.name: int(extents.max()) for layout in frame.layouts},
        samples=1 if isinstance(numbers, EachWindow) else int(np.diff(numbers).max()),
        decoded={
            name: float(grid.decoded(starts, stops).sum()) * scale
            for name, grid in frame.grids(place).items()
        },
    )
