"""Random generators, one for each use, that depend on the seed, the epoch and a number alone."""

from __future__ import annotations

import numpy as np

__all__ = [
    "BATCH_TRANSFORM",
    "BLOCKS",
    "BLOCK_TRANSFORM",
    "DRAWS",
    "DRAWS_OF_BLOCKS",
    "DRAWS_OF_RUNS",
    "RUNS",
    "SAMPLES",
    "SAMPLE_TRANSFORM",
    "SPLIT",
    "generator",
]

# Uses of random generators, each of which draws other numbers.
RUNS, BLOCKS, SAMPLES, SAMPLE_TRANSFORM, BLOCK_TRANSFORM, BATCH_TRANSFORM, SPLIT = range(7)
DRAWS_OF_RUNS, DRAWS_OF_BLOCKS, DRAWS = range(7, 10)


def generator(seed: int, epoch: int, use: int, number: int) -> np.random.Generator:
    """A random generator that depends on its arguments alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, use, number))))
