"""Parts of a split and other sources, of which a sample reads nothing of another part, either."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..planning.alignment import turned
from ..planning.index_maps import IndexMap
from ..planning.intervals import Interval
from ..planning.windows import Windows
from ..samples.definition import SampleDefinition
from ..samples.losses import CENTERS
from ..samples.source_rules import AsOf, Within
from ..sources.comparable import Comparable, comparable

__all__ = ["require_told", "within_sources"]


def within_sources(
    samples: SampleDefinition,
    windows: Windows,
    dim: Hashable,
    intervals: Sequence[Interval],
    by: Literal["windows", "targets"],
    lead: int,
) -> Windows:
    """Windows of a part of which other sources have nothing that lies in another part.

    A step of another source lies where its label does, between the labels of the first source. By
    targets, steps may lie before the part, but for those of the part ``y``, and never behind it.

    Parameters
    ----------
    samples : SampleDefinition
        The samples that were split.
    windows : Windows
        Those of them whose windows of the first source are in the part.
    dim : Hashable
        The dim that was split.
    intervals : sequence of Interval
        Data positions of the part.
    by : {"windows", "targets"}
        What must lie in it.
    lead : int
        Steps of a window that may lie before it.
    """
    events = samples.centers
    if not samples.others or (events is not None and dim == events.dim):
        return windows
    centered = events is not None and dim in events.names
    place = 0 if centered else [axis.dim for axis in windows.axes].index(dim)
    mine = comparable(samples.primary.labels.coords, dim)
    count = windows.shape[place]
    if mine is None or not count or mine.kind == "text":
        return windows
    every, kept = samples.axis(dim), np.ones(count, dtype=bool)
    along = windows.space.frames[1 if events else 0]
    (term,) = [each.terms[place] for each in along.maps if each.dim == dim]
    begins, all_begins = term.at(np.arange(count)) + lead, every.start(np.arange(len(every)))
    starts, stops = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    of = np.searchsorted(starts, begins, side="right") - 1
    # What no sample begins before, or ends behind, no other part has.
    before, behind = all_begins.min() < starts, all_begins.max() + every.size > stops
    for other, frame in zip(samples.others, windows.space.frames[1:], strict=True):
        if centered and (other is samples.primary or other.source == CENTERS):
            continue  # which lie in the part
        targets = any(part.name == "y" for part in other.parts)
        for each in frame.maps:
            if place not in each.terms:
                continue
            theirs = comparable(other.labels.coords, each.dim)
            if theirs is None or theirs.values.ndim != 1 or not _compare(mine, theirs):
                continue  # such as leads, which are counted from inits
            least, most = _labels(windows, each, place, theirs, mine)
            cells = isinstance(other.rules.get(each.dim), Within)
            low, high = _bounds(mine, starts, stops, cells)
            low, high = np.where(before, low, -np.inf), np.where(behind, high, np.inf)
            kept &= most <= high[of]
            if by == "windows" or targets:
                kept &= least >= low[of]
    if kept.all():
        return windows
    return Windows(windows.space.restrict(place, np.flatnonzero(kept)))


def _compare(mine: Comparable, theirs: Comparable) -> bool:
    """Whether labels are of one kind."""
    return mine.kind == theirs.kind or {mine.kind, theirs.kind} == {"number", "longitude"}


def _labels(
    windows: Windows, each: IndexMap, place: int, theirs: Comparable, mine: Comparable
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Least and largest label of the steps of each window along an axis."""
    numbers = np.arange(windows.shape[place])
    boxes: dict[int, tuple[Any, Any]] = {
        axis: (0, windows.shape[axis]) for axis in each.terms if axis != place
    }
    boxes[place] = numbers, numbers + 1
    start, stop = each.spans(boxes)
    values = theirs.values
    if theirs.period or mine.period:
        values = turned(values, (mine.values.min() + mine.values.max() - 360) / 2)
    if (values[1:] > values[:-1]).all():
        return values[start], values[stop - 1]
    reach = int((stop - start).max())
    steps = np.minimum(start[:, None] + np.arange(reach), stop[:, None] - 1)
    return values[steps].min(axis=1), values[steps].max(axis=1)


def _bounds(
    mine: Comparable, starts: npt.NDArray[Any], stops: npt.NDArray[Any], cells: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Labels between which the steps of each interval lie: of cells, the edges of these."""
    labels = mine.values.astype(np.float64)
    if len(labels) > 1 and labels[0] > labels[-1]:
        low, high = _bounds(Comparable(-labels, mine.kind), starts, stops, cells)
        return -high, -low
    first, last = labels[starts], labels[stops - 1]
    if cells:
        first = (first + labels[np.maximum(starts - 1, 0)]) / 2
        last = (last + labels[np.minimum(stops, len(labels) - 1)]) / 2
    return first, last


def require_told(samples: SampleDefinition, along: Hashable, by: str) -> None:
    """Raise ValueError for a split along a coordinate that would let parts share a source's steps.

    Along a coordinate nobody knows where the steps of an as-of source belong.
    """
    if by == "windows":
        for other in samples.others:
            if any(isinstance(rule, AsOf) for rule in other.rules.values()):
                raise ValueError(
                    f"source {other.source!r} has steps as of the anchor, which belong to no label "
                    f"of {along!r}: split with by='targets', or along a dim"
                )
