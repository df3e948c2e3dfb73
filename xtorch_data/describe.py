"""Windows, shapes and labels as text and HTML, from what is in memory: nothing is read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from . import html
from .labels import text_of
from .windows import Axis, Windows

__all__ = ["ranges_of", "shape_of", "windows_table"]


def windows_table(windows: Windows, coords: xr.Dataset | None = None) -> str:
    """How windows lie along every dim, and from which label to which."""
    rows = [
        (
            axis.dim,
            f"{axis.size:,}" if axis.windowed else "each place",
            f"{axis.size - axis.stride:,}" if axis.windowed else "",
            f"{len(axis):,}",
            f"{axis.length:,}",
            "" if coords is None else _extent(axis, coords.variables.get(axis.dim)),
        )
        for axis in windows.axes
    ]
    names = ("dim", "window", "overlap", "windows", "steps", "labels")
    used = len(names) if any(row[-1] for row in rows) else len(names) - 1
    return html.table(names[:used], [row[:used] for row in rows])


def ranges_of(coords: xr.Dataset, region: Mapping[Any, slice | int]) -> dict[str, str]:
    """By name of the coordinates that are in memory, their first and last value in a region."""
    found = {}
    for name, coord in coords.variables.items():
        if coord._in_memory:
            inside = coord[{dim: cut for dim, cut in region.items() if dim in coord.dims}]
            ends = [inside[dict.fromkeys(inside.dims, place)] for place in (0, -1)]
            found[str(name)] = _between(ends)
    return found


def shape_of(shape: Sequence[int], dims: Sequence[Hashable]) -> str:
    """Sizes with the names of their dims, where there is one for each."""
    names = [f"{dim} " for dim in dims] if len(dims) == len(shape) else [""] * len(shape)
    sizes = (f"{name}{size:,}" for name, size in zip(names, shape, strict=True))
    return " × ".join(sizes) or "a number"


def _extent(axis: Axis, coord: xr.Variable | None) -> str:
    """Labels of the first and the last step that are in a window."""
    if coord is None or coord.ndim != 1 or not coord._in_memory or not len(axis):
        return ""
    first, _ = axis.span(0, 1)
    last = axis.span(len(axis) - 1, len(axis))[1] - 1
    return _between([coord[first], coord[last]])


def _between(ends: Sequence[xr.Variable]) -> str:
    texts = (text_of(np.asarray(end.values)[()], end.attrs.get("units")) for end in ends)
    return " to ".join(dict.fromkeys(texts))
