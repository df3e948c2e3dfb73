"""Batches on the device where they are wanted, copied there ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import torch

from .batch import Batch

__all__ = ["as_device", "on_device", "one_ahead"]

Item = TypeVar("Item")
Begun = TypeVar("Begun")
Done = TypeVar("Done")
Copy: TypeAlias = tuple[Batch, Batch, torch.cuda.Event]  # pinned, moved, and when it has


def as_device(device: Any) -> torch.device:
    """A device that is there; RuntimeError if it is a CUDA device and there is none."""
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but CUDA is not available; "
            "device=None leaves batches on the CPU"
        )
    return found


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device; on CUDA the next one is copied while one is in use."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: Batch) -> Copy:
        with torch.cuda.stream(stream):
            moved = batch.to(device, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        return batch, moved, copied

    yield from one_ahead(batches, begin, lambda copy: _arrived(*copy, device))


def one_ahead(
    items: Iterator[Item], begin: Callable[[Item], Begun], finish: Callable[[Begun], Done]
) -> Iterator[Done]:
    """Yield each item, finished after the next one was begun.

    An error comes in the place of what could not be had or begun.

    Parameters
    ----------
    items : iterator
        What is begun.
    begin, finish : callable
        From an item to what has begun, and from that to what is yielded.
    """
    begun: deque[Begun] = deque()
    failed: Exception | None = None
    while True:
        try:
            begun.append(begin(next(items)))
        except StopIteration:
            break
        except Exception as error:
            failed = error
            break
        if len(begun) > 1:
            yield finish(begun.popleft())
    while begun:
        yield finish(begun.popleft())
    if failed is not None:
        try:
            raise failed
        finally:
            failed = None  # its traceback has this frame


def _arrived(pinned: Batch, moved: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """A batch whose copy the consumer's stream has waited for."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in moved:
        # It was allocated on the side stream; its memory must outlive its use on this one.
        tensor.record_stream(current)
    # The pinned memory may be used again once the copy is over.
    copied.synchronize()
    del pinned
    return moved
