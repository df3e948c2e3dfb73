"""Errors of chunks: of one that cannot be read, and of a store that is not there any more."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from ..common.redact import printable, redacted, words_of
from ..common.retry import GivenUp, answered, retried_alone
from ..sources.zarr_stores import on_loop_of

__all__ = ["ChunkError", "Named", "require_array", "require_local_array"]


class ChunkError(Exception):
    """A chunk of a Zarr array could not be read or decoded; ``__cause__`` says why.

    Attributes
    ----------
    chunk : str
        Its key in the store.
    store : str
        The store.
    """

    def __init__(self, chunk: str, store: str) -> None:
        super().__init__(chunk, store)
        self.chunk, self.store = chunk, store

    @classmethod
    def of(cls, array: zarr.Array[Any], key: str) -> ChunkError:
        """The error of a chunk of an array, by its key inside the array."""
        path = f"{array.path}/{key}" if array.path else key
        return cls(printable(path), printable(redacted(str(array.store))))

    def __str__(self) -> str:
        cause = f": {words_of(self.__cause__)}" if self.__cause__ else ""
        return f"chunk {self.chunk} of {self.store}{cause}"


@dataclass(frozen=True, eq=False)
class Named:
    """Names the chunk, or the shard, that an error inside is about.

    No generator: on Python 3.13 one that raises lives in a cycle with the error and the memory in
    its frames, which is then not given back before garbage is collected.
    """

    array: zarr.Array[Any]
    key: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, (MemoryError, ChunkError)):
            return
        if not isinstance(error, GivenUp):
            raise ChunkError.of(self.array, self.key) from error
        if not isinstance(error.__cause__, ChunkError):
            named = ChunkError.of(self.array, self.key)
            named.__cause__ = error.__cause__
            raise GivenUp from named


async def require_array(array: zarr.Array[Any]) -> None:
    """Raise FileNotFoundError if the metadata of an array is not in its store any more.

    A chunk that is not there has the fill value, as Zarr has it. So has every chunk of a store that
    was deleted or unmounted in the middle of an epoch; that must not pass for data. A store that
    fails raises its own error; one that may not be asked, or cannot, is believed.
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
    """Raise likewise for a local folder, on any thread of any process."""
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
    """Keys of the metadata of an array, its own and consolidated."""
    v3 = array.metadata.zarr_format == 3
    own, root = ("zarr.json", "zarr.json") if v3 else (".zarray", ".zmetadata")
    return [f"{array.path}/{own}" if array.path else own, root]


def _gone(array: zarr.Array[Any]) -> FileNotFoundError:
    return FileNotFoundError(
        f"chunks of {printable(redacted(str(array.store)))} are missing, and so is "
        f"{printable(_metadata_keys(array)[0])}: the store is not there any more"
    )
