"""The limit of a workload: decode every needed chunk once, copy the output bytes once."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any

import numpy as np

from . import remote
from .stores import ZARRS
from .workloads import Workload

SLAB_BYTES = 64 * 2**20
COPY_BYTES = 2**20


class Limit:
    """The fastest reader that there is here, and a copy by all cores into warm memory."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self.threads = ThreadPoolExecutor(self.cores)
        codec = BareCodec(workload, self.threads)
        self.readers: dict[str, Callable[[], None]] = {}
        if workload.endpoint:
            fetch = remote.Fetch(workload, self.threads)
            for name in ("sockets", "obstore"):
                by = getattr(fetch, name)
                self.readers[name] = lambda by=by: by(codec.decode)
                self.readers[f"{name} alone"] = lambda by=by: by(len)
        else:
            self.readers = {"zarrs": _zarrs(workload), "bare codec": codec.read}
            if importlib.util.find_spec("tensorstore") is not None:
                self.readers["tensorstore"] = _tensorstore(workload)
        # As large as a batch, but so large that starting the threads costs nothing.
        size = max(workload.sample_nbytes * workload.batch_size, SLAB_BYTES)
        self.source = np.ones(size, np.uint8)
        self.target = np.ones(size, np.uint8)

    def epoch(self) -> Iterator[dict[str, float]]:
        """Seconds of the limit, and of everything that was tried for it."""
        took = {name: _seconds(reader) for name, reader in self.readers.items()}
        copy = _seconds(self.copy)
        read = min(took[name] for name in took if not name.endswith(" alone"))
        fetched = [took[name] for name in took if name.endswith(" alone")]
        if fetched:
            took["fetch"] = min(fetched)
        yield {**took, "read": read, "copy": copy, "seconds": read + copy}

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


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _slabs(arrays: list[Any], along: int, dtype: Any, read: Callable[..., None]) -> Any:
    """A reader of slabs of whole chunks into the same warm memory."""
    shape = arrays[0].shape
    step_bytes = math.prod(shape[1:]) * dtype.itemsize
    steps = along * max(1, SLAB_BYTES // (along * step_bytes))
    warm = np.ones((steps, *shape[1:]), dtype)

    def every() -> None:
        for array in arrays:
            for start in range(0, shape[0], steps):
                stop = min(start + steps, shape[0])
                read(array, slice(start, stop), warm[: stop - start])

    return every


def _zarrs(workload: Workload) -> Callable[[], None]:
    """Slabs through zarr's arrays with the `zarrs` pipeline."""
    import zarr
    from zarr.core.buffer.cpu import NDBuffer

    with zarr.config.set(ZARRS):
        group = zarr.open_group(workload.store.path, mode="r")
        arrays = [group[name] for name in workload.store.names]
    first = arrays[0]
    return _slabs(
        arrays, (first.shards or first.chunks)[0], first.dtype,
        lambda array, cut, out: array.get_basic_selection(cut, out=NDBuffer(out)),
    )  # fmt: skip


def _tensorstore(workload: Workload) -> Callable[[], None]:
    """The same slabs through tensorstore."""
    import tensorstore

    def opened(name: str) -> Any:
        kvstore = {"driver": "file", "path": f"{workload.store.path}/{name}/"}
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()

    arrays = list(map(opened, workload.store.names))
    return _slabs(
        arrays, arrays[0].chunk_layout.write_chunk.shape[0], arrays[0].dtype.numpy_dtype,
        lambda array, cut, out: tensorstore.array(out).write(array[cut]).result(),
    )  # fmt: skip


class BareCodec:
    """Files read whole and decoded by blosc alone, each thread into warm memory of its own."""

    def __init__(self, workload: Workload, threads: ThreadPoolExecutor) -> None:
        from numcodecs import blosc

        store = workload.store
        self.decompress = blosc.decompress
        self.nbytes = math.prod(store.chunks) * (2 if store.packed else 4)
        self.compressed = store.compressed
        self.inner = math.prod(store.shards) // math.prod(store.chunks) if store.shards else 0
        self.files, self.threads, self.own = store.files(), threads, local()

    def read(self) -> None:
        # A task of several files: a small chunk takes less time than a task costs.
        share = max(1, len(self.files) // 64)
        parts = [self.files[at : at + share] for at in range(0, len(self.files), share)]
        list(self.threads.map(self._read, parts))

    def decode(self, encoded: Any) -> None:
        """Decode one chunk into warm memory of this thread."""
        self.decompress(encoded, self._memory())

    def _memory(self) -> np.ndarray:
        if not hasattr(self.own, "memory"):
            self.own.memory = np.ones(self.nbytes, np.uint8)
        return self.own.memory

    def _read(self, files: list[Path]) -> None:
        for path in files:
            if not self.compressed:
                with open(path, "rb", buffering=0) as file:
                    file.readinto(self._memory())
                continue
            encoded = path.read_bytes()
            if not self.inner:
                self.decode(encoded)
                continue
            # A shard ends with offset and length of each chunk, and a checksum of these.
            index = np.frombuffer(encoded[-16 * self.inner - 4 : -4], "<u8").reshape(-1, 2)
            whole = memoryview(encoded)
            for offset, length in index[index[:, 0] != 2**64 - 1].tolist():
                self.decode(whole[offset : offset + length])
