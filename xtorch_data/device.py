"""Batches on the device where they are wanted, copied there ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from .batch import Batch

__all__ = ["as_device", "on_device"]


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
    ahead: deque[tuple[Batch, Batch, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        ahead.append((batch, moved, copied))
        if len(ahead) > 1:
            yield _arrived(*ahead.popleft(), device)
    while ahead:
        yield _arrived(*ahead.popleft(), device)


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
