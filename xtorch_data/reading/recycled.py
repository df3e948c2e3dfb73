"""Lazy variables that are read into memory that was used before, or are memory maps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.buffer import BufferPrototype
from zarr.buffer import cpu, default_buffer_prototype
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore, StorePath

from ..common.buffers import Buffers
from ..sources.file_maps import FileMap
from ..sources.file_reads import StoredArray, read_array, reopened, selected
from ..sources.lazy_arrays import (
    DecodingArray,
    SlicedArray,
    ZarrBacked,
    contiguous,
    inside_caches,
    is_lazy,
    keys_of_slices,
    layers,
    netcdf3_file,
    undecoded,
    with_source,
    zarr_array,
)
from ..sources.npy_files import NpyFile, Stamp
from ..sources.zarr_stores import AnsweringStore, on_loop_of, wait_for
from .chunk_errors import require_array
from .concurrency import on_thread
from .zarr_chunks import DirectReader

__all__ = [
    "codec_pipeline", "decodes_on_the_loop", "has_pipeline_of_zarrs", "is_fetched", "mapped",
    "read_path", "with_recycled_memory",
]  # fmt: skip

# Values decoded at once: with what they pass through, they stay in a core's cache.
PIECE = 2**15


class _RecycledArray(ZarrBacked):
    """Reads into memory of some buffers: directly where it can, else through zarr.

    Zarr lets a reader choose the memory by a prototype. Any thread may read, and any event loop.
    """

    def __init__(self, source: Any, buffers: Buffers) -> None:
        super().__init__(source)
        self._buffers = buffers
        self.direct = DirectReader.of(self._array)
        if not has_pipeline_of_zarrs(self._array):
            if not isinstance(self._array.store, LocalStore):
                self._array = _answering(self._array)

    def read(self, way: str, key: Any) -> Any:
        """The selection of a key, read while this thread waits."""
        if way == "basic":
            if self.direct is not None and self.direct.is_local and self.direct.supports(key):
                return self.direct.read(key, self._buffers)
            values = self._array.get_basic_selection(key, prototype=self._prototype(key))
        else:
            values = (self._array.oindex if way == "outer" else self._array.vindex)[key]
        if self._has_fill_value(values):
            wait_for(require_array(self._array))
        return values

    async def read_async(self, way: str, key: Any) -> Any:
        """The selection of a key, read by any event loop."""
        array = self._array.async_array
        if way == "basic":
            if self.direct is not None and self.direct.supports(key):
                return await self.direct.read_async(key, self._buffers)
            reading = array.getitem(key, prototype=self._prototype(key))
        else:
            reading = (array.oindex if way == "outer" else array.vindex).getitem(key)
        values = await on_loop_of(self._array, reading)
        if await on_thread(self._has_fill_value, values):
            await require_array(self._array)
        return values

    def _has_fill_value(self, values: Any) -> bool:
        """Whether chunks may have been missing, of which zarr does not tell."""
        fill, values = self._array.fill_value, np.asarray(values)
        if values.dtype.kind not in "biufcmM":
            return True
        unequal = fill is not None and fill != fill
        return bool((np.isnan(values) if unequal else values == (fill or 0)).any())

    def _prototype(self, key: Any) -> BufferPrototype:
        # Inside shards, zarr's own pipeline takes no other memory than its own; that of zarrs lets
        # it read what has gaps.
        own = not has_pipeline_of_zarrs(self._array) or not DirectReader.supports(key)
        own = own and _has_shards(self._array)
        return default_buffer_prototype() if own else _prototype(self._buffers)


def _answering(array: Any) -> Any:
    """A Zarr array whose requests end at the time that a read allows."""
    inner = array.async_array
    path = StorePath(AnsweringStore(inner.store_path.store), inner.store_path.path)
    return type(array)(type(inner)(inner.metadata, path, inner.config))


def _has_shards(array: Any) -> bool:
    """Whether chunks lie in shards, also where other codecs stand around these."""
    return any(isinstance(codec, ShardingCodec) for codec in getattr(array.metadata, "codecs", ()))


def _prototype(buffers: Buffers) -> BufferPrototype:
    """Prototype by which zarr reads into memory of some buffers."""

    class NDBuffer(cpu.NDBuffer):
        @classmethod
        def empty(cls, shape: Any, dtype: Any, order: Any = "C") -> NDBuffer:
            if order != "C" or np.dtype(dtype).hasobject:
                return cls(np.empty(shape, dtype, order))  # type: ignore[arg-type]
            return cls(buffers.take(tuple(shape), np.dtype(dtype)))  # type: ignore[arg-type]

    return BufferPrototype(buffer=cpu.Buffer, nd_buffer=NDBuffer)


class _NetCDF3Array(SlicedArray):
    """An array of a NetCDF 3 file that scipy has mapped into memory, read through the file.

    The map is looked at where another file has its path by now.
    """

    def __init__(self, source: Any) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._source = source

    def read(self, key: tuple[Any, ...]) -> Any:
        """The selection of a key."""
        found = netcdf3_file(self._source)
        assert found is not None
        opened, values = found
        if (mapped := FileMap.of(values, opened.name)) is not None:
            mapped.require_whole()
            if (file := reopened(opened)) is not None:
                stored = StoredArray(mapped.offset, values.dtype, values.shape, values.strides)
                with file:
                    return read_array(file, stored, key, self.dtype)
        return np.array(selected(values, key), self.dtype, order="C")


class _DecodedArray(DecodingArray):
    """Stored values and what xarray makes of them, on a thread where the read is asynchronous."""

    async def async_get_duck_array(self) -> Any:
        return await on_thread(self.func, await self.array.async_get_duck_array())


@dataclass(frozen=True, eq=False)
class _InPieces:
    """Elementwise functions, one after the other, and a cast, applied to a piece at a time.

    The whole would go through fresh memory again and again: packed integers become float64 twice
    before they are float32.
    """

    functions: tuple[Callable[[Any], Any], ...]
    decoded: np.dtype[Any]
    wanted: np.dtype[Any]
    buffers: Buffers

    def __call__(self, stored: Any) -> Any:
        plain = isinstance(stored, np.ndarray) and stored.flags.c_contiguous
        if not plain or self.wanted.hasobject:  # such as dates of a calendar of its own
            found = self._of(stored)
            return found.astype(self.wanted, copy=False) if found.dtype == self.decoded else found
        out = self.buffers.take(stored.shape, self.wanted)
        values, target = stored.reshape(-1), out.reshape(-1)
        for start in range(0, len(values), PIECE):
            piece = self._of(values[start : start + PIECE])
            if piece.dtype != self.decoded:  # not what xarray has promised
                return self._of(stored)
            target[start : start + PIECE] = piece
        return out

    def _of(self, values: Any) -> Any:
        for function in self.functions:
            values = function(values)
        return values


def with_recycled_memory(
    data: xr.Dataset, buffers: Buffers, dtypes: Mapping[Hashable, np.dtype[Any]]
) -> xr.Dataset:
    """A dataset whose lazy variables are read into memory of some buffers, cast to some dtypes.

    That is, Zarr arrays and values that xarray decodes. The given dataset stays as it is, and so do
    variables in memory and those of dask.
    """
    variables = {}
    for name, variable in data.data_vars.items():
        if is_lazy(variable.variable):
            found = _recycled(variable.variable, buffers, dtypes.get(name, variable.dtype))
            new = xr.Variable(variable.dims, found, variable.attrs, variable.encoding)
            variables[name] = new
    return data.assign(variables) if variables else data


def _recycled(variable: xr.Variable, buffers: Buffers, wanted: np.dtype[Any]) -> Any:
    """The lazy arrays of a variable with a recycling array at their end, decoding in pieces."""

    def source(data: Any) -> Any:
        if zarr_array(data) is not None:
            return _RecycledArray(data, buffers)
        return data if netcdf3_file(data) is None else _NetCDF3Array(data)

    def decoded(data: Any) -> Any:
        functions, stored = undecoded(data)
        found = with_source(stored, source)
        if not functions and data.dtype == wanted:
            return found
        in_pieces = _InPieces(tuple(functions), data.dtype, wanted, buffers)
        return _DecodedArray(found, in_pieces, wanted)

    return inside_caches(layers(variable)[0], decoded)


# How variables are read.


def decodes_on_the_loop(variable: xr.Variable) -> bool:
    """Whether an asynchronous read would decode values on the event loop, which would stand."""
    return any(
        isinstance(layer, DecodingArray) and not isinstance(layer, _DecodedArray)
        for layer in layers(variable)
    )


def is_fetched(variable: xr.Variable) -> bool:
    """Whether a lazy variable is read by requests for each of its chunks, which take their time."""
    data = layers(variable)[-1]
    direct = data.direct if isinstance(data, _RecycledArray) else None
    return direct is not None and not direct.is_local


def read_path(variable: xr.Variable) -> str:
    """Way of reading a lazy variable: ``"directly"``, ``"by zarr"`` or ``"by its backend"``."""
    *lazy, data = layers(contiguous(variable)[0])
    if not isinstance(data, _RecycledArray):
        return "by its backend"
    keys = [layer.key.tuple for layer in lazy if getattr(layer, "key", None) is not None]
    plain = all(isinstance(at, (slice, int, np.integer)) for key in keys for at in key)
    direct = plain and data.direct is not None and all(map(DirectReader.supports, keys))
    return "directly" if direct else "by zarr"


def codec_pipeline(variable: xr.Variable) -> str:
    """The class that decodes chunks of a lazy Zarr variable, with its module."""
    kind = _pipeline(zarr_array(variable))
    return f"{kind.__module__}.{kind.__qualname__}"


def has_pipeline_of_zarrs(array: Any) -> bool:
    """Whether a Zarr array is decoded by the codec pipeline of zarrs."""
    return _pipeline(array).__module__.startswith("zarrs")


def _pipeline(array: Any) -> type:
    return type(array.async_array.codec_pipeline)


# Memory maps.


def mapped(data: xr.Dataset) -> tuple[xr.Dataset, dict[NpyFile, Stamp]]:
    """A dataset of which nothing has to be read that lies in memory-mapped files, and these files.

    Its variables are maps as long as it lives, for samples from anywhere: a read would copy what is
    around each. So who looks at them must ask before whether the files have stayed as they are. The
    given dataset stays as it is.
    """
    files: dict[NpyFile, Stamp] = {}
    found = {name: _mapped(each.variable, files) for name, each in data.data_vars.items()}
    return data.assign({name: new for name, new in found.items() if new is not None}), files


def _mapped(variable: xr.Variable, files: dict[NpyFile, Stamp]) -> xr.Variable | None:
    """A view of the file of a variable, if there is one and the lazy arrays above only slice it."""
    keys = keys_of_slices(variable) if is_lazy(variable) else None
    source = layers(variable)[-1]
    if keys is None or any(isinstance(at, np.ndarray) for key in keys for at in key):
        return None
    if not hasattr(source, "mapped"):
        return None
    stamp = source.file.stamp()  # before the map is made, so that no change is missed
    values = source.mapped()
    for key in reversed(keys):
        values = np.asarray(values[key])
    if values.dtype != variable.dtype:  # read as another
        return None
    files.setdefault(source.file, stamp)
    return xr.Variable(variable.dims, values, variable.attrs, variable.encoding)
