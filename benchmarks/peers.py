"""Other ways from a store to batches."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import remote
from .contenders import FILES, Contender
from .stores import OPEN
from .workloads import Workload


class PerSample(Contender):
    """A dataset with `__getitem__` behind torch's loader, over a few samples spread out."""

    slow = True
    modules: tuple[str, ...] = ("torch", "xarray")

    def dataset(self) -> Any:
        raise NotImplementedError

    @property
    def expected(self) -> int:
        return min(self.workload.slow_samples, self.workload.samples)

    def open(self) -> None:
        import torch.utils.data

        dataset = self.dataset()
        rng = np.random.default_rng(0)
        self.order = rng.choice(min(len(dataset), self.workload.samples), self.expected, False)
        options: dict[str, Any] = {}
        if self.workers:
            options = {
                "num_workers": self.workers,
                "multiprocessing_context": "forkserver",
                "persistent_workers": True,
            }
        self.loader = torch.utils.data.DataLoader(
            dataset, self.workload.batch_size, sampler=self.order.tolist(), **options
        )

    def epoch(self) -> Iterator[Any]:
        self.looked = 0
        return iter(self.loader)

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        numbers = self.order[self.looked : self.looked + len(batch)]
        self.looked += len(batch)
        return numbers, batch.numpy()


class Xbatcher(PerSample):
    title = "xbatcher, lazy Zarr"
    groups = (*FILES, "remote")
    modules = ("torch", "xarray", "xbatcher.loaders.torch")
    chunks: dict[str, int] | None = None
    open_with = "xarray"

    def dataset(self) -> Any:
        import xarray as xr
        import xbatcher
        import xbatcher.loaders.torch

        import xtorch_data as xtd

        work = self.workload
        options = {**OPEN, "chunks": self.chunks}
        opener = xtd.open_zarr if self.open_with == "zarrs" else xr.open_zarr
        data = opener(remote.source(work), **options)[work.store.names]
        alone = [dim for dim in work.dims if dim not in work.input_dims]
        if alone:  # xbatcher lists every window; of ten million it cannot
            data = data.isel({dim: slice(0, 2) for dim in alone})
        generator = xbatcher.BatchGenerator(
            data,
            input_dims={**dict.fromkeys(alone, 1), **work.input_dims},
            input_overlap=work.input_overlap,
            preload_batch=False,
        )
        return xbatcher.loaders.torch.MapDataset(generator, transform=_Stacked(work.sample_shape))


class _Stacked:
    """xbatcher's own `to_tensor` takes one variable only."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, sample: Any) -> Any:
        import torch

        values = sample.to_array().values.astype(np.float32, copy=False)
        return torch.from_numpy(values.reshape(self.shape))


class XbatcherZarrs(Xbatcher):
    title = "xbatcher, lazy Zarr read by zarrs"
    groups = FILES
    open_with = "zarrs"


class XbatcherDask(Xbatcher):
    title = "xbatcher, dask"
    chunks: dict[str, int] | None = {}


class XbatcherWorkers(Xbatcher):
    title = "xbatcher, lazy Zarr, 2 workers"
    groups = FILES
    workers = 2


class Tutorial(PerSample):
    title = "Dataset that slices zarr.Array"
    groups = ("forecast", "patches", "stations", "giant")
    modules = ("torch", "zarr")

    def dataset(self) -> Any:
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


class InSituBatch(Contender):
    """Shuffled inside blocks of chunks, as it does; it keeps what it has decoded for later epochs.

    Its batches hold each step of a window as an array of its own; they are not stacked here, which
    is one copy less than the others make.
    """

    title = "insitubatch (later epochs from its cache)"
    modules = ("insitubatch", "xarray")
    groups = ("forecast", "giant", "remote")
    firsts = True
    other_python = True

    def open(self) -> None:
        import insitubatch

        work = self.workload
        if work.endpoint:
            store = insitubatch.obstore_store(remote.url(work), **remote.options(work))
        else:
            store = insitubatch.obstore_store(f"file://{work.store.path}")
        names = work.store.names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays = insitubatch.open_geometries(store, variables=names)
        steps = range(work.input_dims["time"])
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

    def look(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        stacked = np.stack([batch.stack(labels) for labels in self.labels], axis=1)
        return batch.sample_indices, stacked


PEERS: list[type[Contender]] = [
    Xbatcher,
    XbatcherZarrs,
    XbatcherDask,
    XbatcherWorkers,
    Tutorial,
    InSituBatch,
]
