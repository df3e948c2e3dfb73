"""The limit of a workload: decode every needed chunk once, copy the output bytes once."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np

from . import remote
from .contenders import FILES, Contender
from .workloads import Workload

SLAB_BYTES = 64 * 2**20
COPY_BYTES = 2**20


class Limit(Contender):
    """The fastest reader that there is here, and a copy by all cores into warm memory."""

    title = "the limit"
    groups = (*FILES, "remote")
    firsts = True
    modules = ("zarr", "zarrs", "numcodecs.blosc")

    def open(self) -> None:
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self.threads = ThreadPoolExecutor(self.cores)
        self.fetchers: dict[str, Callable[[], None]] = {}
        self.readers: dict[str, Callable[[], None]]
        if self.workload.endpoint:
            fetch = remote.Fetch(self.workload, self.threads)
            self.fetchers, self.readers = fetch.ways(len), fetch.ways(fetch.decode)
        else:
            self.readers = {
                "zarrs": Zarrs(self.workload).read,
                "bare codec": BareCodec(self.workload, self.threads).read,
            }
            if importlib.util.find_spec("tensorstore") is not None:
                self.readers["tensorstore"] = TensorStore(self.workload).read
        # As large as a batch, but so large that starting the threads costs nothing.
        size = max(self.workload.sample_nbytes * self.workload.batch_size, SLAB_BYTES)
        self.source = np.ones(size, np.uint8)
        self.target = np.ones(size, np.uint8)

    def timed(self) -> tuple[float, dict[str, float]]:
        """Seconds of the limit, and of everything that was tried for it."""
        read = {name: _seconds(reader) for name, reader in self.readers.items()}
        fetched = {f"{name} alone": _seconds(fetch) for name, fetch in self.fetchers.items()}
        copy = _seconds(self.copy)
        parts = {"read": min(read.values()), "copy": copy}
        if fetched:
            parts["fetch"] = min(fetched.values())
        return parts["read"] + copy, {**read, **fetched, **parts}

    def copy(self) -> None:
        """Copy as many bytes as an epoch yields, a batch or more at a time."""
        total = self.workload.samples * self.workload.sample_nbytes
        while total > 0:
            size = min(total, len(self.source))
            part = max(COPY_BYTES, -(-size // self.cores))
            list(self.threads.map(self._copy, range(0, size, part), [min(part, size)] * self.cores))
            total -= size

    def _copy(self, start: int, size: int) -> None:
        np.copyto(self.target[start : start + size], self.source[start : start + size])

    def epoch(self) -> Iterator[Any]:
        seconds, parts = self.timed()
        yield {"seconds": seconds, **parts}

    def count(self, batch: Any) -> int:
        return self.workload.samples


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Zarrs:
    """Slabs of whole chunks through zarr's arrays with the `zarrs` pipeline, into warm memory."""

    def __init__(self, workload: Workload) -> None:
        import zarr
        from zarr.core.buffer.cpu import NDBuffer

        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            group = zarr.open_group(workload.store.path, mode="r")
            self.arrays = [group[name] for name in workload.store.names]
        first = self.arrays[0]
        along = (first.shards or first.chunks)[0]
        step_bytes = math.prod(first.shape[1:]) * first.dtype.itemsize
        self.steps = along * max(1, SLAB_BYTES // (along * step_bytes))
        self.warm = np.ones((self.steps, *first.shape[1:]), first.dtype)
        self.buffer = NDBuffer

    def read(self) -> None:
        for array in self.arrays:
            for start in range(0, array.shape[0], self.steps):
                stop = min(start + self.steps, array.shape[0])
                out = self.buffer(self.warm[: stop - start])
                array.get_basic_selection(slice(start, stop), out=out)


class TensorStore:
    """The same slabs through tensorstore."""

    def __init__(self, workload: Workload) -> None:
        import tensorstore

        kvstore = {"driver": "file", "path": f"{workload.store.path}/"}
        self.arrays = [
            tensorstore.open(
                {"driver": "zarr3", "kvstore": {**kvstore, "path": f"{kvstore['path']}{name}/"}},
                read=True,
            ).result()
            for name in workload.store.names
        ]
        first = self.arrays[0]
        along = first.chunk_layout.write_chunk.shape[0]
        step_bytes = math.prod(first.shape[1:]) * first.dtype.numpy_dtype.itemsize
        self.steps = along * max(1, SLAB_BYTES // (along * step_bytes))
        self.warm = np.ones((self.steps, *first.shape[1:]), first.dtype.numpy_dtype)
        self.wrap = tensorstore.array

    def read(self) -> None:
        for array in self.arrays:
            for start in range(0, array.shape[0], self.steps):
                stop = min(start + self.steps, array.shape[0])
                self.wrap(self.warm[: stop - start]).write(array[start:stop]).result()


class BareCodec:
    """Files read whole and decoded by blosc alone, each thread into warm memory of its own."""

    def __init__(self, workload: Workload, threads: ThreadPoolExecutor) -> None:
        store = workload.store
        metadata = json.loads((store.path / store.names[0] / "zarr.json").read_text())
        itemsize = 2 if store.packed else 4
        self.nbytes = math.prod(store.chunks) * itemsize
        self.compressed = store.compressed
        self.inner = math.prod(store.shards) // math.prod(store.chunks) if store.shards else 0
        names = {codec["name"] for codec in metadata["codecs"]}
        assert names <= {"bytes", "blosc", "sharding_indexed"}, names
        self.files = store.files()
        self.threads = threads
        self.memory: dict[int, np.ndarray] = {}

    def read(self) -> None:
        # A task of several files: a small chunk takes less time than a task costs.
        share = max(1, len(self.files) // 64)
        parts = [self.files[at : at + share] for at in range(0, len(self.files), share)]
        list(self.threads.map(self._read, parts))

    def _read(self, files: list[Path]) -> None:
        if (thread := get_ident()) not in self.memory:
            self.memory[thread] = np.ones(self.nbytes, np.uint8)
        out = self.memory[thread]
        for path in files:
            if not self.compressed:
                with open(path, "rb", buffering=0) as file:
                    file.readinto(out)
                continue
            encoded = path.read_bytes()
            if not self.inner:
                self._decode(encoded, out)
                continue
            # A shard ends with offset and length of each chunk, and a checksum of these.
            index = np.frombuffer(encoded[-16 * self.inner - 4 : -4], "<u8").reshape(-1, 2)
            whole = memoryview(encoded)
            for offset, length in index[index[:, 0] != 2**64 - 1].tolist():
                self._decode(whole[offset : offset + length], out)

    def _decode(self, encoded: bytes | memoryview, out: np.ndarray) -> None:
        from numcodecs import blosc

        blosc.decompress(encoded, out)
