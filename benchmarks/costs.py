"""Tables of single costs: memory, growth, states, planning, caches. Each `table_…` makes one."""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from typing import Any

import psutil
from s3_server import Server

from . import remote
from .child import Child
from .contenders import CONTENDERS
from .race import allowed_memory, entry, line, timed
from .report import MIB, Target, in_turns, median, rounds, rows
from .stores import bench_dir
from .workloads import make_workload

Table = tuple[str, list[Target]]
WORKLOAD = "forecast-16"
SHUFFLED = {"shuffle": True}

# ---------------------------------------------------------------------------------------------


def table_memory(quick: bool) -> Table:
    """Peak memory of epochs over a store ten times the budget."""
    work, batch_size, epochs = make_workload(WORKLOAD, quick), 8, 2
    work.store.make()
    memory, batch = work.store.nbytes // 10, batch_size * work.sample_nbytes
    found = []
    for key in ("in order", "shuffled", "workers"):
        contender = CONTENDERS[key]
        how = {**contender.how, "memory": memory, "batch_size": batch_size}
        with entry(key, WORKLOAD, quick, how=how) as child:
            peak = max(timed(child)["peak"] for _ in range(epochs))
            allowed = allowed_memory(memory, batch)
            if contender.workers:  # each has a budget and imports of its own
                allowed = contender.workers * (allowed + child.begun / MIB)
        what = f"{contender.title}: peak above imports, MiB"
        found.append(Target("memory", what, allowed, peak / MIB, at_most=True))
    text = (
        f"\n### memory\n\n{work.name}, {work.store.nbytes / MIB:,.0f} MiB, with `memory` of "
        f"{memory / MIB:.0f} MiB and batches of {batch / MIB:.0f} MiB; the highest resident memory "
        f"of the process tree in {epochs} epochs, above what the first process took after its "
        "imports. Allowed in one process: memory + 4 batches + 200 MB. With workers: that and the "
        "imports for each of them.\n\n"
    )
    return text + "".join(f"- {line(target)}\n" for target in found), found


# ---------------------------------------------------------------------------------------------

EXPLAIN_MEMORY = 128 * MIB
BATCHES, PAUSE = 40, 0.05  # batches taken, with a pause after each: all is there that may be
PERCENT = 10
EXPLAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "shuffled": (WORKLOAD, SHUFFLED),
    "in order": (WORKLOAD, {}),
    "a step a chunk": ("forecast-1", SHUFFLED),
    "long chunks": ("forecast-64", SHUFFLED),
    "not compressed": ("forecast-64-raw", SHUFFLED),
    "shards": ("forecast-sharded", SHUFFLED),
    "packed": ("packed", SHUFFLED),
    "bfloat16": (WORKLOAD, {"shuffle": True, "dtype": "bfloat16"}),
    "float64": (WORKLOAD, {"shuffle": True, "dtype": "float64"}),
    "kept": (WORKLOAD, {"shuffle": True, "cache": True, "memory": 1024 * MIB}),
    "patches of fields": ("patches-field", SHUFFLED),
    "patches of tiles": ("patches-tiles", SHUFFLED),
    "patches in order": ("patches-tiles", {}),
    "stations": ("stations", {"shuffle": True, "memory": 32 * MIB}),
}


class Explained:
    """A dataset whose memory is predicted, and then counted."""

    def __init__(self, name: str, how: dict[str, Any]) -> None:
        import torch

        work = make_workload(name, quick=True)
        if "dtype" in how:
            how["dtype"] = getattr(torch, how["dtype"])
        self.how = {"memory": EXPLAIN_MEMORY, **how}
        few = work.opened().isel(time=slice(0, work.size("time")))
        next(iter(work.dataset(few, **self.how)))  # what is imported late, and stacks of threads
        self.dataset = work.dataset(**self.how)

    def predicted(self) -> dict[str, int]:
        """Bytes, in all and of what."""
        peak = self.dataset.explain().peak_memory
        names = ("nbytes", "blocks", "batches", "passing")
        return {name: getattr(peak, name) for name in names}

    def epoch(self) -> None:
        """Take batches, all of them where the cache fills."""
        for number, _batch in enumerate(self.dataset):
            time.sleep(PAUSE)
            if number == BATCHES and not self.how.get("cache"):
                break


def table_explain(quick: bool) -> Table:
    """The memory that `explain` predicts, and what a process takes; small stores in any case."""
    body, found = [], []
    for title, (name, how) in EXPLAINED.items():
        work = make_workload(name, quick=True)
        work.store.make()
        with Child("costs:Explained", name, how) as child:
            predicted = child.call("predicted").value
            before = child.resident()
            counted = child.call("epoch").peak - before
        ratio = predicted["nbytes"] / counted
        off = 100 * abs(ratio - 1)
        found.append(Target("explain", f"{title}: off by, %", PERCENT, off, at_most=True))
        memory = how.get("memory", EXPLAIN_MEMORY)
        figures = [work.store.nbytes, memory, *predicted.values(), counted]
        body.append([title, name, *(f"{each / MIB:,.0f}" for each in figures), f"{ratio:.2f}"])
    text = (
        f"\n### explain\n\n`peak_memory` as predicted, and the highest resident memory of a "
        f"process above what it took with the store opened, over {BATCHES} batches with a pause of "
        f"{PAUSE:.2f} s after each. Wanted: within {PERCENT} %.\n\n"
    )
    head = ["case", "workload", "data, MiB", "memory, MiB", "predicted, MiB", "in blocks",
            "in batches", "passing", "counted, MiB", "predicted / counted"]  # fmt: skip
    return text + rows(head, body), found


# ---------------------------------------------------------------------------------------------

SETTLED, COMPARED = 10, 5  # epochs until all caches are full; whose median is compared
GROWTH_PERCENT = 5


class Growing:
    """A loader that runs many epochs; workers live on from one to the next."""

    def __init__(self, workers: int, batch_size: int) -> None:
        import xtorch_data as xtd

        work = make_workload(WORKLOAD, quick=True)
        dataset = work.dataset(batch_size=batch_size, shuffle=True, memory="128 MiB")
        self.loader = xtd.DataLoader(dataset, workers, persistent_workers=bool(workers))
        self.workers = workers

    def epoch(self) -> list[int]:
        """Private bytes after an epoch: of this process, and of the workers."""
        for _batch in self.loader:
            pass
        _batch = None
        time.sleep(0.2)  # workers clear up after their last batch
        workers = self.loader._iterator._workers if self.workers else []
        processes = [psutil.Process(), *(psutil.Process(worker.pid) for worker in workers)]
        return [process.memory_full_info().uss for process in processes]


def table_growth(quick: bool) -> Table:
    """Private memory over many epochs."""
    work = make_workload(WORKLOAD, quick=True)  # growth is a matter of epochs, not of their size
    work.store.make()
    epochs, batch_size = 25 if quick else 50, 8
    shown = [1, SETTLED, epochs // 2, epochs]
    body, found = [], []
    for workers in (0, 2):
        with Child("costs:Growing", workers, batch_size) as child:
            runs = [child.call("epoch").value for _ in range(epochs)]
        for place, sizes in enumerate(zip(*runs, strict=True)):
            name = f"worker {place - 1}" if place else "training"
            early, late = (
                median([{"uss": size} for size in part], "uss")
                for part in (sizes[SETTLED : SETTLED + COMPARED], sizes[-COMPARED:])
            )
            growth = 100 * (late / early - 1)
            figures = [f"{sizes[epoch - 1] / MIB:,.0f}" for epoch in shown]
            body.append([str(workers), name, *figures, f"{growth:+.1f}"])
            what = f"{workers} workers, {name} process: growth of private memory, %"
            found.append(Target("growth", what, GROWTH_PERCENT, growth, at_most=True))
    text = (
        f"\n### growth\n\n{work.name}, {work.store.nbytes / MIB:,.0f} MiB, {epochs} epochs in one "
        f"run, batches of {batch_size}, `memory` of 128 MiB; private memory after an epoch. Growth "
        f"is that of the median of {COMPARED} epochs, from epoch {SETTLED} to the last.\n\n"
    )
    head = ["workers", "process", *(f"epoch {epoch}, MiB" for epoch in shown), "growth, %"]
    return text + rows(head, body), found


# ---------------------------------------------------------------------------------------------

STATE_PERCENT, STATE_BYTES = 1, 4096


def table_state(quick: bool) -> Table:
    """What it costs to take a state at every batch."""
    import xtorch_data as xtd

    work = make_workload(WORKLOAD, quick)
    work.store.make()

    def run(resumed: int) -> dict[str, float]:
        loader = xtd.DataLoader(work.dataset(shuffle=True))
        for _ in loader:  # memory is in use from here on
            pass
        for taken in range(resumed):
            stream = iter(loader)
            for _ in range(taken + 1):
                next(stream)
            loader.load_state_dict(loader.state_dict())
        taking, begin, states = 0.0, time.perf_counter(), []
        for _ in loader:
            start = time.perf_counter()
            states.append(loader.state_dict())
            taking += time.perf_counter() - start
        return {
            "share": 100 * taking / (time.perf_counter() - begin),
            "each": 1e6 * taking / len(states),
            "bytes": max(len(json.dumps(state)) for state in states),
            "batches": len(states),
        }

    ways = {"a whole epoch": 0, "an epoch that was resumed 3 times": 3}
    count = rounds(quick)
    runs = in_turns({what: lambda n=n: run(n) for what, n in ways.items()}, count)
    body, found = [], []
    for what, each in runs.items():
        of = {
            name: median([one["value"] for one in each], name)
            for name in ("share", "each", "bytes", "batches")
        }
        figures = [f"{of['batches']:.0f}", f"{of['each']:,.0f}", f"{of['share']:.2f}"]
        body.append([what, *figures, f"{of['bytes']:.0f}"])
        share = Target("state", f"{what}: share of its time, %", STATE_PERCENT, of["share"], True)
        found += [
            share,
            Target("state", f"{what}: bytes of a state", STATE_BYTES, of["bytes"], True),
        ]  # noqa: E501
    text = (
        f"\n### state\n\n{work.name}, batches of {work.batch_size}, `loader.state_dict()` after "
        f"every batch; medians of {count} epochs.\n\n"
    )
    head = ["", "batches", "a state, µs", "share of the epoch, %", "largest, bytes as JSON"]
    return text + rows(head, body), found


# ---------------------------------------------------------------------------------------------

RANKS, WORKERS = 4096, 8
SECONDS, MB, RUNS = 1.0, 200.0, 3
# Zarr arrays without a single chunk written; a sample is float32.
PLANNED: dict[str, dict[str, Any]] = {
    "stations": {
        "sizes": {"time": 1_000_029, "station": 1_000_000},
        "chunks": (1_000, 1_000),
        "variables": 250,  # 4 TB each
        "input_dims": {"time": 30},
        "input_overlap": {"time": 29},
        "batch_size": 1024,
    },
    "gridded": {
        "sizes": {"time": 256_007, "y": 20_000, "x": 50_000},
        "chunks": (16, 1_000, 1_000),
        "variables": 1,
        "input_dims": {"time": 8, "y": 32, "x": 32},
        "input_overlap": {"time": 7, "y": 16, "x": 16},
        "batch_size": 64,
    },
}


class Planned:
    """A petabyte, opened but not planned."""

    def __init__(self, name: str) -> None:
        import numpy as np
        import torch  # noqa: F401  # which is no part of planning
        import xarray as xr
        import zarr

        import xtorch_data as xtd

        warnings.simplefilter("ignore")
        self.case = PLANNED[name]
        sizes = self.case["sizes"]
        self.folder = tempfile.TemporaryDirectory()
        coords = {dim: np.arange(size) for dim, size in sizes.items()}
        coords["time"] = np.datetime64("1980-01-01", "ns") + coords["time"] * np.timedelta64(1, "h")
        xr.Dataset(coords=coords).to_zarr(self.folder.name, consolidated=False, zarr_format=3)
        group = zarr.open_group(self.folder.name, mode="a")
        for number in range(self.case["variables"]):
            group.create_array(
                f"v{number:03d}", shape=tuple(sizes.values()), chunks=self.case["chunks"],
                dtype="float32", dimension_names=list(sizes),
            )  # fmt: skip
        begin = time.perf_counter()
        self.data = xtd.open_zarr(self.folder.name, consolidated=False)
        self.opening = time.perf_counter() - begin

    def plan(self, shuffle: bool) -> dict[str, float]:
        """From making the dataset to what the last worker reads first."""
        import xtorch_data as xtd

        names = ("input_dims", "input_overlap", "batch_size")
        how = {name: self.case[name] for name in names}
        begin = time.perf_counter()
        dataset = xtd.IterableDataset(self.data, shuffle=shuffle, **how)
        intervals = dataset.plan.intervals(0, RANKS - 1, RANKS, WORKERS - 1, WORKERS)
        next(dataset.plan.stages(0, intervals)).order()
        seconds = time.perf_counter() - begin
        of = {"samples": len(dataset.windows), "bytes": self.data.nbytes, "opening": self.opening}
        return {**of, "seconds": seconds}


def table_planning(quick: bool) -> Table:
    """Time and memory to plan a petabyte, each in a fresh process; as quick as can be anyway."""
    body, found = [], []
    for name in PLANNED:
        for order in ("shuffled", "in order"):
            runs = []
            for _ in range(RUNS):
                with Child("costs:Planned", name) as child:
                    answer = child.call("plan", order == "shuffled")
                    runs.append({**answer.value, "grew": (answer.peak - child.begun) / 1e6})
            of = {key: median(runs, key) for key in runs[0]}
            found += [
                Target("planning", f"{name}, {order}, s", SECONDS, of["seconds"], True),
                Target("planning", f"{name}, {order}, MB", MB, of["grew"], True),
            ]
            sizes = [f"{of['samples']:.3g}", f"{of['bytes']:.3g}"]
            times = [f"{of['opening']:.2f}", f"{of['seconds']:.3f}", f"{of['grew']:.0f}"]
            body.append([f"{name}, {order}", *sizes, *times])
    text = (
        f"\n### planning\n\nFrom making the dataset to the plan of the first stage, for the last "
        f"of {RANKS:,} ranks × {WORKERS} workers; no data is read; medians of {RUNS} processes. "
        f"Wanted: under {SECONDS:.0f} s and {MB:.0f} MB, by which resident memory grew.\n\n"
    )
    head = ["case", "samples", "bytes", "opening, s", "planning, s", "memory, MB"]
    return text + rows(head, body), found


# ---------------------------------------------------------------------------------------------


def table_disk(quick: bool) -> Table:
    """What caches gain where every request takes 20 ms; the last finds what another has left."""
    if remote.MISSING:
        return f"\n### disk\n\nNot measured: {remote.MISSING}.\n", []
    make_workload("remote", True).store.make()
    body = []
    with Server(bench_dir()) as server, tempfile.TemporaryDirectory() as folder:
        ways = {"False": False, "True": True, "a folder": folder, "the folder, found": folder}
        for name, cache in ways.items():
            given = {"how": {"shuffle": True, "cache": cache}, "store_memory": 3}
            with entry("shuffled", "remote", True, server.endpoint, **given) as child:
                first, *later = (timed(child) for _ in range(1 + rounds(quick)))
            fetched = f"{later[-1]['decoded'] / 1e6:,.0f}"
            fastest = min(epoch["seconds"] for epoch in later)
            body.append([name, f"{first['seconds']:.2f}", f"{fastest:.2f}", fetched])
    head = ["cache", "first epoch, s", "later epochs, s", "MB fetched in a later one"]
    text = "\n### disk\n\nThe quick `remote` workload, 0.25 GB; the fastest later epoch.\n\n"
    return text + rows(head, body), []
