"""Leads: how long after its anchor a step of a sample is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..planning.windows import IntArray, SourceWindows, WindowDim
from ..sources.conventions import is_time
from .select import Indexer, Part

__all__ = ["LEAD_TIME", "Anchors", "are_dates", "lead_coord", "leads"]

# What the coordinate is called.
LEAD_TIME = "lead_time"
# What leads are called by the CF conventions, and steps that stand for them.
LEAD = {"standard_name": "forecast_period", "long_name": "time since the forecast"}
STEPS = {"long_name": "steps since the forecast"}
# Leads that are floating point numbers are the same if they differ by less of their range.
TOLERANCE = 0.01


@dataclass(frozen=True)
class Anchors:
    """Steps that samples are at, and how part ``x`` cuts windows, by dim."""

    steps: Mapping[Hashable, int] = field(default_factory=dict)
    of_x: Mapping[Hashable, Indexer] = field(default_factory=dict)

    @classmethod
    def of(cls, steps: Mapping[Hashable, int], parts: Iterable[Part]) -> Anchors:
        """Those of samples with some parts, ``x`` perhaps among them."""
        return cls(steps, next((part.indexers for part in parts if part.name == "x"), {}))

    def is_ahead(self, axis: WindowDim, indexer: Indexer) -> bool:
        """Whether a cut of windows is another than that of ``x``, and goes beyond the anchor."""
        every = np.arange(axis.size)
        steps, seen = every[indexer], every[self.of_x.get(axis.dim, slice(None))]
        differ = not np.array_equal(steps, seen)
        return differ and int(np.max(steps)) > self.steps.get(axis.dim, axis.size - 1)


def lead_coord(
    windows: SourceWindows,
    axes: Iterable[WindowDim],
    coords: xr.Dataset,
    anchors: Anchors,
    indexers: Mapping[Hashable, Indexer],
) -> tuple[Hashable, xr.Variable] | None:
    """Leads of a part that goes beyond the anchor, and the dim along which it does.

    They are the same in all samples, else steps are counted, as in a field that `keep` keeps
    apart. None if not one of the `axes` has dates, or numbers that are named as times, and is cut
    so; or if windows along it do not follow one axis of the samples alone.
    """
    found = [
        axis
        for axis in axes
        if axis.windowed
        and _are_times(coords, axis.dim)
        and anchors.is_ahead(axis, indexers.get(axis.dim, slice(None)))
    ]
    if len(found) != 1:
        return None
    [axis] = found
    along = windows.map(axis.dim)
    if len(along.terms) != 1:
        return None
    [term] = along.terms.values()
    begins = along.base + term.at(np.arange(len(term)))
    times = coords.variables[axis.dim]
    if _are_even(times):  # one window stands for all
        begins = begins[:1]
    steps = np.arange(axis.size)[indexers.get(axis.dim, slice(None))]
    anchor = anchors.steps[axis.dim]
    inits = times.to_numpy()[begins + anchor]
    values, attrs = leads(times, begins, np.atleast_1d(steps), inits, anchor)
    made = xr.Variable((axis.dim,), values, attrs)
    return axis.dim, made if np.ndim(steps) else made[0]


def are_dates(times: xr.Variable) -> bool:
    """Whether labels are dates of any calendar."""
    if times.dtype.kind == "O":
        return times.size > 0 and hasattr(times.to_numpy().flat[0], "calendar")
    return bool(times.dtype.kind == "M")


def leads(
    times: xr.Variable,
    begins: IntArray,
    steps: IntArray,
    inits: npt.NDArray[Any],
    anchor: int,
    valid: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[Any], dict[str, str]]:
    """Labels of steps of windows less those of their anchors, and attributes.

    Parameters
    ----------
    times : xarray.Variable
        Labels along a dim.
    begins : ndarray of int64
        Where windows begin, one or more.
    steps : ndarray of int64
        Steps of a window.
    inits : numpy.ndarray
        Labels of the anchors of these windows.
    anchor : int
        Step of a window from which steps are counted.
    valid : ndarray of bool, optional
        Which steps of which windows lie in the data, shape ``(window, step)``; all by default.

    Returns
    -------
    values : numpy.ndarray
        Durations, or differences of numbers; where these are not the same in every window, as of
        months, or there are none, how many steps after the anchor.
    attrs : dict
        Those of the CF conventions for durations.
    """
    counted = steps - anchor, dict(STEPS)
    values = times.to_numpy()
    if values.dtype.kind not in "MmOiuf" or inits.dtype.kind not in "MmOiuf":
        return counted
    values, inits = (
        each.astype(np.int64) if each.dtype.kind == "u" else each for each in (values, inits)
    )
    there = [0] if valid is None else np.flatnonzero(valid.all(axis=1))
    first = there[0] if len(there) else 0
    try:
        found = values[begins[first] + steps] - inits[first]
    except TypeError:  # such as texts
        return counted
    if pd.isna(found).any() or len(np.unique(found)) < len(found):
        return counted
    most = TOLERANCE * float(np.ptp(found) or 1.0) if found.dtype.kind == "f" else None
    for place, (step, lead) in enumerate(zip(steps, found, strict=True)):
        apart = values[begins + step] - inits
        same = apart == lead if most is None else np.isclose(apart, lead, rtol=0, atol=most)
        if not (same if valid is None else same[valid[:, place]]).all():
            return counted
    if found.dtype.kind == "O":
        found = pd.to_timedelta(found).to_numpy()
    return found, dict(LEAD) if found.dtype.kind == "m" else {}


def _are_times(coords: xr.Dataset, dim: Hashable) -> bool:
    """Whether labels are points of time; durations are leads themselves."""
    times = coords.variables.get(dim)
    if times is None or times.ndim != 1:
        return False
    if times.dtype.kind in "iuf":
        return is_time(dim, coords) or str(dim).lower().startswith("time")
    return are_dates(times)


def _are_even(times: xr.Variable) -> bool:
    values = times.to_numpy()
    steps = np.diff(values)
    return len(steps) > 0 and values.dtype.kind != "f" and bool((steps == steps[0]).all())
