"""Variables that describe others, as the CF conventions mark them, and fields, which do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.user_warnings import warn_user
from ..planning.windows import Windows

__all__ = [
    "circle_of",
    "descriptive",
    "fields",
    "is_east",
    "is_north",
    "is_time",
    "text_of",
    "texts_of",
    "warn_of_bounds",
    "warn_of_shared_axes",
]

# https://cfconventions.org/cf-conventions/cf-conventions.html#latitude-coordinate
_NORTH = "degrees_north", "degree_north", "degree_N", "degrees_N"
_EAST = "degrees_east", "degree_east", "degree_E", "degrees_E"
_RADIANS = "radian", "radians", "rad"
_COMPASS = {**dict.fromkeys(_NORTH, ("°N", "°S")), **dict.fromkeys(_EAST, ("°E", "°W"))}

# Steps of a dim that are looked at to tell how far they are apart.
LOOKED_AT = 10_000

# Attributes that name the variables in which cells, or the grid, are described.
BOUNDS = ("bounds", "climatology")
GRIDS = ("grid_mapping",)


def descriptive(data: xr.Dataset, attributes: Iterable[str] = (*BOUNDS, *GRIDS)) -> set[Hashable]:
    """Names of variables that others name as their description.

    Those that name others are given; decoding may have moved the attributes to the encoding.
    """
    found: set[Hashable] = set()
    for variable in data.variables.values():
        for attribute in attributes:
            named = variable.attrs.get(attribute, variable.encoding.get(attribute))
            if isinstance(named, str):  # a grid mapping may name coordinates, too: "crs: x y"
                found |= {word.rstrip(":") for word in named.split()}
    return found


def fields(data: xr.Dataset, dims: Iterable[Hashable]) -> list[Hashable]:
    """Names of floating data variables that have these dims and do not describe others."""
    needed, others = set(dims), descriptive(data)
    return [
        name
        for name, variable in data.data_vars.items()
        if variable.dtype.kind == "f" and needed <= set(variable.dims) and name not in others
    ]


def warn_of_bounds(
    variable_dims: Mapping[Hashable, frozenset[Hashable]],
    windows: Windows,
    parts: Iterable[Iterable[Hashable]],
    descriptions: Iterable[xr.Dataset],
) -> None:
    """Warn if a dim that only bounds of cells have makes several samples of each.

    Of other dims nobody knows: a forecast of many members and what was observed, which lacks the
    members, are samples as they should be. `parts` are the variables of each part, and
    `descriptions` have the attributes that name bounds.
    """
    descriptions = list(descriptions)
    bounds = set().union(*(descriptive(data, BOUNDS) for data in descriptions))
    described = bounds.union(*(descriptive(data, GRIDS) for data in descriptions))
    for axis in windows.axes:
        having = [name for name, dims in variable_dims.items() if axis.dim in dims]
        if axis.windowed or len(axis) < 2 or not having or len(having) == len(variable_dims):
            continue
        if bounds.issuperset(having):
            part = next(part for part in map(list, parts) if not bounds.isdisjoint(part))
            kept = [name for name in part if name not in described]
            warn_user(
                f"there are {len(axis)} samples of each window, one for each place of the dim "
                f"{axis.dim!r}, which is only that of bounds: {', '.join(map(repr, having))}. "
                + (f"Leave them out: inputs={kept}" if kept else "Leave them out")
            )


def warn_of_shared_axes(windows: Windows, coords: xr.Dataset) -> None:
    """Warn if two dims are windowed apart that are one physical axis: of two grids, in one source.

    Every window along one is then combined with every window along the other, and few of these
    samples are of one place.
    """
    for kind, is_one in (("latitude", is_north), ("longitude", is_east)):
        found = [
            axis
            for axis in windows.axes
            if axis.windowed and len(axis) > 1 and is_one(axis.dim, coords)
        ]
        if len(found) < 2:
            continue
        first, second, *_ = found
        product = math.prod(map(len, found))
        warn_user(
            f"the dims {[axis.dim for axis in found]} are windowed apart, and each is a {kind}: "
            f"{' × '.join(str(len(axis)) for axis in found)} windows make {product:,} samples, "
            f"most of them of several places, where {len(first):,} have the same place in all. "
            f"Data of two grids are two sources: {{'a': …, 'b': xtd.Source(…, "
            f"{first.dim}=xtd.Within())}}, with {second.dim!r} renamed {first.dim!r} in the second",
        )


def text_of(value: Any, units: Any = None) -> str:
    """A value of a coordinate as a reader wants it: no midnight, no digits of rounding."""
    value = (
        value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value
    )
    if isinstance(value, np.datetime64):
        text = str(value) if np.isnat(value) else pd.Timestamp(value).isoformat(" ")
        return text.removesuffix(" 00:00:00").removesuffix(":00")
    if isinstance(value, np.timedelta64):
        return str(value) if np.isnat(value) else str(pd.Timedelta(value))
    if hasattr(value, "isoformat") and not hasattr(value, "hour"):  # a day of Python
        return str(value.isoformat())
    if hasattr(value, "isoformat"):  # of cftime, which may have no year that pandas knows
        return str(value.isoformat(" ")).removesuffix(" 00:00:00").removesuffix(":00")
    if not isinstance(value, float | int) or isinstance(value, bool):
        return printable(value)
    positive, negative = _COMPASS.get(str(units), ("", ""))
    if positive:
        return f"{abs(value):.5g}{negative if value < 0 else positive}"
    return f"{value:.6g}" if isinstance(value, float) else f"{value}"


def texts_of(coord: xr.Variable) -> Callable[[int], str] | None:
    """From a step along a dim to its label; None if labels are not one after the other.

    Floats have as many decimals as neighboring steps need.
    """
    if coord.ndim != 1:
        return None
    units = coord.attrs.get("units")
    decimals = _decimals(coord.values) if coord.dtype.kind == "f" else None

    def text(at: int) -> str:
        value = np.asarray(coord[at].values)[()]
        if decimals is not None:
            return text_of(round(float(value), decimals) + 0.0, units)  # no -0
        return text_of(value, units)

    return text


def _decimals(values: npt.NDArray[Any]) -> int | None:
    """Decimals that tell neighboring values apart, and one more; None where that is not known."""
    apart = np.abs(np.diff(values[:LOOKED_AT].astype(float)))
    apart = apart[np.isfinite(apart) & (apart > 0)]
    return max(0, 1 - math.floor(math.log10(np.median(apart)))) if len(apart) else None


def is_time(name: Hashable, array: xr.DataArray | xr.Dataset) -> bool:
    """Whether a coordinate holds times, or durations, or is named as one that does."""
    if name not in array.coords:
        return str(name).lower().startswith("time")
    coord = array.coords[name]
    if coord.dtype.kind in "mM" or coord.attrs.get("axis") == "T":
        return True
    return (
        coord.dtype.kind == "O" and bool(coord.size) and hasattr(coord.values.flat[0], "calendar")
    )


def is_north(name: Hashable, array: xr.DataArray | xr.Dataset) -> bool:
    """Whether a coordinate is a latitude, as CF conventions tell or by its name."""
    return _is(name, array, "latitude", _NORTH)


def is_east(name: Hashable, array: xr.DataArray | xr.Dataset) -> bool:
    """Whether a coordinate is a longitude."""
    return _is(name, array, "longitude", _EAST)


def circle_of(name: Hashable, array: xr.DataArray | xr.Dataset) -> float | None:
    """A full turn in the units of a coordinate that is a longitude; else None."""
    if not is_east(name, array):
        return None
    attrs = array.coords[name].attrs if name in array.coords else {}
    return 2 * math.pi if attrs.get("units") in _RADIANS else 360.0


def _is(
    name: Hashable, array: xr.DataArray | xr.Dataset, kind: str, units: tuple[str, ...]
) -> bool:
    attrs = array.coords[name].attrs if name in array.coords else {}
    named = str(name).lower().partition("_")[0] in (kind[:3], kind)
    return named or attrs.get("units") in units or attrs.get("standard_name") == kind
