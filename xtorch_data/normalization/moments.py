"""Count, mean and variance of values that come in blocks. Pure numpy, no IO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

# Values looked at together: with their copy in float64, they stay in a core's cache.
PIECE = 2**16
# Of these, how many of each place that is kept, if there are as many.
ROWS = 16


@dataclass(frozen=True, eq=False)
class Moments:
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
    def of(cls, values: npt.NDArray[Any], axes: int) -> Moments:
        """Moments of an array over its first `axes` axes; the others are kept.

        Infinite values give a mean or squares that are not finite.
        """
        found = cls.none(values.shape[axes:])
        for kept in _cuts(values.shape[axes:], PIECE // ROWS):
            wide = values[(slice(None),) * axes + kept]
            rows = PIECE // max(1, math.prod(wide.shape[axes:]))
            for reduced in _cuts(values.shape[:axes], rows):
                found.update(kept, cls._of_piece(wide[reduced], tuple(range(axes))))
        return found

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

    def update(self, place: tuple[slice, ...], more: Moments) -> None:
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
