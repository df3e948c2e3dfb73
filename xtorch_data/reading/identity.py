"""Identities of lazy variables: digests that tell their values from any others, also later on.

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
from dataclasses import dataclass
from typing import Any

import dask.blockwise
import numpy as np
import xarray as xr
import zarr
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
from ..sources.lazy_arrays import attributes, is_computed, layers, opened_file, state_of, zarr_array
from ..sources.zarr_stores import inside, open_zip, wait_for
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
    """Answers of stores about their documents, each of which is asked for once, by any thread."""

    def __init__(self, retries: int) -> None:
        self.retries = retries
        self._lock = threading.Lock()
        self._found: dict[tuple[int, str], tuple[Any, Future[Any]]] = {}  # with the store, kept

    def of(self, store: Any, document: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer about a document; None if the store has none, or can say nothing of any."""
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
            return wait_for(retried(ask, self.retries, lambda: None, what))
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


def identities(
    variables: Mapping[Hashable, xr.Variable],
    retries: int = RETRIES,
    by_chunk: Container[Hashable] = (),
) -> dict[Hashable, Future[bytes]]:
    """Digests of variables, as of `identity`, or errors; their stores are asked at the same time.

    The chunk files of those that are in `by_chunk` are not looked at, as `ChunkStamps` does when
    they are read.
    """
    answers = _Answers(retries)
    with ThreadPoolExecutor(ASKED_AT_ONCE, "xtorch_data-identity") as threads:
        return {
            name: threads.submit(_Identified(answers, name in by_chunk).variable, variable)
            for name, variable in variables.items()
        }


def identity(variable: xr.Variable) -> bytes:
    """A digest that tells the values of a variable, lazy or of dask, from any others.

    Raises Unidentified if that cannot be told surely.
    """
    return _Identified(_Answers(RETRIES)).variable(variable)


@dataclass(frozen=True, eq=False)
class _Identified:
    """Tells variables from others; made for one call, on one thread."""

    answers: _Answers
    by_chunk: bool = False  # whether chunk files are not looked at

    def variable(self, variable: xr.Variable) -> bytes:
        """A digest of a variable."""
        versions = (xr.__version__, zarr.__version__, np.__version__)
        about = (variable.dims, variable.dtype, variable.shape)
        if is_computed(variable):
            return digest(("dask", versions, about, self._graph(variable.data)))
        return digest((versions, about, self._lazy(variable)))

    # Lazy arrays.

    def _lazy(self, data: Any) -> list[Any]:
        """Lazy arrays, one around the other, and what they read."""
        *lazy, source = layers(data)
        found: list[Any] = [(type(layer).__qualname__, state_of(layer)) for layer in lazy]
        return [*found, self._source(source)]

    def _source(self, data: Any) -> Any:
        """The array at the end of a chain of lazy arrays."""
        kind = f"{type(data).__module__}.{type(data).__qualname__}"
        if isinstance(data, np.ndarray):
            return data
        if (array := zarr_array(data)) is not None:
            return self._zarr(array)
        if hasattr(data, "identity"):  # engines of this package
            return kind, data.identity()
        if (found := opened_file(data)) is not None:
            options = {name: repr(value) for name, value in found.options.items()}
            name = *found.name, getattr(data, "shape", None)
            return kind, name, getattr(data, "dtype", None), (_of_file(found.file), options)
        return kind, token(data)

    # Zarr.

    def _zarr(self, array: Any) -> Any:
        """A Zarr array: its store, its metadata, and the version of the file that holds these."""
        document = "zarr.json" if array.metadata.zarr_format == 3 else ".zarray"
        path = f"{array.path}/{document}" if array.path else document
        return array.path, array.metadata.to_dict(), self._store(array.store, path)

    def _store(self, store: Any, document: str) -> Any:
        """A store, and what tells that a document in it was written anew."""
        kind = f"{type(store).__module__}.{type(store).__qualname__}"
        if isinstance(store, WrapperStore):
            return kind, self._store(inside(store), document)
        if isinstance(store, MemoryStore):
            raise Unidentified(IN_MEMORY)
        if isinstance(store, LocalStore):
            return kind, self._folder(os.path.join(store.root, document))
        if isinstance(store, ZipStore):
            return kind, _of_open_file(str(store.path), open_zip(store))
        if isinstance(store, FsspecStore):
            path = f"{store.path.rstrip('/')}/{document}"

            async def info() -> Any:
                store.fs.invalidate_cache(path)  # what it knows may be from before
                return await store.fs._info(path)

            details = self.answers.of(store, document, info)
            return kind, file_system(store.fs), store.path, _stamp(details)
        if isinstance(store, ObjectStore):
            if type(store.store).__name__ == "MemoryStore":
                raise Unidentified(IN_MEMORY)
            if type(store.store).__name__ == "LocalStore":
                folder = str(store.store.prefix or "/")
                return kind, self._folder(os.path.join(folder, document))
            import obstore

            head = functools.partial(obstore.head_async, store.store, document)
            details = self.answers.of(store, document, head)
            return kind, _of_object_store(store.store), _stamp(details)
        session = getattr(store, "session", None)
        if session is not None and hasattr(session, "snapshot_id"):  # Icechunk
            if getattr(session, "has_uncommitted_changes", False):
                raise Unidentified("an Icechunk session with uncommitted changes has no name yet")
            return kind, session.snapshot_id
        return kind, token(store)

    def _folder(self, document: str) -> Any:
        """The folder of an array, and stamps of the files in it, which may be written in place."""
        stamps = [file_stamp(document)] if os.path.exists(document) else []
        root = os.path.realpath(os.path.dirname(document))
        if self.by_chunk:
            return root, stamps
        found, pause = _all_files(root)
        if pause:
            time.sleep(pause)
            found, _ = _all_files(root)
        return root, stamps, found

    # dask.

    def _graph(self, array: Any) -> Any:
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
            for leaf in self._leaves(stack, seen):
                found[leaf] = None
        return array.name, array.chunks, sorted(found)

    def _leaves(self, stack: list[Any], seen: dict[int, Any]) -> Iterator[bytes]:
        """Digests of all in some tasks that dask's names may not tell apart."""
        while stack:
            task = stack.pop()
            if task is None or isinstance(task, _PLAIN) or id(task) in seen:
                continue
            if isinstance(task, (tuple, list, set, frozenset)):
                stack.extend(task)
                continue
            if isinstance(task, dict):
                stack.extend(task.values())
                continue
            seen[id(task)] = task
            if type(task).__module__.startswith("xarray.") and hasattr(task, "array"):
                yield digest(self._lazy(task))
            elif isinstance(task, zarr.Array):
                yield digest(self._zarr(task))
            elif isinstance(task, types.MethodType):
                stack += [task.__func__, task.__self__]
            elif type(task).__module__.partition(".")[0] == "dask":
                stack.extend(attributes(task).values())
            elif type(task).__module__ != "_thread":  # locks are no part of what values are
                yield digest(task)


# What dask's name for a task tells from others.
_PLAIN = (str, bytes, int, float, complex, slice, np.generic)


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
