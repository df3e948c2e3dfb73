"""What lies behind the S3 server: how it is opened, and the fastest ways to fetch all of it."""

from __future__ import annotations

import asyncio
import importlib.util
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from s3_server import BUCKET

from .workloads import Workload

HEAD_BYTES = 1024  # more than the head of an answer takes
MISSING = (
    ""
    if all(map(importlib.util.find_spec, ("obstore", "s3fs")))
    else "obstore and s3fs are not installed (the extra `bench` has them)"
)


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
    """Every chunk of a store asked for at once; each is handed to a thread as it comes."""

    def __init__(self, workload: Workload, threads: ThreadPoolExecutor) -> None:
        self.workload, self.threads = workload, threads
        store = workload.store
        self.keys = [path.relative_to(store.path).as_posix() for path in store.files()]
        self.connections: list[_Connection] = []

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
            self.connections = [_Connection(self.workload, key) for key in self.keys]
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

    def __init__(self, workload: Workload, key: str) -> None:
        store, address = workload.store.path, urlsplit(workload.endpoint)
        self.socket = socket.create_connection((address.hostname, address.port))
        first = f"GET /{BUCKET}/{store.name}/{key} HTTP/1.1"
        self.request = f"{first}\r\nHost: {address.netloc}\r\n\r\n".encode()
        self.nbytes = (store / key).stat().st_size
        self.memory = memoryview(np.ones(self.nbytes + HEAD_BYTES, np.uint8))

    def ask(self) -> None:
        """Send the request."""
        self.socket.setblocking(True)
        self.socket.sendall(self.request)
        self.socket.setblocking(False)
        self.filled, self.start = 0, 0

    def receive(self) -> memoryview | None:
        """Take what has come; the body once it is complete."""
        got = self.socket.recv_into(self.memory[self.filled :])
        self.filled += got
        if not self.start:
            head, end, _ = bytes(self.memory[: min(self.filled, HEAD_BYTES)]).partition(b"\r\n\r\n")
            self.start = len(head) + 4 if end else 0
            if end and b" 200 " not in head.partition(b"\r\n")[0]:
                raise ConnectionError(f"the server answered {head.decode('latin-1')}")
        if not got:
            raise ConnectionError("the server has closed a connection")
        complete = self.start and self.filled >= self.start + self.nbytes
        return self.memory[self.start : self.filled] if complete else None
