"""What data of dask costs: by threads, by a cluster of processes, and the same without dask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .report import Target, in_turns, median, rounds, rows
from .workloads import make_workload

WORKERS = 2  # of the cluster, with a thread each
PLAIN, THREADS, CLUSTER = "without dask", "dask, threads", f"dask, LocalCluster of {WORKERS}"


def read(block: Any) -> Any:
    """Nothing but a read."""
    return block


def derive(block: Any) -> Any:
    """Work that takes longer than reading: two variables from four."""
    speed = np.hypot(block["v00"] - 280, block["v01"] - 280)
    return block.assign(v00=np.tanh(speed / 8), v01=np.exp(-speed) * block["v02"])


def table_dask(quick: bool) -> tuple[str, list[Target]]:
    """Samples per second of the three ways, for a plain read and for work, in order."""
    import dask
    from distributed import Client, LocalCluster

    import xtorch_data as xtd

    work = make_workload("forecast-16", quick)
    work.store.make()
    steps, count = 256 if quick else 2048, rounds(quick)

    def epoch(function: Callable[[Any], Any], chunks: Any, client: Any = None) -> Callable[[], Any]:
        """A function that runs an epoch, read in one of the ways: what tells batches apart."""
        data = xtd.open_zarr(work.store.path, consolidated=False, chunks=chunks)
        data = data[work.store.names].isel(time=slice(0, steps))
        preprocess = function if chunks is None and function is not read else None
        data = data if chunks is None else function(data)
        how = {"inputs": work.store.names, "preprocess": preprocess, "batch_size": work.batch_size}
        dataset = xtd.IterableDataset(data, work.input_dims, **how)

        def run() -> list[Any]:
            with dask.config.set(scheduler=client or "threads"):
                return [
                    (batch.index.tolist(), float(batch.x[:, :, ::4].sum())) for batch in dataset
                ]

        return run

    body = []
    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": ":0"}
    for function in (read, derive):
        with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
            ways = {
                PLAIN: epoch(function, None),
                THREADS: epoch(function, {}),
                CLUSTER: epoch(function, {}, client),
            }
            runs = in_turns(ways, count + 1)  # the first warms up
        expected = runs[PLAIN][0]["value"]
        rates = {}
        for name, each in runs.items():
            for found, wanted in zip(each[0]["value"], expected, strict=True):
                assert found[0] == wanted[0] and np.isclose(found[1], wanted[1], rtol=1e-5), name
            samples = sum(len(numbers) for numbers, _ in expected)
            rates[name] = samples / median(each[1:], "seconds")
            title = f"{function.__name__}: {name}"
            body.append([title, f"{rates[name]:,.0f}", f"{rates[name] / rates[PLAIN]:.2f}"])
    text = (
        f"\n### dask\n\n{steps} steps of {work.name} in order, 8 to a sample, batches of "
        f"{work.batch_size}; medians of {count} interleaved epochs in one process, which gave the "
        "same batches in all three ways. `derive` is a function of xarray: `preprocess` without "
        "dask, else applied to the opened data.\n\n"
    )
    return text + rows(["", "samples/s", "of the rate without dask"], body), []
