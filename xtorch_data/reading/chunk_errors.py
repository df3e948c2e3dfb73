"""Errors that name the chunk they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zarr

from ..common.redact import printable, redacted, words_of
from ..common.retry import GivenUp

__all__ = ["ChunkError", "Named"]


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
