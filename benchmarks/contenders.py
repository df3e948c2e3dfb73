"""Those who race: each opens a store and runs epochs over a workload."""

from __future__ import annotations

import importlib
import itertools
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy as np
from s3_server import Faults

from . import remote
from .limit import Limit
from .stores import OPEN
from .workloads import Workload, make_workload

# In the environment of insitubatch there is neither torch nor xtorch_data: contenders import what
# they race with when they are opened.

STAGES = ("read", "prepare", "gather", "wait")  # of `dataset.stats()`
FILES = ("forecast", "patches", "stations", "giant", "packed")  # workloads without a server
# Samples, and bytes of samples, compared in a check, spread over the epoch; counted is every one.
COMPARED = {True: 2_000, False: 64}
COMPARED_BYTES = 2**31
PACKAGES = ("zarr", "zarrs", "xarray", "numpy", "torch", "xbatcher", "numcodecs", "obstore", "s3fs")


@dataclass
class Contender:
    """One way from the store to batches."""

    title: str
    groups: tuple[str, ...] = FILES  # the workloads it takes part in, or kinds of them
    modules: tuple[str, ...] = ()  # imported before memory is counted
    workers: int = 0
    firsts: bool = False  # whether several first epochs are worth their time
    slow: bool = False  # pays for every sample: timed over `Workload.slow_samples`
    other_python: bool = False
    faults: Faults | None = None  # what goes wrong on the way to its store
    loading: dict[str, Any] = field(default_factory=dict)  # arguments of the loader

    def of(self, workload: Workload) -> Workload:
        """What it reads."""
        return workload

    def open(self, workload: Workload) -> None:
        """Open the store and make the loader."""
        self.workload = workload

    def epoch(self) -> Iterator[Any]:
        """The batches of one epoch."""
        return iter(self.loader)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        """Sample numbers and values of a batch, for the check."""
        raise NotImplementedError

    def count(self, batch: Any) -> int:
        """Number of samples in a batch."""
        return len(batch)

    def expected(self, workload: Workload) -> int:
        """Samples in an epoch."""
        return min(workload.slow_samples, workload.samples) if self.slow else workload.samples

    def details(self) -> dict[str, Any]:
        """What it says itself of the epoch that has ended."""
        return {}


@dataclass
class Ours(Contender):
    modules: tuple[str, ...] = ("torch", "xtorch_data")
    how: dict[str, Any] = field(default_factory=lambda: {"shuffle": True})  # of the dataset
    store_memory: float = 0.0  # `memory` in sizes of the store, instead of the workload's
    s3fs: bool = False  # as one types it: `s3://` with `storage_options`
    unpacked: bool = False

    def of(self, workload: Workload) -> Workload:
        return workload.unpacked if self.unpacked else workload

    def open(self, workload: Workload) -> None:
        super().open(workload)
        memory = int(self.store_memory * workload.store.nbytes) or workload.memory
        self.how = {"memory": memory, **self.how}
        begin = time.perf_counter()
        data = self._opened()[workload.store.names]
        self.opening = time.perf_counter() - begin
        self.loader = self._loader(data)

    def _opened(self) -> Any:
        import xtorch_data as xtd

        work = self.workload
        if self.s3fs:
            options = {"anon": True, "endpoint_url": work.endpoint}
            return xtd.open_zarr(remote.url(work), consolidated=False, storage_options=options)
        return xtd.open_zarr(remote.source(work), consolidated=False)

    def _loader(self, data: Any) -> Any:
        import xtorch_data as xtd

        self.dataset = self.workload.dataset(data, **self.how)
        loading = self.loading
        if self.workers:
            loading = {"num_workers": self.workers, "persistent_workers": True, **loading}
        return xtd.DataLoader(self.dataset, **loading) if loading else self.dataset

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return batch.index.numpy(), batch.x.numpy()

    def details(self) -> dict[str, Any]:
        if self.workers:  # each accounts for itself
            return {}
        stats = self.dataset.stats()
        return {
            **{stage: getattr(stats, stage) for stage in STAGES},
            "decoded": stats.bytes_read,
            "opening": self.opening,
            "pool": self.dataset.explain().pool_nbytes,
            "retries": stats.retries,
            "paths": dict(stats.paths),
        }


def torch_loader(dataset: Any, workers: int, **how: Any) -> Any:
    """A loader of torch's own."""
    import torch.utils.data

    if workers:
        how = {"multiprocessing_context": "forkserver", "persistent_workers": True, **how}
    return torch.utils.data.DataLoader(dataset, num_workers=workers, **how)


@dataclass
class Plain(Ours):
    """Behind torch's own loader; by default workers send tensors in fresh shared memory."""

    def _loader(self, data: Any) -> Any:
        dataset = self.workload.dataset(data, **self.how)
        how = {"batch_size": None, "collate_fn": _as_tensors, **self.loading}
        return torch_loader(dataset, self.workers, **how)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return batch[0].numpy(), batch[1].numpy()

    def count(self, batch: Any) -> int:
        return len(batch[0])


def _as_tensors(batch: Any) -> tuple[Any, ...]:
    return batch.index, *batch


@dataclass
class Map(Ours):
    """Samples by number, in the order of a sampler."""

    groups: tuple[str, ...] = ("forecast-16",)
    by_chunks: bool = False

    def _loader(self, data: Any) -> Any:
        import xtorch_data as xtd

        work = self.workload
        dims, names = (work.input_dims, work.input_overlap), work.store.names
        dataset = xtd.MapDataset(data, *dims, inputs=names, memory=self.how["memory"])
        order = {"sampler": xtd.ChunkSampler(dataset)} if self.by_chunks else {"shuffle": True}
        return xtd.DataLoader(dataset, batch_size=work.batch_size, **order)

    def details(self) -> dict[str, Any]:
        return {}


@dataclass
class PerSample(Contender):
    """A dataset with `__getitem__` behind torch's loader, over a few samples spread out."""

    modules: tuple[str, ...] = ("torch", "xarray", "xbatcher.loaders.torch")
    slow: bool = True

    def open(self, workload: Workload) -> None:
        super().open(workload)
        dataset = self._dataset()
        rng, within = np.random.default_rng(0), min(len(dataset), workload.samples)
        self.order = rng.choice(within, self.expected(workload), replace=False)
        how = {"batch_size": workload.batch_size, "sampler": self.order.tolist(), **self.loading}
        self.loader = torch_loader(dataset, self.workers, **how)

    def _dataset(self) -> Any:
        raise NotImplementedError

    def epoch(self) -> Iterator[Any]:
        self.looked = 0
        return iter(self.loader)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.order[self.looked : self.looked + len(batch)]
        self.looked += len(batch)
        return numbers, batch.numpy()


@dataclass
class Xbatcher(PerSample):
    groups: tuple[str, ...] = (*FILES, "remote")
    chunks: dict[str, int] | None = None
    zarrs: bool = False

    def _dataset(self) -> Any:
        import xarray as xr
        import xbatcher
        import xbatcher.loaders.torch

        import xtorch_data as xtd

        work = self.workload
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
    modules: tuple[str, ...] = ("torch", "zarr")

    def _dataset(self) -> Any:
        return _Sliced(self.workload)


class _Sliced:
    """The Dataset of many a tutorial."""

    def __init__(self, workload: Workload) -> None:
        import zarr

        group = zarr.open_group(workload.store.path, mode="r")
        self.arrays = [group[name] for name in workload.store.names]
        self.workload = workload

    def __len__(self) -> int:
        return self.workload.samples

    def __getitem__(self, number: int) -> Any:
        import torch

        indexers = self.workload.indexers(number)
        key = tuple(indexers[dim] for dim in self.workload.store.sizes)
        return torch.from_numpy(np.stack([array[key] for array in self.arrays]))


@dataclass
class InSituBatch(Contender):
    """Shuffled inside blocks of chunks, as it does; it keeps what it has decoded for later epochs.

    Its batches hold each step of a window as an array of its own; they are not stacked here, which
    is one copy less than the others make.
    """

    def open(self, workload: Workload) -> None:
        import insitubatch

        super().open(workload)
        names, steps = workload.store.names, range(workload.input_dims["time"])
        where = (remote.url(workload) if workload.endpoint else f"file://{workload.store.path}",)
        options = remote.options(workload) if workload.endpoint else {}
        store = insitubatch.obstore_store(*where, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = insitubatch.open_geometries(store, variables=names)
        self.dataset = insitubatch.InSituDataset(
            store,
            insitubatch.split_by_chunk(arrays[names[0]], fractions=(1.0, 0.0, 0.0)),
            {f"{name} {step}": arrays[name].shift(step) for name in names for step in steps},
            batch_size=workload.batch_size,
        )
        self.labels = [[f"{name} {step}" for step in steps] for name in names]
        self.epochs = itertools.count()

    def epoch(self) -> Iterator[Any]:
        self.dataset.set_epoch(next(self.epochs))
        return iter(self.dataset.train)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        stacked = np.stack([batch.stack(labels) for labels in self.labels], axis=1)
        return batch.sample_indices, stacked


@dataclass
class TheLimit(Contender):
    groups: tuple[str, ...] = (*FILES, "remote")
    modules: tuple[str, ...] = ("zarr", "zarrs", "numcodecs.blosc")
    firsts: bool = True

    def open(self, workload: Workload) -> None:
        super().open(workload)
        self.limit = Limit(workload)

    def epoch(self) -> Iterator[Any]:
        return self.limit.epoch()

    def count(self, batch: Any) -> int:
        return self.workload.samples


# The promise of object stores, broken: for each of the 500 objects of an epoch.
FAULTS = Faults(failing=0.01, slow=0.01, seconds=1.0)
SHUFFLED, EVERYWHERE, IN_ORDER = "xtorch_data, shuffled", (*FILES, "remote"), {"shuffle": False}
CACHED = {"shuffle": True, "cache": True}
FORECAST, PACKED, REMOTE = ("forecast",), ("packed",), ("remote",)
S3FS = {"modules": ("torch", "xtorch_data", "s3fs"), "groups": REMOTE, "s3fs": True}
FAULTY = {"groups": REMOTE, "faults": FAULTS}
AN_EIGHTH = "memory for an eighth of the store"

CONTENDERS: dict[str, Contender] = {
    "shuffled": Ours(SHUFFLED, EVERYWHERE, firsts=True),
    "in order": Ours("xtorch_data, in order", EVERYWHERE, firsts=True, how=IN_ORDER),
    "cached": Ours(f"{SHUFFLED}, cache=True", FORECAST, how=CACHED, store_memory=3),
    "workers": Ours(f"{SHUFFLED}, 2 workers", workers=2),
    "plain workers": Plain(
        f"{SHUFFLED}, 2 workers of a plain torch loader, as tensors", FORECAST, workers=2
    ),
    "map": Map("xtorch_data.MapDataset, shuffle=True"),
    "map, chunks": Map("xtorch_data.MapDataset, ChunkSampler", by_chunks=True),
    "map, beyond": Map(f"xtorch_data.MapDataset, shuffle=True, {AN_EIGHTH}", store_memory=1 / 8),
    "map, chunks, beyond": Map(
        f"xtorch_data.MapDataset, ChunkSampler, {AN_EIGHTH}", by_chunks=True, store_memory=1 / 8
    ),
    "s3fs": Ours(f"{SHUFFLED}, s3:// through s3fs", firsts=True, **S3FS),
    "faults": Ours(f"{SHUFFLED}, 1 % of requests failing once, 1 % taking a second", **FAULTY),
    "s3fs, faults": Ours(
        f"{SHUFFLED}, s3:// through s3fs, with the same faults", **{**S3FS, **FAULTY}
    ),
    "shuffled, unpacked": Ours(f"{SHUFFLED}, the same data unpacked", PACKED, unpacked=True),
    "in order, unpacked": Ours(
        "xtorch_data, in order, the same data unpacked", PACKED, how=IN_ORDER, unpacked=True
    ),
    "xbatcher": Xbatcher("xbatcher, lazy Zarr"),
    "xbatcher, zarrs": Xbatcher("xbatcher, lazy Zarr read by zarrs", FILES, zarrs=True),
    "xbatcher, dask": Xbatcher("xbatcher, dask", chunks={}),
    "xbatcher, workers": Xbatcher("xbatcher, lazy Zarr, 2 workers", FILES, workers=2),
    "tutorial": Tutorial("Dataset that slices zarr.Array", ("forecast", "patches", "stations", "giant")),  # noqa: E501
    "insitubatch": InSituBatch(
        "insitubatch (later epochs from its cache)", ("forecast", "giant", "remote"),
        modules=("insitubatch", "xarray"), firsts=True, other_python=True,
    ),
    "limit": TheLimit("the limit"),
}  # fmt: skip


class Entry:
    """A contender over a workload, in a process of its own."""

    def __init__(self, key: str, workload: str, quick: bool, endpoint: str, given: Any) -> None:
        self.contender = replace(CONTENDERS[key], **given)
        self.workload = self.contender.of(make_workload(workload, quick, endpoint))
        self.opened = False
        for module in self.contender.modules:
            importlib.import_module(module)

    def versions(self) -> dict[str, str]:
        """Versions of the packages that it has imported."""
        names = [module.split(".")[0] for module in self.contender.modules]
        return {
            name: metadata.version(name)
            for name in dict.fromkeys([*names, *PACKAGES])
            if name in sys.modules
        }

    def check(self) -> None:
        """Compare the samples of an epoch with plain `isel`; raise if one differs or is missing."""
        import xarray as xr

        contender, work = self.contender, self.workload
        data = xr.open_zarr(work.store.path, **OPEN)[work.store.names]
        if contender.firsts:  # its process is thrown away then, so that it may hold all the data
            data.load()
        contender.open(work)
        self.opened = True
        most = min(COMPARED[contender.firsts], COMPARED_BYTES // work.sample_nbytes)
        share = most / contender.expected(work)
        rng = np.random.default_rng(0)
        seen, compared = [], 0
        for batch in contender.epoch():
            numbers, values = contender.look(batch)
            seen.append(np.array(numbers))
            assert values.shape[1:] == work.sample_shape and values.dtype == np.float32, values
            for row in np.flatnonzero(rng.random(len(numbers)) < share).tolist():
                cut = data.isel(work.indexers(int(numbers[row])))
                expected = cut.to_array().transpose("variable", *work.input_dims).to_numpy()
                np.testing.assert_array_equal(values[row], expected.astype(np.float32))
                compared += 1
        found, wanted = np.concatenate(seen), contender.expected(work)
        different = len(np.unique(found))
        assert len(found) == different == wanted, f"{len(found)}, {different} of {wanted} samples"
        assert compared, "no sample was compared"

    def epoch(self) -> dict[str, Any]:
        """Run one epoch and time it."""
        contender, begin = self.contender, time.perf_counter()
        if not self.opened:
            contender.open(self.workload)
        self.opened = True
        samples, first_batch, batch = 0, 0.0, None
        for batch in contender.epoch():
            first_batch = first_batch or time.perf_counter() - begin
            samples += contender.count(batch)
        seconds = time.perf_counter() - begin
        wanted = contender.expected(self.workload)
        assert samples == wanted, f"{samples} of {wanted} samples"
        # The limit times itself.
        details = batch if isinstance(batch, dict) else contender.details()
        found = {"seconds": seconds, "first_batch": first_batch, **details}
        return {**found, "rate": samples / found["seconds"]}
