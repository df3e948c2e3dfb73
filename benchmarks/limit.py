"""The limit of a workload: decode every needed chunk once, copy the output bytes once."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Callable
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
ALONE = "_alone"  # what fetches without decoding


class Limit:
    """The fastest reader that there is here, and a copy by all cores into warm memory."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self.threads = ThreadPoolExecutor(self.cores)
        codec = BareCodec(work, self.threads)
        self.readers: dict[str, Callable[[], None]] = {}
        if work.endpoint:
            fetch = remote.Fetch(work, self.threads)
            for name, by in (("sockets", fetch.sockets), ("obstore", fetch.obstore)):
                self.readers[name] = lambda by=by: by(codec.decode)
                self.readers[name + ALONE] = lambda by=by: by(len)
        else:
            self.readers = {"zarrs": _zarrs(work), "bare_codec": codec.read}
            if importlib.util.find_spec("tensorstore") is not None:
                self.readers["tensorstore"] = _tensorstore(work)
        # As large as a batch, but so large that starting the threads costs nothing.
        self.source, self.target = np.ones((2, max(work.batch_nbytes, SLAB_BYTES)), np.uint8)

    def seconds(self) -> dict[str, Any]:
        """Seconds of the limit, and of everything that was tried for it."""
        took = {}
        for name, part in {**self.readers, "copy": self.copy}.items():
            begin = time.perf_counter()
            part()
            took[name] = time.perf_counter() - begin
        fetched = [took[name] for name in self.readers if name.endswith(ALONE)]
        read = min(took[name] for name in self.readers if not name.endswith(ALONE))
        fetch = min(fetched, default=0.0)
        sums = {"fetch": fetch, "read": read, "seconds": read + took["copy"]}
        return {**took, **sums, "tried": " ".join(self.readers)}

    def copy(self) -> None:
        """Copy as many bytes as an epoch yields, a batch or more at a time."""
        total = self.work.samples * self.work.sample_nbytes
        while total > 0:
            size = min(total, len(self.source))
            part = max(COPY_BYTES, -(-size // self.cores))
            cuts = [slice(at, min(at + part, size)) for at in range(0, size, part)]
            list(self.threads.map(lambda cut: np.copyto(self.target[cut], self.source[cut]), cuts))
            total -= size


def _slabs(arrays: list[Any], along: int, dtype: Any, read: Callable[..., None]) -> Any:
    """A reader of slabs of whole chunks into the same warm memory."""
    shape = arrays[0].shape
    cuts = slabs(shape, along, dtype.itemsize)
    warm = np.ones((cuts[0].stop, *shape[1:]), dtype)

    def every() -> None:
        for array in arrays:
            for cut in cuts:
                read(array, cut, warm[: cut.stop - cut.start])

    return every


def slabs(shape: tuple[int, ...], along: int, itemsize: int) -> list[slice]:
    """Steps of the first dim, in whole chunks of `along` steps and about `SLAB_BYTES`."""
    chunk_nbytes = along * math.prod(shape[1:]) * itemsize
    steps = min(along * max(1, SLAB_BYTES // chunk_nbytes), shape[0])
    return [slice(at, min(at + steps, shape[0])) for at in range(0, shape[0], steps)]


def _zarrs(work: Workload) -> Callable[[], None]:
    """Slabs through zarr's arrays with the `zarrs` pipeline."""
    import zarr
    from zarr.core.buffer.cpu import NDBuffer

    with zarr.config.set(ZARRS):
        group = zarr.open_group(work.store.path, mode="r")
        arrays = [group[name] for name in work.store.names]
    return _slabs(
        arrays, (work.store.shards or work.store.chunks)[0], arrays[0].dtype,
        lambda array, cut, out: array.get_basic_selection(cut, out=NDBuffer(out)),
    )  # fmt: skip


def _tensorstore(work: Workload) -> Callable[[], None]:
    """The same slabs through tensorstore."""
    import tensorstore

    def opened(name: str) -> Any:
        kvstore = {"driver": "file", "path": f"{work.store.path}/{name}/"}
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()

    arrays = list(map(opened, work.store.names))
    return _slabs(
        arrays, (work.store.shards or work.store.chunks)[0], arrays[0].dtype.numpy_dtype,
        lambda array, cut, out: tensorstore.array(out).write(array[cut]).result(),
    )  # fmt: skip


class BareCodec:
    """Files read whole and decoded by blosc alone, each thread into warm memory of its own."""

    def __init__(self, work: Workload, threads: ThreadPoolExecutor) -> None:
        from numcodecs import blosc

        store = work.store
        self.decompress, self.compressed = blosc.decompress, store.compressed
        self.nbytes = math.prod(store.chunks) * (2 if store.packed else 4)
        self.inner = math.prod(store.shards) // math.prod(store.chunks) if store.shards else 0
        self.files, self.threads, self.own = store.files(), threads, local()

    def read(self) -> None:
        """Read and decode all."""
        # A task of several files: a small chunk takes less time than a task costs.
        share = max(1, len(self.files) // 64)
        parts = [self.files[at : at + share] for at in range(0, len(self.files), share)]
        list(self.threads.map(lambda files: list(map(self._read, files)), parts))

    def decode(self, encoded: Any) -> None:
        """Decode one chunk into warm memory of this thread."""
        self.decompress(encoded, self._memory())

    def _memory(self) -> np.ndarray:
        if not hasattr(self.own, "memory"):
            self.own.memory = np.ones(self.nbytes, np.uint8)
        return self.own.memory

    def _read(self, path: Path) -> None:
        if not self.compressed:
            with open(path, "rb", buffering=0) as file:
                file.readinto(self._memory())
            return
        encoded = path.read_bytes()
        if not self.inner:
            return self.decode(encoded)
        # A shard ends with offset and length of each chunk, and a checksum of these.
        index = np.frombuffer(encoded[-16 * self.inner - 4 : -4], "<u8").reshape(-1, 2)
        for offset, length in index[index[:, 0] != 2**64 - 1].tolist():
            self.decode(memoryview(encoded)[offset : offset + length])
