"""Index maps: where the windows of a source lie along its dims, from window numbers alone.

A sample axis only counts windows. A term says where each of them begins, an index map adds up the
terms of one dim. Nothing is listed that can be worked out: 10**12 windows are three integers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .intervals import Interval

__all__ = [
    "IndexMap",
    "IntArray",
    "Regular",
    "Runs",
    "Table",
    "Term",
    "apart",
    "runs_of",
    "term_of",
]

IntArray = npt.NDArray[np.int64]


class Term(ABC):
    """Positions by window number: int64, immutable, equal to terms of the same digest.

    Numbers are given as an integer or an array of them, and positions come back in its shape.
    """

    step: int  # from a window to the next, but for holes

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of windows."""

    @abstractmethod
    def at(self, numbers: Any) -> Any:
        """Positions of windows."""

    @property
    @abstractmethod
    def ascending(self) -> bool:
        """Whether no window lies before an earlier one."""

    @property
    @abstractmethod
    def runs(self) -> tuple[IntArray, IntArray]:
        """Window numbers ``[first, last)`` of each run with one step between neighbors."""

    @property
    def bounds(self) -> tuple[IntArray, IntArray]:
        """First and last position of each run."""
        first, last = self.runs
        return self.at(first), self.at(last - 1)

    @abstractmethod
    def moved(self, steps: int) -> Term:
        """The same, so many steps later."""

    @abstractmethod
    def digest(self) -> bytes:
        """Bytes of all that tells it from others; states depend on them."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def same_as(self, other: Term) -> bool:
        """Whether both have the same positions; of regular ones digests may differ all the same."""
        if isinstance(self, Regular) and isinstance(other, Regular):
            return range(self.start, self.stop, self.step) == range(
                other.start, other.stop, other.step
            )
        return self == other

    def lohi(self, firsts: Any, lasts: Any) -> tuple[Any, Any]:
        """Least and largest position of windows ``[first, last)``, none of them empty."""
        return self.at(firsts), self.at(lasts - 1)

    def take(self, numbers: Term | npt.ArrayLike) -> Term:
        """The term of some windows, numbered anew in the order given.

        Runs of window numbers keep the step and cost as much as there are runs; of numbers one by
        one the term is the smallest.
        """
        if not isinstance(numbers, Term):
            return term_of(self.at(np.asarray(numbers, dtype=np.int64)))
        if isinstance(self, Table) or not (len(numbers) and self.ascending and _are_runs(numbers)):
            return term_of(self.at(numbers.at(np.arange(len(numbers)))))
        # Runs of window numbers end where `numbers` has a hole, or this term.
        first, last = numbers.bounds[0], numbers.bounds[1] + 1
        edges = np.unique(np.concatenate([first, last, self.runs[1]]))
        place = np.searchsorted(first, edges[:-1], side="right") - 1
        kept = edges[:-1] < np.append(last, 0)[place]  # the 0 is for place -1
        return runs_of(self.at(edges[:-1][kept]), np.diff(edges)[kept], self.step)

    def first_from(self, positions: npt.ArrayLike) -> IntArray:
        """How many windows come before each of some positions; ValueError if they descend."""
        if not self.ascending:
            raise ValueError("windows that do not ascend cannot be counted up to a position")
        return self._before(np.asarray(positions, dtype=np.int64))

    @abstractmethod
    def _before(self, positions: IntArray) -> IntArray: ...


@dataclass(frozen=True, eq=False)
class Regular(Term):
    """One step between neighbors: as ``range(start, stop, step)``."""

    start: int
    stop: int
    step: int = 1

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))

    def at(self, numbers: Any) -> Any:  # noqa: D102
        return numbers * self.step + self.start

    @property
    def ascending(self) -> bool:  # noqa: D102
        return self.step > 0

    @property
    def runs(self) -> tuple[IntArray, IntArray]:  # noqa: D102
        return np.array([0]), np.array([len(self)])

    def moved(self, steps: int) -> Term:  # noqa: D102
        return Regular(self.start + steps, self.stop + steps, self.step)

    def digest(self) -> bytes:  # noqa: D102
        return np.array([self.start, self.stop, self.step]).tobytes()

    def take(self, numbers: Term | npt.ArrayLike) -> Term:  # noqa: D102
        if not isinstance(numbers, Regular) or not len(numbers):
            return super().take(numbers)
        start, step = self.at(numbers.start), self.step * numbers.step
        return Regular(start, start + len(numbers) * step, step)

    def lohi(self, firsts: Any, lasts: Any) -> tuple[Any, Any]:  # noqa: D102
        low, high = firsts * self.step + self.start, (lasts - 1) * self.step + self.start
        return (low, high) if self.step > 0 else (high, low)

    def _before(self, positions: IntArray) -> IntArray:
        return np.clip(-((self.start - positions) // self.step), 0, len(self))


@dataclass(frozen=True, eq=False)
class Runs(Term):
    """Ascending runs with one step between neighbors, and holes between the runs.

    The last position of a run may lie beyond the first one of the next less the step, as those of
    the last items of a generator do, but not beyond that one itself.

    Attributes
    ----------
    begins : ndarray of int64
        First position of each run.
    ends : ndarray of int64
        Number of positions in each run and all runs before it.
    step : int
        From a position to the next one of its run; 0 where positions repeat.
    firsts : ndarray of int64
        Number of positions in all runs before each run.
    """

    begins: IntArray
    ends: IntArray
    step: int
    firsts: IntArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "firsts", np.append(0, self.ends[:-1]))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def at(self, numbers: Any) -> Any:  # noqa: D102
        run = np.searchsorted(self.ends, numbers, side="right")
        return self.begins[run] + (numbers - self.firsts[run]) * self.step

    @property
    def ascending(self) -> bool:  # noqa: D102
        return True

    @property
    def runs(self) -> tuple[IntArray, IntArray]:  # noqa: D102
        return self.firsts, self.ends

    @property
    def bounds(self) -> tuple[IntArray, IntArray]:  # noqa: D102
        return self.begins, self.begins + (self.ends - self.firsts - 1) * self.step

    def moved(self, steps: int) -> Term:  # noqa: D102
        return Runs(self.begins + steps, self.ends, self.step)

    def digest(self) -> bytes:  # noqa: D102
        return np.concatenate([self.begins, self.ends, [self.step]]).tobytes()

    def _before(self, positions: IntArray) -> IntArray:
        run = np.searchsorted(self.begins, positions) - 1
        if self.step:
            inside = -((self.begins[run] - positions) // self.step)
            found = np.minimum(self.firsts[run] + inside, self.ends[run])
        else:
            found = self.ends[run]
        return np.where(run < 0, 0, found)


@dataclass(frozen=True, eq=False)
class Table(Term):
    """Any positions, one by one; read-only."""

    values: IntArray

    @cached_property
    def ascending(self) -> bool:  # noqa: D102
        return bool((self.values[1:] >= self.values[:-1]).all())

    def __len__(self) -> int:
        return len(self.values)

    def at(self, numbers: Any) -> Any:  # noqa: D102
        return self.values[numbers]

    @property
    def step(self) -> int:  # type: ignore[override]  # noqa: D102
        return int(np.median(np.diff(self.values))) if len(self.values) > 1 else 1

    @property
    def runs(self) -> tuple[IntArray, IntArray]:  # noqa: D102
        numbers = np.arange(len(self.values) + 1)
        return numbers[:-1], numbers[1:]

    def moved(self, steps: int) -> Term:  # noqa: D102
        return Table(self.values + steps)

    def digest(self) -> bytes:  # noqa: D102
        return b"table" + self.values.tobytes()

    def lohi(self, firsts: Any, lasts: Any) -> tuple[Any, Any]:  # noqa: D102
        if self.ascending:
            return super().lohi(firsts, lasts)
        pairs = np.stack([firsts, lasts], axis=-1).ravel()
        padded = np.append(self.values, self.values[-1:])  # a pair may end with the last window
        low, high = (
            least.reduceat(padded, pairs)[::2].reshape(np.shape(firsts))
            for least in (np.minimum, np.maximum)
        )
        return low, high

    def _before(self, positions: IntArray) -> IntArray:
        return np.searchsorted(self.values, positions).astype(np.int64)


def _are_runs(numbers: Term) -> bool:
    """Whether window numbers are runs of neighbors, none of them twice."""
    if isinstance(numbers, Table) or numbers.step != 1:
        return False
    first, last = numbers.bounds
    return bool((first[1:] > last[:-1]).all())


def apart(starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
    """Ascending stretches, of which those that overlap are one."""
    apart = starts[1:] >= stops[:-1]
    return starts[np.append(True, apart)], stops[np.append(apart, True)]


def runs_of(begins: IntArray, counts: IntArray, step: int) -> Term:
    """The term of ascending runs of some lengths, none of them 0; one alone, or none, is regular.

    Where there is no hole between two of them, they are one.
    """
    joined = begins[1:] == (begins + counts * step)[:-1]
    if joined.any():
        runs = np.flatnonzero(np.append(True, ~joined))
        begins, counts = begins[runs], np.add.reduceat(counts, runs)
    if len(begins) == 1 and step:
        return Regular(int(begins[0]), int(begins[0] + counts[0] * step), step)
    return Runs(begins, np.cumsum(counts), step) if len(begins) else Regular(0, 0)


def term_of(values: npt.ArrayLike) -> Term:
    """The smallest term with these positions."""
    values = np.asarray(values, dtype=np.int64)
    if len(values) < 2:
        return runs_of(values, np.ones(len(values), dtype=np.int64), 1)
    steps = np.diff(values)
    if steps[0] and (steps == steps[0]).all():
        stop = values[0] + len(values) * steps[0]
        return Regular(int(values[0]), int(stop), int(steps[0]))
    if (steps >= 0).all():
        found, often = np.unique(steps, return_counts=True)
        step = int(found[often.argmax()])
        firsts = np.append(0, np.flatnonzero(steps != step) + 1)
        if 3 * len(firsts) < len(values):  # begins, ends and firsts
            return runs_of(values[firsts], np.diff(np.append(firsts, len(values))), step)
    return Table(values)


@dataclass(frozen=True)
class IndexMap:
    """The places of windows along one dim of one source.

    Attributes
    ----------
    dim : Hashable
        Name of the dim.
    length : int
        Size of the dim in the data.
    size : int
        Number of steps in one window, 1 where the dim is not windowed.
    terms : mapping of int to Term
        By sample axis, what it adds to where a window begins.
    windowed : bool
        Whether the dim is kept in a sample. A dim that is not windowed disappears.
    step : int
        From a step of a window to its next one.
    base : int
        Where a window begins, before the terms.
    """

    dim: Hashable
    length: int
    size: int
    terms: Mapping[int, Term]
    windowed: bool = True
    step: int = 1
    base: int = 0

    @property
    def extent(self) -> int:
        """Steps from the first one of a window to behind its last one."""
        return (self.size - 1) * self.step + 1

    def start(self, numbers: Sequence[Any]) -> Any:
        """Data positions at which windows begin, from their numbers along each sample axis."""
        starts = [term.at(numbers[axis]) for axis, term in self.terms.items()]
        if len(starts) == 1 and not self.base:
            return starts[0]
        return sum(starts, np.int64(self.base))

    def spans(self, boxes: Mapping[int, tuple[Any, Any]] | Sequence[Interval]) -> tuple[Any, Any]:
        """Data positions ``[start, stop)`` of boxes of windows: by axis, firsts and lasts."""
        low: Any = self.base
        high: Any = self.base + self.extent
        for axis, term in self.terms.items():
            lowest, highest = term.lohi(*boxes[axis])
            low, high = low + lowest, high + highest
        return low, high

    def span(self, box: Sequence[Interval]) -> Interval:
        """Data positions ``[start, stop)`` that a box of windows covers."""
        start, stop = self.spans(box)
        return int(start), int(stop)

    @property
    def stretches(self) -> tuple[IntArray, IntArray]:
        """Data positions ``[start, stop)`` of runs of windows, where one term ascends."""
        (term,) = self.terms.values()
        first, last = term.bounds
        return apart(self.base + first, self.base + last + self.extent)

    def take(self, axis: int, numbers: Term | npt.ArrayLike) -> IndexMap:
        """The map of some windows along a sample axis."""
        if axis not in self.terms:
            return self
        return replace(self, terms={**self.terms, axis: self.terms[axis].take(numbers)})

    def digest(self) -> bytes:
        """Bytes of all that tells it from others; states depend on them."""
        found = repr((self.dim, self.length, self.size, self.windowed)).encode()
        if len(self.terms) != 1 or (self.step, self.base) != (1, 0):
            found += repr((self.step, self.base, list(self.terms))).encode()
        return found + b"".join(term.digest() for term in self.terms.values())
