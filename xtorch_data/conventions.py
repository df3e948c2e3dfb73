"""Variables that describe others, as the CF conventions mark them, and fields, which do not."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping

import xarray as xr

from .windows import Windows

__all__ = ["descriptive", "fields", "warn_of_bounds"]

# Attributes that name the variables in which cells, or the grid, are described.
BOUNDS = ("bounds", "climatology")
GRIDS = ("grid_mapping",)


def descriptive(data: xr.Dataset, attributes: Iterable[str] = (*BOUNDS, *GRIDS)) -> set[Hashable]:
    """Names of variables that others name as their description.

    Parameters
    ----------
    data : xarray.Dataset
        The variables that name others; those need not be in it.
    attributes : iterable of str
        The attributes in which they are named; decoding may have moved them to the encoding.
    """
    found: set[Hashable] = set()
    for variable in data.variables.values():
        for attribute in attributes:
            named = variable.attrs.get(attribute, variable.encoding.get(attribute))
            if isinstance(named, str):  # a grid mapping may name coordinates, too: "crs: x y"
                found |= {word.rstrip(":") for word in named.split()}
    return found


def fields(data: xr.Dataset, dims: Iterable[Hashable]) -> list[Hashable]:
    """Names of floating data variables that have these dims and do not describe others.

    Parameters
    ----------
    data : xarray.Dataset
        The data.
    dims : iterable of Hashable
        Dims that a field has.
    """
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
    stacklevel: int = 3,
) -> None:
    """Warn if a dim that only bounds of cells have makes several samples of each.

    Of other dims nobody knows: a forecast of many members and what was observed, which lacks the
    members, are samples as they should be.

    Parameters
    ----------
    variable_dims : mapping of Hashable to frozenset
        Dims of the variables of the samples.
    windows : Windows
        The sample space.
    parts : iterable of iterable of Hashable
        The variables of each part.
    descriptions : iterable of xarray.Dataset
        Variables with the attributes that name bounds.
    stacklevel : int
        How many calls above is the line that is to blame.
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
            warnings.warn(
                f"there are {len(axis)} samples of each window, one for each place of the dim "
                f"{axis.dim!r}, which is only that of bounds: {', '.join(map(repr, having))}. "
                + (f"Leave them out: inputs={kept}" if kept else "Leave them out"),
                stacklevel=stacklevel,
            )
