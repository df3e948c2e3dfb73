"""Those who race: each opens a store and runs epochs over a workload. Ours stand here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .workloads import Workload

# In the environment of insitubatch there is neither torch nor xtorch_data: contenders import what
# they race with when they are made.


class Contender:
    """One way from the store to batches."""

    title = ""
    modules: tuple[str, ...] = ()  # imported before memory is counted
    groups: tuple[str, ...] = ("forecast", "patches", "stations", "giant", "packed")
    slow = False  # pays for every sample: timed over `Workload.slow_samples`
    workers = 0
    firsts = False  # whether several first epochs are worth their time
    other_python = False

    def __init__(self, workload: Workload, **options: Any) -> None:
        self.workload = workload
        self.options = options

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

    def details(self) -> dict[str, float]:
        """What it says itself of the epoch that has ended."""
        return {}

    @property
    def expected(self) -> int:
        """Samples in an epoch."""
        return self.workload.samples


class Ours(Contender):
    title = "xtorch_data, shuffled"
    modules = ("torch", "xtorch_data")
    firsts = True
    shuffle = True
    cache = False

    @property
    def memory(self) -> str | int:
        return self.workload.memory

    def open(self) -> None:
        import xtorch_data as xtd

        work = self.workload
        self.dataset = xtd.IterableDataset(
            xtd.open_zarr(work.store.path, consolidated=False),
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

    def details(self) -> dict[str, float]:
        if self.workers:  # each accounts for itself
            return {}
        stats = self.dataset.stats()
        seconds = {stage: getattr(stats, stage) for stage in ("read", "prepare", "gather", "wait")}
        return {**seconds, "decoded": stats.bytes_read}


class OursInOrder(Ours):
    title = "xtorch_data, in order"
    shuffle = False


class OursCached(Ours):
    title = "xtorch_data, shuffled, cache=True"
    groups = ("forecast",)
    firsts = False
    cache = True

    @property
    def memory(self) -> str | int:
        return 3 * self.workload.store.nbytes


class OursWorkers(Ours):
    title = "xtorch_data, shuffled, 2 workers"
    firsts = False
    workers = 2


def contenders() -> dict[str, type[Contender]]:
    """Every contender by name, the limit among them."""
    from .limit import Limit
    from .peers import PEERS

    kinds = [Ours, OursInOrder, OursCached, OursWorkers, *PEERS, Limit]
    return {kind.__name__: kind for kind in kinds}


def versions(modules: tuple[str, ...]) -> dict[str, str]:
    """Versions of the packages that a contender has imported."""
    from importlib import metadata

    found = {}
    for name in (*modules, "zarr", "zarrs", "xarray", "numpy", "torch", "xbatcher", "numcodecs"):
        package = name.split(".")[0]
        if package in sys.modules:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[package] = getattr(sys.modules[package], "__version__", "?")
    return found
