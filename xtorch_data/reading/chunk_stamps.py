"""What tells that the files which hold a part of a lazy Zarr variable were written anew."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from ..planning.windows import IntArray
from ..sources.file_stamps import look_at
from ..sources.lazy_arrays import stored_positions, zarr_array
from ..sources.zarr_grids import numbers_of_chunks, sizes_of_chunks
from ..sources.zarr_stores import innermost

__all__ = ["ChunkStamps"]

# The local file that a key of a store is kept in, if it is one.
Locate = Callable[[str], str | None]


@dataclass(frozen=True, eq=False)
class ChunkStamps:
    """Stamps of the chunk, or shard, files of a variable; a file is looked at when it is read.

    Made once for a dataset; any thread may ask, and it goes to other processes with the dataset.

    Attributes
    ----------
    locate : callable
        Gives the local file that a key is kept in, or None.
    key_of : callable
        Gives the key of a chunk from its numbers along all axes of the stored array.
    prefix : str
        What keys of the array begin with.
    positions : tuple
        Positions in the stored array along each of its axes; an integer where the variable has no
        dim for it.
    sizes : tuple of int or sequence of int
        Steps of a chunk, or shard, along these axes; of each one, where they differ.
    """

    locate: Locate
    key_of: Callable[[tuple[int, ...]], str]
    prefix: str
    positions: tuple[range | IntArray | int, ...]
    sizes: tuple[int | Sequence[int], ...]

    @classmethod
    def of(cls, variable: xr.Variable) -> ChunkStamps | None:
        """The stamps of a variable; None if its values are not known to be in local chunk files.

        Parameters
        ----------
        variable : xarray.Variable
            Any variable.
        """
        array, positions = zarr_array(variable), stored_positions(variable)
        if array is None or positions is None:
            return None
        locate = _locator(array.store)
        if locate is None:
            return None
        prefix = f"{array.path}/" if array.path else ""
        sizes = tuple(sizes_of_chunks(array, stored=True))
        return cls(locate, array.metadata.encode_chunk_key, prefix, tuple(positions), sizes)

    def within(self, box: Sequence[tuple[int, int]]) -> bytes:
        """What tells that a part of the variable was written anew.

        Parameters
        ----------
        box : sequence of tuple of int
            Positions ``[start, stop)`` along each dim of the variable.
        """
        bounds = iter(box)
        numbers: list[Iterable[int]] = []
        for along, size in zip(self.positions, self.sizes, strict=True):
            if isinstance(along, int):
                numbers.append([int(numbers_of_chunks(along, size))])
                continue
            part = along[slice(*next(bounds))]
            if isinstance(part, range):  # all between its ends
                first, last = sorted(numbers_of_chunks((part[0], part[-1]), size).tolist())
                numbers.append(range(first, last + 1))
            else:
                numbers.append(np.unique(numbers_of_chunks(part, size)).tolist())
        keys = (self.prefix + self.key_of(place) for place in itertools.product(*numbers))
        paths = {path for path in map(self.locate, keys) if path is not None}
        return repr([(path, _looked_at(path)) for path in sorted(paths)]).encode()


def _looked_at(path: str) -> Any:
    try:
        return look_at(path)
    except OSError as error:  # a chunk without a file is one of fill values
        return error.errno


def _locator(store: Any) -> Locate | None:
    """Where the keys of a store are kept, if that is in local files."""
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
