"""Forks: no read may be under way, and what they inherit must be made safe to read."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import xarray as xr
from zarr.storage import FsspecStore

from ..sources.lazy_arrays import (
    LIBRARY_LOCKS,
    forget_open_files,
    is_computed,
    layers,
    read_through,
    zarr_array,
)
from ..sources.zarr_stores import innermost, with_pipeline_of_zarr
from .recycled import has_pipeline_of_zarrs

__all__ = ["let_forks_wait_for_reads", "make_safe"]

logger = logging.getLogger(__name__)

_ADVICE = (
    "Start workers afresh instead: DataLoader(…, multiprocessing_context='forkserver'), or "
    "xtorch_data.DataLoader, which does"
)
# Why a store cannot be read in a fork of the process that opened it.
_LOST_THREADS = "whose threads do not survive a fork: it would hang"
_UNSAFE_STORES = {
    "ObjectStore": _LOST_THREADS,
    "IcechunkStore": _LOST_THREADS,
    "ZipStore": "whose open file all forks would move about in",
}

_PATIENCE_SECONDS = 30.0  # for a read to end; only a thread that forks as it reads waits so long
_held: list[Any] = []
_known: set[str] = set()


def let_forks_wait_for_reads() -> None:
    """Let no fork happen while a thread reads HDF5: the child would find its lock taken forever.

    To be called before reading. The last hook that is registered is the first to run, and ours must
    come before that of h5py, whose lock readers take inside xarray's: hence once more if h5py has
    been imported since.
    """
    loaded = {library for library in ("h5py", "netCDF4") if library in sys.modules}
    if not loaded <= _known and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_wait_for_reads, after_in_parent=_release, after_in_child=_release
        )
    _known.update(loaded)


def _wait_for_reads() -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    first, second = LIBRARY_LOCKS
    while not _held and time.monotonic() < deadline:
        if first.acquire(timeout=1.0):
            _held.append(first)
            if second.acquire(blocking=False):
                _held.append(second)
                return
            _release()  # readers of netCDF take both, in an order that is not known
        first, second = second, first
    if not _held:
        logger.warning(
            "this process forks while one of its threads reads through HDF5 or netCDF, and has "
            "done so for %.0f s: reads of such files may hang in the child. %s",
            _PATIENCE_SECONDS,
            _ADVICE,
        )


def _release() -> None:
    while _held:
        _held.pop().release()


def make_safe(data: xr.Dataset) -> None:
    """Make lazy variables, inherited by a fork, readable in this process; in place.

    Threads do not survive a fork. Zarr starts its own again, the zarrs pipeline cannot: arrays that
    are not read directly go back to zarr's own pipeline. HDF5 files are opened again. RuntimeError
    if a variable cannot be made safe; reading it would hang.
    """
    forget_open_files()
    slower = False
    for name, variable in data.variables.items():
        for source in _backend_arrays(variable):
            array = zarr_array(source)
            if array is None:
                continue
            found = innermost(array.store)
            store = type(found).__name__
            why = _LOST_THREADS if _has_sessions(found) else _UNSAFE_STORES.get(store)
            if why is not None:
                raise RuntimeError(
                    f"this worker was forked, and variable {name!r} is read from a {store}, {why}. "
                    f"{_ADVICE}"
                )
            if has_pipeline_of_zarrs(array):
                read_through(source, with_pipeline_of_zarr(array))
                slower = slower or getattr(source, "direct", None) is None
    if slower:
        logger.warning(
            "this worker was forked from the process that opened the data; the threads of the fast "
            "codec pipeline do not survive a fork, so zarr's own is used. %s",
            _ADVICE,
        )


def _has_sessions(store: Any) -> bool:
    """Whether a store of fsspec answers in an event loop, whose thread a fork has lost."""
    if not isinstance(store, FsspecStore):
        return False
    # References, as kerchunk writes them, are fetched by the file systems that they point to.
    targets = getattr(store.fs, "fss", {}).values() or [store.fs]
    return not all(hasattr(target, "sync_fs") for target in targets)


def _backend_arrays(variable: xr.Variable) -> Iterator[Any]:
    """The arrays of the backend under a lazy variable, or in its dask graph."""
    lazy: list[Any] = [variable]
    if is_computed(variable):
        lazy = []
        for node in dict(variable.data.__dask_graph__()).values():
            # A node may be the array itself, hold it, or have it as an argument.
            lazy += [node, getattr(node, "value", None), *getattr(node, "args", ())]
    for data in lazy:
        yield layers(data)[-1]
