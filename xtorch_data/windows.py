"""What a sample is: windows over some dims at every place of the others.

Pure arithmetic over integers. Nothing here reads data or lists samples: a sample space of 10**12
samples is a handful of numbers per dim.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Windows"]

IntArray = npt.NDArray[np.int64]


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
    starts : range or ndarray of int64
        Data position at which each window begins, ascending. A ``range`` takes no memory.
    windowed : bool
        Whether the dim is kept in a sample. A dim that is not windowed disappears.
    """

    dim: Hashable
    length: int
    size: int
    starts: range | IntArray
    windowed: bool

    def __len__(self) -> int:
        return len(self.starts)

    def start(self, numbers: IntArray) -> IntArray:
        """Data positions at which the windows `numbers` begin."""
        if isinstance(self.starts, range):
            return numbers * self.starts.step + self.starts.start
        return self.starts[numbers]

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
        return np.searchsorted(self.starts, at).astype(np.int64)


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
                    f"input_dims names dim {dim!r}, which the selected variables do not have; "
                    f"their dims are {list(sizes)}"
                )
        for dim in overlap:
            if dim not in input_dims:
                raise ValueError(
                    f"input_overlap names dim {dim!r}, which is not in input_dims "
                    f"({list(input_dims)})"
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
            size = _integer(requested, f"input_dims[{dim!r}]")
            size = length if size == -1 else size
            if size < 1:
                raise ValueError(
                    f"input_dims[{dim!r}] is {requested}; a window has 1 step or more "
                    "(-1 takes the whole dim)"
                )
            if size > length:
                raise ValueError(
                    f"input_dims[{dim!r}] is {size}, larger than the dim, which has {length} "
                    "steps: there is no sample"
                )
            shared = _integer(overlap.get(dim, 0), f"input_overlap[{dim!r}]")
            if shared >= size:
                raise ValueError(
                    f"input_overlap[{dim!r}] is {shared}; it must be less than the window, "
                    f"which has {size} steps"
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

    def subset(self, dim: Hashable, keep: slice | Sequence[int] | IntArray) -> Windows:
        """Keep only some of the window positions along a dim.

        Parameters
        ----------
        dim : Hashable
            One of the dims of the sample space.
        keep : slice or sequence of int
            Which window numbers along `dim` to keep, in ascending order.

        Returns
        -------
        Windows
            A sample space of its own, its samples numbered from 0.
        """
        axes = list(self.axes)
        place = [axis.dim for axis in axes].index(dim)
        axis = axes[place]
        if isinstance(keep, slice):
            starts = axis.starts[keep]
        else:
            numbers = np.asarray(keep, dtype=np.int64)
            if numbers.ndim != 1 or (np.diff(numbers) <= 0).any():
                raise ValueError(f"the windows kept along {dim!r} must be 1-d and ascending")
            starts = axis.start(numbers)
        if len(starts) == 0:
            raise ValueError(f"no window is left along dim {dim!r}")
        axes[place] = replace(axis, starts=starts)
        return Windows(tuple(axes))


def _integer(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
