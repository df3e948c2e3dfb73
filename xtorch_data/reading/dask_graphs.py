"""Graphs of dask: computed by the cluster of the active client, else in this process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import logging
import os
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import dask
import dask.base
import dask.system
import dask.threaded
from dask.core import flatten

from ..sources.declared_dtypes import as_declared
from .concurrency import note_outcome

__all__ = ["DaskCompute", "active_client", "threads_for_graphs"]

logger = logging.getLogger(__name__)

Client = Any  # of distributed, which need not be installed

# A cluster that grows on demand may need so long; then somebody should know what is waited for.
PATIENCE_SECONDS = 30.0

# Clients of the process that this one was forked from: the threads that they live on are not here.
_inherited: weakref.WeakSet[Client] = weakref.WeakSet()


def threads_for_graphs() -> ThreadPoolExecutor:
    """Threads for graphs, as many as dask would take.

    By default dask would start a pool for each thread that calls it, and keep it. They are of their
    own: work that waits for a graph must not take the threads that compute it.
    """
    count = dask.config.get("num_workers", None) or dask.system.CPU_COUNT
    return ThreadPoolExecutor(count, "xtorch_data-dask")


def active_client() -> Client | None:
    """The client of ``dask.distributed`` that dask would use here, unless that could hang.

    It could in a process that was forked from the client's; in a task, which takes a thread of the
    cluster while it waits for other tasks; and with a client on an event loop of the user's, which
    stands still while the user waits for a batch.
    """
    distributed, told = sys.modules.get("distributed"), dask.config.get("scheduler", None)
    # While another thread imports it, it has some of its names only.
    if not hasattr(distributed, "get_worker") or not _is_cluster(told):
        return None
    assert distributed is not None
    try:
        distributed.get_worker()
        in_task = True
    except ValueError:
        in_task = False
    client: Client | None = None if told is None or isinstance(told, str) else told
    if client is None or in_task:
        try:
            client = distributed.Client.current(allow_global=not in_task)
        except ValueError:
            return None
    assert client is not None
    # The attribute without an underscore asks whether this very thread is that of its loop.
    hangs = client in _inherited or getattr(client, "_asynchronous", False)
    return client if client.status == "running" and not hangs else None


class DaskCompute:
    """Computes collections of dask, together, so that they share what their graphs share.

    Made for an iteration, whose threads it uses: tasks run on `threads` unless dask was told
    otherwise, and what would block an event loop on `work`.
    """

    def __init__(self, threads: Executor, work: Executor) -> None:
        self._threads, self._work = threads, work
        self._used: Client | None = None
        self._said: set[str] = set()

    async def on_cluster(self, collections: Sequence[Any]) -> list[Any] | None:
        """Compute collections on the cluster of the active client.

        None if there is no such client, or it has given them up: it was closed or restarted, or has
        lost its scheduler.
        """
        client = self._client()
        if client is None:
            return None
        sent = _Sent(client, collections, self._say)
        loop = asyncio.get_running_loop()
        try:
            gathering = await loop.run_in_executor(self._work, sent.begin)
            # Not awaited itself: that it is canceled would look as if this had been.
            done = asyncio.Event()
            gathering.add_done_callback(lambda _: _set(done, loop))
            await done.wait()
            return await loop.run_in_executor(self._work, self._results, sent)
        finally:
            sent.release()

    def on_cluster_now(self, collections: Sequence[Any]) -> list[Any] | None:
        """Compute likewise, while this thread waits."""
        client = self._client()
        if client is None:
            return None
        sent = _Sent(client, collections, self._say)
        try:
            concurrent.futures.wait({sent.begin()})
            return self._results(sent)
        finally:
            sent.release()

    def _client(self) -> Client | None:
        client = active_client()
        if client is None and self._used is not None and self._used.status != "running":
            self._say_lost()
        self._used = client or self._used
        return client

    def _results(self, sent: _Sent) -> list[Any] | None:
        try:
            return sent.results()
        except concurrent.futures.CancelledError:
            pass
        except Exception:
            if sent.client.status == "running":
                raise
        self._say_lost()
        return None

    def _say_lost(self) -> None:
        self._say(
            "a client of dask was closed, or gave up what it was to compute: it goes on in this "
            "process"
        )

    def here(self, collections: Sequence[Any]) -> Sequence[Any]:
        """Compute collections in this process, or by the scheduler that dask was told."""
        collections = [_with_dtypes_checked(each) for each in collections]
        told = dask.config.get("scheduler", None)
        scheduler, options = dask.threaded.get, dict[str, Any]()
        if not _is_cluster(told):
            scheduler = dask.base.get_scheduler(scheduler=told)  # type: ignore[no-untyped-call]
        if scheduler is dask.threaded.get and dask.config.get("pool", None) is None:
            options["pool"] = self._threads
        try:
            return dask.base.compute(*collections, scheduler=scheduler, **options)  # type: ignore[no-untyped-call, no-any-return]
        except Exception as error:
            if _is_persisted(collections):
                error.add_note(
                    "it was persisted on a cluster of dask, which cannot be asked for it here"
                )
            raise

    def _say(self, message: str) -> None:
        """Log a warning, once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)


class _Sent:
    """Collections that a cluster is asked for; made for each block, by whoever waits for it."""

    def __init__(
        self, client: Client, collections: Sequence[Any], say: Callable[[str], None]
    ) -> None:
        self.client = client
        self._collections, self._say = list(collections), say
        self._keys: list[Any] = []
        self._gathering: Future[list[Any]] = Future()
        self._released = False
        self._lock = threading.Lock()

    def begin(self) -> Future[list[Any]]:
        """Let the cluster compute them, and bring what it makes of their chunks; a blocking call.

        Chunks are not put together on the cluster: that would take all of a block to one worker.
        """
        from distributed import futures_of

        try:
            # Graphs are computed one after the other: in the order in which they are wanted.
            persisted = self.client.persist(
                _renamed(dask.base.optimize(*self._collections)),  # type: ignore[no-untyped-call]
                optimize_graph=False,
                fifo_timeout="0s",
            )
            futures = {each.key: each for each in futures_of(persisted)}  # type: ignore[no-untyped-call]
        except Exception as error:
            self._gathering.set_exception(error)
            return self._gathering
        with self._lock:
            if self._released:  # meanwhile
                self._gathering.cancel()
                return self._gathering
            self._collections, self._keys = persisted, list(futures)
            self._gathering = asyncio.run_coroutine_threadsafe(
                self._gathered(list(futures.values())), self.client.loop.asyncio_loop
            )
            return self._gathering

    # On the event loop of the client:

    async def _gathered(self, futures: list[Any]) -> list[Any]:
        brought = asyncio.ensure_future(self._brought(futures))
        brought.add_done_callback(note_outcome)
        watching = asyncio.ensure_future(self._watched())
        try:
            await asyncio.wait({brought})
            return brought.result()
        finally:  # perhaps nobody wants them any more
            watching.cancel()
            # A client brings what is wanted at one moment in one request, which may be that of the
            # user as well: what it asks for is kept until it is there.
            if not _are_there(futures):
                _release(futures)

    async def _brought(self, futures: list[Any]) -> list[Any]:
        found: list[Any]
        try:
            try:
                found = await self.client.gather(futures, asynchronous=True)
            except asyncio.CancelledError:
                # Perhaps by somebody who waited for the same request, and had Ctrl-C.
                canceled: Any = asyncio.current_task()
                running = self.client.status == "running" and not canceled.cancelling()
                if not (running and _are_there(futures)):
                    raise
                found = await self.client.gather(futures, asynchronous=True)
            return found
        finally:
            _release(futures)

    async def _watched(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_SECONDS)
            if not await self.client.nthreads(asynchronous=True):
                self._say(f"{self.client} has had no worker for a while, and is waited for")

    # On any thread:

    def results(self) -> list[Any]:
        """Their values; raises the error of a task, or CancelledError."""
        chunks = dict(zip(self._keys, self._gathering.result(), strict=True))
        found = []
        for each in self._collections:
            finish, arguments = each.__dask_postcompute__()
            if _has_many_chunks(each):
                for key in flatten(each.__dask_keys__()):  # type: ignore[no-untyped-call]
                    chunks[key] = _of_dtype(chunks[key], each.dtype)
            found.append(finish(_looked_up(each.__dask_keys__(), chunks), *arguments))
        return found

    def release(self) -> None:
        """Let the cluster forget them, and stop what is under way; may be called again.

        Futures are not canceled: other blocks, and the user, may want the same.
        """
        with self._lock:
            self._released = True
            self._gathering.cancel()
            self._collections = []


def _are_there(futures: Sequence[Any]) -> bool:
    return all(each.status == "finished" for each in futures)


def _release(futures: Sequence[Any]) -> None:
    for future in futures:
        with contextlib.suppress(RuntimeError):  # the client is gone
            future.release()


def _renamed(collections: Sequence[Any]) -> list[Any]:
    """Optimized collections whose tasks have names that no other has.

    Clusters share tasks of the same name. Those of two blocks may be fused differently, and fail or
    hang then (dask/dask#9888); others are released by one block as the next one asks for them.
    """
    # Not in the oldest dask that computes here: what is sent to a cluster needs a newer one.
    from dask._task_spec import Alias, convert_legacy_graph

    graph: dict[Any, Any] = {}
    for each in collections:
        graph.update(each.__dask_graph__())
    graph = convert_legacy_graph(graph)
    wanted = [list(flatten(each.__dask_keys__())) for each in collections]  # type: ignore[no-untyped-call]
    suffix = f"-{uuid.uuid4().hex}"
    names = {
        key: (f"{key[0]}{suffix}", *key[1:]) if isinstance(key, tuple) else f"{key}{suffix}"
        for key in {*graph, *itertools.chain.from_iterable(wanted)}
    }
    found: dict[Any, Any] = {
        # What is persisted already is no task here.
        new: graph[key].substitute(names, key=new) if key in graph else Alias(new, key)
        for key, new in names.items()
    }
    made = []
    for each, keys in zip(collections, wanted, strict=True):
        rebuild, arguments = each.__dask_postpersist__()
        old = {key[0] if isinstance(key, tuple) else key for key in keys}
        made.append(rebuild(found, *arguments, rename={name: f"{name}{suffix}" for name in old}))
    return made


# Chunks are put together by dask, which casts them to the dtype of the first. Tasks of our own are
# for this process alone: what a cluster has installed is not known.


def _has_many_chunks(collection: Any) -> bool:
    # There is no such array before this is imported, nor while it is.
    kind = getattr(sys.modules.get("dask.array"), "Array", None)
    return kind is not None and isinstance(collection, kind) and collection.npartitions > 1


def _with_dtypes_checked(collection: Any) -> Any:
    """A dask array that fails where its chunks, put together, would lose values."""
    if not _has_many_chunks(collection):
        return collection
    from dask.array.utils import meta_from_array

    dtype, meta = collection.dtype, meta_from_array(collection)  # type: ignore[no-untyped-call]
    return collection.map_blocks(_of_dtype, declared=dtype, dtype=dtype, meta=meta)


def _of_dtype(chunk: Any, declared: Any) -> Any:
    return as_declared(chunk, declared, alone=False) if hasattr(chunk, "dtype") else chunk


def _set(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(event.set)


def _looked_up(keys: Any, chunks: dict[Any, Any]) -> Any:
    """Nested lists of chunks in the place of their keys."""
    if isinstance(keys, list):
        return [_looked_up(key, chunks) for key in keys]
    return chunks[keys]


def _is_cluster(told: Any) -> bool:
    """Whether what dask was told of a scheduler, if anything, lets it use a cluster."""
    if isinstance(told, str):
        return told.lower() in ("distributed", "dask.distributed")
    return told is None or "Client" in type(told).__name__


def _is_persisted(collections: Sequence[Any]) -> bool:
    """Whether a cluster holds what is needed for collections."""
    distributed = sys.modules.get("distributed")
    return distributed is not None and bool(distributed.futures_of(list(collections)))


def _note_clients() -> None:
    distributed = sys.modules.get("distributed")
    if hasattr(distributed, "Client"):
        _inherited.update(distributed.Client._instances)  # type: ignore[union-attr]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_clients)
