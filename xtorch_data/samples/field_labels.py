"""Labels of a field: the coordinates of the data at the places that samples predict."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import xarray as xr

from ..planning.overlap_add import FieldDim
from .labels import Labels
from .leads import STEPS, are_dates, leads

__all__ = ["field_coords"]

# What the labels of anchors are called by the CF conventions.
INIT = {"standard_name": "forecast_reference_time", "long_name": "time of the forecast"}
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
        steps = each.starts[each.numbers][:, None] + each.steps
        made = _forecast(coords, each, anchors[each.dim])
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


def _forecast(coords: xr.Dataset, each: FieldDim, anchor: int) -> list[Any]:
    """Values, attributes and encoding of the labels of anchors, and of the steps from these on.

    Where labels are not as far apart in every window, as months are, these are counted.
    """
    begins = each.starts[each.numbers]
    times = coords.variables.get(each.dim)
    if times is None:
        return [(begins + anchor, {}, {}), (each.steps - anchor, STEPS, {})]
    kept = {key: value for key, value in times.attrs.items() if key not in DROPPED}
    encoding = {key: times.encoding[key] for key in ("units", "calendar") if key in times.encoding}
    init = INIT if are_dates(times) or times.dtype.kind == "m" else {}
    found = leads(times, begins, each.steps, anchor, each.valid)
    return [(times.to_numpy()[begins + anchor], {**kept, **init}, encoding), (*found, {})]
