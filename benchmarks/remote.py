"""What lies behind the S3 server: how it is opened, and the fastest ways to fetch all of it."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import get_ident
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from .server import BUCKET
from .workloads import Workload

MISSING = "obstore and s3fs are not installed (the extra `bench` has them)"
HEAD_BYTES = 1024  # more than the head of an answer takes


def can_read() -> bool:
    """Whether there are clients for S3."""
    return all(importlib.util.find_spec(name) for name in ("obstore", "s3fs"))


def options(workload: Workload) -> dict[str, Any]:
    """What obstore needs to know of the server."""
    return {
        "endpoint": workload.endpoint,
        "region": "us-east-1",
        "skip_signature": True,
        "client_options": {"allow_http": True},
    }


def url(workload: Workload) -> str:
    """Where the store is."""
    return f"s3://{BUCKET}/{workload.store.path.name}"


def source(workload: Workload) -> Any:
    """What xarray or zarr opens: the store's folder or, behind a server, obstore's view of it."""
    if not workload.endpoint:
        return workload.store.path
    import obstore.store
    from zarr.storage import ObjectStore

    found = obstore.store.from_url(url(workload), **options(workload))
    return ObjectStore(found, read_only=True)


class Fetch:
    """Every chunk of a store asked for at once, decoded or not as it comes."""

    def __init__(self, workload: Workload, threads: ThreadPoolExecutor) -> None:
        from numcodecs import blosc

        store = workload.store
        assert store.compressed and not store.shards and not store.packed
        self.workload = workload
        self.threads = threads
        self.keys = [path.relative_to(store.path).as_posix() for path in store.files()]
        self.nbytes = math.prod(store.chunks) * 4
        self.memory: dict[int, np.ndarray] = {}
        self.decompress = blosc.decompress
        self.connections: list[_Connection] = []

    def ways(self, then: Callable[[Any], Any]) -> dict[str, Callable[[], None]]:
        """What to time: each client with what is done to every object."""
        return {
            "sockets": lambda: self.sockets(then),
            "obstore": lambda: self.obstore(then),
        }

    def decode(self, encoded: Any) -> None:
        """Decode one chunk into warm memory of this thread."""
        if (thread := get_ident()) not in self.memory:
            self.memory[thread] = np.ones(self.nbytes, np.uint8)
        self.decompress(encoded, self.memory[thread])

    def obstore(self, then: Callable[[Any], Any]) -> None:
        """All requests through obstore."""
        import obstore.store

        store = obstore.store.from_url(url(self.workload), **options(self.workload))

        async def one(key: str) -> Future[Any]:
            answer = await obstore.get_async(store, key)
            return self.threads.submit(then, memoryview(await answer.bytes_async()))

        async def every() -> list[Future[Any]]:
            return await asyncio.gather(*map(one, self.keys))

        for future in asyncio.run(every()):
            future.result()

    def sockets(self, then: Callable[[Any], Any]) -> None:
        """A connection for each object, kept open, and warm memory for each: no client at all."""
        if not self.connections:
            folder = f"/{BUCKET}/{self.workload.store.path.name}/"
            self.connections = [_Connection(self.workload, folder + key) for key in self.keys]
        futures = []
        with selectors.DefaultSelector() as selector:
            for connection in self.connections:
                connection.ask()
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            while selector.get_map():
                for ready, _ in selector.select():
                    body = ready.data.receive()
                    if body is not None:
                        selector.unregister(ready.fileobj)
                        futures.append(self.threads.submit(then, body))
        for future in futures:
            future.result()


class _Connection:
    """One object, asked for again and again over one connection."""

    def __init__(self, workload: Workload, path: str) -> None:
        address = urlsplit(workload.endpoint)
        self.socket = socket.create_connection((address.hostname, address.port))
        self.request = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        size = (workload.store.path / path.split("/", 3)[3]).stat().st_size
        self.memory = memoryview(np.ones(size + HEAD_BYTES, np.uint8))

    def ask(self) -> None:
        """Send the request."""
        self.socket.setblocking(True)
        self.socket.sendall(self.request)
        self.socket.setblocking(False)
        self.filled, self.body = 0, range(0)

    def receive(self) -> memoryview | None:
        """Take what has come; the body once it is complete."""
        got = self.socket.recv_into(self.memory[self.filled :])
        if not got:
            raise ConnectionError("the server has closed a connection")
        self.filled += got
        if not self.body:
            head, end, _ = bytes(self.memory[: min(self.filled, HEAD_BYTES)]).partition(b"\r\n\r\n")
            if not end:
                return None
            status, *lines = head.decode("latin-1").lower().split("\r\n")
            if " 200 " not in status:
                raise ConnectionError(f"the server answered {status}")
            length = int(dict(line.split(": ", 1) for line in lines)["content-length"])
            self.body = range(len(head) + 4, len(head) + 4 + length)
        return self.memory[self.body.start : self.filled] if self.filled >= self.body.stop else None
