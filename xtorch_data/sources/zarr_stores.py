"""Stores of Zarr around others, and zarr's event loop.

Zarr's private names are used here, and nowhere else in the package. The table of these names
(docs/explanation/design.md) says when each can go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import zarr
from zarr.abc.store import Store
from zarr.core import sync
from zarr.storage import FsspecStore, WrapperStore, ZipStore

from ..common.retry import answered

__all__ = [
    "AnsweringStore", "begun_loop", "innermost", "inside", "on_loop_of", "open_zip", "wait_for",
    "with_pipeline_of_zarr",
]  # fmt: skip

T = TypeVar("T")


def innermost(store: Store) -> Store:
    """The store inside any that are put around it, such as those that log what is asked for."""
    while isinstance(store, WrapperStore):
        store = inside(store)
    return store


def inside(store: WrapperStore[Store]) -> Store:
    """The store that another one is put around."""
    return store._store


def open_zip(store: ZipStore) -> Any:
    """The file that a ZIP store has open, if it has one."""
    return getattr(getattr(store, "_zf", None), "fp", None)


class AnsweringStore(WrapperStore[Store]):
    """A store whose requests fail that take longer than the read that they are for allows.

    It stands around the store of an array that zarr itself reads; see `retry.answered`.
    """

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """An object, or some bytes of it."""
        return await answered(super().get(*args, **kwargs))

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        """Some bytes of some objects."""
        return await answered(super().get_partial_values(*args, **kwargs))

    async def get_ranges(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Some bytes of an object, in parts as they come; asked for by zarr from 3.4 on."""
        parts = self._store.get_ranges(*args, **kwargs)  # type: ignore[attr-defined]
        while True:
            try:
                part = await answered(anext(parts))
            except StopAsyncIteration:
                return
            yield part


def wait_for(reading: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on zarr's event loop while this thread waits."""
    return sync.sync(reading)


def on_loop_of(array: zarr.Array[Any], reading: Coroutine[Any, Any, Any]) -> Any:
    """A read of an array, to be awaited on any loop.

    Sessions of fsspec belong to the loop in which a store was opened, and that is zarr's own.
    """
    if not isinstance(innermost(array.store), FsspecStore):
        return reading
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(reading, sync._get_loop()))


def begun_loop() -> asyncio.AbstractEventLoop | None:
    """Zarr's event loop, if it has begun."""
    return sync.loop[0]


def with_pipeline_of_zarr(array: Any) -> Any:
    """A Zarr array, decoded by zarr's own codec pipeline."""
    inner = array.async_array
    defaults = zarr.config.defaults[0]
    with zarr.config.set({"codec_pipeline.path": defaults["codec_pipeline"]["path"]}):
        return type(array)(type(inner)(inner.metadata, inner.store_path, inner.config))
