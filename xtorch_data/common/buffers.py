"""Memory for batches and blocks that is used again."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Buffers", "allotted"]

# Bytes of an array from which on memory is lent. For fewer, the allocator does not ask the system.
LEAST_BYTES = 2**17
# How many times as large as what is asked for memory may be that is lent.
LARGER = 1.5


class Buffers:
    """Memory that is lent, and lent again once nobody holds an array or tensor over it.

    Fresh memory costs more in page faults than in copying, but for small arrays: these are not
    lent. Up to `idle` bytes are kept while nobody uses them; lent and kept are up to `total`
    together, unless more is lent alone. Datasets make them and keep them as long as they live; any
    thread may call. Copies in other processes begin empty.
    """

    def __init__(self, idle: int, total: int | None = None) -> None:
        self._least = LEAST_BYTES
        self._idle = idle
        self._total = total
        self._free: dict[int, deque[memoryview]] = {}
        self._lent: dict[int, int] = {}  # bytes by address

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uninitialized memory as an array.

        It is lent until the array, every view of it and every tensor made of them are gone.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < self._least or dtype.hasobject:
            return np.empty(shape, dtype)
        memory = self._idle_memory(nbytes)
        if memory is None:
            self._make_room(nbytes)
            memory = self._fresh(nbytes)
        # numpy lets a view hold the array at the root of its chain of views. That is this one,
        # because what lies under it is no array.
        root = np.frombuffer(memory[:nbytes], dtype)
        address = root.__array_interface__["data"][0]
        self._lent[address] = memory.nbytes
        weakref.finalize(root, _give_back, self, address, memory).atexit = False
        return root.reshape(shape)

    def _fresh(self, nbytes: int) -> memoryview:
        """Memory that was not lent before."""
        return np.empty(nbytes, np.uint8).data

    # What follows may run wherever a last reference dies, in the middle of a lock for all we know:
    # it needs none. If it runs twice at once, a buffer more or less is kept.

    def _idle_memory(self, nbytes: int) -> memoryview | None:
        """Idle memory of a size, or somewhat larger: the last batch or block is often smaller."""
        for size in sorted(list(self._free)):
            if nbytes <= size <= LARGER * nbytes:
                with contextlib.suppress(IndexError):
                    return self._free[size].popleft()
        return None

    def _room(self) -> int:
        """Bytes that may still be kept."""
        idle = sum(nbytes * len(free) for nbytes, free in list(self._free.items()))
        room = self._idle - idle
        if self._total is not None:
            room = min(room, self._total - idle - sum(list(self._lent.values())))
        return room

    def _make_room(self, nbytes: int) -> None:
        """Release idle memory of other sizes until so many bytes can be lent within the total."""
        if self._total is None:
            return
        for free in list(self._free.values()):
            while free and self._room() < nbytes:
                with contextlib.suppress(IndexError):
                    free.popleft()

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, (self._idle, self._total)


def allotted(nbytes: int) -> int:
    """Bytes that torch takes for so many in page-locked memory: a power of two."""
    return 1 << (nbytes - 1).bit_length() if nbytes else 0


def _give_back(buffers: Buffers, address: int, memory: memoryview) -> None:
    buffers._lent.pop(address, None)
    if memory.nbytes <= buffers._room():
        buffers._free.setdefault(memory.nbytes, deque()).append(memory)
