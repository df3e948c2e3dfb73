"""Tables of single costs: memory, growth, states, planning, caches on disk."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import psutil
from s3_server import Server

from . import remote
from .contenders import CONTENDERS, Loader, Ours
from .race import race, rounds
from .report import MIB, Table, costs
from .speed import allowed_memory
from .stores import Store, bench_dir
from .workloads import Workload, make_workload

SHUFFLED, ORDERED = {"shuffle": True}, {"shuffle": False}


def table_memory(quick: bool) -> Table:
    """Peak memory of epochs over a store ten times the budget."""
    work = replace(make_workload("long", quick), batch_size=8)
    racing = {key: CONTENDERS[key] for key in ("in order", "shuffled", "workers")}
    frame = race(racing, work, 2, check=False)
    allowed, workers = pd.Series(allowed_memory(work), frame.index), racing["workers"].workers
    allowed["workers"] = workers * (allowed["workers"] + frame["begun"]["workers"] / MIB)
    text = (
        f"forecast-16, {work.store.nbytes / MIB:,.0f} MiB, with `memory` of "
        f"{work.memory / MIB:.0f} MiB and batches of {work.batch_nbytes / MIB:.0f} MiB, 2 epochs. "
        "Allowed above imports: memory + 4 batches + 200 MB; with workers, that and the imports "
        "for each of them."
    )
    return costs("memory", text, frame, ["peak, MiB"], {"peak, MiB": allowed})


SECONDS, PAUSE = 4.0, 0.05  # of batches, with a pause after each: all is there that may be
EXPLAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "shuffled": ("forecast-16", {}),
    "in order": ("forecast-16", ORDERED),
    "a step a chunk": ("forecast-1", {}),
    "long chunks": ("forecast-64", {}),
    "not compressed": ("forecast-64-raw", {}),
    "shards": ("forecast-sharded", {}),
    "packed": ("packed", {}),
    "bfloat16": ("forecast-16", {"dtype": "bfloat16"}),
    "float64": ("forecast-16", {"dtype": "float64"}),
    "kept": ("forecast-16", {"cache": True, "memory": 1024 * MIB}),
    "patches of fields": ("patches-field", {}),
    "patches of tiles": ("patches-tiles", {}),
    "patches in order": ("patches-tiles", ORDERED),
    "stations": ("stations", {"memory": 32 * MIB}),
}


@dataclass
class Explained(Ours):
    """A dataset whose memory is predicted, and counted above what it takes to open it."""

    def ready(self, work: Workload) -> None:
        import torch

        super().ready(work)
        if "dtype" in self.how:
            self.how = {**self.how, "dtype": getattr(torch, self.how["dtype"])}
        few = work.opened().isel(time=slice(0, work.size("time")))
        next(iter(work.dataset(few, **self.how)))  # what is imported late, and stacks of threads
        super().open(work)

    def open(self, work: Workload) -> None:
        """Nothing: it is open."""

    def epoch(self) -> Iterator[Any]:
        for batch in super().epoch():
            yield batch
            time.sleep(PAUSE)

    def details(self) -> dict[str, Any]:
        peak = self.dataset.explain().peak_memory
        of = {"predicted, MiB": peak.nbytes, "in blocks": peak.blocks, "in batches": peak.batches}
        return {name: nbytes / MIB for name, nbytes in {**of, "passing": peak.passing}.items()}


def table_explain(quick: bool) -> Table:
    """The memory that `explain` predicts, and what a process takes; small stores in any case."""
    frames = []
    for title, (name, how) in EXPLAINED.items():
        work, how = make_workload(name, True), {**SHUFFLED, "memory": 128 * MIB, **how}
        enough = float("inf") if "cache" in how else SECONDS  # until the cache is full
        racing = {title: Explained(f"{title} ({name})", how=how, enough=enough)}
        sizes = {"data, MiB": work.store.nbytes / MIB, "memory, MiB": how["memory"] / MIB}
        frames.append(race(racing, work, 1, check=False).assign(**sizes))
    frame = pd.concat(frames)
    frame["predicted / counted"] = frame["predicted, MiB"] / frame["peak, MiB"]
    frame["off by, %"] = 100 * abs(frame["predicted / counted"] - 1)
    text = (
        "`peak_memory` as predicted, and the highest resident memory of a process above what it "
        f"took with the store opened, over {SECONDS:.0f} s of batches, a pause after each."
    )
    names = ["data, MiB", "memory, MiB", "predicted, MiB", "in blocks", "in batches", "passing",
             "peak, MiB", "predicted / counted"]  # fmt: skip
    return costs("explain", text, frame, names, {"off by, %": 10})


SETTLED, COMPARED = 10, 5  # epochs until all caches are full; whose median is compared


@dataclass
class Growing(Loader):
    """A loader that runs many epochs in one; workers live on from one to the next."""

    epochs: int = 50

    def expected(self) -> int:
        return self.epochs * super().expected()

    def epoch(self) -> Iterator[Any]:
        self.private: list[list[int]] = []  # bytes after an epoch: of this process, of workers
        for _ in range(self.epochs):
            yield from super().epoch()
            time.sleep(0.2)  # workers clear up after their last batch
            workers = self.loader._iterator._workers if self.workers else []
            pids = [None, *(worker.pid for worker in workers)]
            self.private.append([psutil.Process(pid).memory_full_info().uss for pid in pids])

    def details(self) -> dict[str, Any]:
        early, late = (
            np.median(self.private[cut], axis=0)
            for cut in (slice(SETTLED, SETTLED + COMPARED), slice(-COMPARED, None))
        )
        growth = 100 * (late / early - 1)
        found = {"training, MiB": late[0] / MIB, "training, growth in %": growth[0]}
        return {**found, "workers, growth in %": growth[1:].max(initial=-np.inf)}


def table_growth(quick: bool) -> Table:
    """Private memory over many epochs, which is a matter of their number, not of their size."""
    work = replace(make_workload("forecast-16", True), batch_size=8, memory=128 * MIB)
    epochs = 25 if quick else 50
    racing = {n: Growing(f"{n} workers", workers=n, epochs=epochs) for n in (0, 2)}
    frame = race(racing, work, 1, check=False).replace(-np.inf, np.nan)
    text = (
        f"{work.name}, {work.store.nbytes / MIB:,.0f} MiB, {epochs} epochs in one run, batches of "
        f"{work.batch_size}, `memory` of 128 MiB. Growth of private memory is that of the median "
        f"of {COMPARED} epochs, from epoch {SETTLED} to the last."
    )
    grown = dict.fromkeys(("training, growth in %", "workers, growth in %"), 5)
    return costs("growth", text, frame, ["training, MiB", *grown], grown)


@dataclass
class Saving(Loader):
    """A loader that is asked for its state at every batch."""

    resumed: int = 0  # how often before

    def expected(self) -> int | None:
        return None if self.resumed else super().expected()

    def epoch(self) -> Iterator[Any]:
        for taken in range(self.resumed):
            stream = iter(self.loader)
            for _ in range(taken + 1):
                next(stream)
            self.loader.load_state_dict(self.loader.state_dict())
        self.taking, self.working, self.states, self.begun = 0.0, 0.0, [], time.perf_counter()
        for batch in self.loader:
            working, start = time.thread_time(), time.perf_counter()
            self.states.append(self.loader.state_dict())
            self.taking += time.perf_counter() - start
            self.working += time.thread_time() - working
            yield batch

    def details(self) -> dict[str, Any]:
        return {
            "batches": len(self.states),
            "a state, µs": 1e6 * self.taking / len(self.states),
            "of it CPU time, µs": 1e6 * self.working / len(self.states),
            "share of the epoch, %": 100 * self.taking / (time.perf_counter() - self.begun),
            "largest, bytes as JSON": max(len(json.dumps(state)) for state in self.states),
        }


def table_state(quick: bool) -> Table:
    """What it costs to take a state at every batch."""
    work, title = make_workload("forecast-16", quick), "an epoch that was resumed 3 times"
    racing = {"whole": Saving("a whole epoch"), "resumed": Saving(title, resumed=3)}
    frame = race(racing, work, rounds(quick), check=False)
    text = f"{work.name}, batches of {work.batch_size}, `loader.state_dict()` after every batch."
    most = {"share of the epoch, %": 1, "largest, bytes as JSON": 4096}
    shown = ["batches", "a state, µs", "of it CPU time, µs", *most]
    return costs("state", text, frame, shown, most)


RANKS, WORKERS, PROCESSES = 4096, 8, 3


@dataclass
class Planned(Ours):
    """A petabyte, opened but not planned: an epoch is the plan of one."""

    firsts: bool = True

    def ready(self, work: Workload) -> None:
        super().ready(work)
        begin = time.perf_counter()
        self.data, self.work = work.opened(), work
        self.opening = time.perf_counter() - begin

    def open(self, work: Workload) -> None:
        """Nothing: it is open."""

    def expected(self) -> None:
        return None

    def epoch(self) -> Iterator[Any]:
        """From making the dataset to what the last worker reads first."""
        plan = self.work.dataset(self.data, **self.how).plan
        intervals = plan.intervals(0, RANKS - 1, RANKS, WORKERS - 1, WORKERS)
        next(plan.stages(0, intervals)).order()
        return iter(())

    def details(self) -> dict[str, Any]:
        return {"opening": self.opening, "planned": self.work.samples}


def table_planning(quick: bool) -> Table:
    """Time and memory to plan a petabyte, each in a fresh process; as quick as can be anyway."""
    sizes = {"time": 1_000_029, "station": 1_000_000}
    stations = Store("planned-stations", sizes, (1_000, 1_000), 250, empty=True)
    sizes, windows = {"time": 256_007, "y": 20_000, "x": 50_000}, {"time": 8, "y": 32, "x": 32}
    grid = Store("planned-grid", sizes, (16, 1_000, 1_000), 1, empty=True)
    frames = []
    for work in (
        Workload("stations", stations, {"time": 30}, {"time": 29}, 1024),
        Workload("gridded", grid, windows, {"time": 7, "y": 16, "x": 16}, 64),
    ):
        racing = {
            name: Planned(f"{work.name}, {name}", how=how)
            for name, how in (("shuffled", SHUFFLED), ("in order", ORDERED))
        }
        frame = race(racing, work, 0, PROCESSES, check=False)
        frames.append(frame.assign(**{"bytes": work.store.nbytes, "samples": work.samples}))
    frame = pd.concat(frames).rename(
        columns={"seconds first": "planning, s", "opening first": "opening, s"}
    )
    frame["memory, MB"] = frame["peak first"] / 1e6
    text = (
        f"From making the dataset to the plan of the first stage, for the last of {RANKS:,} ranks "
        f"× {WORKERS} workers; no data is read; medians of {PROCESSES} processes."
    )
    most = {"planning, s": 1.0, "memory, MB": 200.0}
    return costs("planning", text, frame, ["samples", "bytes", "opening, s", *most], most)


def table_disk(quick: bool) -> Table:
    """What caches gain where every request takes 20 ms; the last finds what another has left."""
    if not remote.INSTALLED:
        return remote.MISSING.format("disk"), []
    with Server(bench_dir()) as server, tempfile.TemporaryDirectory() as folder:
        ways = {"none": False, "in memory": True, "on disk": folder, "on disk, found": folder}
        racing = {
            name: Ours(name, firsts=True, how={**SHUFFLED, "cache": cache}, store_memory=3)
            for name, cache in ways.items()
        }
        work = make_workload("remote", True)
        frame = race(racing, work, rounds(quick), 1, check=False, server=server)
    frame = frame.rename(columns={"seconds first": "first epoch, s", "seconds": "later epochs, s"})
    frame["MB fetched in a later one"] = frame["fetched"] / 1e6
    names = ["first epoch, s", "later epochs, s", "MB fetched in a later one"]
    return costs("disk", "The quick `remote` workload, 0.25 GB, with caches.", frame, names)
