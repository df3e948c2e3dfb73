"""Values less an offset, divided by a scale: applied to arrays and tensors, and undone."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr

from ..samples.date_parts import labels_for, no_statistics
from ..samples.unused import used
from .kinds import Kind

__all__ = ["Values", "floating", "normalized", "restored", "restored_tensor", "scaling_at"]

Values = npt.NDArray[Any]


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What values of a dtype become: never less than float32."""
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize > 4 else np.float32)


def normalized(values: Values, offset: Values, scale: Values) -> Values:
    """Values less the offset, divided by the scale."""
    dtype = floating(values.dtype)
    if values.dtype.kind != "f":  # float32 does not hold large integers
        return ((values - offset) / scale).astype(dtype)
    high, low = _in_two(offset, dtype)
    result = values.astype(dtype, copy=False) - high
    if low.any():
        result -= low
    result /= scale.astype(dtype)
    return result


def restored(values: Values, offset: Values, scale: Values) -> Values:
    """What values were before they were normalized."""
    dtype = floating(values.dtype)
    high, low = _in_two(offset, dtype)
    result = values.astype(dtype, copy=False) * scale.astype(dtype)
    if low.any():
        result += low
    result += high
    return result  # type: ignore[no-any-return]


def restored_tensor(values: torch.Tensor, offset: Values, scale: Values) -> torch.Tensor:
    """The same of a tensor, on its device."""
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    high, low = _in_two(offset, np.dtype(np.float64 if dtype == torch.float64 else np.float32))
    result = values.to(dtype) * _sent(scale, dtype, values.device)
    if low.any():
        result += _sent(low, dtype, values.device)
    result += _sent(high, dtype, values.device)
    return result


def _in_two(offset: Values, dtype: np.dtype[Any]) -> tuple[Values, Values]:
    """An offset as the sum of two numbers of a dtype.

    What float32 leaves of a large offset may be much for a small scale.
    """
    high = offset.astype(dtype)
    return high, (offset - high).astype(dtype)


def _sent(values: Values, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(values.shape).to(device, dtype)


def scaling_at(
    kind: Kind, first: xr.DataArray, second: xr.DataArray, array: xr.DataArray
) -> tuple[Values, Values]:
    """Offset and scale at the places of an array, to be broadcast against its values.

    `first` and `second` are the statistics of its variable, of the same dims and labels.
    """
    places = _places(first, array)
    offset, scale = kind.scaling(_at(first, places, array), _at(second, places, array))
    return offset, np.where(scale == 0, 1.0, scale)


def _places(statistic: xr.DataArray, array: xr.DataArray) -> dict[Any, xr.Variable]:
    """By dim of a statistic, where it has the labels of an array; -1 where there is no label."""
    places = {}
    for dim in statistic.dims:
        coordinate = statistic.coords[dim]
        try:
            labels = labels_for(coordinate, array.coords)
        except KeyError as error:
            (lacked,) = error.args
            raise ValueError(_lacks(statistic, dim, lacked)) from None
        except TypeError as error:
            raise ValueError(f"the statistics of {statistic.name!r}: {error}") from error
        index, wanted = statistic.indexes[dim], labels.to_numpy().ravel()
        found = index.get_indexer(pd.Index(wanted))
        unknown = (found < 0) & ~pd.isna(wanted)  # beyond the data there may be no label, nor value
        if unknown.any() and labels.ndim == 1:  # a chunk may have labels that no sample has
            needed = used(labels.dims[0], len(wanted))
            if needed is not None:
                unknown &= needed
        if unknown.any():
            raise ValueError(no_statistics(statistic.name, dim, index, wanted[unknown][0]))
        places[dim] = xr.Variable(labels.dims, found.reshape(labels.shape))
    return places


def _lacks(statistic: xr.DataArray, dim: Hashable, lacked: Hashable) -> str:
    from_dates = "" if lacked == dim else f", a part of {lacked!r},"
    return (
        f"the statistics of {statistic.name!r} are per {dim!r}{from_dates} and the data has no "
        f"coordinate {lacked!r} to look them up with"
    )


def _at(statistic: xr.DataArray, places: dict[Any, xr.Variable], array: xr.DataArray) -> Values:
    chosen = statistic.variable.isel(places)
    for place in places.values():
        if (place.values < 0).any():
            chosen = chosen.where(place >= 0)  # type: ignore[no-untyped-call]
    order = [dim for dim in array.dims if dim in chosen.dims]
    values = chosen.transpose(*order).to_numpy()
    return values[tuple(slice(None) if dim in order else None for dim in array.dims)]
