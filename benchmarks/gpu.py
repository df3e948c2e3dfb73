"""Feeding a GPU: where windows are cut, what the bus carries, and how long a step waits."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .contenders import CONTENDERS, Contender, Plain
from .report import Target, rows
from .workloads import Workload, make_workload

WORKLOADS = ("forecast-16", "patches-field", "packed")
ROUNDS = 5
OF_COPY, OF_HOST, WAITING = 0.9, 4.0, 2.0
OF_TORCH = 0.95  # of the rate of torch's loader, that of ours where no device is asked for
COPY_BYTES, COPIES = 2**28, 8
SLOW_BATCHES = 4  # that contenders are timed over which pay for every sample

Took = tuple[float, int, int]  # seconds, samples, bytes


class Device:
    """A GPU's clock. On the CPU, which is there to try this file, nothing is asynchronous."""

    def __init__(self, name: str) -> None:
        import torch

        self.torch, self.device = torch, torch.device(name)
        self.cuda = self.device.type == "cuda"
        self.title = torch.cuda.get_device_name(self.device) if self.cuda else "CPU, as a trial"

    def wait(self) -> None:
        """Until all that was asked of it is done."""
        if self.cuda:
            self.torch.cuda.synchronize(self.device)

    def copy_rate(self) -> float:
        """Bytes a second of bare copies from pinned memory."""
        host = self.torch.empty(COPY_BYTES, dtype=self.torch.uint8, pin_memory=self.cuda)
        there = self.torch.empty(COPY_BYTES, dtype=self.torch.uint8, device=self.device)
        rates = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            for _ in range(COPIES):
                there.copy_(host, non_blocking=True)
            self.wait()
            rates.append(COPIES * COPY_BYTES / (time.perf_counter() - begin))
        return statistics.median(rates)

    def step(self, seconds: float) -> Callable[[], None]:
        """A training step that keeps the device busy for a known time."""
        if not self.cuda:
            return lambda: time.sleep(seconds)
        cycles = 10_000_000
        self.torch.cuda._sleep(cycles)
        self.wait()
        begin = time.perf_counter()
        self.torch.cuda._sleep(10 * cycles)
        self.wait()
        wanted = int(10 * cycles * seconds / (time.perf_counter() - begin))
        return lambda: self.torch.cuda._sleep(wanted)

    def timed(self, contender: Contender, step: Callable[[], None] | None = None) -> Took:
        """What an epoch took until all of it was there, or a few batches."""
        samples = nbytes = 0
        begin = time.perf_counter()
        most = SLOW_BATCHES if contender.slow else None
        for batch in itertools.islice(self._moved(contender), most):
            x = getattr(batch, "x", batch)
            samples += len(x)
            nbytes += x.nbytes
            if step is not None:
                step()
            del batch, x
        self.wait()
        return time.perf_counter() - begin, samples, nbytes

    def _moved(self, contender: Contender) -> Iterator[Any]:
        for batch in contender.epoch():
            there = getattr(batch, "x", batch).device == self.device
            yield batch if there else batch.to(self.device, non_blocking=self.cuda)


def identity(batch: Any) -> Any:
    """As the dataset made it."""
    return batch


def race(
    racing: list[Contender], work: Workload, device: Device
) -> dict[str, tuple[Contender, Took]]:
    """Median epochs in turns; the first brings memory and caches into use."""
    for contender in racing:
        contender.open(work)
        device.timed(contender)
    rounds: dict[str, list[Took]] = {each.title: [] for each in racing}
    for _ in range(ROUNDS):
        for contender in racing:
            rounds[contender.title].append(device.timed(contender))
    return {each.title: (each, sorted(rounds[each.title])[ROUNDS // 2]) for each in racing}


def measure(name: str, device: Device, quick: bool) -> tuple[str, list[Target]]:
    """One workload on a device."""
    work = make_workload(name, quick)
    work.store.make()
    shuffled, cached = CONTENDERS["shuffled"], CONTENDERS["cached"]
    pinned = {"pin_memory": device.cuda}
    racing = [
        replace(of, title=f"{gather} gather{which}{', decoded there' * decoded}", loading={
            "device": device.device, "gather": gather, **({"decode": "device"} if decoded else {})
        })
        for decoded in ((False, True) if work.store.packed else (False,))
        for of, which in ((shuffled, ""), (cached, ", cache=True"))
        for gather in ("host", "device")
    ]  # fmt: skip
    plain = {"collate_fn": identity, **pinned}
    racing += [
        Plain("torch's loader of the dataset, pin_memory=True", loading=plain),
        replace(
            CONTENDERS["xbatcher"], title="xbatcher's MapDataset, pin_memory=True", loading=pinned
        ),  # noqa: E501
    ]
    copy = device.copy_rate()
    rates, body, found = {}, [], []
    for title, (contender, (seconds, samples, nbytes)) in race(racing, work, device).items():
        rates[title] = samples / seconds
        waiting = ""
        if not contender.slow:
            steps = samples // work.batch_size
            each = seconds / -(-samples // work.batch_size)
            busy, *_ = device.timed(contender, device.step(each))
            share = 100 * max(0.0, 1 - steps * each / busy)
            waiting = f"{share:.1f}"
            if title.startswith(("host", "device")):
                what = f"{title}: share of steps waited, %"
                found.append(Target(name, what, WAITING, share, at_most=True))
        rate = nbytes / seconds
        figures = [f"{rates[title]:,.0f}", f"{rate / 1e9:.2f}", f"{rate / copy:.2f}", waiting]
        body.append([title, *figures])
    host = rates["host gather, cache=True"] * work.sample_nbytes / copy
    found.append(Target(name, "host gather of a bare pinned copy", OF_COPY, host))
    if name.startswith("forecast"):
        ratio = rates["device gather, cache=True"] / rates["host gather, cache=True"]
        found.append(Target(name, "device gather over host gather", OF_HOST, ratio))
    text = (
        f"\n### gpu, {name}\n\n{device.title}; a bare copy from pinned memory moves "
        f"{copy / 1e9:.1f} GB/s; medians of {ROUNDS} epochs in turns.\n\n"
    )
    head = ["", "samples/s", "GB/s handed over", "of the bare copy", "waited for, %"]
    return text + rows(head, body), found


def without(quick: bool) -> tuple[str, list[Target]]:
    """What a loader costs where no device is asked for: small batches, kept in memory."""
    work = make_workload("stations", quick)
    work.store.make()
    cached = replace(CONTENDERS["cached"], store_memory=0)
    own, torchs = "xtorch_data.DataLoader", "torch's loader of it"
    racing = [
        replace(cached, title="the dataset alone"),
        Plain(torchs, how=cached.how, loading={"collate_fn": identity}),
        replace(cached, title=own, loading={"num_workers": 0}),
        replace(cached, title=f'{own}, device="cpu"', loading={"device": "cpu"}),
    ]
    raced = race(racing, work, Device("cpu"))
    seconds = {title: took[0] for title, (_, took) in raced.items()}
    batches = -(-work.samples // work.batch_size)
    body = [
        [title, f"{work.samples / each:,.0f}", f"{1e6 * each / batches:.1f}"]
        for title, each in seconds.items()
    ]
    text = (
        f"\n### gpu, where there is none\n\n`stations` with `cache=True`: {batches:,} batches of "
        f"{work.batch_size:,} samples; medians of {ROUNDS} epochs in turns.\n\n"
    )
    what = "no device, of torch's own loader"
    target = Target("stations", what, OF_TORCH, seconds[torchs] / seconds[own])
    return text + rows(["", "samples/s", "µs a batch"], body), [target]


def table_gpu(quick: bool, device: str = "cuda") -> tuple[str, list[Target]]:
    """Every workload; without a GPU, what a loader costs where none is asked for."""
    import torch

    text, found = without(quick)
    if device == "cuda" and not torch.cuda.is_available():
        return text + "\n### gpu\n\nNot measured: there is no CUDA device.\n", found
    for name in WORKLOADS:
        more, targets = measure(name, Device(device), quick)
        text, found = text + more, found + targets
    return text, found
