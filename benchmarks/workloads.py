"""The workloads: which windows over which store, in batches of how many."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .stores import OPEN, Store

NAMES = (
    *(f"forecast-{layout}" for layout in ("1", "16", "64", "64-raw", "sharded")),
    *("patches-field", "patches-tiles", "stations", "giant", "packed", "remote"),
    *("long", "chunks-2", "chunks-4", "chunks-8", "chunks-32", "many-2", "many-30"),
)


@dataclass(frozen=True)
class Workload:
    """Windows over a store. Samples are numbered in C order, dims without a window first."""

    name: str
    store: Store
    input_dims: dict[str, int]
    input_overlap: dict[str, int]
    batch_size: int
    memory: int = 2**30  # bytes
    slow_samples: int = 64  # what contenders are timed over that pay for every sample
    endpoint: str = ""  # of the S3 server that the store is read through; "" for none

    @cached_property
    def dims(self) -> list[str]:
        """Dims of the sample space, slowest first."""
        return [d for d in self.store.sizes if d not in self.input_dims] + list(self.input_dims)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of windows along each of `dims`."""
        sizes = self.store.sizes
        return tuple((sizes[dim] - self.size(dim)) // self.stride(dim) + 1 for dim in self.dims)

    def size(self, dim: str) -> int:
        return self.input_dims.get(dim, 1)

    def stride(self, dim: str) -> int:
        return self.size(dim) - self.input_overlap.get(dim, 0)

    @property
    def samples(self) -> int:
        return math.prod(self.shape)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.store.variables, *self.input_dims.values())

    @property
    def sample_nbytes(self) -> int:
        return math.prod(self.sample_shape) * 4

    @property
    def batch_nbytes(self) -> int:
        return self.batch_size * self.sample_nbytes

    def indexers(self, number: int) -> dict[str, slice | int]:
        """What plain `isel` takes to cut a sample; independent of every contender."""
        places = np.unravel_index(number, self.shape)
        starts = {d: int(at) * self.stride(d) for d, at in zip(self.dims, places, strict=True)}
        return {
            d: slice(start, start + self.size(d)) if d in self.input_dims else start
            for d, start in starts.items()
        }

    def opened(self, source: Any = None, **options: Any) -> Any:
        """The store's variables, opened by xtorch_data; by default from its folder."""
        import xtorch_data as xtd

        source = self.store.path if source is None else source
        return xtd.open_zarr(source, **{**OPEN, **options})[self.store.names]

    def dataset(self, data: Any, **how: Any) -> Any:
        """The windows as an `xtorch_data.IterableDataset`."""
        import xtorch_data as xtd

        default = {"inputs": list(data.data_vars), "batch_size": self.batch_size}
        return xtd.IterableDataset(data, self.input_dims, self.input_overlap, **{**default, **how})


def make_workload(name: str, quick: bool) -> Workload:
    """One workload by name; `quick` makes smaller stores."""
    kind, _, layout = name.partition("-")
    globe = {"latitude": 721, "longitude": 1440}
    if name == "remote":
        return replace(make_workload("forecast-16", quick), name=name)
    if name == "long":
        work = make_workload("forecast-16", quick)
        return replace(work, name=name, memory=work.store.nbytes // 10)
    if name == "stations":
        sizes = {"time": 2_000 if quick else 20_000, "station": 500}
        store = Store(name, sizes, (2_000, 50), variables=1)
        return Workload(name, store, {"time": 30}, {"time": 29}, 1024, slow_samples=1024)
    if name == "giant":
        store = Store(name, {"time": 12 if quick else 40, **globe}, (1, 721, 1440), variables=20)
        return Workload(name, store, {"time": 2, **globe}, {"time": 1}, 1, slow_samples=6)
    if kind == "many":
        degrees, steps = {"latitude": 181, "longitude": 360}, int(layout)
        store = Store(kind, {"time": 64 if quick else 256, **degrees}, (1, 181, 360), variables=51)
        windows, overlap = {"time": steps, **degrees}, {"time": steps - 1}
        return Workload(name, store, windows, overlap, 1, slow_samples=6)
    if kind == "patches":
        chunks = (1, 721, 1440) if layout == "field" else (1, 181, 360)
        store = Store(name, {"time": 16 if quick else 64, **globe}, chunks, variables=2)
        windows, overlap = {"latitude": 64, "longitude": 64}, {"latitude": 32, "longitude": 32}
        return Workload(name, store, {"time": 2, **windows}, overlap, 64, slow_samples=128)
    field = {"latitude": 121, "longitude": 240}
    steps = {"": 16, "sharded": 1, "64-raw": 64}.get(layout) or int(layout)
    store = Store(
        f"forecast-{layout}" if layout else name,
        {"time": 512 if quick else 2048, **field},
        (steps, *field.values()),
        variables=4,
        shards=(64, *field.values()) if layout == "sharded" else None,
        compressed=layout != "64-raw",
        packed=name == "packed",
    )
    return Workload(name, store, {"time": 8, **field}, {"time": 7}, batch_size=32)
