"""What regions of an array want of its chunks, and of the shards in which these lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Along", "Chunk", "OfShard", "along_dim", "chunks_of", "shards_of"]

Place: TypeAlias = tuple[int, ...]
Slices: TypeAlias = tuple[slice, ...]

# What a region wants of chunks along a dim: number, part of the chunk, part of the region.
Along: TypeAlias = list[tuple[int, slice, slice]]
# The same of a chunk: its numbers in the grid, part of the chunk, part of the region. There are
# hundreds of thousands of them, which as objects of a class would take longer to make than to read.
Chunk: TypeAlias = tuple[Place, Slices, Slices]


def along_dim(start: int, stop: int, size: int) -> Along:
    """What a region wants of chunks of a size along a dim."""
    found = []
    for number in range(start // size, -(-stop // size)) if stop > start else ():
        begin = number * size
        first, last = max(start, begin), min(stop, begin + size)
        found.append(
            (number, slice(first - begin, last - begin), slice(first - start, last - start))
        )
    return found


def chunks_of(along: Sequence[Along], start: int = 0, stop: int | None = None) -> Iterator[Chunk]:
    """The chunks that hold a region, from one of them to another, in C order."""
    numbers = itertools.product(*([number for number, _, _ in dim] for dim in along))
    inside = itertools.product(*([inside for _, inside, _ in dim] for dim in along))
    target = itertools.product(*([target for _, _, target in dim] for dim in along))
    return itertools.islice(zip(numbers, inside, target, strict=True), start, stop)


@dataclass(frozen=True, eq=False)
class OfShard:
    """What a region wants of a shard.

    Attributes
    ----------
    shard : tuple of int
        Numbers of the shard.
    along : sequence of Along
        What is wanted of its chunks along every dim.
    start, stop : int
        The first and the last of these chunks, in C order.
    """

    shard: Place
    along: Sequence[Along]
    start: int
    stop: int

    def chunks(self) -> Iterator[Chunk]:
        """The chunks."""
        return chunks_of(self.along, self.start, self.stop)


def shards_of(
    along: Sequence[Along], counts: Sequence[int], start: int = 0, stop: int | None = None
) -> Iterator[OfShard]:
    """The shards that hold a region, from one of their chunks to another, shard after shard.

    Parameters
    ----------
    along : sequence of Along
        What the region wants of chunks along every dim.
    counts : sequence of int
        Chunks of a shard along every dim.
    start, stop : int
        The first and the last of the chunks.
    """
    by_shard = (
        [
            (shard, list(found))
            for shard, found in itertools.groupby(dim, lambda each: each[0] // count)  # noqa: B023
        ]
        for dim, count in zip(along, counts, strict=True)
    )
    before = 0
    for found in itertools.product(*by_shard):
        inner = [each for _, each in found]
        count = math.prod(map(len, inner))
        first, last = max(0, start - before), count if stop is None else min(count, stop - before)
        if first < last:
            yield OfShard(tuple(shard for shard, _ in found), inner, first, last)
        before += count
        if stop is not None and before >= stop:
            return
