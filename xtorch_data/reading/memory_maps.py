"""Variables that lie in memory-mapped files, as the maps themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from xarray.core.indexing import CopyOnWriteArray, LazilyIndexedArray, MemoryCachedArray

from ..sources.layers import layers
from ..sources.npy_files import NpyFile, Stamp
from .lazy_arrays import is_lazy

__all__ = ["mapped"]


def mapped(data: xr.Dataset) -> tuple[xr.Dataset, dict[NpyFile, Stamp]]:
    """A dataset of which nothing has to be read that lies in memory-mapped files, and these files.

    Its variables are maps as long as it lives, for samples from anywhere: a read would copy what is
    around each. So who looks at them must ask before whether the files have stayed as they are.

    Parameters
    ----------
    data : xarray.Dataset
        The dataset; it stays as it is.
    """
    files: dict[NpyFile, Stamp] = {}
    found = {name: _mapped(each.variable, files) for name, each in data.data_vars.items()}
    return data.assign({name: new for name, new in found.items() if new is not None}), files


def _mapped(variable: xr.Variable, files: dict[NpyFile, Stamp]) -> xr.Variable | None:
    """A view of the file of a variable, if there is one and the lazy arrays above only slice it."""
    if not is_lazy(variable):
        return None
    *lazy, data = layers(variable._data)
    keys: list[tuple[Any, ...]] = []
    for layer in lazy:
        if isinstance(layer, LazilyIndexedArray):
            keys.append(layer.key.tuple)
        elif type(layer) not in (MemoryCachedArray, CopyOnWriteArray):
            return None
    if not hasattr(data, "mapped") or any(isinstance(at, np.ndarray) for key in keys for at in key):
        return None
    stamp = data.file.stamp()  # before the map is made, so that no change is missed
    values = data.mapped()
    for key in reversed(keys):
        values = np.asarray(values[key])
    if values.dtype != variable.dtype:  # read as another
        return None
    files.setdefault(data.file, stamp)
    return xr.Variable(variable.dims, values, variable.attrs, variable.encoding)
