"""How the variables of parts are read: dtypes, chunk grids, and bytes that they take."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..planning.chunks import Layout
from ..planning.windows import Windows
from ..sources.lazy_arrays import is_lazy
from ..sources.source import layout_of
from .select import Part

__all__ = ["dtypes_of", "layouts_of"]


def dtypes_of(data: xr.Dataset, parts: Sequence[Part]) -> dict[Hashable, np.dtype[Any]]:
    """Dtypes to which lazy floating variables are cast as they are read, where parts allow it."""
    wanted: dict[Hashable, set[np.dtype[Any]]] = {}
    for part in parts:
        for name in part.variables if part.takes == "values" else ():
            wanted.setdefault(name, set()).add(part.dtype)
    return {
        name: dtypes.pop()
        for name, dtypes in wanted.items()
        if len(dtypes) == 1
        and all(dtype.kind == "f" for dtype in (*dtypes, data.variables[name].dtype))
        and is_lazy(data.variables[name])
    }


def layouts_of(
    data: xr.Dataset,
    windows: Windows,
    parts: Sequence[Part],
    dtypes: Mapping[Hashable, np.dtype[Any]],
) -> tuple[Layout, ...]:
    """Layouts of the variables that are read, with their bytes as they are held in memory."""
    held = {
        name: max(part.dtype.itemsize, data.variables[name].dtype.itemsize)
        for part in parts
        if part.takes == "values"
        for name in part.variables
        if name in data
    }
    for name, dtype in dtypes.items():  # never held as what xarray decodes it to in between
        stored = np.dtype(data.variables[name].encoding.get("dtype", data.variables[name].dtype))
        held[name] = max(dtype.itemsize, stored.itemsize)
    for name, values in _held_beside(parts).items():
        held[name] = held.get(name, data.variables[name].dtype.itemsize) + values
    dims = [axis.dim for axis in windows.axes]
    return tuple(
        layout_of(data.variables[name], name, dims, held.get(name)) for name in data.data_vars
    )


def _held_beside(parts: Sequence[Part]) -> dict[Hashable, int]:
    """Bytes that are held for each value of variables beside it: what says that it is there.

    Counts over windows are as many integers, and as many again while sums are taken.
    """
    found: dict[Hashable, int] = {}
    for part in parts:
        if part.takes != "values":
            counts = 2 * part.dtype.itemsize if part.takes == "count" else 0
            for name in part.variables:
                found[name] = max(found.get(name, 0), 1 + counts)
    return found
