"""Labels of several sources as numbers that can be compared."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.cached import cached_property
from .conventions import is_east

__all__ = ["Comparable", "comparable"]

MICROSECOND = np.timedelta64(1, "us")
# Calendars in which the same date is the same day, since 1582-10-15.
_SAME_DAYS = ("standard", "gregorian", "proleptic_gregorian")
# What a label that is missing becomes among times.
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

    @cached_property
    def step(self) -> float:
        """Median distance of neighbors."""
        if len(self.values) < 2 or self.kind == "text":
            return 0.0
        steps = np.abs(np.diff(self.values.astype(np.float64)))
        return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0

    @property
    def ascending(self) -> bool:
        """Whether each is larger than the one before."""
        return bool((self.values[1:] > self.values[:-1]).all())

    def near(self, other: Comparable) -> npt.NDArray[Any]:
        """The values, of longitudes turned by whole circles to be the nearest to another's."""
        if self.kind != "longitude" or not len(other.values):
            return self.values
        middle = (other.values.min() + other.values.max()) / 2
        turns = np.round((middle - self.values) / 360)
        return np.asarray(self.values + 360 * turns)

    def require_same_kind(self, other: Comparable, names: tuple[str, str]) -> None:
        """Raise ValueError if labels do not compare with another's; `names` says whose they are."""
        kinds = {self.kind, other.kind}
        if len(kinds) > 1 and kinds != {"number", "longitude"}:
            raise ValueError(
                f"the labels of {names[0]} and {names[1]} cannot be compared: they are {self.kind} "
                f"and {other.kind}"
            )


def comparable(data: xr.Dataset, name: Hashable) -> Comparable | None:
    """The labels of a coordinate, of any number of dims; None if the data has no such one."""
    coord = data.coords.variables.get(name)
    if coord is None:
        return None
    labels = coord.to_numpy()
    if labels.dtype.kind == "M":
        return Comparable(_microseconds(labels.astype("M8[us]")), _times("standard"))
    if labels.dtype.kind == "m":
        return Comparable(_microseconds(labels.astype("m8[us]")), "duration")
    if labels.dtype.kind in "iub":
        return Comparable(labels.astype(np.int64), "longitude" if is_east(name, data) else "number")
    if labels.dtype.kind == "f":
        kind = "longitude" if is_east(name, data) else "number"
        return Comparable(labels.astype(np.float64), kind)
    first = labels.flat[0] if labels.size else None
    if hasattr(first, "calendar"):
        epoch = type(first)(1970, 1, 1)
        since = (labels - epoch).astype("m8[us]")
        return Comparable(_microseconds(since), _times(first.calendar))
    if getattr(first, "tzinfo", None) is not None:
        raise ValueError(
            f"the labels of {name!r} have a time zone, {first.tzinfo}: "
            f"ds.assign_coords({{{name!r}: pd.DatetimeIndex(ds[{name!r}]).tz_convert(None)}}) has "
            "them in UTC without one"
        )
    return Comparable(labels.astype(object), "text")


def _microseconds(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.where(np.isnat(labels), _MISSING, labels.astype(np.int64))


def _times(calendar: str) -> str:
    return f"times of the {'standard' if calendar in _SAME_DAYS else calendar} calendar"
