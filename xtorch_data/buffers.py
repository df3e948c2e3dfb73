"""Memory for batches that is used again."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Buffers"]


class Buffers:
    """Memory for batches, used again once nobody holds the tensor it was lent to.

    Fresh memory costs more in page faults than in copying.

    Parameters
    ----------
    idle : int
        Buffers of one size that are kept while nobody uses them.
    """

    def __init__(self, idle: int = 4) -> None:
        self._idle = idle
        self._free: dict[int, deque[npt.NDArray[np.uint8]]] = {}

    def take(
        self, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> tuple[npt.NDArray[Any], torch.Tensor]:
        """Uninitialized memory, as an array to fill and as the tensor to hand out.

        Both show the same memory. Only the tensor keeps it from being lent again: do not use the
        array once the tensor may be gone.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            empty = np.empty(shape, dtype)
            return empty, torch.from_numpy(empty)
        free = self._free.setdefault(nbytes, deque())
        try:
            memory = free.popleft()
        except IndexError:
            memory = np.empty(nbytes, np.uint8)
        lent = np.frombuffer(memory, dtype).reshape(shape)
        tensor = torch.from_numpy(lent)
        # The tensor's storage holds `lent`; views of the tensor and tensor.numpy() hold the
        # storage. A weak reference calls back when the last of them is gone.
        weakref.finalize(lent, self._give_back, free, memory, self._idle).atexit = False
        return lent, tensor

    @staticmethod
    def _give_back(
        free: deque[npt.NDArray[np.uint8]], memory: npt.NDArray[np.uint8], idle: int
    ) -> None:
        # Runs wherever the last reference dies, in the middle of a lock for all we know: a deque
        # needs none.
        if len(free) < idle:
            free.append(memory)
