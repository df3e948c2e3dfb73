"""Mean and standard deviation applied to values, and undone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable

__all__ = ["Values", "at_places", "floating", "normalized", "restored"]

Values = npt.NDArray[Any]


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What values of a dtype become: never less than float32."""
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize > 4 else np.float32)


def normalized(values: Values, mean: Values, std: Values) -> Values:
    """Values less the mean, divided by the deviation."""
    scale = np.where(std == 0, 1.0, std)
    dtype = floating(values.dtype)
    if values.dtype.kind != "f":  # float32 does not hold large integers
        return ((values - mean) / scale).astype(dtype)
    # What float32 leaves of a large mean may be much for a small deviation.
    high = mean.astype(dtype)
    low = (mean - high).astype(dtype)
    result = values.astype(dtype, copy=False) - high
    if low.any():
        result -= low
    result /= scale.astype(dtype)
    return result  # type: ignore[no-any-return]


def restored(values: Values, mean: Values, std: Values) -> Values:
    """What values were before they were normalized."""
    scale = np.where(std == 0, 1.0, std)
    dtype = floating(values.dtype)
    high = mean.astype(dtype)
    low = (mean - high).astype(dtype)
    result = values.astype(dtype, copy=False) * scale.astype(dtype)
    if low.any():
        result += low
    result += high
    return result  # type: ignore[no-any-return]


def at_places(
    statistic: xr.Variable,
    indexes: Mapping[Any, pd.Index[Any]],
    name: Hashable,
    array: xr.DataArray,
) -> Values:
    """Statistics of the places of an array, to be broadcast against its values."""
    places, known = {}, []
    for dim in statistic.dims:
        if dim not in array.coords:
            raise ValueError(
                f"the statistics of {name!r} are per {dim!r}, and the data has no coordinate "
                f"{dim!r} to look them up with"
            )
        index, labels = indexes[dim], array.coords[dim]
        wanted = labels.to_numpy().ravel()
        found = index.get_indexer(pd.Index(wanted))
        unknown = (found < 0) & ~pd.isna(wanted)  # beyond the data there may be no label, nor value
        if unknown.any():
            raise ValueError(
                f"there are no statistics of {name!r} for {printable(dim)}="
                f"{printable(wanted[unknown][0])}: they are of {len(index)} labels, "
                f"{printable(index[0])} to {printable(index[-1])}"
            )
        places[dim] = xr.Variable(labels.dims, found.reshape(labels.shape))
        if (found < 0).any():
            known.append(places[dim] >= 0)
    chosen = statistic.isel(places)
    for there in known:
        chosen = chosen.where(there)  # type: ignore[no-untyped-call]
    order = [dim for dim in array.dims if dim in chosen.dims]
    values = chosen.transpose(*order).to_numpy()
    return values[tuple(slice(None) if dim in order else None for dim in array.dims)]
