"""What data of dask costs: by threads, by a cluster of processes, and the same without dask."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .targets import Target
from .workloads import make_workload

WORKLOAD = "forecast-16"
WORKERS = 2  # of the cluster, with a thread each
PLAIN, THREADS, CLUSTER = "without dask", "dask, threads", f"dask, LocalCluster of {WORKERS}"
STEPS = {True: 256, False: 2048}  # of the store, if quick


def read(block: Any) -> Any:
    """Nothing but a read."""
    return block


def derive(block: Any) -> Any:
    """Work that takes longer than reading: two variables from four."""
    speed = np.hypot(block["v00"] - 280, block["v01"] - 280)
    return block.assign(v00=np.tanh(speed / 8), v01=np.exp(-speed) * block["v02"])


def table(quick: bool) -> tuple[str, list[Target]]:
    """Samples per second of the three ways, for a plain read and for work, in order."""
    from distributed import Client, LocalCluster

    from . import report

    work = make_workload(WORKLOAD, quick)
    work.store.make()
    steps = slice(0, STEPS[quick])
    rounds = int(os.environ.get("ROUNDS") or (2 if quick else 5))
    body = []
    for function in (read, derive):
        rates: dict[str, list[float]] = {PLAIN: [], THREADS: [], CLUSTER: []}
        options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0"}
        with LocalCluster(**options) as cluster:
            for turn in range(rounds + 1):  # the first is there for the check, and to warm up
                with Client(cluster, set_as_default=False) as client:
                    ways = {
                        PLAIN: _epoch(work, function, steps, None),
                        THREADS: _epoch(work, function, steps, {}),
                        CLUSTER: _epoch(work, function, steps, {}, client),
                    }
                    if not turn:
                        _compare([[_digest(batch) for batch in way()] for way in ways.values()])
                        continue
                    for name, way in ways.items():
                        begin = time.perf_counter()
                        samples = sum(len(batch) for batch in way())
                        rates[name].append(samples / (time.perf_counter() - begin))
        medians = {name: statistics.median(each) for name, each in rates.items()}
        for name, rate in medians.items():
            body.append([f"{function.__name__}: {name}", f"{rate:,.0f}", _ratio(rate, medians)])
    text = (
        f"\n### dask\n\n{STEPS[quick]} steps of {work.name} in order, 8 to a sample, batches of "
        f"{work.batch_size}; medians of {rounds} interleaved epochs in one process, which gave the "
        "same batches in all three ways. `derive` is a function of xarray: `preprocess` without "
        "dask, else applied to the opened data.\n\n"
    )
    return text + report.rows(["", "samples/s", "of the rate without dask"], body), []


def _ratio(rate: float, medians: dict[str, float]) -> str:
    return f"{rate / medians[PLAIN]:.2f}"


def _epoch(
    work: Any, function: Callable[[Any], Any], steps: slice, chunks: Any, client: Any = None
) -> Callable[[], Iterable[Any]]:
    """A function that begins an epoch, read in one of the ways."""
    import dask

    import xtorch_data as xtd

    data = xtd.open_zarr(work.store.path, consolidated=False, chunks=chunks).isel(time=steps)
    dataset = xtd.IterableDataset(
        data if chunks is None else function(data),
        input_dims=work.input_dims,
        inputs=work.store.names,
        preprocess=function if chunks is None and function is not read else None,
        batch_size=work.batch_size,
    )

    def epoch() -> Iterable[Any]:
        with dask.config.set(scheduler=client or "threads"):
            yield from dataset

    return epoch


def _digest(batch: Any) -> tuple[list[int], float, float]:
    """What tells batches apart, up to the order of sums."""
    x = batch.x.double()
    return batch.index.tolist(), float(x.sum()), float(x.square().sum())


def _compare(epochs: list[list[tuple[list[int], float, float]]]) -> None:
    """Raise if they are not of the same batches."""
    for number, (expected, *others) in enumerate(zip(*epochs, strict=True)):
        for other in others:
            if other[0] != expected[0] or not np.allclose(other[1:], expected[1:], rtol=1e-6):
                raise AssertionError(f"batch {number} differs")
