"""Whether the store of an array is still there, asked when chunks are missing."""

from __future__ import annotations

import os
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from .redact import redacted

__all__ = ["require_array", "require_local_array"]


async def require_array(array: zarr.Array[Any]) -> None:
    """Raise if the metadata of an array is not in its store any more.

    A chunk that is not there has the fill value, as Zarr has it. So has every chunk of a store that
    was deleted or unmounted in the middle of an epoch; that must not pass for data.

    Parameters
    ----------
    array : zarr.Array
        An array of which a chunk is missing.

    Raises
    ------
    FileNotFoundError
        If neither its metadata nor consolidated metadata is there.
    """
    if isinstance(array.store, LocalStore):
        return require_local_array(array)
    for key in _metadata_keys(array):
        try:
            if await array.store.get(key, default_buffer_prototype()) is not None:
                return None
        except Exception:  # a store that cannot say is believed
            return None
    raise _gone(array)


def require_local_array(array: zarr.Array[Any]) -> None:
    """The same for a local folder, on any thread of any process.

    Parameters
    ----------
    array : zarr.Array
        An array of which a chunk is missing.

    Raises
    ------
    FileNotFoundError
        If neither its metadata nor consolidated metadata is there.
    """
    root = array.store.root  # type: ignore[attr-defined]
    if not any(os.path.exists(os.path.join(root, key)) for key in _metadata_keys(array)):
        raise _gone(array)


def _metadata_keys(array: zarr.Array[Any]) -> list[str]:
    """Where the metadata of an array is, or is consolidated."""
    v3 = array.metadata.zarr_format == 3
    own, root = ("zarr.json", "zarr.json") if v3 else (".zarray", ".zmetadata")
    return [f"{array.path}/{own}" if array.path else own, root]


def _gone(array: zarr.Array[Any]) -> FileNotFoundError:
    return FileNotFoundError(
        f"chunks of {redacted(str(array.store))} are missing, and so is "
        f"{_metadata_keys(array)[0]}: the store is not there any more"
    )
