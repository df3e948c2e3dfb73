"""xarray's lazy arrays: what they hold, what is stored under them, and how they are rebuilt.

xarray has no public way to ask for any of this, so its private names are used here, and nowhere
else in the package. The table of these names (docs/explanation/design.md) says when each can go.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.backends.file_manager import FILE_CACHE
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK
from xarray.backends.scipy_ import ScipyArrayWrapper
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.coding.common import _ElementwiseFunctionArray as DecodingArray
from xarray.core import indexing

from ..planning.windows import IntArray

if TYPE_CHECKING:  # engines are asked about any file, and zarr is slow to import
    import zarr

__all__ = [
    "LIBRARY_LOCKS", "DecodingArray", "OpenedFile", "SlicedArray", "ZarrBacked", "attributes",
    "contiguous", "deferred", "forget_open_files", "holds_memory", "in_memory", "inside_caches",
    "is_computed", "is_lazy", "keys_of_slices", "layers", "lazily", "must_be_read", "netcdf3_file",
    "opened_file", "read_through", "state_of", "stored_dtype", "stored_positions", "undecoded",
    "with_source", "zarr_array",
]  # fmt: skip

# With these held no thread is inside the HDF5 or netCDF library.
LIBRARY_LOCKS: tuple[Any, Any] = (HDF5_LOCK, NETCDFC_LOCK)

_CACHES = (indexing.MemoryCachedArray, indexing.CopyOnWriteArray)
_ONE_STEP = (indexing.BasicIndexer, indexing.OuterIndexer)

# What is asked of variables.


def in_memory(variable: xr.Variable) -> bool:
    """Whether the values of a variable are in memory."""
    return bool(variable._in_memory)


def holds_memory(variable: xr.Variable) -> bool:
    """Whether values of a variable are in memory already, so that what is read may be a view."""
    return in_memory(variable) or isinstance(layers(variable)[-1], np.ndarray)


def is_computed(variable: xr.Variable) -> bool:
    """Tell whether values of a variable are computed, by dask.

    `chunks` alone takes twenty microseconds: xarray looks for all that such arrays can do.
    """
    return hasattr(variable._data, "chunks") and variable.chunks is not None


def is_lazy(variable: xr.Variable) -> bool:
    """Whether a variable is one of xarray's lazy arrays."""
    return not is_computed(variable) and not in_memory(variable)


def must_be_read(variable: xr.Variable) -> bool:
    """Whether a variable must be read or computed; indexes need not be, whatever holds them."""
    return not (in_memory(variable) or isinstance(variable, xr.IndexVariable))


def layers(data: Any) -> list[Any]:
    """Lazy arrays of a variable, each around the next, and at the end that of the backend.

    What is in memory, or of dask, is one layer. Instead of a variable its data will do.
    """
    found = [data._data if isinstance(data, xr.Variable) else data]
    # An index is no lazy array, though it is in an attribute of that name.
    while hasattr(found[-1], "array") and not isinstance(found[-1], indexing.PandasIndexingAdapter):
        found.append(found[-1].array)
    return found


def stored_dtype(variable: xr.Variable) -> np.dtype[Any] | None:
    """The dtype of a lazy variable in its store, if it is decoded as it is read; else None."""
    *lazy, source = layers(variable)
    decoded = any(isinstance(layer, DecodingArray) for layer in lazy)
    return np.dtype(source.dtype) if decoded else None


def stored_positions(variable: xr.Variable) -> list[range | IntArray | int] | None:
    """For each axis of the stored array under a lazy variable, the positions that it has of it.

    An integer where an axis has become no dim. xarray keeps the encoding of the whole array when it
    slices lazily: the slice is read off the chain of lazy arrays. None if that has other parts.
    """
    *lazy, source = layers(variable)
    keys = [layer.key for layer in lazy if getattr(layer, "key", None) is not None]
    if not hasattr(source, "shape") or not all(isinstance(key, _ONE_STEP) for key in keys):
        return None
    axes: list[Any] = [range(size) for size in source.shape]
    for key in reversed([key.tuple for key in keys]):
        kept = [place for place, positions in enumerate(axes) if not isinstance(positions, int)]
        if len(key) != len(kept):
            return None
        for place, indexer in zip(kept, key, strict=True):
            if isinstance(indexer, slice):
                axes[place] = axes[place][indexer]
            elif isinstance(indexer, np.ndarray):
                axes[place] = np.asarray(axes[place])[indexer]
            else:
                axes[place] = int(axes[place][indexer])
    lengths = [len(positions) for positions in axes if not isinstance(positions, int)]
    return axes if lengths == list(variable.shape) else None


def keys_of_slices(variable: xr.Variable) -> list[tuple[Any, ...]] | None:
    """Keys of the lazy arrays, each of the next one; None if one of them does more than slice."""
    keys = []
    for layer in layers(variable)[:-1]:
        if isinstance(layer, indexing.LazilyIndexedArray):
            keys.append(layer.key.tuple)
        elif type(layer) not in _CACHES:
            return None
    return keys


# What lies under them.


def zarr_array(data: Any) -> zarr.Array[Any] | None:
    """The Zarr array under a lazy variable, as it was opened; instead of it, a layer will do."""
    source = layers(data)[-1]
    if not isinstance(source, ZarrArrayWrapper | ZarrBacked):
        return None
    return source.get_array()  # type: ignore[no-untyped-call, no-any-return]


def read_through(data: Any, array: zarr.Array[Any]) -> None:
    """Let what reads a Zarr array do so by another object of that array; in place."""
    layers(data)[-1]._array = array


def netcdf3_file(source: Any) -> tuple[Any, Any] | None:
    """The NetCDF 3 file that scipy has open, and the values of a variable, which may be mapped.

    None of other sources.
    """
    if type(source) is not ScipyArrayWrapper:
        return None
    opened = source.datastore.ds
    return opened.fp, opened.variables[source.variable_name].data


@dataclass(frozen=True, eq=False)
class OpenedFile:
    """The file that one of xarray's backends has open for a variable."""

    file: Any  # path or open file
    options: Mapping[str, Any]  # with which it was opened
    name: tuple[str | None, str | None]  # of the variable, and its group


def opened_file(source: Any) -> OpenedFile | None:
    """The file that the array of a backend reads, if it says."""
    own = attributes(source)
    store = own.pop("datastore", None)
    holder = own if store is None else attributes(store)
    manager = holder.get("_manager") or holder.get("manager")
    if manager is None:
        return None
    given = getattr(manager, "_args", None)
    if given:
        file = given[0]
    else:  # it was opened before
        opened = getattr(manager, "_value", None)
        file = getattr(opened, "filepath", None) or getattr(opened, "filename", None)
        file = file() if callable(file) else file
    name = own.get("variable_name"), holder.get("_group")
    return OpenedFile(file, getattr(manager, "_kwargs", {}), name)


def forget_open_files() -> None:
    """Let xarray open files again that it has open, as a fork must."""
    for key in list(FILE_CACHE):
        file = FILE_CACHE.pop(key, None)
        # In a cycle, it would be closed by the garbage collector, while other threads read. One
        # that is mapped says by itself when it can be.
        if file is not None and not getattr(file, "use_mmap", False):
            file.close()


def state_of(layer: Any) -> dict[str, Any]:
    """Attributes by which a lazy array changes the next one; of indexers, their content."""
    return {
        name: (type(value).__qualname__, value.tuple)
        if isinstance(value, indexing.ExplicitIndexer)
        else value
        for name, value in attributes(layer).items()
        if name not in ("array", "_copied")
    }


def attributes(what: Any) -> dict[str, Any]:
    """Attributes of an object, also those in slots."""
    names: set[str] = set(getattr(what, "__dict__", ()))
    for kind in type(what).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    names -= {"__dict__", "__weakref__"}
    return {name: getattr(what, name) for name in names if hasattr(what, name)}


# How they are rebuilt.


def lazily(dims: Sequence[Hashable], source: Any) -> xr.Variable:
    """A lazy variable of a `BackendArray`, or of a Zarr array."""
    if not isinstance(source, BackendArray):
        source = ZarrArrayWrapper(source)  # type: ignore[no-untyped-call]
    return xr.Variable(dims, indexing.LazilyIndexedArray(source))


def deferred(variable: xr.Variable) -> xr.Variable:
    """A variable that copies what is in memory no sooner than it is read, in whatever order."""
    if not isinstance(variable._data, np.ndarray):
        return variable
    adapter = indexing.LazilyIndexedArray(variable._data)
    return xr.Variable(variable.dims, adapter, variable.attrs, variable.encoding)


def contiguous(variable: xr.Variable) -> tuple[xr.Variable, dict[Hashable, IntArray]]:
    """A lazy variable that is read by slices, and by dim the steps of it that are wanted.

    Where positions of the stored array were listed, arrays are read otherwise, and slower. Steps
    are given for dims alone of which not all are wanted once, in their order. Where a slice would
    have others, too, the list stays.
    """
    data, *_ = chain = layers(variable)
    keys = [each.key.tuple for each in chain if type(each) is indexing.LazilyIndexedArray]
    if not any(isinstance(place, np.ndarray) for key in keys for place in key):
        return variable, {}
    wanted: dict[int, IntArray] = {}

    def plain(lazy: Any) -> Any:
        if type(lazy) in _CACHES or type(lazy) is DecodingArray or hasattr(lazy, "func"):
            again = copy.copy(lazy)
            again.array = plain(lazy.array)
            return again
        if type(lazy) is not indexing.LazilyIndexedArray:
            return lazy
        if not isinstance(lazy.key, indexing.OuterIndexer):
            return lazy
        key: list[Any] = []
        for place in lazy.key.tuple:
            at = len([each for each in key if not isinstance(each, int | np.integer)])
            cut, steps = _as_slice(place) if isinstance(place, np.ndarray) else (place, None)
            if steps is not None:
                wanted[at] = steps
            key.append(cut)
        listed = any(isinstance(each, np.ndarray) for each in key)
        kind = indexing.OuterIndexer if listed else indexing.BasicIndexer
        return type(lazy)(lazy.array, kind(tuple(key)))

    found = plain(data)
    by_dim = {variable.dims[at]: steps for at, steps in wanted.items()}
    new = xr.Variable(variable.dims, found, variable.attrs, variable.encoding)
    return new, by_dim


def _as_slice(positions: IntArray) -> tuple[slice | IntArray, IntArray | None]:
    """Listed positions as a slice, and the steps of it that they are, where not each one is."""
    if not len(positions):
        return slice(0, 0), None
    first, last = int(positions.min()), int(positions.max())
    if len(positions) == last - first + 1 and (np.diff(positions) == 1).all():
        return slice(first, last + 1), None
    if last - first + 1 > len(positions) or len(np.unique(positions)) < last - first + 1:
        return positions, None
    return slice(first, last + 1), positions - first


def inside_caches(data: Any, make: Callable[[Any], Any]) -> Any:
    """A copy of the caches around a lazy array, around what is made of it."""
    if type(data) not in _CACHES:
        return make(data)
    again = copy.copy(data)
    again.array = inside_caches(data.array, make)
    return again


def undecoded(data: Any) -> tuple[list[Callable[[Any], Any]], Any]:
    """The decoders around a lazy array, in the order in which they work, and the array."""
    functions: list[Callable[[Any], Any]] = []
    while type(data) in _CACHES:
        data = data.array
    while type(data) is DecodingArray:
        functions.insert(0, data.func)
        data = data.array
    return functions, data


def with_source(data: Any, make: Callable[[Any], Any]) -> Any:
    """A copy of a chain of lazy arrays, around what is made of the array at its end."""
    if type(data) is ZarrArrayWrapper or not hasattr(data, "array"):
        return make(data)
    again = copy.copy(data)
    again.array = with_source(data.array, make)
    return again


# Arrays for xarray to read, as its guide to backends describes them:
# https://docs.xarray.dev/en/stable/internals/how-to-add-new-backend.html


class SlicedArray(BackendArray):
    """An array that is read with integers, slices and arrays, each dim for itself."""

    shape: tuple[int, ...]

    def read(self, key: tuple[Any, ...]) -> Any:
        """The selection of a key."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if not isinstance(key, indexing.VectorizedIndexer):
            return self.read(key.tuple)
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )


class ZarrBacked(BackendArray):
    """A Zarr array that is read in ways of its own; made of what xarray reads it with.

    `read` and `read_async` get the way, ``"basic"``, ``"outer"`` or ``"vectorized"``, and the key.
    """

    def __init__(self, source: Any) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._opened = self._array = source.get_array()

    def get_array(self) -> Any:
        """The array as it was opened."""
        return self._opened

    def read(self, way: str, key: tuple[Any, ...]) -> Any:
        """The selection of a key."""
        raise NotImplementedError

    async def read_async(self, way: str, key: tuple[Any, ...]) -> Any:
        """The selection of a key."""
        raise NotImplementedError

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        read = functools.partial(self.read, _way(key))
        support = indexing.IndexingSupport.VECTORIZED
        return self._as_text(indexing.explicit_indexing_adapter(key, self.shape, support, read))

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """The selection of an indexer."""
        read = functools.partial(self.read_async, _way(key))
        support = indexing.IndexingSupport.VECTORIZED
        return self._as_text(
            await indexing.async_explicit_indexing_adapter(key, self.shape, support, read)
        )

    def _as_text(self, value: Any) -> Any:
        """Zarr gives single texts as those of Python."""
        is_text = self.dtype.kind == "T" and isinstance(value, str)
        return np.asarray(value, self.dtype) if is_text else value


def _way(key: indexing.ExplicitIndexer) -> str:
    if isinstance(key, indexing.VectorizedIndexer):
        return "vectorized"
    return "outer" if isinstance(key, indexing.OuterIndexer) else "basic"
