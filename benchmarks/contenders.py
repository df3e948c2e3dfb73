"""Those who race: each opens a store and runs epochs over a workload. Ours stand here."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import remote
from .faults import Faults
from .stores import Store
from .workloads import Workload

# In the environment of insitubatch there is neither torch nor xtorch_data: contenders import what
# they race with when they are made.

STAGES = ("read", "prepare", "gather", "wait")  # of `dataset.stats()`
FILES = ("forecast", "patches", "stations", "giant", "packed")  # workloads without a server


class Contender:
    """One way from the store to batches."""

    title = ""
    modules: tuple[str, ...] = ()  # imported before memory is counted
    groups: tuple[str, ...] = FILES  # the workloads it takes part in, or kinds of them
    slow = False  # pays for every sample: timed over `Workload.slow_samples`
    workers = 0
    firsts = False  # whether several first epochs are worth their time
    other_python = False
    faults: Faults | None = None  # what goes wrong on the way to its store

    def __init__(self, workload: Workload, **options: Any) -> None:
        self.workload = workload
        self.options = options

    @classmethod
    def store_of(cls, workload: Workload) -> Store:
        """The store that it reads."""
        return workload.store

    def open(self) -> None:
        """Open the store and make the loader."""

    def epoch(self) -> Iterator[Any]:
        """The batches of one epoch."""
        raise NotImplementedError

    def count(self, batch: Any) -> int:
        """Number of samples in a batch."""
        return len(batch)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Sample numbers and values of a batch, for the check."""
        raise NotImplementedError

    def details(self) -> dict[str, Any]:
        """What it says itself of the epoch that has ended."""
        return {}

    @property
    def expected(self) -> int:
        """Samples in an epoch."""
        return self.workload.samples


class Ours(Contender):
    title = "xtorch_data, shuffled"
    modules = ("torch", "xtorch_data")
    groups = (*FILES, "remote")
    firsts = True
    shuffle = True
    cache = False

    @property
    def memory(self) -> int:
        return self.workload.memory

    def open_store(self) -> Any:
        import xtorch_data as xtd

        return xtd.open_zarr(remote.source(self.workload), consolidated=False)

    def open(self) -> None:
        import xtorch_data as xtd

        work = self.workload
        begin = time.perf_counter()
        data = self.open_store()
        self.opening = time.perf_counter() - begin
        self.dataset = xtd.IterableDataset(
            data,
            input_dims=work.input_dims,
            input_overlap=work.input_overlap,
            inputs=work.store.names,
            batch_size=self.options.get("batch_size", work.batch_size),
            shuffle=self.shuffle,
            memory=self.options.get("memory", self.memory),
            cache=self.cache,
        )
        workers = {"num_workers": self.workers, "persistent_workers": True}
        self.loader = xtd.DataLoader(self.dataset, **workers) if self.workers else self.dataset

    def epoch(self) -> Iterator[Any]:
        return iter(self.loader)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return batch.index.numpy(), batch.x.numpy()

    def details(self) -> dict[str, Any]:
        if self.workers:  # each accounts for itself
            return {}
        stats = self.dataset.stats()
        seconds = {stage: getattr(stats, stage) for stage in STAGES}
        return {
            **seconds,
            "decoded": stats.bytes_read,
            "opening": self.opening,
            "pool": self._pool_nbytes(),
            "retries": stats.retries,
            "paths": dict(stats.paths),
        }

    def _pool_nbytes(self) -> int:
        """Bytes that the first pool reads, as planned."""
        plan = self.dataset.plan
        stage = next(plan.stages(0, plan.intervals(0, 0, 1, 0, 1)))
        found = 0
        for load in stage.loads:
            for name in self.workload.store.names:
                region = [stop - start for start, stop in load.region]
                if name in load.whole_chunks:
                    begin, end = load.whole_chunks[name]
                    region[load.axis] = end - begin
                found += 4 * math.prod(region)
        return found


class OursInOrder(Ours):
    title = "xtorch_data, in order"
    shuffle = False


class OursCached(Ours):
    title = "xtorch_data, shuffled, cache=True"
    groups = ("forecast",)
    firsts = False
    cache = True

    @property
    def memory(self) -> int:
        return 3 * self.workload.store.nbytes


class OursWorkers(Ours):
    title = "xtorch_data, shuffled, 2 workers"
    groups = FILES
    firsts = False
    workers = 2


class OursPlainWorkers(Ours):
    """The same work, but tensors go the way that torch sends them: in fresh shared memory."""

    title = "xtorch_data, shuffled, 2 workers of a plain torch loader, as tensors"
    groups = ("forecast",)
    firsts = False
    workers = 2

    def open(self) -> None:
        import torch.utils.data

        super().open()
        self.loader = torch.utils.data.DataLoader(
            self.dataset,
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=True,
            multiprocessing_context="forkserver",
            collate_fn=_as_tensors,
        )

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        index, x = batch
        return index.numpy(), x.numpy()

    def count(self, batch: Any) -> int:
        return len(batch[0])


def _as_tensors(batch: Any) -> tuple[Any, ...]:
    return batch.index, *batch


class OursMap(Ours):
    """Samples by number, in the order of a sampler."""

    title = "xtorch_data.MapDataset, shuffle=True"
    groups = ("forecast-16",)
    firsts = False
    by_chunks = False

    def open(self) -> None:
        import xtorch_data as xtd

        work = self.workload
        dataset = xtd.MapDataset(
            self.open_store(),
            input_dims=work.input_dims,
            input_overlap=work.input_overlap,
            inputs=work.store.names,
            memory=self.memory,
        )
        order = {"sampler": xtd.ChunkSampler(dataset)} if self.by_chunks else {"shuffle": True}
        self.loader = xtd.DataLoader(dataset, batch_size=work.batch_size, **order)

    def details(self) -> dict[str, Any]:
        return {}


class OursMapChunks(OursMap):
    title = "xtorch_data.MapDataset, ChunkSampler"
    by_chunks = True


class OursMapBeyond(OursMap):
    """What a random order costs where memory does not hold the store."""

    title = "xtorch_data.MapDataset, shuffle=True, memory for an eighth of the store"

    @property
    def memory(self) -> int:
        return self.workload.store.nbytes // 8


class OursMapChunksBeyond(OursMapBeyond):
    title = "xtorch_data.MapDataset, ChunkSampler, memory for an eighth of the store"
    by_chunks = True


class OursUnpacked(Ours):
    """What `packed` is compared with."""

    title = "xtorch_data, shuffled, the same data unpacked"
    groups = ("packed",)
    firsts = False

    def __init__(self, workload: Workload, **options: Any) -> None:
        super().__init__(workload.unpacked, **options)

    @classmethod
    def store_of(cls, workload: Workload) -> Store:
        return workload.unpacked.store


class OursUnpackedInOrder(OursUnpacked):
    title = "xtorch_data, in order, the same data unpacked"
    shuffle = False


class OursS3fs(Ours):
    """As one types it: `s3://` with `storage_options`."""

    title = "xtorch_data, shuffled, s3:// through s3fs"
    modules = ("torch", "xtorch_data", "s3fs")
    groups = ("remote",)

    def open_store(self) -> Any:
        import xtorch_data as xtd

        options = {"anon": True, "endpoint_url": self.workload.endpoint}
        where = remote.url(self.workload)
        return xtd.open_zarr(where, consolidated=False, storage_options=options)


# The promise of object stores, broken: for each of the 500 objects of an epoch.
FAULTS = Faults(failing=0.01, slow=0.01, seconds=1.0)


class OursFaults(Ours):
    title = "xtorch_data, shuffled, 1 % of requests failing once, 1 % taking a second"
    groups = ("remote",)
    firsts = False
    faults = FAULTS


class OursS3fsFaults(OursS3fs):
    title = "xtorch_data, shuffled, s3:// through s3fs, with the same faults"
    firsts = False
    faults = FAULTS


def contenders() -> dict[str, type[Contender]]:
    """Every contender by name, the limit among them."""
    from .limit import Limit
    from .peers import PEERS

    ours = [
        Ours,
        OursInOrder,
        OursCached,
        OursWorkers,
        OursPlainWorkers,
        OursMap,
        OursMapChunks,
        OursMapBeyond,
        OursMapChunksBeyond,
        OursS3fs,
        OursFaults,
        OursS3fsFaults,
        OursUnpacked,
        OursUnpackedInOrder,
    ]
    kinds = [*ours, *PEERS, Limit]
    return {kind.__name__: kind for kind in kinds}


def versions(modules: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages that a contender has imported."""
    from importlib import metadata

    found = {}
    for name in (
        *modules,
        "zarr",
        "zarrs",
        "xarray",
        "numpy",
        "torch",
        "xbatcher",
        "numcodecs",
        "obstore",
        "s3fs",
    ):
        package = name.split(".")[0]
        if package in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[package] = getattr(sys.modules[package], "__version__", "?")
    return found
