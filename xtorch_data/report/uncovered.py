"""Places of the data that are in no window, and what would cover them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..common.spelling import spelled
from ..common.text import number_of
from ..planning.edges import EdgeRule
from ..planning.intervals import Interval
from ..samples.definition import SampleDefinition

__all__ = ["PartOfSplit", "steps_in_no_window", "uncovered"]


@dataclass(frozen=True)
class PartOfSplit:
    """What splits have left of the data.

    Attributes
    ----------
    steps : mapping of Hashable to (sequence of Interval, int)
        Data positions along each dim that was split, and how many steps of a window may lie before
        them.
    outside : int
        Samples that are numbered, and not in the part.
    """

    steps: Mapping[Hashable, tuple[Sequence[Interval], int]] = field(default_factory=dict)
    outside: int = 0


def steps_in_no_window(samples: SampleDefinition, part: PartOfSplit) -> dict[Hashable, int]:
    """Steps of windowed dims, of what a split has left, that no window has."""
    found = {}
    for axis in samples.windows.axes:
        if not axis.windowed or not len(axis):
            continue
        intervals, lead = part.steps.get(axis.dim, ([(0, axis.length)], 0))
        beyond = samples.beyond.get(axis.dim)
        if beyond is None:
            found[axis.dim] = axis.left_over(intervals, lead)
            continue
        of_part = np.zeros(axis.length, dtype=bool)
        for start, stop in intervals:
            of_part[start:stop] = True
        covered = beyond.stretches(*axis.covered_stretches)
        wanted = np.count_nonzero(beyond.folded(of_part))
        found[axis.dim] = int(wanted - sum(stop - start for start, stop in covered))
    return found


def uncovered(samples: SampleDefinition, part: PartOfSplit) -> Iterator[str]:
    """A line on steps that are in no window, if there are any."""
    counts = {dim: steps for dim, steps in steps_in_no_window(samples, part).items() if steps}
    if counts:
        line = ", ".join(f"{number_of(steps, 'step')} of {dim!r}" for dim, steps in counts.items())
        # At the ends of a part of a split windows have no other rule, and a source may lack more.
        advice = [] if part.steps or samples.losses else _what_covers(samples, counts)
        told = f"; {', or '.join(advice)} would cover them" if advice else ""
        yield f"in no window: {line}{told}"


def _what_covers(samples: SampleDefinition, dims: Iterable[Hashable]) -> list[str]:
    """Arguments that would cover steps of some dims, without those that are given."""
    rules = [samples.breaks.edges.get(dim, EdgeRule()) for dim in dims]
    found = []
    if any(rule.remainder != "shift" for rule in rules):
        found.append(f"{spelled('remainder')}='shift'")
    # A window that is moved back ends with the data, but for its halo.
    if any(rule.boundary is None and (rule.remainder != "shift" or rule.halo) for rule in rules):
        found.append(f"{spelled('boundary')} along these dims")
    return found
