"""Samples as windows over some dims at every place of the others.

Pure arithmetic over integers. Nothing here reads data or lists samples: a sample space of 10**12
samples is a handful of numbers per dim.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from ..common.integers import as_integer
from ..common.spelling import spelled
from .edges import EdgeRule, ExtendedDim
from .frames import Frame, SampleAxis, SampleSpace
from .index_maps import IndexMap, IntArray, Regular, Term, apart, runs_of
from .intervals import Interval

__all__ = ["Axis", "IntArray", "SourceWindows", "WindowDim", "Windows", "require_steps"]

# From so many windows that share a step on, a block is laid anew so that each is in one piece.
SHARED = 4


@dataclass(frozen=True, eq=False)
class WindowDim:
    """A dim of a source, and what a window has of it: some steps, or one that is no dim of it."""

    dim: Hashable
    length: int
    size: int
    windowed: bool = field(kw_only=True)

    @property
    def whole(self) -> bool:
        """Whether a window is all of the dim, so that no block has less of it."""
        return self.size == self.length

    def cut(self, start: int) -> slice | int:
        """The argument of ``isel`` that cuts a window."""
        return slice(start, start + self.size) if self.windowed else start


@dataclass(frozen=True, eq=False)
class Axis(WindowDim):
    """A sample axis and the dim of the data that follows it alone.

    The starts of its windows ascend. See `IndexMap`, of which it is a view.
    """

    starts: Term

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def stride(self) -> int:
        """Steps from a window to the next, but for holes."""
        return self.starts.step

    def start(self, numbers: IntArray) -> IntArray:
        """Data positions at which windows begin."""
        return self.starts.at(numbers)  # type: ignore[no-any-return]

    @property
    def stretches(self) -> tuple[IntArray, IntArray]:
        """Data positions ``[start, stop)`` that runs of windows cover, ascending and apart.

        Steps between the windows of a run are among them. Runs that overlap are one stretch.
        """
        first, last = self.starts.bounds
        return apart(first, last + self.size)

    @property
    def covered_stretches(self) -> tuple[IntArray, IntArray]:
        """Likewise, without the steps between windows: each of them lies in a window."""
        if self.stride <= self.size:
            return self.stretches
        begins = self.start(np.arange(len(self)))
        return apart(begins, begins + self.size)

    def span(self, first: int, last: int) -> Interval:
        """Data positions ``[start, stop)`` that windows ``[first, last)`` cover."""
        return int(self.starts.at(first)), int(self.starts.at(last - 1)) + self.size

    def first_from(self, positions: npt.ArrayLike) -> IntArray:
        """Number of windows that begin before each of some positions."""
        return self.starts.first_from(positions)

    def inside(self, start: IntArray, stop: IntArray, lead: int = 0) -> tuple[IntArray, IntArray]:
        """Windows ``[first, last)`` that lie inside each interval ``[start, stop)``.

        But for their first `lead` steps, which may lie before it.
        """
        first = self.first_from(start - lead)
        return first, np.maximum(self.first_from(stop - self.size + 1), first)

    def fitting(self, steps: IntArray) -> IntArray:
        """Number of windows that fit into stretches of so many steps, laid from their begin on."""
        return np.maximum((steps - self.size) // self.stride + 1, 0)

    def left_over(self, intervals: npt.ArrayLike, lead: int = 0) -> int:
        """Steps at the ends of intervals of the data, before and behind the windows inside them.

        But for their first `lead` steps, see `inside`.
        """
        start, stop = np.asarray(intervals, dtype=np.int64).reshape(-1, 2).T
        first, last = self.inside(start, stop, lead)
        some = first < last
        begin = np.maximum(self.start(first[some]), start[some])
        covered = self.start(last[some] - 1) + self.size - begin
        return int((stop - start).sum() - covered.sum())


@dataclass(frozen=True, eq=False)
class SourceWindows:
    """What samples have of one source: windows over its dims, numbered as the samples are.

    Attributes
    ----------
    space : SampleSpace
        The sample axes, and a frame for each source.
    place : int
        Which of these.
    axes : tuple of WindowDim
        The dims of the source.
    """

    space: SampleSpace
    place: int = 0
    axes: tuple[WindowDim, ...] = field(init=False)

    def __post_init__(self) -> None:
        axes = (
            WindowDim(each.dim, each.length, each.size, windowed=each.windowed)
            for each in self.frame.maps
        )
        object.__setattr__(self, "axes", tuple(axes))

    @property
    def frame(self) -> Frame:
        """Where windows lie in the data."""
        return self.space.frames[self.place]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows along each sample axis."""
        return self.space.shape

    def __len__(self) -> int:
        return len(self.space)

    def __getitem__(self, index: int) -> dict[Any, slice | int]:
        starts = self.starts(self.space.normalize(index)).tolist()
        return {each.dim: each.cut(at) for each, at in zip(self.axes, starts, strict=True)}

    def starts(self, samples: npt.ArrayLike) -> IntArray:
        """Data positions at which samples begin, shape ``(number of dims, *samples.shape)``."""
        return self.space.starts(samples, self.place)

    @cached_property
    def fixed(self) -> frozenset[Hashable]:
        """Dims along which all windows are the same steps, in each part of a split as well.

        Such are dims that windows have all of, and those along which there is room for one window
        alone; of another source, those that lie where such a window does.
        """
        space = self.space
        around_events = bool(space.axes) and space.axes[0].scattered
        main = space.frames[:2][-1] if around_events else space.frames[0]
        single = {
            axis
            for each in main.maps
            for axis, term in each.terms.items()
            if space.shape[axis] == 1
            and not space.axes[axis].scattered
            and each.length - each.size < abs(term.step)
        }
        return frozenset(
            each.dim
            for each in self.frame.maps
            if each.windowed and (each.size == each.length or set(each.terms) <= single)
        )

    @property
    def order_in_memory(self) -> tuple[Hashable, ...]:
        """The dims in the order in which a block is gathered fastest, the last one in one piece.

        That of the axes; but where windows that share their steps have one step of the last dim,
        such as of a station, all such dims come first, so that windows are in one piece.
        """
        together = math.prod(
            max(1, each.size // abs(term.step))
            for each in self.frame.maps
            for term in each.terms.values()
            if term.step
        )
        if together < SHARED or self.axes[-1].size > 1:
            return tuple(axis.dim for axis in self.axes)
        return tuple(axis.dim for axis in sorted(self.axes, key=lambda axis: axis.size > 1))

    def map(self, dim: Hashable) -> IndexMap:
        """Where windows lie along a dim; ValueError if it is none of the source's."""
        return self.frame.maps[self.axes.index(self.axis(dim))]

    def axis(self, dim: Hashable) -> WindowDim:
        """What windows have of a dim; ValueError if it is none of the source's."""
        for axis in self.axes:
            if axis.dim == dim:
                return axis
        raise ValueError(
            f"there is no dim {dim!r} in the samples; theirs are {[axis.dim for axis in self.axes]}"
        )


@dataclass(frozen=True, eq=False)
class Windows(SourceWindows):
    """The sample space: the product of the window positions along every dim.

    Samples are numbered in C order over `axes`: other dims first, in the order of the data, then
    the windowed dims in the order of ``input_dims``. Along a windowed dim, windows of `size` steps
    begin at ``k * (size - overlap)``; a window that would pass the end is dropped. These are the
    rules of `xbatcher.BatchGenerator <https://xbatcher.readthedocs.io>`_.

    Attributes
    ----------
    space : SampleSpace
        The sample axes and the frame of the data.
    axes : tuple of Axis
        Each sample axis with the dim of the data that follows it, slowest first.

    Examples
    --------
    >>> windows = Windows.from_sizes({"time": 6, "x": 2}, {"time": 4}, {"time": 3})
    >>> len(windows)
    6
    >>> windows[4]
    {'x': 1, 'time': slice(1, 5, None)}
    """

    axes: tuple[Axis, ...] = field(init=False)

    def __post_init__(self) -> None:
        axes = (
            Axis(each.dim, each.length, each.size, each.terms[place], windowed=each.windowed)
            for place, each in enumerate(self.frame.maps)
        )
        object.__setattr__(self, "axes", tuple(axes))

    @classmethod
    def of(cls, axes: Iterable[Axis]) -> Windows:
        """The product of some axes, slowest first."""
        axes = tuple(axes)
        maps = (
            IndexMap(axis.dim, axis.length, axis.size, {place: axis.starts}, axis.windowed)
            for place, axis in enumerate(axes)
        )
        counted = tuple(SampleAxis(axis.dim, len(axis)) for axis in axes)
        return cls(SampleSpace(counted, (Frame(tuple(maps)),)))

    @classmethod
    def from_sizes(
        cls,
        sizes: Mapping[Any, int],
        input_dims: Mapping[Any, int],
        input_overlap: Mapping[Any, int] | None = None,
        longer: Container[Hashable] = (),
    ) -> Windows:
        """Lay windows over data of some sizes: by dim, in the order of the data.

        Along dims in `longer` a window may have more steps than the data.

        ValueError or TypeError, naming the dim, where a window or an overlap does not fit.
        """
        overlap = dict(input_overlap or {})
        for dim in input_dims:
            if dim not in sizes:
                raise ValueError(
                    f"{spelled('input_dims')} names dim {dim!r}, which the selected variables do "
                    f"not have; their dims are {list(sizes)}"
                )
        for dim in overlap:
            if dim not in input_dims:
                raise ValueError(
                    f"{spelled('input_overlap')} names dim {dim!r}, which is not in "
                    f"{spelled('input_dims')} ({list(input_dims)})"
                )
        require_steps(sizes)
        axes = [
            Axis(dim, length, 1, Regular(0, length), windowed=False)
            for dim, length in sizes.items()
            if dim not in input_dims
        ]
        for dim, requested in input_dims.items():
            length = sizes[dim]
            size = as_integer(requested, spelled("input_dims", dim))
            size = length if size == -1 else size
            if size < 1:
                raise ValueError(
                    f"{spelled('input_dims', dim)} is {requested}; a window has 1 step or more "
                    "(-1 takes the whole dim)"
                )
            if size > length and dim not in longer:
                raise ValueError(
                    f"{spelled('input_dims', dim)} is {size}, larger than the dim, which has "
                    f"{length} steps: there is no sample"
                )
            shared = as_integer(overlap.get(dim, 0), spelled("input_overlap", dim))
            if shared >= size:
                raise ValueError(
                    f"{spelled('input_overlap', dim)} is {shared}; it must be less than the "
                    f"window, which has {size} steps"
                )
            starts = Regular(0, max(0, length - size + 1), size - shared)
            axes.append(Axis(dim, length, size, starts, windowed=True))
        windows = cls.of(axes)
        if math.prod(windows.shape) > np.iinfo(np.int64).max:
            raise ValueError(
                f"there are {math.prod(windows.shape)} samples; 2**63 - 1 can be numbered"
            )
        return windows

    def begun_anew(self, dim: Hashable, breaks: npt.ArrayLike) -> Windows:
        """Windows along a dim that are laid anew from each of some steps on, and cross none.

        The samples are numbered anew, and there may be none.

        Examples
        --------
        >>> windows = Windows.from_sizes({"time": 10}, {"time": 4}, {"time": 2})
        >>> [window["time"] for window in windows.begun_anew("time", [5])]
        [slice(0, 4, None), slice(5, 9, None)]
        """
        return self.at_edges(dim, EdgeRule(), breaks)[0]

    def at_edges(
        self, dim: Hashable, rule: EdgeRule, breaks: npt.ArrayLike = ()
    ) -> tuple[Windows, ExtendedDim | None]:
        """Windows along a dim, with their halos, by a rule for its ends.

        They are laid anew from each of some steps on, and cross none. What they find beyond the
        ends of the dim comes with them, if there is any; then they count its steps.
        """
        before = self.axis(dim)
        begins = rule.begins(before.length, before.size, before.stride, breaks)
        size = before.size + rule.halo
        beyond = rule.beyond(before.length, size, begins)
        if beyond is None and size == before.size and begins.same_as(before.starts):
            return self, None
        axis = replace(before, size=size, starts=begins)
        if beyond is not None:
            axis = replace(axis, length=len(beyond), starts=begins.moved(beyond.before))
        axes = (axis if each is before else each for each in self.axes)
        return Windows.of(axes), beyond

    def in_order(self, numbers: IntArray) -> Windows:
        """All windows along the first axis in another order, counted anew."""
        space = self.space.restrict(0, numbers)
        first, *others = space.frames
        counted = replace(first.maps[0], terms={0: Regular(0, len(numbers))})
        first = replace(first, maps=(counted, *first.maps[1:]))
        return Windows(SampleSpace(space.axes, (first, *others)))

    def same_as(self, other: Windows) -> bool:
        """Whether the samples of both lie at the same places, under the same numbers."""
        return len(self.axes) == len(other.axes) and all(
            (mine.dim, mine.length, mine.size, mine.windowed)
            == (theirs.dim, theirs.length, theirs.size, theirs.windowed)
            and mine.starts.same_as(theirs.starts)
            for mine, theirs in zip(self.axes, other.axes, strict=True)
        )

    def normalize(self, index: int) -> int:
        """Sample number from an index that may be negative; IndexError if out of range."""
        return self.space.normalize(index)

    def axis(self, dim: Hashable) -> Axis:
        """The window positions along a dim; ValueError if it is none of the sample space."""
        found = super().axis(dim)
        assert isinstance(found, Axis)
        return found

    def within(self, dim: Hashable, intervals: npt.ArrayLike, lead: int = 0) -> Windows:
        """Only the windows that lie inside one of some intervals of a dim.

        Intervals are data positions ``[start, stop)``, ascending and apart. The first `lead` steps
        of a window, fewer than it has, may lie before its interval. The samples are numbered anew,
        and there may be none.

        Examples
        --------
        >>> windows = Windows.from_sizes({"time": 10}, {"time": 4}, {"time": 3})
        >>> [window["time"] for window in windows.within("time", [(0, 5), (6, 10)])]
        [slice(0, 4, None), slice(1, 5, None), slice(6, 10, None)]
        """
        axis = self.axis(dim)
        start, stop = np.asarray(intervals, dtype=np.int64).reshape(-1, 2).T
        if (start > stop).any() or (start[1:] < stop[:-1]).any():
            raise ValueError(f"the intervals along {dim!r} must be ascending and apart")
        # Step `lead` of a window lies in one interval alone, and so no window is in two of them.
        first, last = axis.inside(start, stop, lead)
        kept = first < last
        numbers = runs_of(first[kept], (last - first)[kept], 1)
        return Windows(self.space.restrict(self.axes.index(axis), numbers))


def require_steps(sizes: Mapping[Any, int]) -> None:
    """Raise ValueError if a dim has no steps, or it is not known how many."""
    for dim, length in sizes.items():
        if length != length:  # not a number
            raise ValueError(
                f"the size of dim {dim!r} is unknown, as that of a filtered dask array is; its "
                "compute_chunk_sizes() finds it"
            )
        if length == 0:
            raise ValueError(f"the data is empty: dim {dim!r} has size 0")
