"""Datasets of labeled samples, made of variables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

__all__ = ["dataset_of", "renamed"]


def dataset_of(data: Mapping[Any, xr.Variable], coords: Mapping[Any, xr.Variable]) -> xr.Dataset:
    """The Dataset of variables, with an index along each dim of which xarray can have one.

    It has none along dims whose names are no text (2026.9).
    """
    unnamed = {
        name: coord
        for name, coord in coords.items()
        if not isinstance(name, str) and coord.dims == (name,)
    }
    found = xr.Dataset(data, {name: coords[name] for name in coords if name not in unnamed})
    return found.assign_coords(xr.Coordinates(unnamed, indexes={})) if unnamed else found


def renamed(variable: xr.Variable, names: Mapping[Any, Hashable]) -> xr.Variable:
    """A variable with some of its dims renamed."""
    dims = [names.get(dim, dim) for dim in variable.dims]
    return xr.Variable(dims, variable.data, variable.attrs)
