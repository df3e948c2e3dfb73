"""Random generators, one for each use, that depend on the seed, the epoch and a number alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "AUGMENTATION",
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
    "uniform",
]

# Uses of random generators, each of which draws other numbers.
RUNS, BLOCKS, SAMPLES, SAMPLE_TRANSFORM, BLOCK_TRANSFORM, BATCH_TRANSFORM, SPLIT = range(7)
DRAWS_OF_RUNS, DRAWS_OF_BLOCKS, DRAWS, AUGMENTATION = range(7, 11)

# Of SplitMix64 (Steele, Lea and Flood 2014): the step of its counter, and how it mixes bits.
STEP = np.uint64(0x9E3779B97F4A7C15)
MIX = [(30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB))]
LAST_SHIFT = 31
# Bits of a float32 in [0, 1), all of which are random.
FLOAT32_BITS = 24


def generator(seed: int, epoch: int, use: int, number: int) -> np.random.Generator:
    """A random generator that depends on its arguments alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, use, number))))


def uniform(
    seed: int, epoch: int, call: int, numbers: npt.NDArray[np.int64], columns: int
) -> npt.NDArray[np.float32]:
    """Float32 numbers in [0, 1) of shape ``(*numbers.shape, columns)``.

    Each depends on the seed, the epoch, the call, one of `numbers` and the column alone, so that it
    does not matter which others are asked for with it.
    """
    state = np.random.SeedSequence((seed, epoch, AUGMENTATION, call))
    first, second = state.generate_state(2, np.uint64)
    # Unsigned integers of arrays wrap around, by the rules of NumPy and of C.
    rows = _mixed(numbers[..., None].astype(np.uint64) * STEP + first)
    bits = _mixed(rows + np.arange(1, columns + 1, dtype=np.uint64) * STEP + second)
    return (bits >> np.uint64(64 - FLOAT32_BITS)).astype(np.float32) * np.float32(
        2.0**-FLOAT32_BITS
    )


def _mixed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    for shift, factor in MIX:
        bits = (bits ^ (bits >> np.uint64(shift))) * factor
    return bits ^ (bits >> np.uint64(LAST_SHIFT))
