"""What a sample is: windows over some dims at every place of the others.

Pure arithmetic over integers. Nothing here reads data or lists samples: a sample space of 10**12
samples is a handful of numbers per dim.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.spelling import spelled

__all__ = ["Axis", "Runs", "Windows"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Runs:
    """Ascending positions: runs with one step between neighbors, and holes between the runs.

    Attributes
    ----------
    begins : ndarray of int64
        First position of each run.
    ends : ndarray of int64
        Number of positions in each run and all runs before it.
    step : int
        From a position to the next one of its run.
    firsts : ndarray of int64
        Number of positions in all runs before each run.
    """

    begins: IntArray
    ends: IntArray
    step: int
    firsts: IntArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "firsts", np.append(0, self.ends[:-1]))

    @classmethod
    def of(cls, begins: IntArray, counts: IntArray, step: int) -> range | Runs:
        """Runs of some lengths; a single one is a range."""
        if len(begins) == 1:
            return range(int(begins[0]), int(begins[0] + counts[0] * step), step)
        return cls(begins, np.cumsum(counts), step)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, numbers: Any) -> Any:
        run = np.searchsorted(self.ends, numbers, side="right")
        return self.begins[run] + (numbers - self.firsts[run]) * self.step

    def first_from(self, positions: IntArray) -> IntArray:
        """How many come before each of `positions`."""
        run = np.searchsorted(self.begins, positions) - 1
        inside = -((self.begins[run] - positions) // self.step)
        return np.where(run < 0, 0, np.minimum(self.firsts[run] + inside, self.ends[run]))


@dataclass(frozen=True, eq=False)
class Axis:
    """The window positions along one dim.

    Attributes
    ----------
    dim : Hashable
        Name of the dim.
    length : int
        Size of the dim in the data.
    size : int
        Number of steps in one window, 1 where the dim is not windowed.
    starts : range or Runs
        Data position at which each window begins, ascending.
    windowed : bool
        Whether the dim is kept in a sample. A dim that is not windowed disappears.
    """

    dim: Hashable
    length: int
    size: int
    starts: range | Runs
    windowed: bool

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def whole(self) -> bool:
        """Whether a window is all of the dim, so that no block has less of it."""
        return self.size == self.length

    def start(self, numbers: IntArray) -> IntArray:
        """Data positions at which the windows `numbers` begin."""
        if isinstance(self.starts, range):
            return numbers * self.starts.step + self.starts.start
        return self.starts[numbers]  # type: ignore[no-any-return]

    @property
    def stride(self) -> int:
        """Steps from a window to the next, but for holes."""
        return self.starts.step

    @property
    def runs(self) -> tuple[IntArray, IntArray]:
        """Window numbers ``[first, last)`` of each run of windows without a hole."""
        if isinstance(self.starts, range):
            return np.array([0]), np.array([len(self)])
        return self.starts.firsts, self.starts.ends

    @property
    def stretches(self) -> tuple[IntArray, IntArray]:
        """Data positions ``[start, stop)`` that runs of windows cover, ascending and apart.

        Steps between the windows of a run are among them. Runs that overlap, as the last items of
        a generator may, are one stretch.
        """
        first, last = self.runs
        return _apart(self.start(first), self.start(last - 1) + self.size)

    @property
    def covered_stretches(self) -> tuple[IntArray, IntArray]:
        """Likewise, without the steps between windows: each of them lies in a window."""
        if self.stride <= self.size:
            return self.stretches
        begins = self.start(np.arange(len(self)))
        return _apart(begins, begins + self.size)

    def indexer(self, number: int) -> slice | int:
        """What ``isel`` takes to cut window `number`."""
        start = int(self.starts[number])
        return slice(start, start + self.size) if self.windowed else start

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Data positions ``[start, stop)`` that windows ``[first, last)`` cover."""
        return int(self.starts[first]), int(self.starts[last - 1]) + self.size

    def first_from(self, positions: npt.ArrayLike) -> IntArray:
        """Number of windows that begin before each of `positions`."""
        at = np.asarray(positions, dtype=np.int64)
        if isinstance(self.starts, range):
            begin, step = self.starts.start, self.starts.step
            return np.clip(-((begin - at) // step), 0, len(self.starts))
        return self.starts.first_from(at)


@dataclass(frozen=True, eq=False)
class Windows:
    """The sample space: the product of the window positions along every dim.

    Samples are numbered in C order over `axes`: other dims first, in the order of the data, then
    the windowed dims in the order of ``input_dims``. Along a windowed dim, windows of `size` steps
    begin at ``k * (size - overlap)``; a window that would pass the end is dropped. These are the
    rules of `xbatcher.BatchGenerator <https://xbatcher.readthedocs.io>`_.

    Attributes
    ----------
    axes : tuple of Axis
        One axis per dim of the sample space, slowest first.

    Examples
    --------
    >>> windows = Windows.from_sizes({"time": 6, "x": 2}, {"time": 4}, {"time": 3})
    >>> len(windows)
    6
    >>> windows[4]
    {'x': 1, 'time': slice(1, 5, None)}
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(len(axis) for axis in self.axes))

    @classmethod
    def from_sizes(
        cls,
        sizes: Mapping[Any, int],
        input_dims: Mapping[Any, int],
        input_overlap: Mapping[Any, int] | None = None,
    ) -> Windows:
        """Lay windows over data of the given sizes.

        Parameters
        ----------
        sizes : mapping of Hashable to int
            Size of every dim of the data, in the order of the data.
        input_dims : mapping of Hashable to int
            Size of one window along each windowed dim; -1 is the whole dim.
        input_overlap : mapping of Hashable to int, optional
            Steps that neighboring windows share, less than the window's size. A negative overlap
            leaves steps out between windows.

        Raises
        ------
        ValueError
            If a dim is unknown, a window does not fit, an overlap is too large, or there is not
            a single sample.
        TypeError
            If a size or an overlap is not an integer.
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
        for dim, length in sizes.items():
            if length != length:  # not a number
                raise ValueError(
                    f"the size of dim {dim!r} is unknown, as that of a filtered dask array is; its "
                    "compute_chunk_sizes() finds it"
                )
            if length == 0:
                raise ValueError(f"the data is empty: dim {dim!r} has size 0")
        axes = [
            Axis(dim, length, 1, range(length), windowed=False)
            for dim, length in sizes.items()
            if dim not in input_dims
        ]
        for dim, requested in input_dims.items():
            length = sizes[dim]
            size = _integer(requested, spelled("input_dims", dim))
            size = length if size == -1 else size
            if size < 1:
                raise ValueError(
                    f"{spelled('input_dims', dim)} is {requested}; a window has 1 step or more "
                    "(-1 takes the whole dim)"
                )
            if size > length:
                raise ValueError(
                    f"{spelled('input_dims', dim)} is {size}, larger than the dim, which has "
                    f"{length} steps: there is no sample"
                )
            shared = _integer(overlap.get(dim, 0), spelled("input_overlap", dim))
            if shared >= size:
                raise ValueError(
                    f"{spelled('input_overlap', dim)} is {shared}; it must be less than the "
                    f"window, which has {size} steps"
                )
            starts = range(0, length - size + 1, size - shared)
            axes.append(Axis(dim, length, size, starts, windowed=True))
        windows = cls(tuple(axes))
        if math.prod(windows.shape) > np.iinfo(np.int64).max:
            raise ValueError(
                f"there are {math.prod(windows.shape)} samples; 2**63 - 1 can be numbered"
            )
        return windows

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, index: int) -> dict[Any, slice | int]:
        numbers = np.unravel_index(self.normalize(index), self.shape) if self.axes else ()
        return {
            axis.dim: axis.indexer(int(number))
            for axis, number in zip(self.axes, numbers, strict=True)
        }

    def normalize(self, index: int) -> int:
        """Sample number from an index that may be negative; IndexError if out of range."""
        number = operator.index(index)
        total = len(self)
        if not -total <= number < total:
            raise IndexError(f"sample {number} is out of range for {total} samples")
        return number % total

    def starts(self, samples: npt.ArrayLike) -> IntArray:
        """Data positions at which samples begin.

        Parameters
        ----------
        samples : array_like of int
            Sample numbers, any shape.

        Returns
        -------
        ndarray of int64
            Shape ``(number of axes, *samples.shape)``.
        """
        flat = np.asarray(samples, dtype=np.int64)
        out = np.empty((len(self.axes), *flat.shape), dtype=np.int64)
        if self.axes:
            for place, numbers in enumerate(np.unravel_index(flat, self.shape)):
                out[place] = self.axes[place].start(numbers)
        return out

    def axis(self, dim: Hashable) -> Axis:
        """The window positions along a dim; ValueError if it is none of the sample space."""
        for axis in self.axes:
            if axis.dim == dim:
                return axis
        raise ValueError(
            f"there is no dim {dim!r} in the samples; theirs are {[axis.dim for axis in self.axes]}"
        )

    def within(self, dim: Hashable, intervals: npt.ArrayLike) -> Windows:
        """Only the windows that lie wholly inside one of some intervals of a dim.

        Parameters
        ----------
        dim : Hashable
            One of the dims of the sample space.
        intervals : array_like of int
            Data positions ``[start, stop)``, ascending and apart, shape ``(interval, 2)``.

        Returns
        -------
        Windows
            A sample space of its own, its samples numbered from 0. It may be empty.

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
        first = axis.first_from(start)
        last = np.maximum(axis.first_from(stop - axis.size + 1), first)
        # Runs of window numbers end where an interval ends, or where there is a hole already.
        edges = np.unique(np.concatenate([first, last, axis.runs[1]]))
        place = np.searchsorted(first, edges[:-1], side="right") - 1
        kept = edges[:-1] < np.append(last, 0)[place]  # the 0 is for place -1
        begins, counts = axis.start(edges[:-1][kept]), np.diff(edges)[kept]
        # Where there is no hole between two of them, they are one.
        ends = begins + counts * axis.stride
        one = np.append(True, begins[1:] != ends[:-1])[: len(begins)]
        runs = np.flatnonzero(one)
        starts: range | Runs = range(0)
        if len(runs):
            starts = Runs.of(begins[runs], np.add.reduceat(counts, runs), axis.stride)
        return Windows(
            tuple(replace(axis, starts=starts) if axis is other else other for other in self.axes)
        )


def _apart(starts: IntArray, stops: IntArray) -> tuple[IntArray, IntArray]:
    """Ascending stretches, of which those that overlap are one."""
    apart = starts[1:] >= stops[:-1]
    return starts[np.append(True, apart)], stops[np.append(apart, True)]


def _integer(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
