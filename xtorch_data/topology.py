"""Which rank and which worker this is, and which epoch its siblings are in."""

from __future__ import annotations

import multiprocessing
import operator
import os
import time
from typing import Any

import torch
import torch.distributed

__all__ = ["EpochCounter", "as_topology", "current_topology", "shared_integers"]

# Iterations of a plain torch loader whose epoch is remembered at the same time.
_SLOTS = 64
_PATIENCE_SECONDS = 60.0


def as_topology(rank: int | None, world_size: int | None) -> tuple[int, int] | None:
    """A rank and a world size given explicitly, or None if neither is.

    Raises
    ------
    ValueError
        If only one is given or the rank does not fit.
    """
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise ValueError("give rank and world_size together, or neither")
    rank, world_size = operator.index(rank), operator.index(world_size)
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to world_size - 1, got rank {rank} of {world_size}")
    return rank, world_size


def current_topology() -> tuple[int, int]:
    """Rank and world size of torch.distributed, else of torchrun's environment, else 0 of 1."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def shared_integers(count: int) -> torch.Tensor:
    """Zeros, int64, in memory that worker processes share."""
    return torch.zeros(count, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call,no-any-return]


class EpochCounter:
    """Counts iterations, in memory that worker processes share.

    Workers of one iteration must agree on its epoch. Under our loader the parent tells them. Under
    a plain torch loader nobody does, but all workers of one iteration know the same base seed: the
    first worker takes the next number and publishes it under that seed, the others look it up.
    """

    def __init__(self) -> None:
        # Next epoch, then pairs of key and epoch.
        self._shared = shared_integers(1 + 2 * _SLOTS)
        self._shared[1:] = -1
        self._iterations: dict[int, int] = {}

    @property
    def next(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return int(self._shared[0])

    @next.setter
    def next(self, epoch: int) -> None:
        self._shared[0] = epoch
        self._shared[1:] = -1
        self._iterations.clear()

    def claim(self) -> int:
        """Take the next epoch."""
        epoch = self.next
        self._shared[0] = epoch + 1
        return epoch

    def claim_in_worker(self, info: Any) -> int:
        """The epoch of a plain loader's iteration, the same in all of its workers."""
        count = self._iterations.get(info.id, 0)
        self._iterations[info.id] = count + 1
        own_process = multiprocessing.parent_process() is not None
        base = info.seed - info.id if own_process else 0
        key = (base + count) % (2**62)
        slot = 1 + 2 * (key % _SLOTS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while int(self._shared[slot]) != key:
            if info.id == 0 or not own_process:
                self._shared[slot + 1] = self.claim()
                self._shared[slot] = key  # last: it tells the others that the epoch is there
                break
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"worker {info.id} waited {_PATIENCE_SECONDS:.0f} s for worker 0 to begin the "
                    "epoch; it seems to have died"
                )
            time.sleep(0.001)
        return int(self._shared[slot + 1])
