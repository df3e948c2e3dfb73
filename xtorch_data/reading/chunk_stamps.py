"""Stamps of the files of a lazy Zarr variable, which change when these are written anew."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from ..sources.file_stamps import look_at
from ..sources.zarr_grids import StoredChunks
from ..sources.zarr_stores import innermost

__all__ = ["ChunkStamps"]

# The local file that a key of a store is kept in, if it is one.
Locate = Callable[[str], str | None]


@dataclass(frozen=True, eq=False)
class ChunkStamps:
    """Stamps of the chunk, or shard, files of a variable; a file is looked at when it is read.

    Made once for a dataset; any thread may ask, and it goes to other processes with the dataset.
    """

    chunks: StoredChunks
    locate: Locate  # gives the local file that a key is kept in, or None

    @classmethod
    def of(cls, variable: xr.Variable) -> ChunkStamps | None:
        """The stamps of a variable; None if its values are not known to be in local chunk files."""
        chunks = StoredChunks.of(variable)
        locate = None if chunks is None else _locator(chunks.store)
        return None if chunks is None or locate is None else cls(chunks, locate)

    def within(self, box: Sequence[tuple[int, int]]) -> bytes:
        """The stamps of the files that hold a box, given as positions along each dim."""
        paths = {path for path in map(self.locate, self.chunks.within(box)) if path is not None}
        return repr([(path, _looked_at(path)) for path in sorted(paths)]).encode()


def _looked_at(path: str) -> Any:
    try:
        return look_at(path)
    except OSError as error:  # a chunk without a file is one of fill values
        return error.errno


def _locator(store: Any) -> Locate | None:
    """A function from keys of a store to local files, if they are kept in such."""
    store = innermost(store)
    if isinstance(store, LocalStore):
        return functools.partial(os.path.join, os.path.abspath(store.root))
    if isinstance(store, ObjectStore) and type(store.store).__name__ == "LocalStore":
        return functools.partial(os.path.join, str(store.store.prefix or "/"))
    if isinstance(store, FsspecStore):
        fs = getattr(store.fs, "sync_fs", store.fs)
        if _is_local(fs):
            return functools.partial(os.path.join, str(store.path))
        if hasattr(fs, "references") and _reads_locally(fs):
            return functools.partial(_referenced, fs)
    return None


def _reads_locally(fs: Any) -> bool:
    """Whether what references point to is in local files, where they do not say it themselves."""
    inner = getattr(fs, "fss", {}).get(None)
    return _is_local(getattr(inner, "sync_fs", inner))


def _is_local(fs: Any) -> bool:
    """Whether a file system of fsspec is that of this machine."""
    protocol = getattr(fs, "protocol", ())
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _referenced(fs: Any, key: str) -> str | None:
    """The local file that a reference points to; one of text has its bytes in it."""
    entry = fs.references.get(key)
    if not isinstance(entry, list | tuple):
        return None
    url = str(entry[0] or fs.target).removeprefix("file://")
    return None if "://" in url else url
