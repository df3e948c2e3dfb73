"""From the region of an item to the item, as values or labeled."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from .generator_items import INPUT_BATCH, SAMPLE, Items

__all__ = ["arranged", "labelled"]

Array = npt.NDArray[Any]

# A coordinate that has dims which no variable has.
EXTRA = "__extra"


def arranged(
    items: Items,
    part: str,
    array: Array,
    dims: Sequence[Hashable],
    firsts: Mapping[Hashable, int],
    take: Callable[[Sequence[int], np.dtype[Any]], Array],
) -> tuple[Array, tuple[Hashable, ...]]:
    """Arrange the regions of some samples, but for stacking; a copy only where they change.

    Parameters
    ----------
    items : Items
        What the items are.
    part : str
        The part that the values belong to.
    array : ndarray
        Values, shape ``(..., *dims)``.
    dims : sequence of Hashable
        What its last axes are.
    firsts : mapping of Hashable to int
        From `Items.firsts`.
    take : callable
        Gives memory of a shape and dtype.

    Returns
    -------
    array : ndarray
        Shape ``(..., [input_batch,] *dims)``.
    dims : tuple of Hashable
        What its last axes are now.
    """
    lead = array.ndim - len(dims)
    order = items.region_dims if items.stacked else items.orders[part]
    order = tuple(dim for dim in order if dim in dims)
    now: list[Any] = list(dims)
    windows: list[Any] = []
    if items.patches is not None:
        for dim in items.inner:
            patches, axis = items.patches[dim], lead + now.index(dim)
            array = np.lib.stride_tricks.sliding_window_view(
                array, patches.size, axis, writeable=True
            )
            every = slice(firsts[dim] * patches.stride, None, patches.stride)
            array = array[(*(slice(None),) * axis, every)]
            windows.append((INPUT_BATCH, dim))
            now[now.index(dim)] = windows[-1]
            now.append(dim)
    axes = [lead + now.index(dim) for dim in (*windows, *order)]
    array = array.transpose(*range(lead), *axes)
    if not array.flags.c_contiguous:
        out = take(array.shape, array.dtype)
        np.copyto(out, array)
        array = out
    if items.patches is None:
        return array, order
    shape, end = array.shape, lead + len(windows)
    array = array.reshape((*shape[:lead], math.prod(shape[lead:end]), *shape[end:]))
    return array, (INPUT_BATCH, *order)


def labelled(
    items: Items, region: xr.Dataset | xr.DataArray, firsts: Mapping[Hashable, int]
) -> xr.Dataset | xr.DataArray:
    """The item as the generator yields it, from its labeled region.

    Windows of a DataArray keep their coordinates as those of a Dataset do, where xbatcher aligns
    them. All coordinates along windows have the dim ``input_batch``, also where xbatcher finds
    them equal.

    Parameters
    ----------
    items : Items
        What the items are.
    region : xarray.Dataset or xarray.DataArray
        In memory.
    firsts : mapping of Hashable to int
        From `Items.firsts`.
    """
    if isinstance(region, xr.DataArray):
        name = "__item"
        item = labelled(items, region.to_dataset(name=name), firsts)
        array: xr.DataArray = item[name]
        return array.rename(region.name)
    inner = {dim: dim for dim in items.inner}
    item = region
    if items.patches is not None:
        inner = {dim: f"{items.names.get(dim, dim)}_input" for dim in items.inner}
        item = _windows(items, region, firsts, inner)
    back = {dim: name for dim, name in items.names.items() if dim in item.dims}
    back |= {dim: name for dim, name in items.names.items() if dim in item.variables}
    item = item.rename(back)
    if not items.stacked:
        return item
    stacked = [back.get(dim, dim) for dim in items.stacked]
    lengths = {back.get(axis.dim, axis.dim): axis.size for axis in items.windows.axes}
    item = _with_dims(item, {dim: lengths[dim] for dim in stacked if dim not in item.dims})
    item = item.stack({SAMPLE: stacked}).drop_vars(EXTRA, errors="ignore")
    kept = [back.get(dim, dim) for dim in inner.values()]
    return item.transpose(SAMPLE, *kept, missing_dims="ignore")


def _windows(
    items: Items,
    region: xr.Dataset,
    firsts: Mapping[Hashable, int],
    inner: Mapping[Hashable, Hashable],
) -> xr.Dataset:
    """The windows in a region, one after the other on a dim, and their own dims renamed."""
    assert items.patches is not None
    item = region
    counts: dict[Hashable, int] = {}
    for number, (dim, patches) in enumerate(items.patches.items()):
        begins = np.arange(firsts[dim], patches.count) * patches.stride
        along = f"__windows_{number}"
        counts[along] = len(begins)
        places = xr.Variable((along, inner[dim]), begins[:, None] + np.arange(patches.size))
        item = item.isel({dim: places}, missing_dims="ignore")
    if counts:
        item = _with_dims(item, counts).stack({INPUT_BATCH: list(counts)}, create_index=False)
        item = item.drop_vars(EXTRA)
    every = math.prod(counts.values())
    found: dict[Hashable, xr.Variable] = {}
    for name, variable in item.variables.items():
        if name in item.data_vars and INPUT_BATCH not in variable.dims:
            sizes = {INPUT_BATCH: every, **variable.sizes}
            variable = variable.set_dims(sizes).copy()  # type: ignore[no-untyped-call]
        order = (INPUT_BATCH, *(inner.get(dim, dim) for dim in region.variables[name].dims))
        found[name] = variable.transpose(*order, missing_dims="ignore")
    return item.assign({name: found[name] for name in item.data_vars}).assign_coords(
        {name: found[name] for name in item.coords if name not in item.xindexes}
    )


def _with_dims(data: xr.Dataset, sizes: Mapping[Hashable, int]) -> xr.Dataset:
    """Data with a coordinate that has certain dims, and takes no memory."""
    if not sizes:
        return data
    values = np.broadcast_to(np.int8(0), tuple(sizes.values()))
    return data.assign_coords({EXTRA: (tuple(sizes), values)})
