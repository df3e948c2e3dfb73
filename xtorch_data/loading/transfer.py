"""The way of batches to the device that a loader was asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from ..common.text import format_bytes
from ..datasets.iterable import IterableDataset
from ..device.decode import Unpacker
from ..device.gather import DeviceGather
from ..device.streams import (
    COPIES_UNDER_WAY,
    PinnedBuffers,
    Streams,
    arrived,
    as_device,
    of_this_thread,
    on_device,
)
from ..iteration.epoch_reader import EpochReader
from ..planning.intervals import Interval, total
from ..planning.plan import Plan
from ..report.device_costs import DeviceCosts, device_costs
from ..report.explain import explain
from ..report.explanation import Explanation
from ..report.memory import PeakMemory, batch_nbytes
from ..samples.arguments import as_bytes, as_prefetch
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.facts import needs_host
from ..samples.packing import Packed, packed
from ..samples.tensors import has_streams

__all__ = ["Transfer"]


@dataclass(eq=False)
class Transfer:
    """The way of batches onto a device.

    Made by `of`, which checks what a loader is asked for, and kept as long as the loader; the
    thread that iterates touches it.
    """

    device: torch.device
    prefetch: int  # batches that are there, or on their way, ahead of the one in use
    memory: int | None  # bytes of blocks there; None where windows are cut on the host
    packed: Packed | None  # what is sent instead of decoded values
    stream: EpochReader | None  # what reads that
    memory_format: torch.memory_format | None
    _devices: dict[torch.device, _There] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: Any,
        num_workers: int,
        device: Any,
        *,
        prefetch: int,
        gather: str,
        device_memory: int | str | None,
        decode: str,
        memory_format: torch.memory_format | None,
    ) -> Transfer | None:
        """Check what a loader is asked for; None where no device is.

        The parameters are those of `xtorch_data.DataLoader`; of a ``Subset``, what it is of.
        """
        prefetch = as_prefetch(prefetch)
        for name, value in {"gather": gather, "decode": decode}.items():
            if value not in ("host", "device"):
                raise ValueError(f"{name} must be 'host' or 'device', not {value!r}")
        if device_memory is not None and gather == "host":
            raise ValueError("device_memory is for blocks, which are sent with gather='device'")
        if memory_format is not None and not isinstance(memory_format, torch.memory_format):
            raise TypeError(
                "memory_format must be a torch.memory_format, such as torch.channels_last, not "
                f"{memory_format!r}"
            )
        if device is None:
            asked = {
                "gather='device' cuts windows on a device": gather == "device",
                "decode='device' decodes on a device": decode == "device",
                "memory_format says how tensors lie on a device": memory_format is not None,
            }
            for what in (what for what, given in asked.items() if given):
                raise ValueError(f"{what}: give device=, too")
            return None
        found, samples = as_device(device), dataset._inside.definition
        _require_dtypes(samples, found)
        known = stream = nbytes = None
        if decode == "device":
            known = _packed(dataset, num_workers)
            stream = dataset._inside.streaming(known.samples)
        if gather == "device":
            _require_cuts(dataset, num_workers, found)
            layouts = (samples if known is None else known.samples).layouts
            nbytes = _device_memory(dataset.plan.held_as(layouts), device_memory)
        return cls(found, prefetch, nbytes, known, stream, memory_format)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_devices": {}}  # streams are those of this process

    def __str__(self) -> str:
        where = {"gather": self.memory is not None, "decode": self.packed is not None}
        there = [f"{name}='device'" for name, chosen in where.items() if chosen]
        return f"{self.device} by {' and '.join(there)}" if there else str(self.device)

    @property
    def pins(self) -> bool:
        """Whether copies are faster from page-locked memory, and go on meanwhile."""
        return has_streams(self.device)

    def made(
        self, dataset: IterableDataset, epoch: int, pinned: bool
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch that was begun, before they are moved.

        `pinned` says whether what is sent may lie in page-locked memory.
        """
        buffers = PinnedBuffers if pinned and self.pins else None
        return dataset._inside.batches(epoch, self.stream, self._there().gather, buffers)

    def moved(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """Batches on the device. Whatever goes wrong there ends the epoch at once."""
        there = self._there()
        with closing(batches), closing(self._arriving(batches, there)) as arriving:
            if self.memory_format is None:
                yield from arriving
            else:
                yield from map(partial(_laid_out, there.device, self.memory_format), arriving)

    def _arriving(self, batches: Iterator[Batch], there: _There) -> Generator[Batch, None, None]:
        if there.gather is not None:
            return arrived(batches, there.streams)
        if there.unpacker is not None:
            batches = map(there.unpacker.signed, batches)
        return on_device(batches, there.streams, self.prefetch, there.unpacker)

    def _there(self) -> _There:
        """State on the device of the thread that iterates."""
        device = of_this_thread(self.device)
        if device not in self._devices:
            self._devices[device] = _There.of(device, self.packed, self.memory)
        return self._devices[device]

    def explained(self, dataset: IterableDataset, found: Explanation, pinned: bool) -> Explanation:
        """Explanation of the next epoch, `found` without a device, with its costs on the device."""
        inside, plan = dataset._inside, dataset.plan
        pinned = pinned and self.pins and not found.num_workers
        ranks, epoch = len(found.batches_per_rank), dataset.epoch
        sent = inside.definition if self.packed is None else self.packed.samples
        if self.memory is not None or self.stream is not None or pinned:
            stream = self.stream or inside.reader
            found = explain(
                sent,
                stream.data,
                plan.held_as(sent.layouts),
                epoch,
                ranks,
                found.num_workers,
                None if self.stream else inside.on_disk,
                on_device=self.memory is not None,
                pinned=pinned,
                stretches=inside.what.stretches(),
            )
        largest = max(plan.shares(epoch, ranks, found.num_workers), key=_total)
        costs = device_costs(
            str(self.device),
            inside.definition,
            self.packed,
            plan,
            epoch,
            [interval for part in largest for interval in part],
            self.prefetch,
            self.memory,
        )
        batch = batch_nbytes(sent, plan.batch_size or 1, pinned)
        peak = self._host_peak(found.peak_memory, plan, costs, batch)
        nbytes = inside.definition.nbytes
        return replace(found, sample_nbytes=nbytes, peak_memory=peak, device=costs)

    def _host_peak(
        self, peak: PeakMemory, plan: Plan, costs: DeviceCosts, batch: int
    ) -> PeakMemory:
        """Most bytes on the host, with what is there for the sake of the device."""
        blocks, batches = peak.blocks, peak.batches
        if self.memory is not None:
            # Memory of blocks that were sent is idle, in whatever sizes, up to what there may be.
            blocks = max(blocks, min(plan.memory, costs.sent))
        elif peak.batches:
            copied = self.prefetch + 1 + COPIES_UNDER_WAY * self.pins
            batches += min(copied, -(-costs.sent // costs.batch_nbytes)) * batch
        nbytes = peak.nbytes - peak.blocks - peak.batches + blocks + batches
        return replace(peak, nbytes=nbytes, blocks=blocks, batches=batches)


@dataclass(frozen=True, eq=False)
class _There:
    """State of a loader on a device, kept from one epoch to the next.

    Above all its streams: memory that a stream has let go of, torch keeps for that stream alone.
    """

    device: torch.device
    streams: Streams
    unpacker: Unpacker | None
    gather: DeviceGather | None

    @classmethod
    def of(cls, device: torch.device, packed: Packed | None, memory: int | None) -> _There:
        """State where blocks may take so many bytes, or are not sent."""
        unpacker = None if packed is None else Unpacker(packed, device)
        gather = None if memory is None else DeviceGather(device, memory, unpacker)
        streams = Streams.of(device) if gather is None else gather.gathering
        if unpacker is not None:
            unpacker.used_on(streams)
        return cls(device, streams, unpacker, gather)


def _total(parts: Iterable[Sequence[Interval]]) -> int:
    return sum(map(total, parts))


def _packed(dataset: Any, num_workers: int) -> Packed:
    """The samples of a dataset before they are decoded."""
    why = None
    if not isinstance(dataset, IterableDataset):
        why = "chunks that a MapDataset keeps are decoded"
    elif num_workers:
        why = "worker processes decode on the host: use num_workers=0"
    elif dataset._inside.on_disk is not None:
        why = "chunks that are kept in a folder (cache=) are decoded"
    else:
        try:
            return packed(dataset._inside.definition)
        except ValueError as error:
            why = str(error)
    raise ValueError(f"values cannot be decoded on the device (decode='device'): {why}")


def _require_cuts(dataset: Any, num_workers: int, device: torch.device) -> None:
    """Raise if windows cannot be cut on a device."""
    why = None
    if not isinstance(dataset, IterableDataset):
        why = "a sampler picks single windows, of which a block holds few"
    elif num_workers:
        why = "worker processes gather on the host: use num_workers=0"
    elif device.type == "mps":
        why = "the memory of MPS is that of the host, so that nothing would be saved"
    else:
        why = needs_host(dataset._inside.definition)
    if why is not None:
        raise ValueError(f"windows cannot be cut on the device (gather='device'): {why}")


def _device_memory(plan: Plan, device_memory: int | str | None) -> int:
    """Bytes that blocks may take on the device."""
    nbytes = plan.memory if device_memory is None else as_bytes(device_memory, "device_memory")
    if nbytes < plan.stage_nbytes <= plan.memory:
        raise ValueError(
            f"device_memory={format_bytes(nbytes)} is less than the "
            f"{format_bytes(plan.stage_nbytes)} that are gathered from at the same time: give "
            "more, or the dataset less memory"
        )
    return nbytes


def _require_dtypes(samples: SampleDefinition, device: torch.device) -> None:
    """Raise if a device has no values of a dtype."""
    for part in samples.parts if device.type == "mps" else ():
        if part.name not in samples.transforms and part.dtype in ("f8", "c16"):
            raise TypeError(
                f"part {part.name!r} has values of dtype {part.dtype}, which MPS does not have"
            )


def _laid_out(device: torch.device, memory_format: torch.memory_format, batch: Batch) -> Batch:
    return batch.to(device, memory_format=memory_format)
