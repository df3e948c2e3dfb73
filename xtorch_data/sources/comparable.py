"""Labels of several sources as numbers that can be compared."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.cached import cached_property
from .conventions import is_east

__all__ = ["Comparable", "comparable"]

# Calendars in which the same date is the same day, since 1582-10-15. Before, dates differ: what is
# compared is how long they are ago.
_SAME_DAYS = ("standard", "gregorian", "proleptic_gregorian")
# What a time that is missing is as an integer.
_MISSING = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class Comparable:
    """Labels of a coordinate as numbers.

    Attributes
    ----------
    values : ndarray of int64, float64 or object
        Microseconds since 1970 for times, microseconds for durations, else the labels themselves.
    kind : str
        "number", "longitude", "duration", "text", or "times of the … calendar": labels of one kind
        compare.
    """

    values: npt.NDArray[Any]
    kind: str

    @property
    def is_time(self) -> bool:
        """Whether they are times, from which durations can be taken."""
        return self.kind.startswith("times")

    @property
    def in_microseconds(self) -> bool:
        """Whether differences of them are durations."""
        return self.is_time or self.kind == "duration"

    @property
    def is_text(self) -> bool:
        """Whether they have no differences."""
        return self.kind == "text"

    @property
    def period(self) -> float | None:
        """The length of the circle that they are on, if they are longitudes."""
        return 360.0 if self.kind == "longitude" else None

    @cached_property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Which of them are NaT, NaN or None."""
        if self.in_microseconds:
            return np.asarray(self.values == _MISSING)
        return np.asarray(pd.isna(self.values))

    @cached_property
    def step(self) -> float:
        """Median distance of neighbors, of those that differ; 0 where there are none."""
        known = self.values[~self.missing].ravel()
        if len(known) < 2 or self.is_text:
            return 0.0
        steps = np.abs(np.diff(known.astype(np.float64)))
        return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0

    @property
    def ascending(self) -> bool:
        """Whether each is larger than the one before."""
        return bool((self.values[1:] > self.values[:-1]).all())

    def require_same_kind(self, other: Comparable, names: tuple[str, str]) -> None:
        """Raise ValueError if labels do not compare with another's; `names` says whose they are."""
        kinds = {self.kind, other.kind}
        if len(kinds) > 1 and kinds != {"number", "longitude"}:
            raise ValueError(
                f"the labels of {names[0]} and {names[1]} cannot be compared: they are {self.kind} "
                f"and {other.kind}"
            )


def comparable(data: xr.Dataset, name: Hashable) -> Comparable | None:
    """The labels of a coordinate, of any number of dims; None if the data has no such one.

    Times are rounded to microseconds: those that were decoded from floats are off by some
    nanoseconds.
    """
    coord = data.coords.variables.get(name)
    if coord is None:
        return None
    labels = coord.to_numpy()
    kind = labels.dtype.kind
    if kind in "mM":
        since = _microseconds(labels)
        return Comparable(since, "duration" if kind == "m" else _times("standard"))
    if kind in "iubf":
        values = labels.astype(np.float64 if kind == "f" else np.int64, copy=False)
        return Comparable(values, "longitude" if is_east(name, data) else "number")
    there = np.asarray(pd.notna(labels))
    known = labels[there]
    first: Any = known[0] if known.size else None
    if hasattr(first, "calendar"):
        epoch = first.replace(year=1970, month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
        since = np.full(labels.shape, _MISSING)
        since[there] = _microseconds((known - epoch).astype("m8[us]"))
        return Comparable(since, _times(first.calendar))
    if getattr(first, "tzinfo", None) is not None:
        raise ValueError(
            f"the labels of {name!r} have a time zone, {first.tzinfo}: "
            f"ds.assign_coords({{{name!r}: ds.indexes[{name!r}].tz_convert(None)}}) has them in "
            "UTC without one"
        )
    return Comparable(labels.astype(object), "text")


def _microseconds(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    unit, _ = np.datetime_data(labels.dtype)
    if unit in ("ns", "ps", "fs", "as"):
        labels = labels + np.timedelta64(500, "ns")
    return labels.astype(f"{labels.dtype.kind}8[us]").astype(np.int64)


def _times(calendar: str) -> str:
    return f"times of the {'standard' if calendar in _SAME_DAYS else calendar} calendar"
