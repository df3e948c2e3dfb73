"""Random numbers of the samples of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..common.integers import as_integer
from ..common.random import uniform

__all__ = ["Draws"]


@dataclass(eq=False)
class Draws:
    """Random numbers of samples, of one call after the other.

    Made with a batch. Batches that are made of it share it, so that none gets numbers that another
    one had; what another process gets goes its own way.
    """

    seed: int = 0
    epoch: int = 0
    calls: int = 0  # so far

    def uniform(self, numbers: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.float32]:
        """The next `n` numbers in [0, 1) of each sample: ``(*numbers.shape, n)``."""
        n = as_integer(n, "n")
        if n < 1:
            raise ValueError(f"n must be 1 or more, not {n}")
        call, self.calls = self.calls, self.calls + 1
        return uniform(self.seed, self.epoch, call, numbers, n)
