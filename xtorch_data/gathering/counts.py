"""Counts of present values over windows: rolling sums, dim by dim, without a loop over windows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..planning.windows import IntArray, Windows
from ..samples.select import Part

__all__ = ["counts"]

Array = npt.NDArray[Any]

# Steps so few that adding them up is as fast as a sum along the dim.
FEW_STEPS = 4


def counts(
    windows: Windows,
    sample_dims: Sequence[Hashable],
    part: Part,
    variables: Mapping[Any, xr.Variable],
    name: Hashable,
) -> Array:
    """How much of each window of a block is True: ``(*position of the window along every axis)``.

    What a part has of a window counts. As in its tensor, values are as many times there as the
    windowed dims that the variable lacks have steps.
    """
    variable = variables[name]
    sizes = {axis.dim: axis.size for axis in windows.axes if axis.dim in sample_dims}
    taken = {
        dim: np.arange(size)[part.indexers.get(dim, slice(None))] for dim, size in sizes.items()
    }
    lacking = [dim for dim in sample_dims if dim not in variable.dims]
    beside = math.prod(np.size(taken[dim]) for dim in lacking)
    # Sums along one dim after the other are at most those over all of it.
    most = math.prod(variable.shape) * beside
    dtype = np.dtype(np.int32 if most < 2**31 else np.int64)
    found: Array = variable.to_numpy()
    for at, dim in enumerate(variable.dims):
        if dim in taken:
            found = _rolling(found, at, sizes[dim], np.atleast_1d(taken[dim]), dtype)
    found = found.astype(dtype, copy=False)
    if beside != 1:
        found = found * beside
    order = [axis.dim for axis in windows.axes if axis.dim in variable.dims]
    found = found.transpose([variable.dims.index(dim) for dim in order])
    positions = [
        found.shape[order.index(axis.dim)] if axis.dim in order else axis.length - axis.size + 1
        for axis in windows.axes
    ]
    apart = tuple(slice(None) if axis.dim in order else np.newaxis for axis in windows.axes)
    return np.broadcast_to(found[apart], positions)


def _rolling(values: Array, at: int, size: int, steps: IntArray, dtype: np.dtype[Any]) -> Array:
    """Sums along an axis over some steps of each window of a size."""
    positions = values.shape[at] - size + 1

    def from_step(array: Array, step: int) -> Array:
        return array[(*(slice(None),) * at, slice(step, step + positions))]

    first, last = int(steps.min()), int(steps.max())
    if last - first + 1 > len(steps) or len(steps) < FEW_STEPS:
        found = np.zeros(from_step(values, 0).shape, dtype)
        for step in steps.tolist():
            found += from_step(values, step)
        return found
    shape = [*values.shape]
    shape[at] += 1
    total = np.zeros(shape, dtype)  # up to each step, without it
    np.cumsum(values, axis=at, out=total[(*(slice(None),) * at, slice(1, None))])
    return from_step(total, last + 1) - from_step(total, first)
