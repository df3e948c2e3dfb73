"""Steps between neighboring labels of a dim: how regular they are, and where they break."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.cached import cached_property
from ..common.text import duration_of
from ..planning.windows import Axis, IntArray
from .conventions import circle_of, text_of

__all__ = ["Breaks", "LabelSteps"]

# Shares of the steps that must be regular: for breaks to be told, and for a warning if they cannot.
TELLING, DOUBTFUL = 0.9, 0.5
# How far a regular step may be from the median, as a share of it. Months and years are regular.
TOLERANCE = 0.5


@dataclass(frozen=True, eq=False)
class LabelSteps:
    """Differences of neighboring labels along a dim that can be subtracted.

    Attributes
    ----------
    values : ndarray of float64
        One fewer than there are labels: seconds between times, else units of the labels. NaN beside
        a label that is missing; between longitudes the shorter way around the circle.
    times : bool
        Whether labels are times, or durations.
    """

    values: npt.NDArray[np.float64]
    times: bool

    @classmethod
    def of(cls, data: xr.Dataset, dim: Hashable) -> LabelSteps | None:
        """Look at the labels of a dim, which are read; None if it has none with differences."""
        coord = data.coords.variables.get(dim)
        if coord is None or coord.dims != (dim,):
            return None
        labels = coord.to_numpy()
        if labels.dtype.kind in "mM":
            steps = np.diff(labels)
            seconds = steps / np.timedelta64(1, "s")
            return cls(np.where(np.isnat(steps), np.nan, seconds), times=True)
        if labels.dtype.kind in "iuf":
            # Unsigned integers have no negative differences.
            exact = labels.astype(np.float64 if labels.dtype.kind == "f" else np.int64)
            values = np.diff(exact).astype(np.float64)
            circle = circle_of(dim, data)
            if circle is not None:
                values = (values + circle / 2) % circle - circle / 2
            return cls(values, times=False)
        if labels.dtype.kind == "O":
            return _of_objects(labels)
        return None

    @cached_property
    def step(self) -> float:
        """The median."""
        known = self.values[~np.isnan(self.values)]
        return float(np.median(known)) if len(known) else np.nan

    @cached_property
    def regular(self) -> npt.NDArray[np.bool_]:
        """Which of them are about as long as the median."""
        found: npt.NDArray[np.bool_] = np.abs(self.values - self.step) <= TOLERANCE * abs(self.step)
        return found

    @property
    def share(self) -> float:
        """How many of them are, from 0 to 1."""
        return float(self.regular.mean()) if len(self.values) else 1.0

    def text(self, step: float) -> str:
        """A step as a reader wants it."""
        return duration_of(step) if self.times else text_of(step)

    def breaks(self) -> Breaks | None:
        """Where they break, if so many are regular that this can be told."""
        if self.share < TELLING or self.regular.all():
            return None
        return Breaks(self, np.flatnonzero(~self.regular) + 1)


def _of_objects(labels: npt.NDArray[Any]) -> LabelSteps | None:
    """Steps between dates of cftime or Python, times in a zone, or periods of pandas."""
    if len(labels) and all(isinstance(label, pd.Period) for label in labels):
        ordinals = np.array([label.ordinal for label in labels], dtype=np.float64)
        return LabelSteps(np.diff(ordinals), times=False)
    try:
        found = [step.total_seconds() for step in np.diff(labels)]
    except (TypeError, AttributeError):  # text and the like, which has no differences
        return None
    return LabelSteps(np.array(found, dtype=np.float64), times=True)


@dataclass(frozen=True, eq=False)
class Breaks:
    """Places where the labels of a dim jump, go back or are repeated; no window crosses one.

    Attributes
    ----------
    steps : LabelSteps
        What tells them.
    at : ndarray of int64
        The first step after each of them, ascending.
    before : int
        Steps that windows count before the first one of the data.
    leads : tuple of (int, int)
        Steps to where the first window may begin, its halo included: from the first step of the
        data, before which it may lie, and from a break.
    """

    steps: LabelSteps
    at: IntArray
    before: int = 0
    leads: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def positions(self) -> IntArray:
        """The first step after each of them, as windows count."""
        return self.at + self.before

    @property
    def jumps(self) -> npt.NDArray[np.float64]:
        """The step between labels at each of them."""
        return self.steps.values[self.at - 1]

    def left_out(self, axis: Axis) -> IntArray:
        """Windows that each of them leaves out: those that would follow those before, and cross it.

        `axis` is that of all windows, in no part of a split.
        """
        first, others = self.leads
        begins = np.append(self.before + first, self.positions[:-1] + others)
        before = np.maximum(self.positions - begins, 0)
        room = axis.length - axis.size + 1 - begins  # begins up to the end of the data
        begun: IntArray = -(-np.minimum(before, np.maximum(room, 0)) // axis.stride)
        return begun - axis.fitting(before)

    def cut(self, starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
        """Stretches of steps ``[start, stop)``, ascending and apart, cut at each of them."""
        place = np.searchsorted(starts, self.positions) - 1
        inside = (place >= 0) & (self.positions < stops[place])
        cuts = self.positions[inside]
        return np.sort(np.append(starts, cuts)), np.sort(np.append(stops, cuts))

    def longest(self, length: int) -> int:
        """Steps of the longest stretch between them, of so many in all."""
        return int(np.diff(np.concatenate([[0], self.at, [length]])).max())
