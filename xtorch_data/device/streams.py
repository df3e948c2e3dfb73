"""Batches on the device where they are wanted, copied there ahead."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from ..common.buffers import Buffers, allotted
from ..iteration.lookahead import ahead
from ..samples.batch import Batch
from ..samples.tensors import has_streams

__all__ = [
    "PinnedBuffers",
    "Streams",
    "arrived",
    "as_device",
    "has_accelerator",
    "of_this_thread",
    "on_device",
]

Then = Callable[[Batch], Batch]

# Batches whose copies the host does not wait for, beside those that are begun ahead.
COPIES_UNDER_WAY = 2
# Batches of which the work may be queued on the device while the next is handed out: of those
# behind, the memory is free again. A loop that never waits would else run ahead without end.
BATCHES_QUEUED = 2


def as_device(device: Any) -> torch.device:
    """A device that is there; RuntimeError if there is none of its kind."""
    found = torch.device(device)
    if found.type in ("cpu", "meta"):
        return found
    module = torch.get_device_module(found)
    if not module.is_available():
        name = {"cuda": "CUDA", "mps": "MPS", "xpu": "XPU"}.get(found.type, found.type)
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but {name} is not available; "
            "device=None leaves batches on the CPU"
        )
    if found.index is not None and found.index >= module.device_count():
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but there are {module.device_count()} devices "
            f"of this kind, numbered from 0"
        )
    return found


def has_accelerator() -> bool:
    """Whether there is a device of any kind that pinned memory is of use for."""
    if hasattr(torch, "accelerator"):
        return torch.accelerator.is_available()
    return torch.cuda.is_available()  # before torch 2.6, as its own loader asks there


def of_this_thread(device: torch.device) -> torch.device:
    """A device with its number: without one, "cuda" is another device in other threads."""
    if device.index is not None or not has_streams(device):
        return device
    return torch.device(device.type, torch.get_device_module(device).current_device())


class Mark(Protocol):
    """A point in the work of a stream, as torch's events are."""

    def query(self) -> bool:
        """Whether it has been reached."""
        ...

    def synchronize(self) -> None:
        """Wait until it is."""
        ...


class _Reached:
    """A mark on a device that does everything at once."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class Streams:
    """A stream of a device beside the one in use; where there are none, everything is done at once.

    Made for each device, with its number, by a loader, for all its epochs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @staticmethod
    def of(device: torch.device) -> Streams:
        """A stream of its own on a device."""
        return _SideStream(device) if has_streams(device) else Streams(device)

    def on(self) -> contextlib.AbstractContextManager[Any]:
        """Within this context, work is given to the stream."""
        return contextlib.nullcontext()

    def copied(self, batch: Batch, then: Then | None = None) -> tuple[Batch, Mark]:
        """A batch as it will be on the device, and when it is; until then it is read.

        Without a stream the copy is waited for: MPS would read memory that is used again.
        """
        with self.on():
            moved = batch.to(self.device, non_blocking=has_streams(self.device))
            return moved if then is None else then(moved), self.mark()

    def own_thread(self) -> None:
        """From now on, this thread works on the device.

        Each begins on device 0, of which no other process should take memory.
        """

    def begin(self) -> None:
        """From now on, work of this thread is given to the stream."""

    def mark(self) -> Mark:
        """Where all work given to it so far is done."""
        return _Reached()

    def uses(self, tensor: torch.Tensor) -> None:
        """Note that the stream uses memory that was allotted on another one."""

    def hand_over(self, batch: Batch, reached: Mark) -> None:
        """Let the stream in use wait for a mark before it uses a batch."""


class _SideStream(Streams):
    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._module: Any = torch.get_device_module(device)
        self._stream = self._module.Stream(device)
        self._handed_over: deque[Mark] = deque()

    def on(self) -> contextlib.AbstractContextManager[Any]:
        return self._module.stream(self._stream)  # type: ignore[no-any-return]

    def own_thread(self) -> None:
        self._module.set_device(self.device)

    def begin(self) -> None:
        self.own_thread()
        self._module.set_stream(self._stream)

    def mark(self) -> Mark:
        return self._mark(self._stream)

    def _mark(self, stream: Any) -> Mark:
        # Whoever waits for it sleeps, and leaves the core to those who decode.
        how = {"blocking": True} if self.device.type == "cuda" else {}
        event = self._module.Event(**how)
        event.record(stream)
        return event  # type: ignore[no-any-return]

    def uses(self, tensor: torch.Tensor) -> None:
        tensor.record_stream(self._stream)

    def hand_over(self, batch: Batch, reached: Mark) -> None:
        current = self._module.current_stream(self.device)
        current.wait_event(reached)
        for tensor in batch:
            # Allotted on the side stream; its memory must outlive its use on this one.
            tensor.record_stream(current)
        self._handed_over.append(self._mark(current))
        if len(self._handed_over) > BATCHES_QUEUED:
            self._handed_over.popleft().synchronize()


class PinnedBuffers(Buffers):
    """Page-locked memory that is lent again: a copy to a GPU needs no other on the way.

    Torch allots it in powers of two, and so it is counted and lent.
    """

    def __init__(self, idle: int, total: int | None = None) -> None:
        super().__init__(idle if total is not None else 2 * idle, total)
        self._least = 1  # no other memory will do

    def _fresh(self, nbytes: int) -> memoryview:
        memory: np.ndarray[Any, Any] = torch.empty(
            allotted(nbytes), dtype=torch.uint8, device="cpu", pin_memory=True
        ).numpy()
        return memory.data

    def _idle_memory(self, nbytes: int) -> memoryview | None:
        return super()._idle_memory(allotted(nbytes))

    def _make_room(self, nbytes: int) -> None:
        super()._make_room(allotted(nbytes))


def on_device(
    batches: Iterator[Batch],
    streams: Streams,
    prefetch: int,
    then: Then | None = None,
) -> Generator[Batch, None, None]:
    """Batches on a device; some are copied while one is in use.

    Memory that a copy reads is let go of when the copy is over, which is asked of the device.
    `batches` are on the host, in page-locked memory where the device has streams; `prefetch` are
    copied, or have been, ahead of the one in use. `then` is what is made of a batch on the device,
    on the stream of the copies.
    """
    under_way: deque[tuple[Mark, Batch]] = deque()

    def begin(batch: Batch) -> tuple[Batch, Mark]:
        moved, reached = streams.copied(batch, then)
        under_way.append((reached, batch))
        return moved, reached

    def finish(copy: tuple[Batch, Mark]) -> Batch:
        if len(under_way) > prefetch + COPIES_UNDER_WAY:
            under_way[0][0].synchronize()
        while under_way and under_way[0][0].query():
            under_way.popleft()
        streams.hand_over(*copy)
        return copy[0]

    try:
        yield from ahead(batches, begin, finish, prefetch)
    finally:
        for reached, _ in under_way:
            reached.synchronize()


def arrived(batches: Iterator[Batch], streams: Streams) -> Generator[Batch, None, None]:
    """Batches that were made on a device beside the stream in use, which waits for each."""
    for batch in batches:
        assert batch._arrival is not None
        streams.hand_over(batch, batch._arrival)
        batch._arrival = None
        yield batch
