"""Steps of other sources in the extent of a sample, on a finer or a coarser grid."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from ..planning import alignment
from ..planning.index_maps import IndexMap, IntArray
from .aligning import TOLERANCE, AlignedDim, OtherSource, SampleAxes
from .source_rules import Within

__all__ = ["within"]


def within(source: OtherSource, axes: SampleAxes, dim: Hashable, rule: Within) -> AlignedDim:
    """The steps along a dim whose labels lie in the extent of each window.

    They come in the direction of the first source.
    """
    place = axes.place(dim)
    if place is None:
        raise ValueError(
            f"source {source.name!r}: Within is for a dim that the first source has, too, and it "
            f"lacks {dim!r}; its dims are {axes.dims}"
        )
    own, descending = _sorted(source, axes, dim)
    labels = source.labels(dim)
    values = labels.values.astype(np.float64)
    size, starts = axes.axis(dim).size, _starts(source, axes, dim, place)
    edges = alignment.cell_edges(own) if len(own) > 1 else np.repeat(own, 2)
    if descending:
        starts = len(own) - starts - size
    lower, upper = edges[starts], edges[starts + size]
    steps = np.append(np.diff(own), labels.step)
    tolerance = TOLERANCE * steps.min(where=steps > 0, initial=np.inf)
    if tolerance == np.inf:  # a label alone in both
        tolerance = 0.0
    if labels.period is not None:
        values = alignment.turned(values, (edges[0] + edges[-1] - 360) / 2 - tolerance)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    source.require_once(dim, ordered, labels.period is not None)
    around = _goes_around(axes, dim) and _closes(ordered, labels.step)
    if around:
        turns = math.ceil((edges[-1] - edges[0]) / 720) + 1
        ordered = np.concatenate([ordered + 360 * turn for turn in range(-turns, turns + 1)])
        order = np.tile(order, 2 * turns + 1)
    if rule.size is not None:
        begins, count = _nearest(source, dim, ordered, lower, upper, rule)
    elif len(own) == 1:
        raise ValueError(
            f"source {source.name!r}: the first source has one label along {dim!r}, and it is not "
            "known how far its cell reaches: Within(size=n) takes the n steps nearest to it"
        )
    else:
        begins, count = _inside(source, axes, dim, ordered, lower, upper, rule, tolerance)
    if around and (begins >= 0).any():  # only the turns that are needed
        first, last = begins[begins >= 0].min(), begins.max() + count
        order, begins = order[first:last], np.where(begins >= 0, begins - first, -1)
    if descending:
        order = order[::-1]
        begins = np.where(begins >= 0, len(order) - begins - count, -1)
    source.take(dim, order)
    axes.leave_out(source, dim, place, begins < 0, "extents beyond its ends")
    return AlignedDim(IndexMap(dim, len(order), count, {}), {place: begins})


def _goes_around(axes: SampleAxes, dim: Hashable) -> bool:
    """Whether windows of the first source go on at the other end of it."""
    return dim in axes.beyond and axes.beyond[dim].boundary == "wrap"


def _closes(ordered: npt.NDArray[np.float64], step: float) -> bool:
    """Whether longitudes close the circle."""
    return bool(len(ordered)) and bool(ordered[0] + 360 - ordered[-1] < 1.5 * step)


def _starts(source: OtherSource, axes: SampleAxes, dim: Hashable, place: int) -> IntArray:
    """Where windows begin among the labels that are looked at, see `_sorted`.

    Windows that have no extent, beyond the ends of the data, are left out.
    """
    starts = axes.starts(dim)
    if dim not in axes.beyond or _goes_around(axes, dim):
        return starts
    beyond, size = axes.beyond[dim], axes.axis(dim).size
    starts = starts - beyond.before
    outside = (starts < 0) | (starts + size > beyond.length)
    axes.leave_out(source, dim, place, outside, "extents beyond the ends of the first source")
    return np.clip(starts, 0, beyond.length - size)


def _sorted(
    source: OtherSource, axes: SampleAxes, dim: Hashable
) -> tuple[npt.NDArray[np.float64], bool]:
    """Labels of the first source along a dim, ascending, and whether they are so backwards.

    Those beyond its ends are among them where windows go around a circle.
    """
    mine = axes.labels(dim)
    if mine is None:
        raise ValueError(
            f"source {source.name!r}: Within needs labels along {dim!r} of the first source, which "
            f"has none: ds.assign_coords({{{dim!r}: …}})"
        )
    source.labels(dim).require_same_kind(
        mine, (f"source {source.name!r} along {dim!r}", "the first source")
    )
    if mine.is_time:
        raise ValueError(
            f"source {source.name!r}: Within along {dim!r}, which has times, would look ahead of "
            "the anchor: AsOf looks back"
        )
    if mine.is_text:
        raise ValueError(f"source {source.name!r}: Within needs numbers along {dim!r}, not text")
    seen = slice(None)
    if dim in axes.beyond and not _goes_around(axes, dim):
        seen = slice(*axes.beyond[dim].inside)
    own = mine.values[seen].astype(np.float64)
    if mine.period is not None and len(own):  # a region may lie across the date line
        steps = (np.diff(own) + 180) % 360 - 180
        own = own[0] + np.append(0.0, np.cumsum(steps))
    descending = len(own) > 1 and bool(own[0] > own[-1])
    if descending:
        own = own[::-1]
    if not (np.diff(own) > 0).all() or mine.missing[seen].any():
        raise ValueError(
            f"source {source.name!r}: Within needs labels of the first source along {dim!r} that "
            f"are sorted, each once, none missing: ds.sortby({dim!r}).drop_duplicates({dim!r})"
        )
    return own, descending


def _nearest(
    source: OtherSource,
    dim: Hashable,
    ordered: npt.NDArray[np.float64],
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
    rule: Within,
) -> tuple[IntArray, int]:
    """Begins of the steps nearest to the middle of each extent, and how many these are."""
    assert rule.size is not None
    count = rule.size + 2 * rule.halo
    if count > len(ordered):
        raise ValueError(
            f"source {source.name!r}: Within(size={rule.size}, halo={rule.halo}) takes {count} "
            f"steps along {dim!r}, which has {len(ordered)}"
        )
    begins = alignment.nearest_steps(ordered, (lower + upper) / 2, rule.size) - rule.halo
    # At the ends they would not lie around the middle. Unlike grids may differ by a step there.
    apart = np.diff(ordered).mean() if len(ordered) > 1 else np.inf
    outside = (lower < ordered[0] - apart) | (upper > ordered[-1] + apart)
    outside |= (begins < 0) | (begins + count > len(ordered))
    return np.where(outside, -1, begins), count


def _inside(
    source: OtherSource,
    axes: SampleAxes,
    dim: Hashable,
    ordered: npt.NDArray[np.float64],
    lower: npt.NDArray[np.float64],
    upper: npt.NDArray[np.float64],
    rule: Within,
    tolerance: float,
) -> tuple[IntArray, int]:
    """Begins of the steps in each extent, and how many these are: as many for every window.

    Those that pass the ends of the source may have fewer, and are left out.
    """
    halo = 2 * rule.halo
    begins, counts, at_ends = alignment.within(ordered, lower, upper, rule.halo, tolerance)
    inner = counts[~at_ends] if not at_ends.all() else counts
    count = int(np.bincount(inner).argmax()) if not at_ends.all() else int(counts.max())
    if counts.max() == halo:
        raise ValueError(
            f"source {source.name!r} has no steps in any sample's extent along {dim!r}: its labels "
            f"go from {ordered[0]:g} to {ordered[-1]:g}, the extents from {lower.min():g} to "
            f"{upper.max():g}"
        )
    unequal = (counts > count) | ((counts < count) & ~at_ends)
    if unequal.any():
        at = int(np.flatnonzero(unequal)[0])
        raise ValueError(
            f"source {source.name!r} has {count - halo} steps in most samples' extents along "
            f"{dim!r}, but {counts[at] - halo} from {lower[at]:.6g} to {upper[at]:.6g}: "
            f"Within(size={max(1, count - halo)}) takes as many for each, the nearest to its middle"
        )
    return np.where(counts == count, begins, -1), count
