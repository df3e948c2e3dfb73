"""Stores of Zarr that are put around others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from zarr.abc.store import Store
from zarr.storage import WrapperStore

from ..common.retry import answered

__all__ = ["AnsweringStore", "innermost"]


def innermost(store: Store) -> Store:
    """The store inside any that are put around it, such as those that log what is asked for.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Any store.
    """
    while isinstance(store, WrapperStore):
        store = store._store
    return store


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
