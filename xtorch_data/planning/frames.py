"""Sample axes, and for each source a frame: where windows lie in it and which chunks hold them.

Order, pools, cuts for ranks and workers, weights and filters know window numbers alone; positions
in the data are worked out by frames. The first frame is that of the data itself, others are those
of other sources.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .chunks import Chunks, Layout
from .index_maps import IndexMap, IntArray, Regular, Term
from .intervals import Box, Interval
from .scattered import Groups, Scattered

__all__ = ["Frame", "SampleAxis", "SampleSpace"]


@dataclass(frozen=True)
class SampleAxis:
    """Counts windows; where they lie is for frames to say.

    Of a `scattered` one, as of events, neighbors lie anywhere: what they want is read chunk by
    chunk, never all that is between them.
    """

    name: Hashable
    count: int
    scattered: bool = False


@dataclass(frozen=True, eq=False)
class Frame:
    """One source: an index map for each dim and how its variables are stored.

    Lives as long as the plan; any thread may ask it.
    """

    maps: tuple[IndexMap, ...]
    layouts: tuple[Layout, ...] = ()
    along_scattered: bool = False  # whether it follows an axis that is scattered, the first one

    @cached_property
    def scattered(self) -> Scattered:
        """Its windows along that axis."""
        return Scattered(self.maps, self.layouts)

    @cached_property
    def places(self) -> Frame:
        """The frame whose windows are single steps: boxes of their numbers are regions."""
        maps = (
            IndexMap(each.dim, each.length, 1, {place: Regular(0, each.length)})
            for place, each in enumerate(self.maps)
        )
        return Frame(tuple(maps), self.layouts)

    def region(self, box: Sequence[Interval]) -> Box:
        """Data positions ``[start, stop)`` along every dim that a box of windows covers."""
        return tuple(each.span(box) for each in self.maps)

    def named(self, region: Sequence[Interval]) -> dict[Hashable, Interval]:
        """A region by dim."""
        return {each.dim: along for each, along in zip(self.maps, region, strict=True)}

    def sizes(self, region: Sequence[Interval]) -> dict[Hashable, int]:
        """Number of steps of a region, by dim."""
        return {dim: stop - start for dim, (start, stop) in self.named(region).items()}

    def cells(self, layout: Layout, region: Mapping[Hashable, Interval]) -> Box:
        """Numbers ``[first, last)`` of the chunks of a variable that a region touches, by dim."""
        return tuple(
            (int(grid.number(region[dim][0])), int(grid.number(region[dim][1] - 1)) + 1)
            for dim, grid in layout.chunks.items()
        )

    def decoded(self, layout: Layout, region: Mapping[Hashable, Interval]) -> tuple[int, int]:
        """Number of chunks of a variable that a region touches, and of places in them."""
        along = [(grid, region[dim]) for dim, grid in layout.chunks.items()]
        chunks = (int(grid.touched(*interval)) for grid, interval in along)
        places = (int(grid.decoded(*interval)) for grid, interval in along)
        return math.prod(chunks), math.prod(places)

    def grids(self, place: int) -> dict[Hashable, Chunks]:
        """By variable, the chunk grid along a dim."""
        dim = self.maps[place].dim
        return {each.name: each.chunks[dim] for each in self.layouts if dim in each.chunks}

    def steps_once(self, place: int, grid: Chunks) -> int:
        """Steps that are decoded along a dim if every chunk that windows touch is decoded once."""
        along = self.maps[place]
        (term,) = along.terms.values()
        start, stop = along.spans({axis: (0, len(term)) for axis in along.terms})
        return int(min(grid.decoded(start, stop), grid.decoded(*along.stretches).sum()))

    def nbytes_once(self, layout: Layout) -> int:
        """Bytes of a variable that are decoded if every chunk is decoded once."""
        nbytes = layout.itemsize
        for place, along in enumerate(self.maps):
            if along.dim in layout.chunks:
                nbytes *= self.steps_once(place, layout.chunks[along.dim])
        return nbytes

    def groups(self, box: Sequence[Interval], windows: IntArray | None = None) -> Groups:
        """Scattered windows of a box by cell; `windows` if others are meant along the axis."""
        return self.scattered.groups_of(slice(*box[0]) if windows is None else windows, box)

    def regions(
        self, box: Sequence[Interval], groups: Groups | None = None
    ) -> Iterator[dict[Hashable, Interval]]:
        """Data positions that a box of windows covers, by dim: of scattered ones group by group."""
        if not self.along_scattered:
            yield self.named(self.region(box))
            return
        groups = self.groups(box) if groups is None else groups
        others = {each.dim: each.span(box) for each in self.maps if 0 not in each.terms}
        for group in range(len(groups)):
            yield {**others, **groups.region(group)}

    def nbytes_beside(self, box: Sequence[Interval]) -> int:
        """Bytes of what lies beside a box of windows of another source."""
        if not self.along_scattered:
            return self.nbytes(self.region(box))
        groups, found = self.groups(box), 0
        others = [each for each in self.maps if 0 not in each.terms]
        sizes = {each.dim: stop - start for each in others for start, stop in [each.span(box)]}
        for layout in self.layouts:
            own = [size for dim, size in sizes.items() if dim in layout.chunks]
            places = self.scattered.places(layout, groups).sum()
            found += layout.itemsize * math.prod(own) * int(places)
        return found

    def nbytes(self, region: Sequence[Interval]) -> int:
        """Bytes of the variables over a region."""
        sizes = self.sizes(region)
        return sum(
            each.itemsize * math.prod(sizes[dim] for dim in each.chunks) for each in self.layouts
        )


@dataclass(frozen=True, eq=False)
class SampleSpace:
    """The product of sample axes, numbered in C order, and the frames that say what is in it."""

    axes: tuple[SampleAxis, ...]
    frames: tuple[Frame, ...]
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(axis.count for axis in self.axes))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def normalize(self, index: int) -> int:
        """Sample number from an index that may be negative; IndexError if out of range."""
        number = operator.index(index)
        total = len(self)
        if not -total <= number < total:
            raise IndexError(f"sample {number} is out of range for {total} samples")
        return number % total

    def numbers(self, samples: npt.ArrayLike) -> tuple[IntArray, ...]:
        """Window numbers of samples along each axis."""
        flat = np.asarray(samples, dtype=np.int64)
        return np.unravel_index(flat, self.shape) if self.axes else ()

    def starts(self, samples: npt.ArrayLike, frame: int = 0) -> IntArray:
        """Positions in a frame where samples begin, shape ``(number of dims, *samples.shape)``."""
        maps = self.frames[frame].maps
        out = np.empty((len(maps), *np.shape(samples)), dtype=np.int64)
        numbers = self.numbers(samples)
        for place, each in enumerate(maps):
            out[place] = each.start(numbers)
        return out

    def restrict(self, axis: int, numbers: Term | npt.ArrayLike) -> SampleSpace:
        """Leave out windows along an axis, which gets shorter; all frames take the others."""
        frames = (
            replace(frame, maps=tuple(each.take(axis, numbers) for each in frame.maps))
            for frame in self.frames
        )
        count = len(numbers)  # type: ignore[arg-type]
        axes = [*self.axes]
        axes[axis] = replace(axes[axis], count=count)
        return SampleSpace(tuple(axes), tuple(frames))
