"""Chunk grids of variables along every dim. Pure integers, no IO."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .index_maps import IntArray

__all__ = ["Chunks", "Layout", "merged"]


@dataclass(frozen=True, eq=False)
class Chunks:
    """The chunk grid of one variable along one dim.

    Attributes
    ----------
    length : int
        Size of the dim.
    size : int
        Steps in one chunk. 1 where any slice can be read for its own cost (memory, memory maps).
    offset : int
        Place of the data's first step inside its chunk: a lazily sliced array begins mid-chunk.
    edges : ndarray of int64, optional
        Where chunks begin, and the end, for a grid that is not regular.
    stored : bool
        Whether steps are chunks of their own where `size` is 1: one may be unreadable alone.
        Ask `in_chunks`, which knows the other sizes too.
    most : tuple of (int, int), optional
        Number of the chunks that there are and of steps in them, where some come more than once, as
        those at the ends of a circle do that windows go around.
    """

    length: int
    size: int = 1
    offset: int = 0
    edges: IntArray | None = None
    stored: bool = False
    most: tuple[int, int] | None = None

    def number(self, positions: Any) -> Any:
        """Number of the chunk in which a position lies, or each of an array of them."""
        at = positions if isinstance(positions, int) else np.asarray(positions, np.int64)
        if self.edges is None:
            return (at + self.offset) // self.size
        return np.searchsorted(self.edges, at, side="right") - 1

    def bounds(self, number: int) -> tuple[int, int]:
        """Positions ``[start, stop)`` of a chunk."""
        if self.edges is not None:
            return int(self.edges[number]), int(self.edges[number + 1])
        start = number * self.size - self.offset
        return max(start, 0), min(start + self.size, self.length)

    def touched(self, start: Any, stop: Any) -> Any:
        """Number of chunks which the steps ``[start, stop)`` touch."""
        found = self.number(stop - 1) - self.number(start) + 1
        return found if self.most is None else np.minimum(found, self.most[0])

    def steps(self, first: Any, last: Any) -> Any:
        """Number of steps that are decoded to get chunks ``[first, last)``."""
        found = (last - first) * self.size
        if self.edges is not None:
            found = self.edges[last] - self.edges[first]
        return found if self.most is None else np.minimum(found, self.most[1])

    def decoded(self, start: Any, stop: Any) -> Any:
        """Number of steps that are decoded to get ``[start, stop)``: all of each chunk touched."""
        return self.steps(self.number(start), self.number(stop - 1) + 1)

    def end_of(self, position: int) -> int:
        """Where the chunk that holds a position ends."""
        return self.bounds(int(self.number(position)))[1]

    def boundaries(self, every: int) -> IntArray:
        """Positions inside the dim at which every so many-th chunk begins."""
        if self.edges is not None:
            return self.edges[every:-1:every]
        step = self.size * every
        return np.arange(step - self.offset, self.length, step, dtype=np.int64)

    def joined(self, every: int) -> Chunks:
        """The grid of so many neighboring chunks as one."""
        if self.edges is None:
            return Chunks(self.length, self.size * every, self.offset)
        edges = np.append(self.edges[:-1:every], self.length)
        most = self.most and (-(-self.most[0] // every), self.most[1])
        return Chunks(self.length, edges=edges, most=most)

    @property
    def key(self) -> Hashable:
        """The same for equal grids."""
        edges = None if self.edges is None else self.edges.tobytes()
        return self.length, self.size, self.offset, edges, self.most

    @property
    def chunked(self) -> bool:
        """Whether it matters where the dim is cut."""
        return self.size > 1 or self.edges is not None

    @property
    def in_chunks(self) -> bool:
        """Whether the dim is stored in chunks at all, be it one for each step."""
        return self.chunked or self.stored

    @property
    def largest(self) -> int:
        """Steps of the largest chunk."""
        found = self.size if self.edges is None else int(np.diff(self.edges).max())
        return found if self.most is None else min(found, self.most[1])

    @property
    def count(self) -> int:
        """Number of chunks along the dim, each as often as it comes."""
        return int(self.number(self.length - 1) - self.number(0)) + 1


@dataclass(frozen=True, eq=False)
class Layout:
    """The storage of one variable, as far as planning needs to know.

    `itemsize` is the bytes of one value in memory, times the places along dims outside the sample
    space; `chunks` has the grid along each dim of the sample space that the variable has.
    """

    name: Hashable
    itemsize: int
    chunks: Mapping[Hashable, Chunks]

    @property
    def key(self) -> Hashable:
        """Equal for those whose chunks lie alike."""
        return tuple((dim, chunks.key) for dim, chunks in self.chunks.items())

    @property
    def in_chunks(self) -> bool:
        """Whether it is stored in chunks; else any slice is read for its own cost.

        What has no dim of the sample space is read whole, like a chunk.
        """
        return not self.chunks or any(grid.in_chunks for grid in self.chunks.values())


def merged(layouts: Iterable[Layout]) -> list[Layout]:
    """Layouts with equal grids as one, as large as all of them: many variables plan like one."""
    found: dict[Hashable, Layout] = {}
    for layout in layouts:
        before = found.get(layout.key)
        size = layout.itemsize + (before.itemsize if before is not None else 0)
        found[layout.key] = Layout(layout.name, size, layout.chunks)
    return list(found.values())
