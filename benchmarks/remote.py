"""What lies behind the S3 server: how it is opened, and the fastest ways to fetch all of it."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from s3_server import BUCKET

from .workloads import Workload

INSTALLED = all(map(importlib.util.find_spec, ("obstore", "s3fs")))
MISSING = (
    "\n### {}\n\nNot measured: obstore and s3fs are not installed (the extra `bench` has them).\n"
)


def options(work: Workload) -> dict[str, Any]:
    """What obstore needs to know of the server."""
    client = {"client_options": {"allow_http": True}}
    return {"endpoint": work.endpoint, "region": "us-east-1", "skip_signature": True, **client}


def url(work: Workload) -> str:
    """Where the store is."""
    return f"s3://{BUCKET}/{work.store.path.name}"


def source(work: Workload) -> Any:
    """What xarray or zarr opens: the store's folder or, behind a server, obstore's view of it."""
    if not work.endpoint:
        return work.store.path
    import obstore.store
    from zarr.storage import ObjectStore

    return ObjectStore(obstore.store.from_url(url(work), **options(work)), read_only=True)


class Fetch:
    """Every chunk of a store asked for at once; each is handed to a thread as it comes."""

    def __init__(self, work: Workload, threads: ThreadPoolExecutor) -> None:
        self.work, self.threads = work, threads
        files = work.store.files()
        self.keys = [path.relative_to(work.store.path).as_posix() for path in files]
        self.asking = ThreadPoolExecutor(len(files))
        self.objects: list[_Object] = []

    def obstore(self, then: Callable[[Any], Any]) -> None:
        """All requests through obstore."""
        import obstore.store

        store = obstore.store.from_url(url(self.work), **options(self.work))

        async def one(key: str) -> Future[Any]:
            answer = await obstore.get_async(store, key)
            return self.threads.submit(then, memoryview(await answer.bytes_async()))

        async def every() -> list[Future[Any]]:
            return await asyncio.gather(*map(one, self.keys))

        for future in asyncio.run(every()):
            future.result()

    def sockets(self, then: Callable[[Any], Any]) -> None:
        """A thread, a connection that stays open and warm memory for each object."""
        self.objects = self.objects or [_Object(self.work, key) for key in self.keys]
        asked = self.asking.map(lambda each: self.threads.submit(then, each.body()), self.objects)
        for future in list(asked):
            future.result()


class _Object:
    """One object, asked for again and again over one connection."""

    def __init__(self, work: Workload, key: str) -> None:
        path = work.store.path
        self.connection = http.client.HTTPConnection(urlsplit(work.endpoint).netloc)
        self.place = f"/{BUCKET}/{path.name}/{key}"
        self.memory = np.ones((path / key).stat().st_size, np.uint8)

    def body(self) -> memoryview:
        self.connection.request("GET", self.place)
        answer = self.connection.getresponse()
        if answer.status != 200 or answer.readinto(self.memory) < len(self.memory):
            raise ConnectionError(f"the server answered {answer.status} for {self.place}")
        return memoryview(self.memory)
