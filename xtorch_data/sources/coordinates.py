"""One dim of the data, looked at to cut it: labels, gaps, and what of it there is."""

from __future__ import annotations

import datetime
import numbers
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..planning.intervals import Interval
from ..planning.windows import Axis, IntArray

__all__ = ["SplitDim", "Gap"]

Gap = int | float | str | datetime.timedelta | np.timedelta64


@dataclass(frozen=True, eq=False)
class SplitDim:
    """A dim that is cut: its windows, its coordinate, and what of it there is."""

    axis: Axis
    index: pd.Index[Any] | None
    # What there is of it, as data positions; a part that is cut again may have holes.
    starts: IntArray
    stops: IntArray

    @classmethod
    def of(cls, axis: Axis, index: pd.Index[Any] | None) -> SplitDim:
        """Look at the windows along a dim and its coordinate, if it has one."""
        dim = axis.dim
        if index is not None and not index.is_unique:
            twice = index[index.duplicated()][0]
            raise ValueError(
                f"the coordinate {dim!r} has {twice} more than once, so that parts could share "
                f"it: ds.drop_duplicates({dim!r}) keeps the first of each, "
                f"ds.drop_vars({dim!r}) leaves the dim without a coordinate"
            )
        starts, stops = axis.stretches
        # Steps at an end that have no room for one more window belong to it.
        if starts[0] < axis.stride:
            starts[0] = 0
        if stops[-1] + axis.stride > axis.length:
            stops[-1] = axis.length
        return cls(axis, index, starts, stops)

    @property
    def steps(self) -> int:
        """Number of steps there are."""
        return int((self.stops - self.starts).sum())

    def nth(self, step: int) -> int:
        """Data position of one of the steps there are."""
        ends = np.cumsum(self.stops - self.starts)
        place = np.searchsorted(ends, step, side="right")
        return int(self.stops[place] - (ends[place] - step))

    def between(self, start: int, stop: int) -> list[Interval]:
        """The parts of the data positions ``[start, stop)`` that there are."""
        first = int(np.searchsorted(self.stops, start, "right"))
        last = int(np.searchsorted(self.starts, stop))
        some = slice(first, last)
        starts = np.maximum(self.starts[some], start).tolist()
        stops = np.minimum(self.stops[some], stop).tolist()
        return list(zip(starts, stops, strict=True)) if start < stop else []

    def position(self, label: Any) -> int:
        """Data position of the first step that is not before a label."""
        index = self._sorted(f"at={label!r}")
        try:
            if index.dtype.kind in "iuf" and not isinstance(label, numbers.Real):
                raise TypeError("it is not a number")  # pandas would compare texts
            return int(index.get_slice_bound(label, "left"))
        except (TypeError, ValueError, KeyError) as error:
            raise TypeError(
                f"at={label!r} cannot be compared with the coordinate {self.axis.dim!r}, which "
                f"goes from {printable(index[0])} to {printable(index[-1])}: {printable(error)}"
            ) from error

    def before(self, position: int, gap: Gap) -> int:
        """End of the data that is apart by a gap from what begins at a position."""
        if _in_steps(gap):
            return max(position - int(gap), 0)
        if position >= self.axis.length:
            return position
        return min(self._shifted(position, gap, -1), position)

    def after(self, position: int, gap: Gap) -> int:
        """Begin of the data that is apart by a gap from what ends with a position."""
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
        """Raise if a gap does not fit the coordinate."""
        if isinstance(gap, (bool, np.bool_)):
            raise TypeError(f"gap must be steps, a time or units of {self.axis.dim!r}, not {gap!r}")
        if isinstance(gap, str) and gap.strip().lstrip("+-").replace(".", "", 1).isdecimal():
            raise TypeError(f"gap={gap!r} has no unit: give {gap.strip()} for steps, or a time")
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
            f"gap={gap!r} does not fit the coordinate {self.axis.dim!r}, which goes from "
            f"{printable(index[0])} to {printable(index[-1])}: give steps as "
            f"an integer or, if it is apt, {wanted}"
        )

    def _sorted(self, what: str) -> pd.Index[Any]:
        """The coordinate, if it serves to look labels up."""
        dim, index = self.axis.dim, self.index
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


def _in_steps(gap: Gap) -> TypeGuard[int]:
    # A numpy timedelta is a numpy integer, too.
    return isinstance(gap, (int, np.integer)) and not isinstance(gap, np.timedelta64)
