"""Edges of a dim: what windows find beyond the data, and what becomes of the last, partial one.

Where windows reach beyond the data, its dim is laid out anew: some steps come before its first one
and some behind its last, and each is a step of the data, or none. Windows count the steps of that
layout. Pure arithmetic over integers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .index_maps import IntArray, Term, runs_of
from .intervals import Interval

__all__ = ["NOTHING", "Boundary", "EdgeRule", "ExtendedDim", "Laid", "Remainder"]

Boundary = Literal["wrap", "edge", "reflect", "constant"]
Remainder = Literal["drop", "pad", "shift"]

# By dim that windows count otherwise than the data of the user: its name there, and the step of
# that at each of its steps.
Laid = Mapping[Hashable, tuple[Hashable, IntArray]]

# Instead of a step of the data, where there is none.
NOTHING = -1


@dataclass(frozen=True)
class EdgeRule:
    """The rule for the ends of a dim.

    Attributes
    ----------
    boundary : {"wrap", "edge", "reflect", "constant"}, optional
        What lies beyond the ends of the data; by default no window reaches there.
    remainder : {"drop", "pad", "shift"}
        What becomes of the last window, where steps are left that make no whole one.
    before, after : int
        Steps of the halo: those that a window has in addition.
    """

    boundary: Boundary | None = None
    remainder: Remainder = "drop"
    before: int = 0
    after: int = 0

    @property
    def halo(self) -> int:
        """Steps that a window has in addition, on both sides."""
        return self.before + self.after

    def begins(self, length: int, size: int, stride: int, breaks: npt.ArrayLike = ()) -> Term:
        """Steps of the data at which windows begin, with their halos; negative before the first.

        Windows of `size` steps, without halos, are laid every `stride` steps from the first step on
        and anew from each of `breaks`. The boundary lies at the ends of the data alone: at breaks,
        windows are left out whose halo would cross them.

        Examples
        --------
        >>> EdgeRule("wrap", "pad").begins(10, 4, 4).at(np.arange(3))
        array([0, 4, 8])
        >>> EdgeRule(remainder="shift").begins(10, 4, 4).at(np.arange(3))
        array([0, 4, 6])
        """
        steps = np.asarray(breaks, dtype=np.int64)
        starts, stops = np.append(0, steps), np.append(steps, length)
        room = stops - starts
        reach = self._reach(room)
        whole = np.maximum((room - size) // stride + 1, 0)
        covered = np.where(whole > 0, (whole - 1) * stride + size, 0)
        partial = (covered < room) & (whole * stride < room)  # one more would begin in the data
        counts = whole.copy()
        if self.remainder == "pad" and self.boundary is not None:
            counts[-1] += partial[-1]
            if self.boundary == "wrap":
                counts[-1] = -(-room[-1] // stride)
        first = np.maximum(-((reach[0] - self.before) // stride), 0)
        counts = np.minimum(counts, (room - size - self.after + reach[1]) // stride + 1)
        some = counts > first
        begins = (starts + first * stride)[some]
        lengths = (counts - first)[some]
        if self.remainder == "shift":
            late = (room >= size) & partial
            late &= (self.after <= reach[1]) & (self.before <= room - size + reach[0])
            begins = np.append(begins, (stops - size)[late])
            order = np.argsort(begins, kind="stable")
            begins = begins[order]
            lengths = np.append(lengths, np.ones(int(late.sum()), dtype=np.int64))[order]
        return runs_of(begins - self.before, lengths, stride)

    def lost_at_ends(self, length: int, size: int, stride: int, breaks: npt.ArrayLike = ()) -> int:
        """Windows that are left out because their halos pass the ends of the data.

        Examples
        --------
        >>> EdgeRule(before=2, after=2).lost_at_ends(10, 4, 4)
        1
        """
        anywhere = replace(self, boundary=self.boundary or "edge")
        found = len(anywhere.begins(length, size, stride, breaks))
        return found - len(self.begins(length, size, stride, breaks))

    def _reach(self, room: IntArray) -> IntArray:
        """Steps before and behind each stretch, of so many steps, to which windows may reach."""
        reach = np.zeros((2, len(room)), dtype=np.int64)
        if self.boundary is not None:
            anywhere = np.iinfo(np.int64).max // 4
            # What is turned back at an end must not lie beyond a break.
            turned = self.boundary == "reflect" and len(room) > 1
            reach[0, 0], reach[1, -1] = room[[0, -1]] - 1 if turned else (anywhere, anywhere)
        return reach

    def beyond(self, length: int, size: int, begins: Term) -> ExtendedDim | None:
        """What windows find that begin so, with `size` steps; None if all lie in the data."""
        if self.boundary is None or not len(begins):
            return None
        first, stop = int(begins.at(0)), int(begins.at(len(begins) - 1)) + size
        if first >= 0 and stop <= length:
            return None
        return ExtendedDim(self.boundary, length, max(0, -first), max(0, stop - length))


@dataclass(frozen=True, eq=False)
class ExtendedDim:
    """A dim with what windows find beyond its ends; they count all of its steps from 0 on.

    Attributes
    ----------
    boundary : {"wrap", "edge", "reflect", "constant"}
        What lies there.
    length : int
        Steps of the data.
    before, after : int
        Steps before the first one of the data, and behind the last.
    """

    boundary: Boundary
    length: int
    before: int
    after: int
    inside: Interval = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inside", (self.before, self.before + self.length))

    def __len__(self) -> int:
        return self.before + self.length + self.after

    @cached_property
    def steps(self) -> IntArray:
        """The step of the data at each of its steps, `NOTHING` where there is none."""
        at = np.arange(-self.before, self.length + self.after, dtype=np.int64)
        if self.boundary == "wrap":
            return at % self.length
        if self.boundary == "edge":
            return np.clip(at, 0, self.length - 1)
        if self.boundary == "constant":
            return np.where((at >= 0) & (at < self.length), at, NOTHING)
        turn = max(1, 2 * (self.length - 1))
        folded = np.abs(at) % turn
        return np.minimum(folded, turn - folded) if self.length > 1 else np.zeros_like(at)

    def made_up(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which of its steps ``[start, stop)`` are none of the data: not those of a circle."""
        at = np.arange(start, stop)
        beyond: npt.NDArray[np.bool_] = (at < self.inside[0]) | (at >= self.inside[1])
        return beyond & (self.boundary != "wrap")

    @property
    def blank(self) -> bool:
        """Whether there is nothing beyond the ends."""
        return self.boundary == "constant"

    @property
    def nearest(self) -> IntArray:
        """The step of the data at each of its steps; the last one there is for `NOTHING`."""
        if not self.blank:
            return self.steps
        at = np.arange(-self.before, self.length + self.after, dtype=np.int64)
        return np.clip(at, 0, self.length - 1)

    def laid(self, intervals: Iterable[Interval]) -> list[Interval]:
        """Intervals that stand for no step of the data but those of some intervals."""
        there = np.zeros(self.length + 1, dtype=bool)
        for start, stop in intervals:
            there[start:stop] = True
        there[NOTHING] = True  # nothing lies in every part
        return _intervals(there[self.steps])

    def folded(self, covered: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """From which of its steps, along the first axis, to which of the data.

        A step of the data is among them if any is that stands for it.
        """
        there = np.zeros((self.length + 1, *covered.shape[1:]), dtype=bool)
        np.logical_or.at(there, self.steps, covered)
        return there[:NOTHING]

    def stretches(self, starts: IntArray, stops: IntArray) -> list[Interval]:
        """Intervals of the data for which some intervals stand."""
        covered = np.zeros(len(self), dtype=bool)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            covered[start:stop] = True
        return _intervals(self.folded(covered))


def _intervals(there: npt.NDArray[np.bool_]) -> list[Interval]:
    """The intervals of places that are True."""
    edges = np.flatnonzero(np.diff(there, prepend=False, append=False))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
