"""Whether the store of an array is still there, asked when chunks are missing."""

from __future__ import annotations

import os
from typing import Any

import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from ..common.redact import printable, redacted
from ..common.retry import GivenUp, answered, retried_alone
from .concurrency import on_loop_of

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
    Exception
        If the store fails when it is asked. Not if it may not be asked, or does not answer such
        questions: then it is believed.
    """
    if isinstance(array.store, LocalStore):
        return require_local_array(array)
    for key in _metadata_keys(array):

        async def get(key: str = key) -> Any:
            asked = array.store.get(key, default_buffer_prototype())
            return await answered(on_loop_of(array, asked))

        try:
            if await retried_alone(get, key) is not None:
                return None
        except Exception as error:
            if _is_refused(error.__cause__ if isinstance(error, GivenUp) else error):
                return None
            raise
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


def _is_refused(error: BaseException | None) -> bool:
    """Whether a store may or can not be asked."""
    if isinstance(error, PermissionError | NotImplementedError):
        return True
    kind = type(error)
    of_obstore = kind.__module__.partition(".")[0] == "obstore"
    if of_obstore and kind.__name__ in {"PermissionDeniedError", "UnauthenticatedError"}:
        return True
    return getattr(error, "status", None) in (401, 403)  # of aiohttp


def _metadata_keys(array: zarr.Array[Any]) -> list[str]:
    """Where the metadata of an array is, or is consolidated."""
    v3 = array.metadata.zarr_format == 3
    own, root = ("zarr.json", "zarr.json") if v3 else (".zarray", ".zmetadata")
    return [f"{array.path}/{own}" if array.path else own, root]


def _gone(array: zarr.Array[Any]) -> FileNotFoundError:
    return FileNotFoundError(
        f"chunks of {printable(redacted(str(array.store)))} are missing, and so is "
        f"{printable(_metadata_keys(array)[0])}: the store is not there any more"
    )
