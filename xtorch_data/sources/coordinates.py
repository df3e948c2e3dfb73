"""What a split cuts: steps of a dim, or the different labels of a coordinate, in order."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..planning.index_maps import IntArray
from ..planning.intervals import Interval
from ..planning.label_ranks import Ranks

__all__ = ["Along", "Gap", "RankedLabels", "runs", "text_of_range"]

Gap = int | float | str | datetime.timedelta | np.timedelta64


@dataclass(frozen=True, eq=False)
class RankedLabels:
    """A coordinate of one or two dims, with its labels as ranks among the different ones.

    Attributes
    ----------
    dims : tuple of Hashable
        Its dims.
    ranks : ndarray of int32
        Places of its labels in `index`, -1 for those that are missing.
    index : pandas.Index
        The different labels, ascending.
    """

    dims: tuple[Hashable, ...]
    ranks: Ranks
    index: pd.Index[Any]

    @classmethod
    def of(cls, name: Hashable, variable: xr.Variable) -> RankedLabels:
        """Look at all labels, which are read if they are lazy; TypeError if they have no order."""
        try:
            codes, different = pd.factorize(variable.to_numpy().ravel(), sort=True)
        except TypeError as error:
            raise TypeError(
                f"the labels of the coordinate {name!r} cannot be put in order: {printable(error)}"
            ) from error
        index = xr.DataArray(different, dims="label").to_index()  # of cftime, one of xarray
        return cls(variable.dims, codes.astype(np.int32).reshape(variable.shape), index)


@dataclass(frozen=True, eq=False)
class Along:
    """What is cut: steps of a dim, or different labels of a coordinate, as places in order.

    Attributes
    ----------
    name : Hashable
        The dim or the coordinate.
    length : int
        Number of places.
    index : pandas.Index, optional
        The label of each place.
    starts, stops : ndarray of int64
        Places ``[start, stop)`` that there are; a part that is cut again may have holes.
    labels : RankedLabels, optional
        Those of the coordinate.
    """

    name: Hashable
    length: int
    index: pd.Index[Any] | None
    starts: IntArray
    stops: IntArray
    labels: RankedLabels | None = None

    @classmethod
    def of_steps(
        cls,
        dim: Hashable,
        length: int,
        index: pd.Index[Any] | None,
        there: tuple[IntArray, IntArray],
    ) -> Along:
        """Steps of a dim, of which there are some; ValueError if two have the same label."""
        if index is not None and not index.is_unique:
            twice = index[index.duplicated()][0]
            raise ValueError(
                f"the coordinate {dim!r} has {twice} more than once, so that parts could share "
                f"it: ds.drop_duplicates({dim!r}) keeps the first of each, "
                f"ds.drop_vars({dim!r}) leaves the dim without a coordinate, and along another "
                "coordinate of the dim, labels may be repeated"
            )
        return cls(dim, length, index, *there)

    @classmethod
    def of_labels(cls, name: Hashable, labels: RankedLabels, there: npt.NDArray[np.bool_]) -> Along:
        """The different labels of a coordinate, of which there are some."""
        starts, stops = runs(there).T
        return cls(name, len(labels.index), labels.index, starts, stops, labels)

    @property
    def noun(self) -> str:
        """What a place is, for messages."""
        return "step" if self.labels is None else "label"

    def label(self, place: int) -> Any:
        """The label of a place, or the place itself where there are none."""
        return place if self.index is None else self.index[place]

    @property
    def steps(self) -> int:
        """Number of places there are."""
        return int((self.stops - self.starts).sum())

    def nth(self, step: int) -> int:
        """One of the places there are."""
        ends = np.cumsum(self.stops - self.starts)
        place = np.searchsorted(ends, step, side="right")
        return int(self.stops[place] - (ends[place] - step))

    def between(self, start: int, stop: int) -> list[Interval]:
        """Those of the places ``[start, stop)`` that there are."""
        first = int(np.searchsorted(self.stops, start, "right"))
        last = int(np.searchsorted(self.starts, stop))
        some = slice(first, last)
        starts = np.maximum(self.starts[some], start).tolist()
        stops = np.minimum(self.stops[some], stop).tolist()
        return list(zip(starts, stops, strict=True)) if start < stop else []

    def position(self, label: Any) -> int:
        """First place that is not before a label."""
        what = f"at={label!r}"
        return self._bound(self._sorted(what), label, "left", what)

    def range(self, labels: slice) -> Interval:
        """Places of the labels from one to another, both of them included.

        As `sel` of xarray has it: a date that says less than a label is the whole period. Of labels
        that descend, either may be named first.

        Raises
        ------
        TypeError
            If it is no slice, or its ends cannot be compared with the labels.
        ValueError
            If there is no label between them, or the slice has a step.
        """
        if not isinstance(labels, slice):
            raise TypeError(
                "each part of ranges=[…] is a slice of labels, such as slice('1980', '1999'), or a "
                f"list of slices, not {labels!r}"
            )
        what = f"the range {text_of_range(labels)}"
        if labels.step is not None:
            raise ValueError(f"{what} of labels cannot have a step, {labels.step!r}")
        index, ends = self._sorted(what), (labels.start, labels.stop)
        descends = not index.is_monotonic_increasing
        ascending = index[::-1] if descends else index
        first, last = self._bounds(ascending, ends, what)
        if descends:
            if first >= last:
                first, last = self._bounds(ascending, ends[::-1], what)
            first, last = len(index) - last, len(index) - first
        if first >= last:
            raise ValueError(
                f"{what} is empty: {self.name!r} has no label in it; its labels go from "
                f"{printable(index[0])} to {printable(index[-1])}"
            )
        return first, last

    def _bounds(self, index: pd.Index[Any], ends: tuple[Any, Any], what: str) -> Interval:
        first, last = ends
        return (
            0 if first is None else self._bound(index, first, "left", what),
            len(index) if last is None else self._bound(index, last, "right", what),
        )

    def _bound(self, index: pd.Index[Any], label: Any, side: Any, what: str) -> int:
        try:
            if index.dtype.kind in "iuf" and not isinstance(label, numbers.Real):
                raise TypeError("it is not a number")  # pandas would compare texts
            return int(index.get_slice_bound(label, side))
        except (TypeError, ValueError, KeyError) as error:
            dates = isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex)
            hint = ". Give dates as text, such as '2000' or '2000-01-01'" if dates else ""
            raise TypeError(
                f"{what} cannot be compared with the coordinate {self.name!r}, which "
                f"goes from {printable(index[0])} to {printable(index[-1])}: "
                f"{printable(error)}{hint}"
            ) from error

    def before(self, position: int, gap: Gap) -> int:
        """End of what is apart by a gap from what begins at a place."""
        if _in_steps(gap):
            return max(position - int(gap), 0)
        if position >= self.length:
            return position
        return min(self._shifted(position, gap, -1), position)

    def after(self, position: int, gap: Gap) -> int:
        """Begin of what is apart by a gap from what ends with a place."""
        if _in_steps(gap):
            return position + 1 + int(gap)
        return max(self._shifted(position, gap, 1), position + 1)

    def _shifted(self, position: int, gap: Gap, direction: int) -> int:
        index = self._sorted(f"gap={gap!r}")
        distance = self._distance(index, gap)
        if index.is_monotonic_increasing == (direction > 0):
            label = index[position] + distance
        else:
            label = index[position] - distance
        return int(index.get_slice_bound(label, "left" if direction < 0 else "right"))

    def check(self, gap: Gap) -> None:
        """Raise if a gap does not fit the labels."""
        if isinstance(gap, (bool, np.bool_)):
            raise TypeError(
                f"gap must be {self.noun}s, a time or units of {self.name!r}, not {gap!r}"
            )
        if isinstance(gap, str) and gap.strip().lstrip("+-").replace(".", "", 1).isdecimal():
            raise TypeError(
                f"gap={gap!r} has no unit: give {gap.strip()} for {self.noun}s, or a time"
            )
        if _in_steps(gap):
            negative = gap < 0
        else:
            index = self._sorted(f"gap={gap!r}")
            distance = self._distance(index, gap)
            negative = not distance >= distance * 0
        if negative:
            raise ValueError(f"gap must not be negative, got {gap!r}")

    def _distance(self, index: pd.Index[Any], gap: Gap) -> Any:
        """A gap as what is added to labels."""
        numeric = index.dtype.kind in "iuf"
        try:
            if isinstance(gap, (float, np.floating)):
                if numeric:
                    return float(gap)
            elif isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
                return pd.Timedelta(gap)
            elif isinstance(index, xr.CFTimeIndex):
                return pd.Timedelta(gap).to_pytimedelta()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"gap={gap!r} is not understood as a time: {printable(error)}"
            ) from error
        wanted = "a float in its units" if numeric else "a time such as '14D'"
        raise TypeError(
            f"gap={gap!r} does not fit the coordinate {self.name!r}, which goes from "
            f"{printable(index[0])} to {printable(index[-1])}: give {self.noun}s as "
            f"an integer or, if it is apt, {wanted}"
        )

    def _sorted(self, what: str) -> pd.Index[Any]:
        """The labels, if they serve to look others up."""
        dim, index = self.name, self.index
        if index is None:
            raise ValueError(
                f"{what} needs a coordinate along {dim!r}, which has none: fractions=(…) and a gap "
                "in steps do without"
            )
        if isinstance(index, pd.MultiIndex):
            raise ValueError(f"{what} needs a plain coordinate; {dim!r} has several levels")
        if not (index.is_monotonic_increasing or index.is_monotonic_decreasing):
            raise ValueError(
                f"{what} needs a sorted coordinate, and {dim!r} is not: ds.sortby({dim!r}) sorts it"
            )
        return index


def text_of_range(labels: slice) -> str:
    """A range of labels as a user writes it."""
    return f"slice({labels.start!r}, {labels.stop!r})"


def runs(there: npt.NDArray[np.bool_]) -> IntArray:
    """Places ``[start, stop)`` of runs of True, one in each row."""
    edges = np.diff(there.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges).reshape(-1, 2)


def _in_steps(gap: Gap) -> TypeGuard[int]:
    # A numpy timedelta is a numpy integer, too.
    return isinstance(gap, (int, np.integer)) and not isinstance(gap, np.timedelta64)
