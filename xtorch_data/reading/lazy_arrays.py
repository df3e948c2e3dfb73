"""xarray's lazy arrays, read into memory that was used before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.backends.scipy_ import ScipyArrayWrapper
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.coding.common import _ElementwiseFunctionArray
from xarray.core.indexing import CopyOnWriteArray, MemoryCachedArray
from zarr.abc.buffer import BufferPrototype
from zarr.buffer import cpu, default_buffer_prototype
from zarr.codecs import ShardingCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from ..common.buffers import Buffers
from ..sources.file_maps import FileMap
from ..sources.layers import layers
from ..sources.zarr_stores import AnsweringStore
from .concurrency import on_loop_of, on_thread
from .presence import require_array
from .zarr_chunks import DirectReader

__all__ = [
    "codec_pipeline",
    "decodes_on_the_loop",
    "has_pipeline_of_zarrs",
    "is_fetched",
    "is_lazy",
    "read_path",
    "stored_dtype",
    "with_pipeline_of_zarr",
    "with_recycled_memory",
]

# Values decoded at once: with what they pass through, they stay in a core's cache.
PIECE = 2**15


class _RecycledArray(ZarrArrayWrapper):
    """Reads into memory of some buffers: directly where it can, else through zarr.

    Zarr lets a reader choose the memory by a prototype.
    """

    __slots__ = ("_buffers", "_direct", "_opened")

    def __init__(self, array: Any, buffers: Buffers) -> None:
        super().__init__(array)  # type: ignore[no-untyped-call]
        self._buffers = buffers
        self._direct = DirectReader.of(array)
        self._opened = array
        if not has_pipeline_of_zarrs(array) and not isinstance(array.store, LocalStore):
            self._array = _answering(array)

    def get_array(self) -> Any:
        """The array as it was opened; zarr reads the one that does not wait for ever."""
        return self._opened

    def _getitem(self, key: Any) -> Any:
        if self._direct is not None and self._direct.is_local and self._direct.supports(key):
            return self._direct.read(key, self._buffers)
        return self._checked(self._array.get_basic_selection(key, prototype=self._prototype(key)))

    def _oindex(self, key: Any) -> Any:
        return self._checked(super()._oindex(key))  # type: ignore[no-untyped-call]

    def _vindex(self, key: Any) -> Any:
        return self._checked(super()._vindex(key))  # type: ignore[no-untyped-call]

    async def _async_oindex(self, key: Any) -> Any:
        return await self._checked_async(super()._async_oindex(key))  # type: ignore[no-untyped-call]

    async def _async_vindex(self, key: Any) -> Any:
        return await self._checked_async(super()._async_vindex(key))  # type: ignore[no-untyped-call]

    def _checked(self, values: Any) -> Any:
        """Values read through zarr, which does not tell which chunks were missing."""
        if self._has_fill_value(values):
            sync(require_array(self._array))
        return values

    async def _checked_async(self, reading: Coroutine[Any, Any, Any]) -> Any:
        values = await on_loop_of(self._array, reading)
        if await on_thread(self._has_fill_value, values):
            await require_array(self._array)
        return values

    def _has_fill_value(self, values: Any) -> bool:
        fill, values = self._array.fill_value, np.asarray(values)
        if values.dtype.kind not in "biufcmM":
            return True
        unequal = fill is not None and fill != fill
        return bool((np.isnan(values) if unequal else values == (fill or 0)).any())

    async def _async_getitem(self, key: Any) -> Any:
        if self._direct is not None and self._direct.supports(key):
            return await self._direct.read_async(key, self._buffers)
        reading = self._array.async_array.getitem(key, prototype=self._prototype(key))
        return await self._checked_async(reading)

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
    """What zarr asks for the memory it reads into."""

    class NDBuffer(cpu.NDBuffer):
        @classmethod
        def empty(cls, shape: Any, dtype: Any, order: Any = "C") -> NDBuffer:
            if order != "C" or np.dtype(dtype).hasobject:
                return cls(np.empty(shape, dtype, order))  # type: ignore[arg-type]
            return cls(buffers.take(tuple(shape), np.dtype(dtype)))  # type: ignore[arg-type]

    return BufferPrototype(buffer=cpu.Buffer, nd_buffer=NDBuffer)


class _MappedArray(BackendArray):
    """An array of a NetCDF 3 file, which scipy maps into memory; the file must still be whole."""

    def __init__(self, mapped: ScipyArrayWrapper) -> None:
        self.shape, self.dtype = mapped.shape, mapped.dtype
        self._mapped = mapped

    def __getitem__(self, key: Any) -> Any:
        found = FileMap.of(self._mapped.get_variable().data)
        if found is not None:
            found.require_whole()
        return self._mapped[key]


class _DecodedArray(_ElementwiseFunctionArray):
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
    """A dataset whose lazy variables are read into memory of some buffers.

    Parameters
    ----------
    data : xarray.Dataset
        The dataset; it stays as it is. So do variables in memory and those of dask.
    buffers : Buffers
        Where the memory comes from, for Zarr arrays and for values that xarray decodes.
    dtypes : mapping of Hashable to numpy.dtype
        What variables are cast to as they are read.
    """
    variables = {}
    for name, variable in data.data_vars.items():
        if is_lazy(variable.variable):
            found = _rebuilt(variable.variable._data, buffers, dtypes.get(name, variable.dtype))
            new = xr.Variable(variable.dims, found, variable.attrs, variable.encoding)
            variables[name] = new
    return data.assign(variables) if variables else data


def is_lazy(variable: xr.Variable) -> bool:
    """Whether a variable is one of xarray's lazy arrays."""
    return variable.chunks is None and not variable._in_memory


def decodes_on_the_loop(variable: xr.Variable) -> bool:
    """Whether an asynchronous read would decode values on the event loop, which would stand."""
    return any(
        isinstance(layer, _ElementwiseFunctionArray) and not isinstance(layer, _DecodedArray)
        for layer in layers(variable._data)
    )


def stored_dtype(variable: xr.Variable) -> np.dtype[Any] | None:
    """The dtype of a lazy variable in its store, if it is decoded as it is read; else None."""
    data, decoded = variable._data, False
    while hasattr(data, "array") and not isinstance(data, ZarrArrayWrapper):
        decoded = decoded or isinstance(data, _ElementwiseFunctionArray)
        data = data.array
    return np.dtype(data.dtype) if decoded else None


def is_fetched(variable: xr.Variable) -> bool:
    """Whether a lazy variable is read by requests for each of its chunks, which take their time."""
    data = layers(variable._data)[-1]
    direct = data._direct if isinstance(data, _RecycledArray) else None
    return direct is not None and not direct.is_local


def read_path(variable: xr.Variable) -> str:
    """How a lazy variable is read: ``"directly"``, ``"by zarr"`` or ``"by its backend"``."""
    *lazy, data = layers(variable._data)
    direct = True
    for layer in lazy:
        key = getattr(layer, "key", None)
        places = () if key is None else key.tuple
        plain = (isinstance(place, (slice, int, np.integer)) for place in places)
        direct = direct and all(plain) and DirectReader.supports(places)
    if not isinstance(data, _RecycledArray):
        return "by its backend"
    return "directly" if direct and data._direct is not None else "by zarr"


def codec_pipeline(variable: xr.Variable) -> str:
    """The class that decodes chunks of a lazy Zarr variable, with its module."""
    return _pipeline(layers(variable._data)[-1]._array)


def _pipeline(array: Any) -> str:
    kind = type(array.async_array.codec_pipeline)
    return f"{kind.__module__}.{kind.__qualname__}"


def with_pipeline_of_zarr(array: Any) -> Any:
    """A Zarr array, decoded by zarr's own codec pipeline."""
    inner = array.async_array
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        return type(array)(type(inner)(inner.metadata, inner.store_path, inner.config))


def has_pipeline_of_zarrs(array: Any) -> bool:
    """Whether a Zarr array is decoded by the codec pipeline of zarrs."""
    return type(array.async_array.codec_pipeline).__module__.startswith("zarrs")


def _rebuilt(data: Any, buffers: Buffers, wanted: np.dtype[Any]) -> Any:
    """A chain of lazy arrays with a recycling array at its end, decoding in pieces."""
    if type(data) in (MemoryCachedArray, CopyOnWriteArray):
        again = copy.copy(data)
        again.array = _rebuilt(data.array, buffers, wanted)
        return again
    decoded = data.dtype
    functions: list[Callable[[Any], Any]] = []
    while type(data) is _ElementwiseFunctionArray:
        functions.insert(0, data.func)
        data = data.array
    found = _recycling(data, buffers)
    if not functions and decoded == wanted:
        return found
    return _DecodedArray(found, _InPieces(tuple(functions), decoded, wanted, buffers), wanted)


def _recycling(data: Any, buffers: Buffers) -> Any:
    if type(data) is ZarrArrayWrapper:
        return _RecycledArray(data.get_array(), buffers)  # type: ignore[no-untyped-call]
    if hasattr(data, "array"):
        again = copy.copy(data)
        again.array = _recycling(data.array, buffers)
        return again
    if type(data) is ScipyArrayWrapper:
        return _MappedArray(data)
    return data
