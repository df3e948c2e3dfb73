"""Samples around events: next to a Dataset that slices the store for each of them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .contenders import Ours, Tutorial
from .race import race, rounds, say
from .report import Table, costs
from .stores import Store
from .workloads import Workload

EVENTS = 4_000
MANY = 1_000_000  # that are planned
SIZES = {"time": 8, "latitude": 32, "longitude": 32}


@dataclass(frozen=True)
class Events(Workload):
    """Windows around events, which are anywhere, in no order."""

    count: int = field(kw_only=True)

    @cached_property
    def begins(self) -> dict[str, Any]:
        """By dim, where the window of each event begins."""
        rng, sizes = np.random.default_rng(0), self.store.sizes
        return {
            dim: rng.integers(0, sizes[dim] - size + 1, self.count) for dim, size in SIZES.items()
        }

    @property
    def samples(self) -> int:
        return self.count

    def indexers(self, number: int) -> dict[str, slice | int]:
        return {
            dim: slice(int(self.begins[dim][number]), int(self.begins[dim][number]) + size)
            for dim, size in SIZES.items()
        }

    def centers(self, data: Any) -> dict[str, Any]:
        """Labels of the events: those of the middle of their windows."""
        return {dim: data[dim].values[self.begins[dim] + size // 2] for dim, size in SIZES.items()}

    @property
    def touched(self) -> float:
        """The share of the chunks that windows lie in."""
        grids = [-(-size // c) for size, c in zip(self.store.shape, self.store.chunks, strict=True)]
        there = np.zeros(grids, dtype=bool)
        for number in range(self.count):
            cuts = zip(self.indexers(number).values(), self.store.chunks, strict=True)
            there[tuple(slice(c.start // n, -(-c.stop // n)) for c, n in cuts)] = True
        return float(there.mean())


def make_events(quick: bool) -> Events:
    """Events over hourly fields in chunks of a tile."""
    sizes = {"time": 256 if quick else 1024, "latitude": 181, "longitude": 360}
    store = Store("events", sizes, (16, 61, 60), variables=2)
    count = EVENTS // 4 if quick else EVENTS
    return Events("events", store, SIZES, {}, 32, memory=2**28, count=count)


@dataclass
class Around(Ours):
    """The events as centers."""

    def _loader(self, how: dict[str, Any]) -> Any:
        import xtorch_data as xtd

        work = self.work
        assert isinstance(work, Events)
        self.dataset = xtd.IterableDataset(
            self.data,
            SIZES,
            centers=work.centers(self.data),
            inputs=work.store.names,
            batch_size=work.batch_size,
            **how,
        )
        return self.dataset


def seconds_to_plan(work: Events) -> float:
    """Seconds to find the windows of very many events, and to plan an epoch of them."""
    import xtorch_data as xtd

    data = work.opened()
    many = Events("", work.store, SIZES, {}, 32, count=MANY)
    centers = many.centers(data)
    found = []
    for _ in range(3):
        begin = time.perf_counter()
        dataset = xtd.IterableDataset(
            data, SIZES, centers=centers, inputs=work.store.names, shuffle=True
        )
        found.append(time.perf_counter() - begin)
        assert dataset.plan.samples == MANY
    return min(found)


def table_events(quick: bool) -> Table:
    """Samples a second, bytes read for each that is stored, and memory."""
    work = make_events(quick)
    work.store.make()
    frame = race(
        {
            "shuffled": Around("xtorch_data, shuffled"),
            "in order": Around("xtorch_data, in order", how={"shuffle": False}),
            "by hand": Tutorial("Dataset that slices zarr.Array"),
            "workers": Tutorial("the same, 2 workers", workers=2),
        },
        work,
        rounds(quick),
    )
    say("events: planning")
    seconds, touched = seconds_to_plan(work), work.touched
    stored = work.store.warm() * touched
    per_sample = frame["slow"].astype(bool)
    read = frame["fetched"] / np.where(per_sample, work.slow_samples, work.samples)
    frame = frame.assign(
        **{
            "samples/s": frame["rate"],
            "of the Dataset": frame["rate"] / frame["rate"]["by hand"],
            "bytes read / stored": read * work.samples / stored,
            "peak above imports, MiB": frame["peak, MiB"],
        }
    )
    nbytes = math.prod(SIZES.values()) * 4 * work.store.variables
    text = (
        f"{work.samples:,} events, in no order, over {touched:.0%} of the chunks of 16 × 61 × 60. "
        f"A window of {' × '.join(map(str, SIZES.values()))} steps and {work.store.variables} "
        f"variables has {nbytes / 2**10:.0f} KiB, `memory` is 256 MiB. To find the windows of "
        f"{MANY:,} events and plan an epoch takes {seconds:.1f} s."
    )
    names = ["samples/s", "of the Dataset", "bytes read / stored", "peak above imports, MiB"]
    return costs("events", text, frame, names)
