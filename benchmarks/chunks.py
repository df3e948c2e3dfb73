"""Data that others have cut: by dask, and in chunks that do not fit the windows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .contenders import Contender, Ours
from .race import race, rounds
from .report import MIB, Table, Target, costs
from .stores import ZARRS, Store, bench_dir
from .workloads import Workload, make_workload


def derived(block: Any) -> Any:
    """Work that takes longer than reading: two variables from four."""
    speed = np.hypot(block["v00"] - 280, block["v01"] - 280)
    return block.assign(v00=np.tanh(speed / 8), v01=np.exp(-speed) * block["v02"])


@dataclass
class Dask(Ours):
    """In order; a function is `preprocess` without dask, else applied to the opened data."""

    derives: bool = False
    chunks: dict[str, int] | None = None  # of dask
    tolerance = 1e-5

    def _opened(self) -> Any:
        data, plain = self.work.opened(chunks=self.chunks), self.chunks is None
        self.how = {"preprocess": derived} if self.derives and plain else {}
        return derived(data) if self.derives and not plain else data

    def _loader(self, how: dict[str, Any]) -> Any:
        from distributed import Client, LocalCluster

        options = {"threads_per_worker": 1, "dashboard_address": ":0"}
        cluster = self.workers and LocalCluster(n_workers=self.workers, **options)
        self.scheduler = Client(cluster) if cluster else "threads"
        self.dataset = self.work.dataset(self.data, **how)
        return self.dataset

    def epoch(self) -> Iterator[Any]:
        import dask

        with dask.config.set(scheduler=self.scheduler):
            yield from self.loader

    def truth(self, data: Any) -> Any:
        return derived(data) if self.derives else data


def table_dask(quick: bool) -> Table:
    """Samples per second of the three ways, for a plain read and for work, in order."""
    work, steps = make_workload("forecast-16", quick), 256 if quick else 2048
    store = replace(work.store, name="dask", sizes={**work.store.sizes, "time": steps})
    work = replace(work, store=store, input_overlap={})
    ways = {
        "without dask": {"chunks": None},
        "dask, threads": {"chunks": {}},
        "dask, LocalCluster of 2": {"chunks": {}, "workers": 2},
    }
    frames = []
    for name, derives in (("read", False), ("derive", True)):
        racing = {way: Dask(f"{name}: {way}", derives=derives, **how) for way, how in ways.items()}
        frame = race(racing, work, rounds(quick)).rename(columns={"rate": "samples/s"})
        rate = frame["samples/s"]
        frames.append(frame.assign(**{"of the rate without dask": rate / rate["without dask"]}))
    text = (
        f"{steps} steps of forecast-16 in order, 8 to a sample. `derive` is a function of xarray: "
        "`preprocess` without dask, else applied to the opened data."
    )
    return costs("dask", text, pd.concat(frames), ["samples/s", "of the rate without dask"])


SECONDS, MEMORY, COPY_MEMORY = 5.0, 32 * MIB, 512 * MIB  # of datasets, and of the copy


@dataclass
class Stored(Ours):
    """A store, or a copy of it."""

    path: str | None = None

    def _opened(self) -> Any:
        return self.work.opened(self.path)


@dataclass
class Copy(Contender):
    """A store copied in other chunks: by `rechunk`, or read and written without it."""

    like: str = ""  # the path of a copy, for its chunks
    verify: bool = False
    modules = ("torch", "xtorch_data", "zarrs")

    def epoch(self) -> Iterator[Any]:
        import zarr

        self.folder = tempfile.mkdtemp(dir=bench_dir())
        path = Path(self.folder, "copy.zarr")
        if not self.like:
            rechunked(self.work, path, self.verify)
            return iter(())
        with zarr.config.set(ZARRS):
            like = zarr.open_group(self.like)["v00"]
            values = zarr.open_group(self.work.store.path)["v00"][:]
            same = {"compressors": like.compressors, "dtype": like.dtype}
            zarr.create_array(path, shape=like.shape, chunks=like.chunks, **same)[:] = values
        return iter(())

    def expected(self) -> None:
        return None

    def details(self) -> dict[str, Any]:
        shutil.rmtree(self.folder)
        return {}


def rechunked(work: Workload, path: Path, verify: bool) -> None:
    """Copy the store of a workload in chunks that fit its windows."""
    import xtorch_data as xtd

    dataset = work.dataset(work.opened(), memory=work.memory, shuffle=True)
    xtd.rechunk(work.opened(), dataset, path, memory=COPY_MEMORY, progress=False, verify=verify)


def table_rechunk(quick: bool) -> Table:
    """Samples a second and amplification before and after; the copy next to a bare one."""
    sizes = {"time": 2048 if quick else 4096, "latitude": 121, "longitude": 240}
    store = Store("rechunk", sizes, (1, 121, 240), variables=1)
    work = Workload("rechunk", store, {"time": 365}, {"time": 182}, 256, MEMORY)
    store.make()
    with tempfile.TemporaryDirectory(dir=bench_dir()) as folder:
        copy = str(Path(folder, "copy.zarr"))
        rechunked(work, Path(copy), verify=True)
        racing = {
            "before": Stored("before", enough=SECONDS),
            "after": Stored("after", enough=SECONDS, path=copy),
            "rechunk": Copy("rechunk", verify=True),
            "unverified": Copy("rechunk, verify=False"),
            "bare": Copy("bare read and write", like=copy),
        }
        frame = race(racing, work, rounds(quick, 3), check=False)
    rate = (frame["samples"] - work.batch_size) / (frame["seconds"] - frame["first_batch"])
    speed = store.nbytes / frame["seconds"] / 1e6
    reads = frame["samples"] > 0
    frame = frame.rename(columns={"amplification": "decoded / used"})
    frame["samples/s"], frame["copied, MB/s"] = rate.where(reads), speed.mask(reads)
    text = (
        f"{' × '.join(f'{dim} {n}' for dim, n in sizes.items())} float32, chunks of a field; "
        f"windows of 365 steps of single places, every 183 steps, shuffled, over {SECONDS:.0f} s "
        "from the second batch on. Bare: read by zarr with zarrs, written in the copy's chunks."
    )
    names = ["decoded / used", "samples/s", "copied, MB/s"]
    decoded, ratio = frame["decoded / used"]["after"], speed["unverified"] / speed["bare"]
    return costs("rechunk", text, frame, names)[0], [
        Target("rechunk", "decoded / used after it", 1.25, decoded, at_most=True),
        Target("rechunk", "samples/s after / before", 2.0, rate["after"] / rate["before"]),
        Target("rechunk", "speed without verify / bare read and write", 0.5, ratio),
    ]
