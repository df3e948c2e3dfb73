"""Stores of Zarr that are put around others."""

from __future__ import annotations

from zarr.abc.store import Store
from zarr.storage import WrapperStore

__all__ = ["innermost"]


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
