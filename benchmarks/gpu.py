"""Feeding a GPU: where windows are cut, what the bus carries, and how long a step waits."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .targets import Target
from .workloads import Workload, make_workload

WORKLOADS = ("forecast-16", "patches-field", "packed")
ROUNDS = 5
OF_COPY, OF_HOST, WAITING = 0.9, 4.0, 2.0
# Of the rate of torch's loader, that of ours where no device is asked for.
OF_TORCH = 0.95
COPY_BYTES, COPIES = 2**28, 8
# Contenders that pay for every sample are timed over so many batches, others over an epoch.
SLOW_BATCHES = 4

Batches = Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Contender:
    """A way onto the GPU: what yields batches there, and whether it pays for every sample."""

    title: str
    batches: Batches
    slow: bool = False


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


def contenders(work: Workload, device: Any) -> list[Contender]:
    """Ours, and what users have today."""
    import torch
    import xbatcher
    import xbatcher.loaders.torch

    import xtorch_data as xtd

    def opened() -> Any:
        return xtd.open_zarr(work.store.path, consolidated=False)[work.store.names]

    def ours(cache: bool, **how: Any) -> Batches:
        dataset = xtd.IterableDataset(
            opened(),
            input_dims=work.input_dims,
            input_overlap=work.input_overlap,
            batch_size=work.batch_size,
            shuffle=True,
            memory=4 * work.store.nbytes if cache else work.memory,
            cache=cache,
        )
        loader = xtd.DataLoader(dataset, device=device, **how)
        return lambda: iter(loader)

    def moved(loader: Any) -> Batches:
        pinned = device.type == "cuda"
        return lambda: (
            (batch if torch.is_tensor(batch) else batch[0]).to(device, non_blocking=pinned)
            for batch in loader
        )

    def plain() -> Batches:
        """Torch's loader of the same dataset, pinned by torch."""
        dataset = xtd.IterableDataset(
            opened(),
            input_dims=work.input_dims,
            input_overlap=work.input_overlap,
            batch_size=work.batch_size,
            shuffle=True,
            memory=work.memory,
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, pin_memory=device.type == "cuda"
        )
        return lambda: (batch.to(device, non_blocking=True) for batch in loader)

    def xbatchers() -> Batches:
        generator = xbatcher.BatchGenerator(opened(), work.input_dims, work.input_overlap)
        dataset = xbatcher.loaders.torch.MapDataset(
            generator, transform=lambda item: torch.as_tensor(item.to_array().to_numpy())
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=work.batch_size, shuffle=True, pin_memory=device.type == "cuda"
        )
        return moved(loader)

    def decoded_there() -> list[Contender]:
        """Ours, with packed values sent packed."""
        return [
            Contender(f"{gather} gather{', cache=True' * cache}, decoded there", ours(cache, **how))
            for cache in (False, True)
            for gather in ("host", "device")
            for how in [{"gather": gather, "decode": "device"}]
        ]

    return [
        Contender("host gather", ours(False)),
        Contender("device gather", ours(False, gather="device")),
        Contender("host gather, cache=True", ours(True)),
        Contender("device gather, cache=True", ours(True, gather="device")),
        *(decoded_there() if work.store.packed else []),
        Contender("torch's loader of the dataset, pin_memory=True", plain()),
        Contender("xbatcher's MapDataset, pin_memory=True", xbatchers(), slow=True),
    ]


def timed(
    contender: Contender, device: Device, step: Callable[[], None] | None = None
) -> tuple[float, int, int]:
    """Seconds, samples and bytes of an epoch, or of a few batches."""
    batches = contender.batches()
    samples = nbytes = 0
    begin = time.perf_counter()
    for batch in itertools.islice(batches, SLOW_BATCHES) if contender.slow else batches:
        x = getattr(batch, "x", batch)
        samples += len(x)
        nbytes += x.nbytes
        if step is not None:
            step()
        del batch, x
    device.wait()
    return time.perf_counter() - begin, samples, nbytes


def measure(name: str, device: Device, quick: bool) -> tuple[str, list[Target]]:
    """One workload on a device."""
    work = make_workload(name, quick)
    work.store.make()
    racing = contenders(work, device.device)
    copy = device.copy_rate()
    for contender in racing:  # memory and caches are in use from here on
        timed(contender, device)
    rounds: dict[str, list[tuple[float, int, int]]] = {each.title: [] for each in racing}
    for _ in range(ROUNDS):
        for contender in racing:
            rounds[contender.title].append(timed(contender, device))
    rates, body, found = {}, [], []
    for contender in racing:
        title = contender.title
        seconds, samples, nbytes = sorted(rounds[title])[ROUNDS // 2]
        rates[title] = samples / seconds
        row = [title, f"{samples / seconds:,.0f}", f"{nbytes / seconds / 1e9:.2f}"]
        row.append(f"{nbytes / seconds / copy:.2f}")
        waiting = ""
        if not contender.slow:
            each = seconds / -(-samples // work.batch_size)
            alone, steps = each, samples // work.batch_size
            busy, *_ = timed(contender, device, device.step(alone))
            share = 100 * max(0.0, 1 - steps * alone / busy)
            waiting = f"{share:.1f}"
            if title.startswith(("host", "device")):
                found.append(
                    Target(name, f"{title}: share of steps waited, %", WAITING, share, at_most=True)
                )
        body.append([*row, waiting])
    host = rates["host gather, cache=True"] * work.sample_nbytes / copy
    found.append(Target(name, "host gather of a bare pinned copy", OF_COPY, host))
    if name.startswith("forecast"):
        ratio = rates["device gather, cache=True"] / rates["host gather, cache=True"]
        found.append(Target(name, "device gather over host gather", OF_HOST, ratio))
    lines = [
        f"\n### gpu, {name}\n",
        f"{device.title}; a bare copy from pinned memory moves {copy / 1e9:.1f} GB/s; medians of "
        f"{ROUNDS} epochs in turns.\n",
        "| | samples/s | GB/s handed over | of the bare copy | waited for, % |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in body),
        "",
    ]
    return "\n".join(lines), found


def without(quick: bool) -> tuple[str, list[Target]]:
    """What a loader costs where no device is asked for: small batches, kept in memory."""
    import torch

    import xtorch_data as xtd

    work = make_workload("stations", quick)
    work.store.make()

    def made() -> Any:
        return xtd.IterableDataset(
            xtd.open_zarr(work.store.path)[work.store.names],
            input_dims=work.input_dims,
            input_overlap=work.input_overlap,
            batch_size=work.batch_size,
            shuffle=True,
            memory=work.memory,
            cache=True,
        )

    plain = torch.utils.data.DataLoader(made(), batch_size=None, collate_fn=lambda batch: batch)
    ours, cpu = xtd.DataLoader(made()), xtd.DataLoader(made(), device="cpu")
    alone = made()
    racing = [
        Contender("the dataset alone", lambda: iter(alone)),
        Contender("torch's loader of it", lambda: iter(plain)),
        Contender("xtorch_data.DataLoader", lambda: iter(ours)),
        Contender('xtorch_data.DataLoader, device="cpu"', lambda: iter(cpu)),
    ]
    device = Device("cpu")
    rounds: dict[str, list[float]] = {each.title: [] for each in racing}
    batches = len(alone)
    for number in range(ROUNDS + 1):
        for contender in racing:
            seconds, *_ = timed(contender, device)
            if number:  # the first one fills the cache
                rounds[contender.title].append(seconds)
    medians = {title: statistics.median(found) for title, found in rounds.items()}
    torchs, own = medians["torch's loader of it"], medians["xtorch_data.DataLoader"]
    body = [
        f"| {title} | {work.samples / seconds:,.0f} | {1e6 * seconds / batches:.1f} |"
        for title, seconds in medians.items()
    ]
    lines = [
        "\n### gpu, where there is none\n",
        f"`stations` with `cache=True`: {batches:,} batches of {work.batch_size:,} samples; "
        f"medians of {ROUNDS} epochs in turns.\n",
        "| | samples/s | µs a batch |",
        "|---|---|---|",
        *body,
        "",
    ]
    target = Target("stations", "no device, of torch's own loader", OF_TORCH, torchs / own)
    return "\n".join(lines), [target]


def table(quick: bool, device: str = "cuda") -> tuple[str, list[Target]]:
    """Every workload; without a GPU, what a loader costs where none is asked for."""
    import torch

    texts, found = [], []
    text, reached = without(quick)
    texts.append(text)
    found += reached
    if device == "cuda" and not torch.cuda.is_available():
        texts.append("\n### gpu\n\nNot measured: there is no CUDA device.\n")
        return "\n".join(texts), found
    for name in WORKLOADS:
        text, reached = measure(name, Device(device), quick)
        texts.append(text)
        found += reached
    return "\n".join(texts), found


if __name__ == "__main__":
    import sys

    sys.stdout.write(table("--quick" in sys.argv, "cpu" if "--cpu" in sys.argv else "cuda")[0])
