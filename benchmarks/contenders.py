"""Those who race: each opens a store and runs epochs over a workload."""

from __future__ import annotations

import importlib
import itertools
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from s3_server import Faults

from . import remote
from .limit import Limit
from .stores import OPEN
from .workloads import Workload

# In the environment of insitubatch there is neither torch nor xtorch_data: contenders import what
# they race with when they are opened.

STAGES = ("read", "prepare", "gather", "wait")  # of `dataset.stats()`
FILES = ("forecast", "patches", "stations", "giant", "packed", "long", "chunks", "many")


@dataclass
class Contender:
    """One way from the store to batches: made here, sent to a process of its own, used there."""

    title: str
    groups: tuple[str, ...] = FILES  # the workloads it takes part in, or kinds of them
    workers: int = 0
    firsts: bool = False  # whether first epochs, in fresh processes, are worth their time
    faults: Faults | None = None  # what goes wrong on the way to its store
    loading: dict[str, Any] = field(default_factory=dict)  # arguments of the loader
    enough: float = float("inf")  # seconds after which an epoch is cut short

    modules: ClassVar[tuple[str, ...]] = ()  # imported before memory is counted
    slow: ClassVar[bool] = False  # pays for every sample: timed over `Workload.slow_samples`
    other_python: ClassVar[bool] = False
    checked: ClassVar[bool] = True  # whether its samples are compared with those of `isel`
    tolerance: ClassVar[float] = 0.0  # relative, of that

    def of(self, work: Workload) -> Workload:
        """What it reads."""
        return work

    def ready(self, work: Workload) -> None:
        """What is done before memory is counted."""
        for module in self.modules:
            importlib.import_module(module)

    def open(self, work: Workload) -> None:
        """Open the store and make the loader."""
        self.work = work

    def epoch(self) -> Iterator[Any]:
        """The batches of one epoch."""
        return iter(self.loader)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        """Sample numbers and values of a batch."""
        return batch.index, batch.x

    def count(self, batch: Any) -> int:
        """Number of samples in a batch."""
        return len(batch)

    def expected(self) -> int | None:
        """Samples in an epoch, if that is known."""
        every = self.work.samples
        return min(self.work.slow_samples, every) if self.slow else every

    def truth(self, data: Any) -> Any:
        """What plain `isel` cuts samples from that its own must equal, given the store's data."""
        return data

    def details(self) -> dict[str, Any]:
        """What it says itself of the epoch that has ended."""
        return {}


@dataclass
class Ours(Contender):
    how: dict[str, Any] = field(default_factory=lambda: {"shuffle": True})  # of the dataset
    store_memory: float = 0.0  # `memory` in sizes of the store, instead of the workload's
    s3fs: bool = False  # as one types it: `s3://` with `storage_options`
    unpacked: bool = False

    modules = ("torch", "xtorch_data")
    loads: ClassVar[bool] = False  # whether it goes through a DataLoader in any case

    def ready(self, work: Workload) -> None:
        super().ready(work)
        import xtorch_data as xtd

        # What is imported when it is first asked for is no part of an epoch.
        xtd.open_zarr, xtd.IterableDataset, xtd.MapDataset, xtd.DataLoader  # noqa: B018

    def of(self, work: Workload) -> Workload:
        if not self.unpacked:
            return work
        return replace(work, store=replace(work.store, name="forecast-16", packed=False))

    def open(self, work: Workload) -> None:
        super().open(work)
        memory = int(self.store_memory * work.store.nbytes) or work.memory
        begin = time.perf_counter()
        self.data = self._opened()
        self.opening = time.perf_counter() - begin
        self.loader = self._loader({"memory": memory, **self.how})

    def _opened(self) -> Any:
        if not self.s3fs:
            return self.work.opened(remote.source(self.work))
        options = {"anon": True, "endpoint_url": self.work.endpoint}
        return self.work.opened(remote.url(self.work), storage_options=options)

    def _loader(self, how: dict[str, Any]) -> Any:
        import xtorch_data as xtd

        self.dataset = self.work.dataset(self.data, **how)
        if not (self.loads or self.workers or self.loading):
            return self.dataset
        lasting = bool(self.workers)
        return xtd.DataLoader(
            self.dataset, num_workers=self.workers, persistent_workers=lasting, **self.loading
        )

    def details(self) -> dict[str, Any]:
        if self.workers:  # each accounts for itself
            return {}
        stats, told = self.dataset.stats(), self.dataset.explain()
        return {
            **{stage: getattr(stats, stage) for stage in STAGES},
            "decoded": stats.bytes_read,
            "opening": self.opening,
            "pool": told.pool_nbytes,
            "amplification": told.amplification,
            "retries": stats.retries,
            "paths": ", ".join(f"{way} {count}" for way, count in stats.paths.items()),
        }


@dataclass
class Loader(Ours):
    """Through a DataLoader, workers or not."""

    loads = True


def torch_loader(dataset: Any, workers: int, **how: Any) -> Any:
    """A loader of torch's own."""
    import torch.utils.data

    if workers:
        how = {"multiprocessing_context": "forkserver", "persistent_workers": True, **how}
    return torch.utils.data.DataLoader(dataset, num_workers=workers, **how)


def as_tensors(batch: Any) -> tuple[Any, ...]:
    """A batch as what torch's loader knows: workers send it in fresh shared memory."""
    return batch.index, *batch


@dataclass
class Plain(Ours):
    """Behind torch's own loader."""

    def _loader(self, how: dict[str, Any]) -> Any:
        self.dataset = self.work.dataset(self.data, **how)
        loading = {"batch_size": None, "collate_fn": as_tensors, **self.loading}
        return torch_loader(self.dataset, self.workers, **loading)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        return batch

    def count(self, batch: Any) -> int:
        return len(batch[0])


@dataclass
class Map(Ours):
    """Samples by number, in the order of a sampler."""

    groups: tuple[str, ...] = ("forecast-16",)
    by_chunks: bool = False

    def _loader(self, how: dict[str, Any]) -> Any:
        import torch.utils.data

        import xtorch_data as xtd

        work = self.work
        dims, memory = (work.input_dims, work.input_overlap), how["memory"]
        dataset = xtd.MapDataset(self.data, *dims, inputs=work.store.names, memory=memory)
        sampler = xtd.ChunkSampler if self.by_chunks else torch.utils.data.RandomSampler
        return xtd.DataLoader(dataset, batch_size=work.batch_size, sampler=sampler(dataset))

    def details(self) -> dict[str, Any]:
        return {}


@dataclass
class PerSample(Contender):
    """A dataset with `__getitem__` behind torch's loader, over a few samples spread out."""

    slow = True

    def open(self, work: Workload) -> None:
        super().open(work)
        dataset = self._dataset()
        rng, within = np.random.default_rng(0), min(len(dataset), work.samples)
        self.order = rng.choice(within, self.expected(), replace=False)
        how = {"batch_size": work.batch_size, "sampler": self.order.tolist(), **self.loading}
        self.loader = torch_loader(dataset, self.workers, **how)

    def _dataset(self) -> Any:
        raise NotImplementedError

    def epoch(self) -> Iterator[Any]:
        self.looked = 0
        return iter(self.loader)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        numbers = self.order[self.looked : self.looked + len(batch)]
        self.looked += len(batch)
        return numbers, batch


@dataclass
class Xbatcher(PerSample):
    groups: tuple[str, ...] = (*FILES, "remote")
    chunks: dict[str, int] | None = None
    zarrs: bool = False

    modules = ("torch", "xarray", "xbatcher.loaders.torch", "xtorch_data")

    def _dataset(self) -> Any:
        import xarray as xr
        import xbatcher.loaders.torch

        import xtorch_data as xtd

        work = self.work
        opener = xtd.open_zarr if self.zarrs else xr.open_zarr
        data = opener(remote.source(work), **{**OPEN, "chunks": self.chunks})[work.store.names]
        alone = [dim for dim in work.dims if dim not in work.input_dims]
        if alone:  # xbatcher lists every window; of ten million it cannot
            data = data.isel({dim: slice(0, 2) for dim in alone})
        windows = {**dict.fromkeys(alone, 1), **work.input_dims}
        generator = xbatcher.BatchGenerator(data, windows, work.input_overlap, preload_batch=False)
        return xbatcher.loaders.torch.MapDataset(generator, transform=_Stacked(work.sample_shape))


@dataclass
class _Stacked:
    """xbatcher's own `to_tensor` takes one variable only."""

    shape: tuple[int, ...]

    def __call__(self, sample: Any) -> Any:
        import torch

        values = sample.to_array().values.astype(np.float32, copy=False)
        return torch.from_numpy(values.reshape(self.shape))


@dataclass
class Tutorial(PerSample):
    """The Dataset of many a tutorial."""

    modules = ("torch", "zarr")

    def _dataset(self) -> Any:
        return _Sliced(self.work)


class _Sliced:
    def __init__(self, work: Workload) -> None:
        import zarr

        group = zarr.open_group(work.store.path, mode="r")
        self.work, self.arrays = work, [group[name] for name in work.store.names]

    def __len__(self) -> int:
        return self.work.samples

    def __getitem__(self, number: int) -> Any:
        import torch

        indexers = self.work.indexers(number)
        key = tuple(indexers[dim] for dim in self.work.store.sizes)
        return torch.from_numpy(np.stack([array[key] for array in self.arrays]))


@dataclass
class InSituBatch(Contender):
    """Shuffled inside blocks of chunks, as it does; it keeps what it has decoded for later epochs.

    Its batches hold each step of a window as an array of its own; they are not stacked here, which
    is one copy less than the others make.
    """

    modules = ("insitubatch", "xarray")
    other_python = True

    def open(self, work: Workload) -> None:
        import insitubatch

        super().open(work)
        names, steps = work.store.names, range(work.input_dims["time"])
        where = remote.url(work) if work.endpoint else f"file://{work.store.path}"
        store = insitubatch.obstore_store(where, **(remote.options(work) if work.endpoint else {}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = insitubatch.open_geometries(store, variables=names)
        self.dataset = insitubatch.InSituDataset(
            store,
            insitubatch.split_by_chunk(arrays[names[0]], fractions=(1.0, 0.0, 0.0)),
            {f"{name} {step}": arrays[name].shift(step) for name in names for step in steps},
            batch_size=work.batch_size,
        )
        self.labels = [[f"{name} {step}" for step in steps] for name in names]
        self.epochs = itertools.count()

    def epoch(self) -> Iterator[Any]:
        self.dataset.set_epoch(next(self.epochs))
        return iter(self.dataset.train)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        stacked = np.stack([batch.stack(labels) for labels in self.labels], axis=1)
        return batch.sample_indices, stacked


@dataclass
class TheLimit(Contender):
    """No contender: what none can pass."""

    modules = ("zarr", "zarrs", "numcodecs.blosc")
    checked = False

    def open(self, work: Workload) -> None:
        super().open(work)
        self.limit = Limit(work)

    def epoch(self) -> Iterator[Any]:
        self.took = self.limit.seconds()
        yield self.took

    def count(self, batch: Any) -> int:
        return self.work.samples

    def details(self) -> dict[str, Any]:
        return self.took


# The promise of object stores, broken: for each of the 500 objects of an epoch.
FAULTS = Faults(failing=0.01, slow=0.01, seconds=1.0)
SHUFFLED, IN_ORDER, MAP = "xtorch_data, shuffled", "xtorch_data, in order", "xtorch_data.MapDataset"
EVERYWHERE, FORECAST, REMOTE = (*FILES, "remote"), ("forecast",), ("remote",)
ORDERED, CACHED = {"shuffle": False}, {"shuffle": True, "cache": True}
UNPACKED = {"groups": ("packed",), "unpacked": True}
AN_EIGHTH = "memory for an eighth of the store"

CONTENDERS: dict[str, Contender] = {
    "shuffled": Ours(SHUFFLED, EVERYWHERE, firsts=True),
    "in order": Ours(IN_ORDER, EVERYWHERE, firsts=True, how=ORDERED),
    "cached": Ours(f"{SHUFFLED}, cache=True", FORECAST, how=CACHED, store_memory=3),
    "workers": Ours(f"{SHUFFLED}, 2 workers", workers=2),
    "plain workers": Plain(
        f"{SHUFFLED}, 2 workers of a plain torch loader, as tensors", FORECAST, workers=2
    ),
    "map": Map(f"{MAP}, RandomSampler"),
    "map, chunks": Map(f"{MAP}, ChunkSampler", by_chunks=True),
    "map, beyond": Map(f"{MAP}, RandomSampler, {AN_EIGHTH}", store_memory=1 / 8),
    "map, chunks, beyond": Map(
        f"{MAP}, ChunkSampler, {AN_EIGHTH}", by_chunks=True, store_memory=1 / 8
    ),
    "s3fs": Ours(f"{SHUFFLED}, s3:// through s3fs", REMOTE, firsts=True, s3fs=True),
    "faults": Ours(
        f"{SHUFFLED}, 1 % of requests failing once, 1 % taking a second", REMOTE, faults=FAULTS
    ),
    "s3fs, faults": Ours(
        f"{SHUFFLED}, s3:// through s3fs, with the same faults", REMOTE, faults=FAULTS, s3fs=True
    ),
    "shuffled, unpacked": Ours(f"{SHUFFLED}, the same data unpacked", **UNPACKED),
    "in order, unpacked": Ours(f"{IN_ORDER}, the same data unpacked", how=ORDERED, **UNPACKED),
    "xbatcher": Xbatcher("xbatcher, lazy Zarr"),
    "xbatcher, zarrs": Xbatcher("xbatcher, lazy Zarr read by zarrs", FILES, zarrs=True),
    "xbatcher, dask": Xbatcher("xbatcher, dask", chunks={}),
    "xbatcher, workers": Xbatcher("xbatcher, lazy Zarr, 2 workers", FILES, workers=2),
    "tutorial": Tutorial(
        "Dataset that slices zarr.Array", tuple(kind for kind in FILES if kind != "packed")
    ),
    "insitubatch": InSituBatch(
        "insitubatch (later epochs from its cache)",
        ("forecast", "giant", "remote", "chunks", "many"),
        firsts=True,
    ),
    "limit": TheLimit("the limit", EVERYWHERE),
}
