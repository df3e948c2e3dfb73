"""Arrays of pandas, and of Python objects, as arrays of NumPy where that is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from .lazy_arrays import in_memory

__all__ = ["PANDAS_DTYPE", "kind_of_objects", "with_plain_arrays"]

# In the encoding of a variable: the dtype that it had in pandas, where it holds objects now.
PANDAS_DTYPE = "xtorch_data_pandas_dtype"


def with_plain_arrays(data: xr.Dataset) -> xr.Dataset:
    """A dataset whose data variables in memory have dtypes of NumPy, numbers wherever they can.

    Missing numbers, such as NA and None, are NaN. What is no number, such as categories, becomes
    Python objects; so are whole numbers left that are too large for floats beside NaN. The given
    one stays as it is. Coordinates are left alone, and so is what is lazy.
    """
    found = {}
    for name, array in data.data_vars.items():
        variable = array.variable
        if not isinstance(variable.dtype, np.dtype):
            values, encoding = _of_pandas(variable.data), dict(variable.encoding)
            if values.dtype.hasobject:
                encoding[PANDAS_DTYPE] = variable.dtype.name
            found[name] = xr.Variable(variable.dims, values, variable.attrs, encoding)
        elif variable.dtype == object and in_memory(variable):
            numbers = _numbers(variable.to_numpy())
            if numbers is not None:
                found[name] = xr.Variable(variable.dims, numbers, variable.attrs, variable.encoding)
    return data.assign(found) if found else data


def kind_of_objects(variable: xr.Variable) -> str | None:
    """The kind of the objects of a variable, as pandas calls it; None if they are not in memory."""
    if not in_memory(variable):
        return None
    return str(pd.api.types.infer_dtype(variable.to_numpy().ravel(), skipna=True))


def _of_pandas(array: Any) -> npt.NDArray[Any]:
    """The values of an extension array."""
    objects: npt.NDArray[Any] = np.empty(len(array), object)
    if getattr(array.dtype, "kind", "O") not in "biuf":
        objects[:] = list(array)
        return objects
    missing = np.asarray(array.isna(), bool)
    own = getattr(array.dtype, "numpy_dtype", None) or getattr(array.dtype, "subtype", None)
    if own is not None and (np.dtype(own).kind == "f" or not missing.any()):
        na = {"na_value": np.nan} if missing.any() else {}
        return np.asarray(array.to_numpy(dtype=own, **na))
    objects[:] = list(array)
    numbers = _numbers(objects)
    return objects if numbers is None else numbers


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Objects as numbers, None for those that are not, or cannot be exactly."""
    kind = pd.api.types.infer_dtype(values.ravel(), skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "boolean", "empty"):
        return None
    missing = pd.isna(values)
    dtype = {"integer": np.int64, "boolean": np.bool_}.get(kind, np.float64)
    try:
        found: npt.NDArray[Any] = np.where(missing, np.nan, values).astype(
            np.float64 if missing.any() else dtype
        )
    except (OverflowError, TypeError, ValueError):
        return None
    there = ~np.asarray(missing)
    exact = found[there].astype(object) == values[there]
    return found if np.all(exact) else None
