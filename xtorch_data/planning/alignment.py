"""Begins of windows of other sources, from labels as numbers.

There is one for each anchor or window, -1 where there is no such window. Labels ascend. Pure
arithmetic, no IO.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .index_maps import IntArray

__all__ = [
    "as_of",
    "cell_edges",
    "gaps",
    "known_from",
    "nearest",
    "nearest_steps",
    "turned",
    "valid_leads",
    "whole_in",
    "within",
]

Numbers = npt.NDArray[Any]  # int64 or float64

# The last step ends like the longest one that is no longer than this share of the median.
LONGEST = 1.5


def known_from(labels: Numbers, latency: Any, begins: bool) -> Numbers:
    """When each step is known: `latency` after its label, or after its end where labels are begins.

    A step ends where the next one begins. The last one is taken to be as long as any other, as the
    longest month is: it must not be known before its end.
    """
    if begins:
        steps = np.diff(labels)
        longest = steps[steps <= LONGEST * np.median(steps)].max() if len(steps) else None
        if longest is None:  # nobody knows when a step alone ends
            return np.full(len(labels), np.iinfo(np.int64).max)
        labels = np.append(labels[1:], labels[-1:] + longest)
    known: Numbers = labels + latency
    return known


def as_of(
    anchors: Numbers, labels: Numbers, known: Numbers, steps: int, max_age: Any = None
) -> tuple[IntArray, IntArray]:
    """Begins of the last so many steps known at each anchor, and of those that exist but are old.

    A window is too old if its newest label is more than `max_age` before the anchor; its begin is
    -1, and stands in the second array.
    """
    ends = np.searchsorted(known, anchors, side="right")
    begins = np.where(ends >= steps, ends - steps, -1).astype(np.int64)
    old = np.full_like(begins, -1)
    if max_age is not None:
        newest = labels[np.maximum(ends - 1, 0)]
        late = (begins >= 0) & (anchors - newest > max_age)
        old[late], begins[late] = begins[late], -1
    return begins, old


def gaps(labels: Numbers, period: float | None = None) -> npt.NDArray[np.float64]:
    """How far each label is from its nearest neighbor, at most the median step; inf of one alone.

    On a circle, of which `period` is the length, the last and the first are neighbors, too.
    """
    steps = np.diff(labels).astype(np.float64)
    if not len(steps):
        return np.full(len(labels), np.inf)
    around = np.inf if period is None else max(0.0, labels[0] + period - labels[-1])
    nearer = np.minimum(np.append(around, steps), np.append(steps, around))
    return np.asarray(np.minimum(nearer, np.median(steps)))


def nearest(
    labels: Numbers, wanted: Numbers, within: Numbers, of_wanted: Numbers, period: float | None
) -> IntArray:
    """Place of the label nearest to each wanted one, -1 where none is near enough.

    It must lie within the distance given for it, and within that of the wanted one. On a circle, of
    which `period` is the length, labels are in ``[0, period)``.
    """
    if not len(labels):
        return np.full(np.shape(wanted), -1, dtype=np.int64)
    count = len(labels)
    if period is not None:
        labels = np.concatenate([labels[-1:] - period, labels, labels[:1] + period])
    above = np.searchsorted(labels, wanted).clip(0, len(labels) - 1)
    below = np.maximum(above - 1, 0)
    place = np.where(abs(wanted - labels[below]) <= abs(labels[above] - wanted), below, above)
    distance = abs(wanted - labels[place])
    if period is not None:
        place = (place - 1) % count
    found: IntArray = np.where(distance <= np.minimum(within[place], of_wanted), place, -1)
    return found


def whole_in(lookup: IntArray, begins: IntArray, size: int) -> npt.NDArray[np.bool_]:
    """Whether all steps of each window are in a lookup: from begins on, `size` of them."""
    sums = np.append(0, np.cumsum(lookup < 0))
    return np.asarray(sums[begins + size] == sums[begins])


def cell_edges(labels: Numbers) -> npt.NDArray[np.float64]:
    """Edges of the cells of two ascending labels or more, halfway between them."""
    halfway = (labels[1:] + labels[:-1]) / 2
    first, last = 2 * labels[:1] - halfway[:1], 2 * labels[-1:] - halfway[-1:]
    return np.concatenate([first, halfway, last])


def turned(labels: Numbers, low: float) -> Numbers:
    """Longitudes turned by whole circles into ``[low, low + 360)``."""
    return np.asarray(labels + 360 * np.ceil((low - labels) / 360))


def within(
    labels: Numbers, lower: Numbers, upper: Numbers, halo: int, tolerance: float = 0.0
) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """Begins and counts of the labels in extents ``[lower, upper)``, and `halo` more on each side.

    A label that is not farther than `tolerance` from an edge is on it. A begin is -1 where the halo
    passes the ends of the labels. The third array says which extents themselves do.
    """
    first = np.searchsorted(labels, lower - tolerance).astype(np.int64)
    last = np.searchsorted(labels, upper - tolerance).astype(np.int64)
    inside = (first >= halo) & (last + halo <= len(labels))
    begins = np.where(inside, first - halo, -1)
    return begins, last - first + 2 * halo, (first == 0) | (last == len(labels))


def nearest_steps(labels: Numbers, middles: Numbers, size: int) -> IntArray:
    """Begins of the `size` labels nearest to each middle; of two as near, the lower one."""
    halfway = (labels[: len(labels) - size] + labels[size:]) / 2
    return np.searchsorted(halfway, middles).astype(np.int64)


def valid_leads(
    anchors: Numbers, inits: Numbers, leads: Numbers, start: Any, stop: Any
) -> tuple[IntArray, int]:
    """Begins of the leads with ``anchor + start <= init + lead < anchor + stop``, and how many.

    The most frequent number of leads, but for none, is the size; where another number is valid, the
    begin is -1.
    """
    first = np.searchsorted(leads, anchors + start - inits)
    counts = np.searchsorted(leads, anchors + stop - inits) - first
    some = counts[counts > 0]
    size = int(np.bincount(some).argmax()) if len(some) else 0
    return np.where((counts == size) & (size > 0), first, -1).astype(np.int64), size
