"""Feeding a GPU: where windows are cut, what the bus carries, and how long a step waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from .contenders import CONTENDERS, Contender, Loader, Plain
from .race import race, rounds
from .report import Table, Target, costs
from .workloads import Workload, make_workload

WORKLOADS = ("forecast-16", "patches-field", "packed")
OF_COPY, OF_HOST, WAITED = 0.9, 4.0, "waited for, %"
OF_TORCH = 0.95  # of the rate of torch's loader, that of ours where no device is asked for
COPY_BYTES, COPIES = 2**28, 8
CYCLES = 10**8  # in which a GPU's clock is read


@dataclass
class OnDevice(Contender):
    """What another has, onto a device: timed until all is there, and again beside training steps.

    A step keeps the device busy for as long as a batch took. On the CPU, which is there to try
    this file, nothing is asynchronous.
    """

    inner: Contender | None = None  # None: bare copies from pinned memory
    device: str = "cuda"

    def ready(self, work: Workload) -> None:
        import torch

        self.torch, self.cuda = torch, self.device.startswith("cuda")
        if self.inner:
            self.inner.ready(work)

    def open(self, work: Workload) -> None:
        super().open(work)
        if self.inner:
            self.inner.open(work)
            return
        made = {"dtype": self.torch.uint8}
        self.host = self.torch.ones(COPY_BYTES, pin_memory=self.cuda, **made)
        self.there = self.torch.empty(COPY_BYTES, device=self.device, **made)

    def expected(self) -> None:
        return None

    def epoch(self) -> Iterator[Any]:
        self.nbytes, self.batches, begin = 0, 0, time.perf_counter()
        if not self.inner:
            for _ in range(COPIES):
                self.there.copy_(self.host, non_blocking=True)
            self.nbytes = COPIES * COPY_BYTES
        else:
            yield from self._moved()
        self._wait()
        self.took = time.perf_counter() - begin

    def count(self, batch: Any) -> int:
        return self.inner.count(batch)

    def details(self) -> dict[str, Any]:
        found = {"GB/s handed over": self.nbytes / self.took / 1e9, "seconds": self.took}
        if not self.inner or self.inner.slow:
            return found
        seconds = self.took / self.batches
        step, begin = self._step(seconds), time.perf_counter()
        for _ in self._moved():
            step()
        self._wait()
        busy = time.perf_counter() - begin
        return {**found, WAITED: 100 * max(0.0, 1 - self.batches * seconds / busy)}

    def _moved(self) -> Iterator[Any]:
        device = self.torch.device(self.device)
        self.nbytes = self.batches = 0
        for batch in self.inner.epoch():
            values = self.inner.parts(batch)[1]
            if values.device.type != device.type:
                values = values.to(device, non_blocking=self.cuda)
            self.nbytes, self.batches = self.nbytes + values.nbytes, self.batches + 1
            yield batch

    def _wait(self) -> None:
        if self.cuda:
            self.torch.cuda.synchronize()

    def _step(self, seconds: float) -> Any:
        """A training step that keeps the device busy for a known time."""
        if not self.cuda:
            return lambda: time.sleep(seconds)
        self.torch.cuda._sleep(CYCLES)
        self._wait()
        begin = time.perf_counter()
        self.torch.cuda._sleep(CYCLES)
        self._wait()
        cycles = int(CYCLES * seconds / (time.perf_counter() - begin))
        return lambda: self.torch.cuda._sleep(cycles)


def measure(name: str, device: str, quick: bool) -> Table:
    """One workload on a device."""
    work = make_workload(name, quick)
    pinned, shuffled = {"pin_memory": device != "cpu"}, {"": "shuffled", ", cache=True": "cached"}
    racing: dict[str, Contender | None] = {"a bare copy from pinned memory": None}
    for there in (False, True) if work.store.packed else (False,):
        for which, key in shuffled.items():
            for gather in ("host", "device"):
                loading = {
                    "device": device,
                    "gather": gather,
                    **({"decode": "device"} if there else {}),
                }
                title = f"{gather} gather{which}{', decoded there' * there}"
                racing[title] = replace(CONTENDERS[key], loading=loading)
    racing["torch's loader of the dataset, pin_memory=True"] = Plain("", loading=pinned)
    theirs = replace(CONTENDERS["xbatcher"], loading=pinned)
    racing["xbatcher's MapDataset, pin_memory=True"] = theirs
    moving = {title: OnDevice(title, inner=each, device=device) for title, each in racing.items()}
    frame = race(moving, work, 1 + rounds(quick), check=False)
    rate = frame["GB/s handed over"]
    frame["of the bare copy"] = rate / rate.iloc[0]
    frame["samples/s"] = frame["rate"].where(frame["samples"] > 0)
    host, there = rate["host gather, cache=True"], rate["device gather, cache=True"]
    found = [Target(name, "host gather of a bare pinned copy", OF_COPY, host / rate.iloc[0])]
    if name.startswith("forecast"):
        found.append(Target(name, "device gather over host gather", OF_HOST, there / host))
    names = ["samples/s", "GB/s handed over", "of the bare copy", WAITED]
    waiting = {WAITED: pd.Series({title: 2.0 for title in racing if " gather" in title}, racing)}
    text, waited = costs(f"gpu, {name}", f"Onto {device}.", frame, names, waiting)
    return text, found + waited


def without(quick: bool) -> Table:
    """What a loader costs where no device is asked for: small batches, kept in memory."""
    work = make_workload("stations", quick)
    cached = replace(CONTENDERS["cached"], store_memory=0)
    how = {"how": cached.how}
    frame = race({
        "alone": replace(cached, title="the dataset alone"),
        "torch": Plain("torch's loader of it", **how),
        "ours": Loader("xtorch_data.DataLoader", **how),
        "cpu": Loader('xtorch_data.DataLoader, device="cpu"', loading={"device": "cpu"}, **how),
    }, work, 1 + rounds(quick))  # fmt: skip
    seconds = frame["seconds"]
    frame["µs a batch"] = 1e6 * seconds / -(-work.samples // work.batch_size)
    frame["samples/s"] = frame["rate"]
    text = f"`stations` with `cache=True`, batches of {work.batch_size:,} samples."
    text, _ = costs("gpu, where there is none", text, frame, ["samples/s", "µs a batch"])
    ratio = seconds["torch"] / seconds["ours"]
    return text, [Target("stations", "no device, of torch's own loader", OF_TORCH, ratio)]


def table_gpu(quick: bool, device: str = "cuda") -> Table:
    """Every workload; without a GPU, what a loader costs where none is asked for."""
    import torch

    text, found = without(quick)
    if device == "cuda" and not torch.cuda.is_available():
        return text + "\n### gpu\n\nNot measured: there is no CUDA device.\n", found
    for name in WORKLOADS:
        more, targets = measure(name, device, quick)
        text, found = text + more, found + targets
    return text, found
