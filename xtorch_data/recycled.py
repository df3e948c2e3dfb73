"""Zarr arrays that are read into memory which was used before."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.zarr import ZarrArrayWrapper
from zarr.core.buffer import BufferPrototype, cpu

from .buffers import Buffers
from .direct import DirectReader, on_loop_of

__all__ = ["read_path", "with_recycled_memory"]


class _RecycledArray(ZarrArrayWrapper):
    """Reads into memory of some buffers: directly where it can, else through zarr.

    Zarr lets a reader choose the memory by a prototype.
    """

    __slots__ = ("_buffers", "_direct")

    def __init__(self, array: Any, buffers: Buffers) -> None:
        super().__init__(array)  # type: ignore[no-untyped-call]
        self._buffers = buffers
        self._direct = DirectReader.of(array)

    def _getitem(self, key: Any) -> Any:
        if self._direct is not None and self._direct.is_local and self._direct.supports(key):
            return self._direct.read(key, self._buffers)
        return self._array.get_basic_selection(key, prototype=_prototype(self._buffers))

    async def _async_getitem(self, key: Any) -> Any:
        if self._direct is not None and self._direct.supports(key):
            return await self._direct.read_async(key, self._buffers)
        reading = self._array._async_array.getitem(key, prototype=_prototype(self._buffers))
        return await on_loop_of(self._array, reading)


def _prototype(buffers: Buffers) -> BufferPrototype:
    """What zarr asks for the memory it reads into."""

    class NDBuffer(cpu.NDBuffer):
        @classmethod
        def empty(cls, shape: Any, dtype: Any, order: Any = "C") -> NDBuffer:
            if order != "C" or np.dtype(dtype).hasobject:
                return cls(np.empty(shape, dtype, order))  # type: ignore[arg-type]
            return cls(buffers.take(tuple(shape), np.dtype(dtype)))  # type: ignore[arg-type]

    return BufferPrototype(buffer=cpu.Buffer, nd_buffer=NDBuffer)


def with_recycled_memory(data: xr.Dataset, buffers: Buffers) -> xr.Dataset:
    """A dataset whose lazy Zarr variables are read into memory of some buffers.

    The given dataset stays as it is. Variables that are not read from Zarr by xarray's lazy arrays
    stay as they are, too.
    """
    variables = {}
    for name, variable in data.data_vars.items():
        if variable.chunks is None and not variable.variable._in_memory:
            found = _rebuilt(variable.variable._data, buffers)
            new = xr.Variable(variable.dims, found, variable.attrs, variable.encoding)
            variables[name] = new
    return data.assign(variables) if variables else data


def read_path(variable: xr.Variable) -> str:
    """How a lazy variable is read: ``"directly"``, ``"by zarr"`` or ``"by its backend"``."""
    data, direct = variable._data, True
    while hasattr(data, "array"):
        key = getattr(data, "key", None)
        places = () if key is None else key.tuple
        plain = (isinstance(place, (slice, int, np.integer)) for place in places)
        direct = direct and all(plain) and DirectReader.supports(places)
        data = data.array
    if not isinstance(data, _RecycledArray):
        return "by its backend"
    return "directly" if direct and data._direct is not None else "by zarr"


def _rebuilt(data: Any, buffers: Buffers) -> Any:
    """A chain of lazy arrays with a recycling array at its end."""
    if type(data) is ZarrArrayWrapper:
        return _RecycledArray(data.get_array(), buffers)  # type: ignore[no-untyped-call]
    if hasattr(data, "array"):
        again = copy.copy(data)
        again.array = _rebuilt(data.array, buffers)
        return again
    return data
