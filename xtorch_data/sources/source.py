"""The data as the user has it, made one thing: an xarray Dataset and its chunk grids."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
import xbatcher
import zarr
from dask.base import is_dask_collection
from zarr.storage import LocalStore, MemoryStore

from ..common.redact import printable, redacted
from ..planning.chunks import Chunks, Layout
from .lazy_arrays import (
    in_memory,
    is_computed,
    layers,
    lazily,
    must_be_read,
    stored_positions,
    zarr_array,
)
from .object_arrays import with_plain_arrays
from .opening import open_zarr
from .wrong_kinds import remedy
from .zarr_grids import sizes_of_chunks
from .zarr_metadata import require_sound

__all__ = [
    "UNFINISHED", "Source", "as_source", "layout_of", "with_graphs_shown",
]  # fmt: skip

# The attribute of a store that `rechunk` or a `Mosaic` has not finished: chunks that are missing
# are fill values.
UNFINISHED = "xtorch_data_unfinished"


@dataclass(frozen=True, eq=False)
class Source:
    """The data of a dataset, which is made of it; no values but coordinates are read."""

    dataset: xr.Dataset  # lazy
    single: Hashable | None = None  # name of the variable where the data was one array
    # Where the data was one, what its items look like.
    generator: xbatcher.BatchGenerator | None = None
    # Dims of the generator's data that have another name in `dataset`, and which.
    names: Mapping[Hashable, Hashable] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[Hashable, int]:
        """Size of every dim, in the order of the data as it was given."""
        sizes = dict(self.dataset.sizes)
        if self.single is None:
            return sizes
        return {**{dim: sizes[dim] for dim in self.dataset[self.single].dims}, **sizes}

    @property
    def origin(self) -> str:
        """The place of the data for messages, without secrets."""
        found = self.dataset.encoding.get("source")
        places = (_place(each) for each in self.dataset.variables.values() if must_be_read(each))
        where = found or next(filter(None, places), "data in memory or of a dask graph")
        return printable(redacted(str(where)))


def as_source(data: Any, dims: Sequence[Hashable] | None = None) -> Source:
    """Take whatever serves as data.

    `dims` names the dims of a ``zarr.Array`` that does not name them itself; of a tree the node is
    taken.
    """
    if dims is not None and not isinstance(data, zarr.Array):
        raise ValueError("dims names the dims of a zarr.Array; other data has names of its own")
    if isinstance(data, xbatcher.BatchGenerator):
        return _from_generator(data)
    if isinstance(data, xr.Dataset):
        if not data.data_vars:
            raise ValueError("the dataset is empty: it has no data variables")
        if UNFINISHED in data.attrs:
            maker = dict(data.attrs[UNFINISHED]).get("made by", "xtorch_data.rechunk")
            goes_on = "mode='a'" if maker.endswith("Mosaic") else "the same call of it"
            raise ValueError(
                f"the data is a store that {maker} has not finished: {goes_on} goes on where it "
                "was interrupted"
            )
        require_sound(data)
        return Source(with_plain_arrays(with_graphs_shown(data)))
    if isinstance(data, xr.DataArray):
        return _from_array(data)
    if isinstance(data, xr.DataTree):
        return _from_tree(data)
    if isinstance(data, zarr.Array):
        return _from_zarr_array(data, dims)
    if isinstance(data, zarr.Group):
        return as_source(_opened(data))
    instead = remedy(data)
    if instead is not None:
        raise TypeError(f"data must be an xarray object, not {type(data).__name__}: {instead}")
    raise TypeError(
        "data must be an xarray Dataset, DataArray or DataTree, a zarr Array or Group, or an "
        f"xbatcher.BatchGenerator, not {type(data).__name__}"
    )


def _from_generator(generator: xbatcher.BatchGenerator) -> Source:
    inner = as_source(generator.ds)
    dataset = inner.dataset
    if "sample" not in dataset.dims:
        return Source(dataset, inner.single, generator)
    # The name of the batch dimension, which is common in data for xbatcher.
    name = "sample_"
    while name in dataset.dims or name in dataset.variables:
        name += "_"
    names: dict[Hashable, Hashable] = {"sample": name}
    return Source(dataset.rename(names), inner.single, generator, names)


def _from_array(array: xr.DataArray) -> Source:
    name = array.name
    if name is None or name in array.coords or name in array.dims:
        name = "x"
        while name in array.coords or name in array.dims:
            name = f"{name}_"
    dataset = array.to_dataset(name=name)
    require_sound(dataset)
    dataset.encoding = {"source": array.encoding["source"]} if "source" in array.encoding else {}
    return Source(with_plain_arrays(with_graphs_shown(dataset)), single=name)


def _from_tree(tree: xr.DataTree) -> Source:
    """The dataset of a node, with the coordinates that it inherits; never of those below it."""
    if tree.data_vars:
        return as_source(tree.to_dataset())
    full = [node.path for node in tree.subtree if node.data_vars]
    raise ValueError(
        f"the node {tree.path!r} of this DataTree has no data variables; "
        + (f"take a node that does, such as tree[{full[0]!r}]: {full}" if full else "nor has any")
    )


def with_graphs_shown(data: xr.Dataset) -> xr.Dataset:
    """A dataset in which what dask computes is known for it.

    Engines that open through dask, as kerchunk's does, and `xarray.decode_cf` where it changes the
    byte order leave xarray's lazy arrays around it, for which it would be loaded, yet not computed.
    """
    found = {
        name: xr.Variable(variable.dims, variable.data, variable.attrs, variable.encoding)
        for name, variable in data.variables.items()
        if not is_computed(variable) and is_dask_collection(layers(variable)[-1])
    }
    coords = {name: each for name, each in found.items() if name in data.coords}
    others = {name: each for name, each in found.items() if name not in coords}
    return data.assign(others).assign_coords(coords) if found else data


def _opened(group: zarr.Group) -> xr.Dataset:
    try:
        return open_zarr(
            group.store,
            group=group.path or None,
            consolidated=False,
            zarr_format=group.metadata.zarr_format,
        )
    except ValueError as error:
        if not isinstance(error.__cause__, KeyError):
            raise
        nameless = [name for name, array in group.arrays() if array.ndim and not _dims_of(array)]
        if not nameless:
            raise
        raise ValueError(
            f"the arrays {nameless} of this zarr.Group do not name their dims, as xarray needs it; "
            "one array alone can be data, with dims=(…)"
        ) from error


def _dims_of(array: zarr.Array[Any]) -> Any:
    """Names of the dims of an array, as far as it says."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = array.attrs.get("_ARRAY_DIMENSIONS") if names is None else names
    return None if names is None or None in names else names


def _from_zarr_array(array: zarr.Array[Any], dims: Sequence[Hashable] | None) -> Source:
    if isinstance(dims, str):
        raise TypeError(f"dims is a sequence of names, such as {(dims,)}, not {dims!r}")
    names: Any = _dims_of(array) if dims is None else dims
    if names is None or None in names:
        raise ValueError("this zarr.Array does not name its dims; give dims=(…)")
    if len(names) != array.ndim:
        raise ValueError(f"the array has {array.ndim} dims, but dims names {list(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"the dims of an array differ, but these are {list(names)}")
    attrs = {key: value for key, value in array.attrs.items() if key != "_ARRAY_DIMENSIONS"}
    encoding = {"chunks": sizes_of_chunks(array), "source": str(array.store_path)}
    variable = lazily(names, array)
    variable.attrs, variable.encoding = attrs, encoding
    name = array.basename or "x"
    name = f"{name}_" if name in names else name
    require_sound(xr.Dataset({name: variable}))
    # Packed integers written by xarray or netCDF tools say in attributes how to decode them.
    dataset = xr.decode_cf(xr.Dataset({name: variable}))
    dataset.encoding["source"] = str(array.store_path)
    return Source(dataset, single=name)


def layout_of(
    variable: xr.Variable, name: Hashable, dims: Iterable[Hashable], itemsize: int | None = None
) -> Layout:
    """How a variable is stored along the dims of the sample space.

    Chunk grids come from dask where the variable is backed by it, else from what the backend left
    in the encoding, shifted by lazy slicing; those of GRIB are its messages, a field each. Data in
    memory, memory maps and contiguous HDF5 can be sliced anywhere for the cost of the slice.
    """
    wanted = [dim for dim in dims if dim in variable.dims]
    values = itemsize or variable.dtype.itemsize
    for dim in variable.dims:
        if dim not in wanted:
            values *= variable.sizes[dim]
    return Layout(name, values, {dim: _chunks(variable, dim) for dim in wanted})


def _chunks(variable: xr.Variable, dim: Hashable) -> Chunks:
    length = variable.sizes[dim]
    if is_computed(variable):
        return _irregular(np.cumsum([0, *variable.chunksizes[dim]]), length)
    if in_memory(variable):
        return Chunks(length)
    preferred = _preferred_chunks(variable)
    positions = stored_positions(variable)
    if positions is None:  # not a lazy array as xarray makes them: the grid may be shifted
        size = preferred.get(dim, 1)
        if not isinstance(size, (int, np.integer)):
            return _irregular(np.cumsum([0, *size]), length)
        return Chunks(length, int(size), stored=bool(preferred))
    kept = [place for place, along in enumerate(positions) if not isinstance(along, int)]
    place = kept[variable.dims.index(dim)]
    along = positions[place]
    stored = _stored_chunks(variable)
    size = stored[place] if stored and place < len(stored) else preferred.get(dim)
    if size is None:
        return Chunks(length)
    if not isinstance(size, (int, np.integer)):
        numbers = np.searchsorted(np.cumsum(size), np.asarray(along), side="right")
        return _of_numbers(numbers, size)
    size = int(size)
    if isinstance(along, range):
        step, start = along.step, along.start
        if step > 0 and size % step == 0:
            return Chunks(length, size // step, start // step % (size // step), stored=True)
    return _of_numbers(np.asarray(along) // size, size)


def _preferred_chunks(variable: xr.Variable) -> Mapping[Hashable, Any]:
    """Chunks as the backend prefers them, by dim: one size, or that of each.

    Where dims were renamed, xarray keeps them by the names of before. That does no harm if chunks
    are as large along all of these.
    """
    preferred = dict(variable.encoding.get("preferred_chunks") or {})
    before = [dim for dim in preferred if dim not in variable.dims]
    since = [dim for dim in variable.dims if dim not in preferred]
    sizes = [preferred[dim] for dim in before]
    if len(before) == len(since) and all(size == sizes[0] for size in sizes):
        preferred |= dict(zip(since, sizes, strict=True))
    return preferred


def _stored_chunks(variable: xr.Variable) -> Sequence[int | Sequence[int]] | None:
    """Sizes of the chunks of the stored array, along its own dims: one, or that of each chunk."""
    sizes = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
    if sizes:
        return list(sizes)
    array = layers(variable)[-1]
    if not hasattr(array, "geo_ndim"):
        return None
    # Of cfgrib, which decodes a message, a field, to get any part of it, and leaves no encoding.
    before = len(array.shape) - array.geo_ndim
    return [1] * before + list(array.shape[before:])


def _place(variable: xr.Variable) -> str | None:
    """The place where a lazy variable is stored, as far as it says."""
    if "source" in variable.encoding:
        return str(variable.encoding["source"])
    array = zarr_array(variable)
    if array is None:
        return None
    store = array.store
    if isinstance(store, MemoryStore):
        return type(store).__name__  # its address says nothing
    return str(store.root if isinstance(store, LocalStore) else store)


def _of_numbers(numbers: Any, sizes: Any) -> Chunks:
    """The grid of a dim, from the number of the stored chunk in which each step lies.

    `sizes` is the number of steps of a chunk, or of each.
    """
    grid, different = _irregular(_runs(numbers), len(numbers)), np.unique(numbers)
    of_each = np.asarray(sizes)
    steps = int((of_each[different] if of_each.ndim else of_each.repeat(len(different))).sum())
    if len(numbers) <= steps and len(different) == grid.count:
        return grid
    return replace(grid, most=(len(different), steps))


def _runs(numbers: Any) -> Any:
    """The begins of runs of equal numbers, and the end."""
    return np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1, [len(numbers)]])


def _irregular(edges: Any, length: int) -> Chunks:
    """A grid from its edges; regular ones are kept as two numbers."""
    edges = np.asarray(edges, dtype=np.int64)
    sizes = np.diff(edges)
    if len(sizes) and (sizes[:-1] == sizes[0]).all() and sizes[-1] <= sizes[0]:
        return Chunks(length, int(sizes[0]), stored=True)
    return Chunks(length, edges=edges)
