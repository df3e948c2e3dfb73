"""Memory for batches and blocks that is used again."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Buffers"]


class Buffers:
    """Memory that is lent, and lent again once nobody holds what it was lent for.

    Fresh memory costs more in page faults than in copying. Copies in other processes begin empty.

    Parameters
    ----------
    idle : int
        Bytes that are kept while nobody uses them.
    """

    def __init__(self, idle: int) -> None:
        self._idle = idle
        self._free: dict[int, deque[memoryview]] = {}

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uninitialized memory as an array.

        It is lent until the array, every view of it and every tensor made of them are gone.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            return np.empty(shape, dtype)
        free = self._free.setdefault(nbytes, deque())
        try:
            memory = free.popleft()
        except IndexError:
            memory = np.empty(nbytes, np.uint8).data
        # numpy lets a view hold the array at the root of its chain of views. That is this one,
        # because what lies under it is no array.
        root = np.frombuffer(memory, dtype)
        weakref.finalize(root, _give_back, self._free, memory, self._idle).atexit = False
        return root.reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return Buffers, (self._idle,)


def _give_back(free: dict[int, deque[memoryview]], memory: memoryview, idle: int) -> None:
    # Runs wherever the last reference dies, in the middle of a lock for all we know: this needs
    # none. If two run at once, a buffer more or less is kept.
    kept = sum(nbytes * len(each) for nbytes, each in list(free.items()))
    if kept + memory.nbytes <= idle:
        free[memory.nbytes].append(memory)
