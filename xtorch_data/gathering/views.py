"""From a block in memory to the samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.buffers import Buffers
from ..planning.stages import WindowBox
from ..planning.windows import Windows
from ..samples.select import Part
from ..samples.tensor_dtypes import common_dtype
from .counts import counts

__all__ = [
    "Array",
    "PieceInMemory",
    "SplitView",
    "View",
    "is_small",
    "labelled_sample",
    "to_array",
    "window_views",
]

Array = npt.NDArray[Any]

# Windows of fewer bytes are never split: where they lie in several arrays, these are joined.
SMALL_WINDOW_BYTES = 4096


@dataclass(frozen=True, eq=False)
class SplitView:
    """Windows that lie in several arrays, which follow each other along an axis.

    Attributes
    ----------
    axis : int
        The axis, among those of the windows.
    along : int
        Its place among the dims of the part.
    offset : int
        Where along it the part begins inside the window.
    begins : sequence of int
        Where each array begins along it.
    views : sequence of ndarray
        Each array, of shape ``(*position of the window along every axis, *part.dims)``, with one
        position and all its steps along the axis.
    """

    axis: int
    along: int
    offset: int
    begins: Sequence[int]
    views: Sequence[Array]

    def copy_window(self, out: Array, place: Sequence[int]) -> None:
        """Copy the window at a place into ``out (*dims)``."""
        first = place[self.axis] + self.offset
        stop = first + out.shape[self.along]
        before = (slice(None),) * self.along
        where = (*place[: self.axis], 0, *place[self.axis + 1 :])
        for begin, view in zip(self.begins, self.views, strict=True):
            found = view[where]
            start, end = max(first, begin), min(stop, begin + found.shape[self.along])
            if start < end:
                inside = found[(*before, slice(start - begin, end - begin))]
                np.copyto(out[(*before, slice(start - first, end - first))], inside)


# Every window of a piece.
View = Array | SplitView


@dataclass(eq=False)
class PieceInMemory:
    """A piece of the sample space with its data.

    Attributes
    ----------
    piece : WindowBox
        Which samples.
    views : mapping of str to sequence of ndarray or SplitView
        For each stretch of a part without a transform, per variable an array of shape
        ``(*position of the window along every axis, *part.dims)``: every window of the piece,
        without a copy. Where windows lie in more than one array, a `SplitView`.
    data : xarray.Dataset, optional
        The labeled block, if a transform wants it.
    """

    piece: WindowBox
    views: Mapping[str, Sequence[View]]
    data: xr.Dataset | None = None


def window_views(
    windows: Windows,
    sample_dims: Sequence[Hashable],
    parts: Sequence[Part],
    variables: Mapping[Any, xr.Variable],
    whole: Hashable = None,
    buffers: Buffers | None = None,
) -> dict[str, list[Array]]:
    """Every window of a block in memory, as views, by part (of a list, by stretch) and variable.

    With `whole`, all steps along that dim are in the view, instead of every window. Values that are
    cast, or lie in another order than samples, are copied into memory of `buffers`; without, they
    stay, to be cast as they are copied: where few of the windows will be.
    """
    cast: dict[tuple[Hashable, np.dtype[Any]], Array] = {}
    views: dict[str, list[Array]] = {}
    for part in parts:
        if part.takes == "count":
            views[part.name] = [
                counts(windows, sample_dims, part, variables, n) for n in part.arrays
            ]
            continue
        for name in part.arrays:
            if (name, part.dtype) not in cast:
                array = variables[name].to_numpy()
                if buffers is not None:
                    array = _in_order(windows, variables[name].dims, array, part, buffers)
                cast[name, part.dtype] = array
        for stretch in part.stretches:
            views[stretch.part.name] = [
                _window_view(
                    windows,
                    sample_dims,
                    stretch.part,
                    cast[name, part.dtype],
                    variables[name].dims,
                    whole,
                )
                for name in part.arrays
            ]
    return views


def _in_order(
    windows: Windows, dims: Sequence[Hashable], array: Array, part: Part, buffers: Buffers
) -> Array:
    """The values as a part has them, so in memory that windows are as contiguous as can be.

    And so that torch can take them: it knows no steps backwards.
    """
    order = [dims.index(dim) for dim in windows.order_in_memory if dim in dims]
    steps = [*(array.strides[place] for place in order if array.shape[place] > 1), 0]
    if steps == sorted(steps, reverse=True) and array.dtype == part.dtype:
        return array
    out = buffers.take([array.shape[place] for place in order], part.dtype)
    out[...] = array.transpose(order)
    return out.transpose(np.argsort(order))


def _window_view(
    windows: Windows,
    sample_dims: Sequence[Hashable],
    part: Part,
    array: Array,
    dims: Sequence[Hashable],
    whole: Hashable,
) -> Array:
    assert set(dims) <= {axis.dim for axis in windows.axes}, dims
    strides = dict(zip(dims, array.strides, strict=True))
    sizes = dict(zip(dims, array.shape, strict=True))
    lengths = {axis.dim: axis.size for axis in windows.axes}
    indexers: dict[Hashable, Any] = dict(part.indexers)
    if whole in sizes:
        lengths[whole] = sizes[whole]
        indexers.pop(whole, None)
    # A dim that the variable lacks has a stride of 0: its values are broadcast.
    shape = [sizes.get(axis.dim, axis.length) - lengths[axis.dim] + 1 for axis in windows.axes]
    steps = [strides.get(axis.dim, 0) for axis in windows.axes]
    shape += [lengths[dim] for dim in sample_dims]
    steps += [strides.get(dim, 0) for dim in sample_dims]
    view = np.lib.stride_tricks.as_strided(array, shape, steps, writeable=False)
    return view[(..., *(indexers.get(dim, slice(None)) for dim in sample_dims))]


def is_small(shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Tell whether windows are so small that arrays in which one lies are joined."""
    return math.prod(shape) * dtype.itemsize < SMALL_WINDOW_BYTES


def labelled_sample(windows: Windows, data: xr.Dataset, place: Sequence[int]) -> xr.Dataset:
    """One sample of a labeled block, with its coordinates."""
    indexers = {
        axis.dim: slice(start, start + axis.size) if axis.windowed else start
        for axis, start in zip(windows.axes, place, strict=True)
    }
    return data.isel(indexers, missing_dims="ignore")


def to_array(
    result: Any,
    part: Part,
    lead: tuple[Hashable, ...],
    sample_dims: Sequence[Hashable],
    floating: np.dtype[Any],
) -> tuple[Array, tuple[Hashable, ...], tuple[Hashable, ...], bool]:
    """Result of a transform as an array ``(*lead, [variable,] *dims)``.

    A Dataset is stacked on a ``variable`` axis, in its order. Dims that the variables of the part
    lacked from the start are broadcast over. If the result has other dims than the windowed ones in
    `sample_dims`, its own order stays. Returns the array, its variables and dims, and whether there
    is a ``variable`` axis.
    """
    if isinstance(result, xr.DataArray):
        if part.stacked and "variable" in result.dims and "variable" not in sample_dims:
            names = tuple(result["variable"].values.tolist())
            found = [result.isel(variable=place).variable for place in range(len(names))]
            stacked = True
        else:
            names = (part.variables[0] if result.name is None else result.name,)
            found, stacked = [result.variable], False
    elif isinstance(result, xr.Dataset):
        names = tuple(result.data_vars)
        found, stacked = [result.variables[name] for name in names], True
        if not names:
            raise ValueError("the transform left no variable")
    else:
        raise TypeError(
            f"a transform returns an xarray DataArray or Dataset, not {type(result).__name__}"
        )
    own = dict(zip(part.dims, part.shape, strict=True))
    lengths = {dim: own[dim] for dim in part.lacking}
    for variable in found:
        if variable.dtype.kind not in "fiubc":
            raise TypeError(f"the transform made values of dtype {variable.dtype}, not numbers")
        lengths.update(variable.sizes)
    for dim in lead:
        if dim not in lengths:
            raise ValueError(f"the transform dropped the dim {dim!r}")
    dims = [dim for dim in lengths if dim not in lead]
    if set(dims) <= set(sample_dims):
        dims = [dim for dim in sample_dims if dim in lengths]
    elif not part.lacking:
        dims = [dim for dim in found[0].dims if dim not in lead]
        dims += [dim for dim in lengths if dim not in lead and dim not in dims]
    order = (*lead, *dims)
    dtype = common_dtype([variable.dtype for variable in found], floating)
    shape = {dim: lengths[dim] for dim in order}
    arrays = [
        variable.set_dims(shape).transpose(*order).to_numpy()  # type: ignore[no-untyped-call]
        for variable in found
    ]
    array = np.stack(arrays, axis=len(lead)) if stacked else arrays[0]
    return array.astype(dtype, copy=False), names, tuple(dims), stacked
