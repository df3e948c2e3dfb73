"""What tells the values of a lazy variable from any others, in this process and in later ones.

For a cache on disk the one thing that may never happen is that values are taken for others. So the
identity of a variable is made of all its values come from: the store and what tells that it was
written anew, the array in it with its metadata, the slices and decoding that xarray has put on
top, and the versions of what decodes. Where something cannot be told surely, that is an error. Of
a dask graph it is dask's own name for it, and, since names may be given by hand and know nothing of
stores that are written anew, every array, store and function that is found in the graph.

Credentials are left out: they are no part of what the values are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import types
from collections.abc import Awaitable, Callable, Container, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import dask.blockwise
import numpy as np
import xarray as xr
import zarr
from xarray.backends.zarr import ZarrArrayWrapper
from zarr.core.sync import sync
from zarr.storage import (
    FsspecStore,
    LocalStore,
    MemoryStore,
    ObjectStore,
    WrapperStore,
    ZipStore,
)

from ..common.redact import printable, redacted, without_secrets, words_of
from ..common.retry import RETRIES, is_transient, retried
from ..sources.file_stamps import file_stamp, stamp_of, unsettled
from ..sources.layers import layers
from .digests import Unidentified, digest, file_system, public, token

__all__ = ["identities", "identity"]

IN_MEMORY = "a Zarr store in memory has nothing to gain from a cache on disk"
# What of a file's description changes when it is written anew.
STAMPS = (
    "ETag etag e_tag LastModified last_modified mtime modified created updated size version "
    "VersionId version_id generation md5Hash contentHash ino Last-Modified Content-MD5 Digest"
).split()

# Where Linux shows the files that this process has open.
OPEN_FILES = "/proc/self/fd"

# Variables whose stores are asked at the same time.
ASKED_AT_ONCE = 32


class _Answers:
    """What stores have said of their documents, each of which is asked for once."""

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self._lock = threading.Lock()
        self._found: dict[tuple[int, str], tuple[Any, Future[Any]]] = {}  # with the store, kept

    def of(self, store: Any, document: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """What a store says of a document; None if it has none, or can say nothing of any."""
        key = id(store), document
        with self._lock:
            asked = key in self._found
            _, answer = self._found.setdefault(key, (store, Future()))
        if not asked:
            try:
                answer.set_result(self._asked(redacted(f"{document} in {store}"), ask))
            except BaseException as error:
                answer.set_exception(error)
        return answer.result()

    def _asked(self, what: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return sync(retried(ask, self.retries, lambda: None, what))
        except NotImplementedError:
            return None
        except Exception as error:
            # fsspec makes it of whatever a web server has answered.
            is_absent = isinstance(error, FileNotFoundError)
            answer = error.__cause__ if is_absent and error.__cause__ is not None else error
            if is_absent and getattr(answer, "status", 404) == 404 and not is_transient(error):
                return None
            raise Unidentified(
                f"the store does not say when {what} was written: {words_of(answer)}"
            ) from without_secrets(error)


_answers: ContextVar[_Answers] = ContextVar("answers")
# Whether chunk files are looked at when they are read: see `ChunkStamps`.
_by_chunk: ContextVar[bool] = ContextVar("by_chunk", default=False)


def identities(
    variables: Mapping[Hashable, xr.Variable],
    retries: int = RETRIES,
    by_chunk: Container[Hashable] = (),
) -> dict[Hashable, Future[bytes]]:
    """What tells variables from any others; their stores are asked at the same time.

    Parameters
    ----------
    variables : mapping of Hashable to xarray.Variable
        As `identity` takes them.
    retries : int
        Attempts after the first where a store fails in passing.
    by_chunk : container of Hashable
        Those whose chunk files are not looked at, as somebody does when they are read.

    Returns
    -------
    dict of Hashable to concurrent.futures.Future
        Of each its digest, or the error.
    """
    answers = _Answers(retries)
    with ThreadPoolExecutor(ASKED_AT_ONCE, "xtorch_data-identity") as threads:
        return {
            name: threads.submit(identity, variable, answers, name in by_chunk)
            for name, variable in variables.items()
        }


def identity(
    variable: xr.Variable, answers: _Answers | None = None, by_chunk: bool = False
) -> bytes:
    """What tells the values of a variable from any others.

    Parameters
    ----------
    variable : xarray.Variable
        One that is read when it is used, or computed by dask.
    answers : _Answers, optional
        What stores have said for other variables.
    by_chunk : bool
        Whether its chunk files are not looked at.

    Returns
    -------
    bytes
        A digest.

    Raises
    ------
    Unidentified
        If that cannot be told surely.
    """
    versions = (xr.__version__, zarr.__version__, np.__version__)
    about = (variable.dims, variable.dtype, variable.shape)
    before = _answers.set(_Answers(RETRIES) if answers is None else answers)
    chunks_before = _by_chunk.set(by_chunk)
    try:
        if variable.chunks is not None:
            return digest(("dask", versions, about, _of_graph(variable.data)))
        return digest((versions, about, _of_lazy(variable._data)))
    finally:
        _answers.reset(before)
        _by_chunk.reset(chunks_before)


# Lazy arrays.


def _of_lazy(data: Any) -> list[Any]:
    """Lazy arrays, one around the other, and what they read."""
    found: list[Any] = []
    *lazy, source = layers(data)
    for layer in lazy:
        own = {name: value for name, value in _attributes(layer).items() if name != "array"}
        own.pop("_copied", None)
        found.append((type(layer).__qualname__, _plain(own)))
    found.append(_of_source(source))
    return found


def _attributes(what: Any) -> dict[str, Any]:
    """Attributes of an object, also those in slots."""
    names: set[str] = set(getattr(what, "__dict__", ()))
    for kind in type(what).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    names -= {"__dict__", "__weakref__"}
    return {name: getattr(what, name) for name in names if hasattr(what, name)}


def _plain(what: dict[str, Any]) -> dict[str, Any]:
    """Indexers as what they hold."""
    is_key = xr.core.indexing.ExplicitIndexer
    return {
        name: (type(value).__qualname__, value.tuple) if isinstance(value, is_key) else value
        for name, value in what.items()
    }


def _of_source(data: Any) -> Any:
    """What is at the end of a chain of lazy arrays."""
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    if isinstance(data, np.ndarray):
        return data
    if isinstance(data, ZarrArrayWrapper):
        return _of_zarr(data._array)
    if hasattr(data, "identity"):  # engines of this package
        return kind, data.identity()
    own = _attributes(data)
    store = own.pop("datastore", None)
    holder = own if store is None else _attributes(store)
    manager = holder.get("_manager") or holder.get("manager")
    if manager is not None:
        name = own.get("variable_name"), holder.get("_group"), getattr(data, "shape", None)
        return kind, name, getattr(data, "dtype", None), _of_manager(manager)
    return kind, token(data)


def _of_manager(manager: Any) -> Any:
    """The file that one of xarray's backends has open."""
    args, kwargs = getattr(manager, "_args", None), getattr(manager, "_kwargs", {})
    if not args:
        file = getattr(manager, "_value", None)
        path = getattr(file, "filepath", None) or getattr(file, "filename", None)
        args = (path() if callable(path) else path,)
    return _of_file(args[0]), {name: repr(value) for name, value in kwargs.items()}


def _of_open_file(path: str, file: Any = None) -> Any:
    """A local file that a library has open, which may be one that no longer has the path.

    A library may not say which of the files that this process has open is its own.
    """
    path, stamp = os.path.realpath(path), file_stamp(path)
    replaced = False
    if file is not None:
        replaced = not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    elif os.path.isdir(OPEN_FILES):
        for number in os.listdir(OPEN_FILES):
            with contextlib.suppress(OSError):
                replaced |= os.readlink(f"{OPEN_FILES}/{number}") == f"{path} (deleted)"
    if replaced:
        raise Unidentified(
            f"another file has taken the place of {path} since it was opened here: close what was "
            "opened before (ds.close()), and open it again"
        )
    return stamp


def _of_file(file: Any) -> Any:
    """A path or an open file, and what tells that it was written anew."""
    if isinstance(file, os.PathLike):
        file = os.fspath(file)
    if isinstance(file, str):
        if "://" in file:
            raise Unidentified(
                f"{printable(file)} is read by a library that does not say whether it was written "
                "anew: open it through fsspec"
            )
        return _of_open_file(file)
    if hasattr(file, "fs") and hasattr(file, "path"):
        details = getattr(file, "details", None) or file.fs.info(file.path)
        return file_system(file.fs), file.path, _stamp(details)
    raise Unidentified(f"{type(file).__qualname__} is no file that can be found again")


def _stamp(details: Any) -> Any:
    if not isinstance(details, Mapping):
        return None
    return {name: repr(details[name]) for name in STAMPS if details.get(name) is not None}


# Zarr.


def _of_zarr(array: Any) -> Any:
    """A Zarr array: its store, its metadata, and the version of the file that holds these."""
    document = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
    path = f"{array.path}/{document}" if array.path else document
    metadata = array.metadata.to_dict()
    return array.path, metadata, _of_store(array.store, path)


def _of_store(store: Any, document: str) -> Any:
    """A store, and what tells that a document in it was written anew."""
    kind = f"{type(store).__module__}.{type(store).__qualname__}"
    if isinstance(store, WrapperStore):
        return kind, _of_store(store._store, document)
    if isinstance(store, MemoryStore):
        raise Unidentified(IN_MEMORY)
    if isinstance(store, LocalStore):
        return kind, _of_folder(os.path.join(store.root, document))
    if isinstance(store, ZipStore):
        return kind, _of_open_file(
            str(store.path), getattr(getattr(store, "_zf", None), "fp", None)
        )
    if isinstance(store, FsspecStore):
        path = f"{store.path.rstrip('/')}/{document}"

        async def info() -> Any:
            store.fs.invalidate_cache(path)  # what it knows may be from before
            return await store.fs._info(path)

        details = _answers.get().of(store, document, info)
        return kind, file_system(store.fs), store.path, _stamp(details)
    if isinstance(store, ObjectStore):
        if type(store.store).__name__ == "MemoryStore":
            raise Unidentified(IN_MEMORY)
        if type(store.store).__name__ == "LocalStore":
            return kind, _of_folder(os.path.join(str(store.store.prefix or "/"), document))
        import obstore

        head = functools.partial(obstore.head_async, store.store, document)
        return kind, _of_object_store(store.store), _stamp(_answers.get().of(store, document, head))
    session = getattr(store, "session", None)
    if session is not None and hasattr(session, "snapshot_id"):  # Icechunk
        if getattr(session, "has_uncommitted_changes", False):
            raise Unidentified("an Icechunk session with uncommitted changes has no name yet")
        return kind, session.snapshot_id
    return kind, token(store)


def _of_folder(document: str) -> Any:
    """The folder of an array, with what tells that a file in it was written anew, also in place."""
    stamps = [file_stamp(document)] if os.path.exists(document) else []
    root = os.path.realpath(os.path.dirname(document))
    if _by_chunk.get():
        return root, stamps
    found, pause = _all_files(root)
    if pause:
        time.sleep(pause)
        found, _ = _all_files(root)
    return root, stamps, found


def _all_files(root: str) -> tuple[list[bytes], float]:
    """Names and stamps of all files below a folder, and seconds until another change would show."""
    found, pause, folders = [], 0.0, [root]
    while folders:
        folder, files = folders.pop(), []
        with os.scandir(folder) as inside:
            for each in inside:
                if each.is_dir():
                    folders.append(each.path)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        status = each.stat()
                        files.append((each.name, stamp_of(status)))
                        pause = max(pause, unsettled(status))
        found.append(repr((folder, sorted(files))).encode())
    return sorted(found), pause


def _of_object_store(store: Any) -> Any:
    options = [getattr(store, name, None) or {} for name in ("config", "client_options")]
    known = [{name: str(value) for name, value in public(some).items()} for some in options]
    return repr(store), getattr(store, "prefix", None), str(getattr(store, "url", "")), known


# dask.


def _of_graph(array: Any) -> Any:
    """A dask array: its name, and all sources, arrays and functions in its graph."""
    found: dict[bytes, None] = {}
    seen: dict[int, Any] = {}  # kept, so that no other gets its number
    graph = array.__dask_graph__()
    layers = graph.layers.values() if hasattr(graph, "layers") else [graph]
    for layer in layers:
        if isinstance(layer, dask.blockwise.Blockwise):  # one task for all of its chunks
            given = [each for each, indices in layer.indices if indices is None]
            task = getattr(layer, "task", None) or getattr(layer, "dsk", None)
            stack = [task, given, list(layer.io_deps.values())]
        else:
            stack = list(layer.values())
        for leaf in _leaves(stack, seen):
            found[leaf] = None
    return array.name, array.chunks, sorted(found)


def _leaves(stack: list[Any], seen: dict[int, Any]) -> Iterator[bytes]:
    """Digests of all in some tasks that dask's names may not tell apart."""
    while stack:
        task = stack.pop()
        if task is None or isinstance(task, (str, bytes, int, float, complex, slice, np.generic)):
            continue
        if isinstance(task, (tuple, list, set, frozenset)):
            stack.extend(task)
            continue
        if isinstance(task, dict):
            stack.extend(task.values())
            continue
        if id(task) in seen:
            continue
        seen[id(task)] = task
        if type(task).__module__.startswith("xarray.") and hasattr(task, "array"):
            yield digest(_of_lazy(task))
        elif isinstance(task, zarr.Array):
            yield digest(_of_zarr(task))
        elif isinstance(task, (np.ndarray, types.FunctionType, functools.partial)):
            yield digest(task)
        elif isinstance(task, types.MethodType):
            stack += [task.__func__, task.__self__]
        elif type(task).__module__.partition(".")[0] == "dask":
            stack.extend(_attributes(task).values())
        elif isinstance(task, type) or hasattr(task, "__qualname__"):
            yield digest(task)
        elif type(task).__module__ != "_thread":  # locks are no part of what values are
            yield digest(task)
