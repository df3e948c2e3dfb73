"""Labels of a field: the coordinates of the data at the places that samples predict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..planning.overlap_add import FieldDim
from .labels import Labels

__all__ = ["field_coords"]

# What coordinates of a forecast are called by the CF conventions.
INIT = {"standard_name": "forecast_reference_time", "long_name": "time of the forecast"}
LEAD = {"standard_name": "forecast_period", "long_name": "time since the forecast"}
STEPS = {"long_name": "steps since the forecast"}
# Attributes of labels that say what the labels of anchors are not.
DROPPED = ("standard_name", "long_name", "axis", "bounds", "climatology")


def field_coords(
    labels: Labels,
    dims: Sequence[FieldDim],
    kept: Mapping[Hashable, tuple[Hashable, Hashable]],
    anchors: Mapping[Hashable, int],
) -> xr.Dataset:
    """The coordinates of a field, lazy where those of the data are.

    `kept` has the names of the two dims that stand in the place of one that is kept, `anchors` the
    step of a window whose label is the first of these. Its own labels, and all others along it, are
    coordinates of both.

    ValueError if a name of these is taken.
    """
    coords = labels.coords
    found = coords.isel(
        {each.dim: _slice(labels, each) for each in dims if not each.kept}, missing_dims="ignore"
    )
    for each in dims:
        if not each.kept:
            continue
        init, lead = kept[each.dim]
        taken = {*found.variables, *found.dims, *(other.dim for other in dims)} - {each.dim}
        for name in (init, lead):
            if name in taken or name == each.dim or init == lead:
                raise ValueError(
                    f"keep={each.dim!r} needs two names, and {name!r} is taken: "
                    f"keep={{{each.dim!r}: (…, …)}} gives others"
                )
        begins = each.starts[each.numbers]
        steps, anchor = begins[:, None] + each.steps, begins + anchors[each.dim]
        made = _forecast(coords, each, steps, anchor)
        if each.dim in found.dims:
            found = found.isel({each.dim: xr.Variable((init, lead), steps)})
        for name, (values, attrs, encoding) in zip((init, lead), made, strict=True):
            found = found.assign_coords({name: xr.Variable((name,), values, attrs, encoding)})
    return found


def _slice(labels: Labels, each: FieldDim) -> slice:
    """Where the places of a field lie in the data as windows count it."""
    beyond = labels.beyond.get(each.dim)
    first = each.first + (0 if beyond is None else beyond.before)
    return slice(first, first + each.length)


def _forecast(coords: xr.Dataset, each: FieldDim, steps: Any, anchor: Any) -> list[Any]:
    """Values, attributes and encoding of the labels of anchors, and of the steps from these on.

    Where labels are not as far apart in every window, as months are, these are counted.
    """
    counted: tuple[Any, Any, Any] = (
        each.steps - (anchor - each.starts[each.numbers])[:1],
        STEPS,
        {},
    )
    labels = coords.variables.get(each.dim)
    if labels is None:
        return [(anchor, {}, {}), counted]
    values = labels.to_numpy()
    inits = values[anchor]
    kept = {key: value for key, value in labels.attrs.items() if key not in DROPPED}
    encoding = {
        key: labels.encoding[key] for key in ("units", "calendar") if key in labels.encoding
    }
    times = values.dtype.kind in "Mm" or isinstance(coords.indexes.get(each.dim), xr.CFTimeIndex)
    first = (inits, {**kept, **(INIT if times else {})}, encoding)
    if values.dtype.kind not in "MmOiuf":
        return [first, counted]
    try:
        apart = values[steps] - inits[:, None]
    except TypeError:
        return [first, counted]
    if values.dtype.kind == "O":
        apart = np.array(pd.to_timedelta(apart.ravel())).reshape(apart.shape)
    there = np.where(each.valid.all(axis=1))[0]
    leads = apart[there[0] if len(there) else 0]
    if pd.isna(leads).any() or len(np.unique(leads)) < len(leads):
        return [first, counted]
    same = apart == leads
    if leads.dtype.kind == "f":
        same = np.isclose(apart, leads, rtol=0, atol=0.01 * float(np.ptp(leads) or 1.0))
    if not same[each.valid].all():
        return [first, counted]
    return [first, (leads, LEAD if times else {}, {})]
