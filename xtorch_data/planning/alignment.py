"""Where windows of other sources begin, from labels as numbers: one begin for each anchor or window.

Labels ascend. A begin is -1 where there is no such window. Pure arithmetic, no IO.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .index_maps import IntArray

__all__ = ["as_of", "known_from", "nearest", "nearest_steps", "valid_leads", "whole_in", "within"]

Numbers = npt.NDArray[Any]  # int64 or float64


def known_from(labels: Numbers, latency: Any, step: Any, begins: bool) -> Numbers:
    """When each step is known: `latency` after its label, or after its end where labels bear begins.

    A step ends where the next one begins, and the last one after a regular `step`.
    """
    if begins:
        labels = np.append(labels[1:], labels[-1:] + step)
    return labels + latency


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


def nearest(labels: Numbers, wanted: Numbers, tolerance: float) -> IntArray:
    """Place of the label nearest to each wanted one, -1 where none is within a tolerance."""
    if not len(labels):
        return np.full(np.shape(wanted), -1, dtype=np.int64)
    above = np.searchsorted(labels, wanted).clip(0, len(labels) - 1)
    below = np.maximum(above - 1, 0)
    place = np.where(abs(wanted - labels[below]) <= abs(labels[above] - wanted), below, above)
    found: IntArray = np.where(abs(labels[place] - wanted) <= tolerance, place, -1)
    return found


def whole_in(lookup: IntArray, begins: IntArray, size: int, step: int = 1) -> npt.NDArray[np.bool_]:
    """Whether all steps of each window are in a lookup: from begins on, `size` of them."""
    lacking = lookup < 0
    if step == 1:
        sums = np.append(0, np.cumsum(lacking))
        return np.asarray(sums[begins + size] == sums[begins])
    found = np.ones(len(begins), dtype=bool)
    for place in range(size):
        found &= ~lacking[begins + place * step]
    return found


def within(labels: Numbers, lower: Numbers, upper: Numbers, halo: int) -> tuple[IntArray, IntArray]:
    """Begins and counts of the labels in extents ``[lower, upper)``, and `halo` more on each side.

    A begin is -1 where the halo passes the ends of the labels.
    """
    first = np.searchsorted(labels, lower).astype(np.int64)
    last = np.searchsorted(labels, upper).astype(np.int64)
    inside = (first >= halo) & (last + halo <= len(labels))
    return np.where(inside, first - halo, -1), last - first + 2 * halo


def nearest_steps(labels: Numbers, middles: Numbers, size: int) -> IntArray:
    """Begins of the `size` labels nearest to each middle; of two as near, the lower one."""
    halfway = (labels[: len(labels) - size] + labels[size:]) / 2
    return np.searchsorted(halfway, middles).astype(np.int64)


def valid_leads(
    anchors: Numbers, inits: Numbers, leads: Numbers, start: Any, stop: Any
) -> tuple[IntArray, int]:
    """Begins of the leads for which ``anchor + start <= init + lead < anchor + stop``, and how many.

    The most frequent number of leads is the size; where another number is valid, the begin is -1.
    """
    first = np.searchsorted(leads, anchors + start - inits)
    counts = np.searchsorted(leads, anchors + stop - inits) - first
    if not len(counts):
        return first.astype(np.int64), 0
    size = int(np.bincount(counts).argmax())
    return np.where(counts == size, first, -1).astype(np.int64), size
