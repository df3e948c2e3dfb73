"""Statistics of values that come in blocks: moments and extremes. Pure numpy, no IO."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Extremes", "Moments", "Place", "Tally"]

# Values looked at together: with their copy in float64, they stay in a core's cache.
PIECE = 2**16
# Of these, how many of each place that is kept, if there are as many.
ROWS = 16

# Where values lie among those that are kept: a slice, or one place, along each axis.
Place: TypeAlias = tuple[slice | int, ...]


class Tally(ABC):
    """Two statistics of values at each place that is kept. Values that are NaN do not count.

    Attributes
    ----------
    count : ndarray of int64
        Number of values.
    """

    count: npt.NDArray[np.int64]

    @classmethod
    @abstractmethod
    def none(cls, shape: Sequence[int]) -> Self:
        """Statistics of no values, to be updated."""

    @classmethod
    def of(cls, values: npt.NDArray[Any], axes: int) -> Self:
        """Statistics of an array over its first `axes` axes; the others are kept.

        Infinite values give some that are not finite.
        """
        found = cls.none(values.shape[axes:])
        for kept in _cuts(values.shape[axes:], PIECE // ROWS):
            wide = values[(slice(None),) * axes + kept]
            rows = PIECE // max(1, math.prod(wide.shape[axes:]))
            for reduced in _cuts(values.shape[:axes], rows):
                found.update(kept, cls._of_piece(wide[reduced], tuple(range(axes))))
        return found

    @classmethod
    @abstractmethod
    def _of_piece(cls, values: npt.NDArray[Any], axes: tuple[int, ...]) -> Self:
        """Statistics of a small array over its first axes."""

    @abstractmethod
    def update(self, place: Place, more: Self) -> None:
        """Take in the statistics of other values, at a place among those that are kept."""

    @property
    @abstractmethod
    def both(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The two statistics; NaN where there are no values."""


@dataclass(frozen=True, eq=False)
class Moments(Tally):
    """Number of values, their mean, and the sum of squared distances from it.

    Values that are NaN do not count. Moments of two blocks make those of both, as in `Chan, Golub
    and LeVeque (1983) <https://doi.org/10.1080/00031305.1983.10483115>`_, and the mean is kept as
    its distance from a value that there is: no large numbers are subtracted from each other, so
    that a small variance around a large mean keeps its digits, and equal values have none.

    Attributes
    ----------
    count : ndarray of int64
        Number of values.
    origin : ndarray of float64
        One of the values, NaN where there are none.
    shift : ndarray of float64
        Distance of the mean from it.
    squares : ndarray of float64
        Sum of the values' squared distances from the mean.
    """

    count: npt.NDArray[np.int64]
    origin: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @classmethod
    def none(cls, shape: Sequence[int]) -> Moments:
        """Moments of no values, to be updated."""
        nothing = np.full(shape, np.nan)
        return cls(np.zeros(shape, np.int64), nothing, nothing.copy(), np.zeros(shape))

    @classmethod
    def _of_piece(cls, values: npt.NDArray[Any], axes: tuple[int, ...]) -> Moments:
        kept = values.shape[len(axes) :]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            origin = np.asarray(np.fmin.reduce(values, axis=axes), np.float64)
            distances = np.asarray(np.subtract(values, origin, dtype=np.float64))
            missing = np.isnan(values) if values.dtype.kind == "f" else np.False_
            count = np.full(kept, math.prod(values.shape[: len(axes)]), np.int64)
            if missing.any():
                count -= missing.sum(axis=axes)
                distances[missing] = 0
            shift = np.asarray(distances.sum(axis=axes) / count)
            distances -= shift
            if missing.any():
                distances[missing] = 0
            rest = distances.sum(axis=axes)  # what rounding has left
            np.square(distances, out=distances)
            squares = distances.sum(axis=axes) - rest**2 / count
        return cls(count, origin, shift, np.where(count > 0, squares, 0.0))

    def update(self, place: Place, more: Moments) -> None:
        """Take in the moments of other values, at a place among those that are kept."""
        count, origin, shift = self.count[place], self.origin[place], self.shift[place]
        squares = self.squares[place]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            both = count + more.count
            distance = (more.origin - origin) + (more.shift - shift)
            share = more.count / both
            moved = shift + distance * share
            spread = squares + more.squares + distance**2 * count * share
        same, first = more.count == 0, count == 0  # nothing is added, or to nothing
        self.origin[place] = np.where(first, more.origin, origin)
        self.shift[place] = np.where(same, shift, np.where(first, more.shift, moved))
        self.squares[place] = np.where(same, squares, np.where(first, more.squares, spread))
        self.count[place] = both

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of the values; NaN if there are none."""
        return self.origin + self.shift

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviation of the values, as that of a whole population; NaN if there are none.

        That is ``ddof=0``, as in `numpy.nanstd` and scikit-learn's ``StandardScaler``.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.maximum(self.squares / self.count, 0))

    @property
    def both(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and standard deviation."""
        return self.mean, self.std


@dataclass(frozen=True, eq=False)
class Extremes(Tally):
    """Number of values, the smallest and the largest one.

    Attributes
    ----------
    count : ndarray of int64
        Number of values.
    least, most : ndarray of float64
        The smallest and the largest of the values, NaN where there are none.
    """

    count: npt.NDArray[np.int64]
    least: npt.NDArray[np.float64]
    most: npt.NDArray[np.float64]

    @classmethod
    def none(cls, shape: Sequence[int]) -> Extremes:
        """Extremes of no values, to be updated."""
        nothing = np.full(shape, np.nan)
        return cls(np.zeros(shape, np.int64), nothing, nothing.copy())

    @classmethod
    def _of_piece(cls, values: npt.NDArray[Any], axes: tuple[int, ...]) -> Extremes:
        number = math.prod(values.shape[: len(axes)])
        count = np.full(values.shape[len(axes) :], number, np.int64)
        if values.dtype.kind == "f":
            count -= np.isnan(values).sum(axis=axes)
        # Of 0 and -0 either may come first: 0 is added, so that it is the same in all blocks.
        with np.errstate(invalid="ignore"):
            least, most = (
                np.asarray(which.reduce(values, axis=axes), np.float64) + 0.0
                for which in (np.fmin, np.fmax)
            )
        return cls(count, least, most)

    def update(self, place: Place, more: Extremes) -> None:
        """Take in the extremes of other values, at a place among those that are kept."""
        self.least[place] = np.fmin(self.least[place], more.least)
        self.most[place] = np.fmax(self.most[place], more.most)
        self.count[place] += more.count

    @property
    def both(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The smallest and the largest value."""
        return self.least, self.most


def _cuts(shape: Sequence[int], size: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of about so many places, one after the other, that make up a shape."""
    steps = []
    for length in reversed(shape):  # whole along the last axes, as they lie in memory
        steps.append(min(length, max(1, size)))
        size //= length
    lengths = zip(shape, reversed(steps), strict=True)
    return itertools.product(
        *([slice(at, at + step) for at in range(0, length, step)] for length, step in lengths)
    )
