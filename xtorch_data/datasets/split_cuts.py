"""Where splits cut: intervals of what there is, by labels, shares, ranges, folds or at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..common.random import SPLIT, generator
from ..common.redact import printable
from ..planning.intervals import Interval
from ..sources.coordinates import Along, Gap, text_of_range

__all__ = ["Cut", "Parts", "cut_at", "cut_by_ranges", "cut_by_shares", "cut_fold", "deal"]

# For each part, places ``[start, stop)``, ascending and apart.
Parts = Sequence[Sequence[Interval]]
# From what there is to cut to the parts of it.
Cut = Callable[[Along], Parts]


def cut_at(labels: Sequence[Any], gap: Gap, line: Along) -> Parts:
    """Parts that begin at labels, from the second on."""
    begins = [0, *(line.position(label) for label in labels)]
    if sorted(begins) != begins:
        raise ValueError(f"at={labels!r} must follow the order of the coordinate {line.name!r}")
    return _cut_from(begins, gap, line)


def cut_by_shares(fractions: Sequence[float], gap: Gap, line: Along) -> Parts:
    """Parts that are shares of what there is."""
    ends = _shares(fractions, line.steps)[:-1]
    later = (line.nth(end) if end < line.steps else line.length for end in ends)
    return _cut_from([0, *later], gap, line)


def _cut_from(begins: Sequence[int], gap: Gap, line: Along) -> Parts:
    stops = [*(line.before(begin, gap) for begin in begins[1:]), line.length]
    return [line.between(*part) for part in zip(begins, stops, strict=True)]


def cut_by_ranges(ranges: Sequence[slice | Sequence[slice]], gap: Gap, line: Along) -> Parts:
    """Parts that are ranges of labels."""
    if isinstance(ranges, slice) or not len(ranges):
        raise ValueError(
            f"ranges has a slice of labels for each part, or a list of slices, not {ranges!r}"
        )
    found = []
    for part, given in enumerate(ranges):
        several = [given] if isinstance(given, slice) else list(given)
        if not several:
            raise ValueError(f"part {part + 1} of ranges={ranges!r} is empty: give it a slice")
        found += [(*line.range(each), part, each) for each in several]
    found.sort(key=lambda each: each[:2])
    for (_, stop, _, one), (start, _, _, other) in zip(found, found[1:], strict=False):
        if start < stop:
            raise ValueError(
                f"{text_of_range(one)} and {text_of_range(other)} of ranges overlap along "
                f"{line.name!r}: both have its label {printable(line.label(start))}"
            )
    parts: list[list[Interval]] = [[] for _ in ranges]
    # From the last one on: the gap is kept to the next range of another part.
    nearest: dict[int, int] = {}
    for start, stop, part, _ in reversed(found):
        later = [begin for other, begin in nearest.items() if other != part]
        nearest[part] = start
        stop = min([stop, *(line.before(begin, gap) for begin in later)])
        if parts[part] and stop == parts[part][0][0]:
            parts[part][0] = start, parts[part][0][1]
        else:
            parts[part].insert(0, (start, stop))
    return [[each for some in part for each in line.between(*some)] for part in parts]


def cut_fold(fold: int, folds: int, gap: Gap, line: Along) -> Parts:
    """Places to train on around a fold, and the fold."""
    each, more = divmod(line.steps, folds)
    first = fold * each + min(fold, more)
    last = first + each + (fold < more)
    begin, end = line.nth(first), line.nth(last - 1) + 1
    train: list[Interval] = []
    if first > 0:
        train += line.between(0, line.before(begin, gap))
    if last < line.steps:
        train += line.between(line.after(end - 1, gap), line.length)
    return [train, line.between(begin, end)]


def deal(fractions: Sequence[float], size: int, seed: int, gap: Gap, line: Along) -> Parts:
    """Blocks of a size, dealt out at random."""
    count = -(-line.steps // size)
    owner = np.empty(count, dtype=np.int64)
    order = generator(seed, 0, SPLIT, 0).permutation(count)
    for part, chosen in enumerate(np.split(order, _shares(fractions, count)[:-1])):
        owner[chosen] = part
    # Stretches of blocks that belong to one part.
    begins = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    ends = np.append(begins[1:], count)
    parts: list[list[Interval]] = [[] for _ in fractions]
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        stop = line.length
        if end < count:
            stop = line.before(line.nth(end * size), gap)
        parts[owner[begin]] += line.between(line.nth(begin * size), stop)
    return parts


def _shares(fractions: Sequence[float], count: int) -> list[int]:
    """Ends of the shares of some things, in order."""
    shares = [float(fraction) for fraction in fractions]
    if len(shares) < 2 or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"fractions must be two or more positive numbers that add up to 1, not {fractions!r}"
        )
    return [*(math.floor(end * count + 0.5) for end in np.cumsum(shares)[:-1]), count]
