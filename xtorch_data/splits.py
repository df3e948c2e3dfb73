"""Parts of the data to train, validate and test on, none of which touches data of another."""

from __future__ import annotations

import datetime
import logging
import math
import numbers
import operator
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from .arguments import as_seed
from .dataset import IterableDataset
from .epoch import SPLIT, generator
from .intervals import Interval
from .windows import Axis, IntArray, Windows

__all__ = ["Split", "kfold", "random_split", "split"]

logger = logging.getLogger(__name__)

D = TypeVar("D", bound=IterableDataset)
Gap = int | float | str | datetime.timedelta | np.timedelta64

# Windows that a block of `random_split` has room for, end to end, where chunks have less.
WINDOWS_IN_A_BLOCK = 8


class Split(tuple[D, ...]):
    """The datasets of a split, in order; it unpacks like the tuple that it is.

    Attributes
    ----------
    left_out : int
        Samples that are in none of them: their windows cross a boundary or lie in a gap.
    """

    left_out: int

    def __new__(cls, datasets: Iterable[D], left_out: int) -> Split[D]:
        """Take the datasets."""
        made = super().__new__(cls, datasets)
        made.left_out = left_out
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.left_out

    def __repr__(self) -> str:
        counts = ", ".join(str(len(dataset.windows)) for dataset in self)
        return f"<Split into {counts} samples, {self.left_out} left out>"


def split(
    dataset: D,
    dim: Hashable,
    *,
    at: Sequence[Any] | None = None,
    fractions: Sequence[float] | None = None,
    gap: Gap = 0,
) -> Split[D]:
    """Cut a dataset along a dim into parts that share no coordinate.

    Every part holds the windows that lie wholly inside it: a window that crosses a boundary
    belongs to no part. Parts are datasets of the same class, with the same arguments, whose
    samples are numbered from 0 and whose batches keep their coordinates.

    Parameters
    ----------
    dataset : IterableDataset
        What is cut. It may be a part itself.
    dim : Hashable
        Any dim of the samples, in ``input_dims`` or not.
    at : sequence of labels, optional
        Where parts begin, from the second on, as labels of the dim's coordinate: numbers, dates as
        text, ``datetime`` or cftime objects. The coordinate at a boundary belongs to the later
        part.
    fractions : sequence of float, optional
        Shares of the dim's steps instead, which add up to 1. They need no coordinate.
    gap : int, float, str or timedelta
        How much is left out between parts, at the end of the earlier one: steps if it is an
        integer, time if it is text such as ``"14D"`` or a timedelta, units of the coordinate if it
        is a float.

    Returns
    -------
    Split
        A tuple of datasets, one more than boundaries. ``left_out`` counts samples in none of them.

    Raises
    ------
    ValueError
        If a part has no sample, the coordinate is not fit to look labels up, or arguments do not
        fit together; the message says what would help.
    TypeError
        If a label or the gap cannot be compared with the coordinate.

    Examples
    --------
    >>> import xarray as xr, xtorch_data as xtd
    >>> time = xr.date_range("2020-01-01", periods=366)
    >>> t2m = xr.DataArray(range(366), dims="time", coords={"time": time}, name="t2m")
    >>> dataset = xtd.IterableDataset(t2m, input_dims={"time": 8}, input_overlap={"time": 7})
    >>> train, val = xtd.split(dataset, "time", at=["2020-11-01"], gap="14D")
    >>> len(train.windows), len(val.windows)
    (284, 54)
    >>> val.windows.coords(0)["time"].values[0].astype("datetime64[D]")
    np.datetime64('2020-11-01')
    """
    along = _Along.of(dataset, dim)
    if (at is None) == (fractions is None):
        raise ValueError("give either at=[…], labels where parts begin, or fractions=(…)")
    if at is not None:
        labels = [at] if isinstance(at, str) or np.ndim(at) == 0 else list(at)
        begins = [0, *(along.position(label) for label in labels)]
        if sorted(begins) != begins:
            raise ValueError(f"at={labels!r} must follow the order of the coordinate {dim!r}")
    else:
        assert fractions is not None
        ends = _shares(fractions, along.steps)[:-1]
        begins = [0, *(along.nth(min(end, along.steps - 1)) for end in ends)]
    along.check(gap)
    stops = [*(along.before(begin, gap) for begin in begins[1:]), along.axis.length]
    parts = [along.between(*part) for part in zip(begins, stops, strict=True)]
    return _made(dataset, along, parts)


def kfold(dataset: D, dim: Hashable, n_splits: int = 5, *, gap: Gap = 0) -> Iterator[Split[D]]:
    """Folds along a dim: each part of it is tested on once, with the rest to train on.

    Test folds are contiguous, as those of `sklearn.model_selection.KFold
    <https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.KFold.html>`_
    without shuffling: steps of the dim in equal numbers, the first folds one larger if they cannot
    be equal. Training windows lie wholly before the test fold or wholly behind it.

    Parameters
    ----------
    dataset : IterableDataset
        What is cut. It may be a part of a split.
    dim : Hashable
        Any dim of the samples.
    n_splits : int
        Number of folds.
    gap : int, float, str or timedelta
        How much is left out of the training data on both sides of the test fold, as for `split`.

    Yields
    ------
    Split
        A training and a test dataset, which unpack like a tuple.

    Raises
    ------
    ValueError, TypeError
        As `split` does, when it is called.

    Examples
    --------
    >>> import xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(range(50), dims="time", name="t2m")
    >>> dataset = xtd.IterableDataset(t2m, input_dims={"time": 3}, input_overlap={"time": 2})
    >>> for train, val in xtd.kfold(dataset, "time", n_splits=3, gap=5):
    ...     print(len(train.windows), len(val.windows))
    26 15
    19 15
    27 14
    """
    along = _Along.of(dataset, dim)
    along.check(gap)
    folds = _integer(n_splits, "n_splits")
    if not 2 <= folds <= along.steps:
        raise ValueError(f"n_splits must be 2 to {along.steps}, the steps of {dim!r}, not {folds}")
    each, more = divmod(along.steps, folds)
    found = []
    for fold in range(folds):
        first = fold * each + min(fold, more)
        last = first + each + (fold < more)
        begin, end = along.nth(first), along.nth(last - 1) + 1
        test = along.between(begin, end)
        train: list[Interval] = []
        if first > 0:
            train += along.between(0, along.before(begin, gap))
        if last < along.steps:
            train += along.between(along.after(end - 1, gap), along.axis.length)
        found.append([train, test])
    for fold, parts in enumerate(found):
        _windows(dataset, along, parts, f"fold {fold}: ")
    return (_made(dataset, along, parts) for parts in found)


def random_split(
    dataset: D,
    dim: Hashable,
    fractions: Sequence[float],
    *,
    block: int | None = None,
    seed: int = 0,
    gap: Gap = 0,
) -> Split[D]:
    """Deal blocks of a dim out to parts at random, for data whose order does not matter.

    A part holds the windows that lie wholly in its blocks; neighboring blocks of one part are one.
    With blocks of whole chunks, no part reads what another one does, but for windows' halos.

    Parameters
    ----------
    dataset : IterableDataset
        What is dealt out. It may be a part of a split.
    dim : Hashable
        Any dim of the samples.
    fractions : sequence of float
        Shares of the blocks, which add up to 1.
    block : int, optional
        Steps in a block. By default chunks as they are stored, as many as have room for 8 windows
        end to end.
    seed : int
        What the choice depends on.
    gap : int, float, str or timedelta
        How much is left out where the next block is another part's, as for `split`.

    Returns
    -------
    Split
        A tuple of datasets, one for each fraction.

    Raises
    ------
    ValueError, TypeError
        As `split` does.

    Examples
    --------
    >>> import xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(range(100), dims="time", name="t2m")
    >>> dataset = xtd.IterableDataset(t2m, input_dims={"time": 2}, input_overlap={"time": 1})
    >>> train, val = xtd.random_split(dataset, "time", (0.8, 0.2), block=10)
    >>> len(train.windows) + len(val.windows) < len(dataset.windows)
    True
    """
    along = _Along.of(dataset, dim)
    along.check(gap)
    size = _block(dataset, along.axis) if block is None else _integer(block, "block")
    if size < 1:
        raise ValueError(f"block must be 1 step or more, not {size}")
    count = -(-along.steps // size)
    owner = np.empty(count, dtype=np.int64)
    order = generator(as_seed(seed), 0, SPLIT, 0).permutation(count)
    for part, chosen in enumerate(np.split(order, _shares(fractions, count)[:-1])):
        owner[chosen] = part
    # Stretches of blocks that belong to one part.
    begins = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    ends = np.append(begins[1:], count)
    parts: list[list[Interval]] = [[] for _ in fractions]
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        stop = along.axis.length
        if end < count:
            stop = along.before(along.nth(end * size), gap)
        parts[owner[begin]] += along.between(along.nth(begin * size), stop)
    return _made(dataset, along, parts)


@dataclass(frozen=True, eq=False)
class _Along:
    """A dim that is cut: its windows, its coordinate, and what of it there is."""

    axis: Axis
    index: pd.Index[Any] | None
    # What there is of it, as data positions; a part that is cut again may have holes.
    starts: IntArray
    stops: IntArray

    @classmethod
    def of(cls, dataset: IterableDataset, dim: Hashable) -> _Along:
        axis = dataset.plan.windows.axis(dim)
        index = dataset.windows.index(dim)
        if index is not None and not index.is_unique:
            twice = index[index.duplicated()][0]
            raise ValueError(
                f"the coordinate {dim!r} has {twice} more than once, so that parts could share "
                f"it: ds.drop_duplicates({dim!r}) keeps the first of each, "
                f"ds.drop_vars({dim!r}) leaves the dim without a coordinate"
            )
        starts, stops = axis.stretches
        # Steps at an end that have no room for one more window belong to it.
        if starts[0] < axis.stride:
            starts[0] = 0
        if stops[-1] + axis.stride > axis.length:
            stops[-1] = axis.length
        return cls(axis, index, starts, stops)

    @property
    def steps(self) -> int:
        """Number of steps there are."""
        return int((self.stops - self.starts).sum())

    def nth(self, step: int) -> int:
        """Data position of one of the steps there are."""
        ends = np.cumsum(self.stops - self.starts)
        place = np.searchsorted(ends, step, side="right")
        return int(self.stops[place] - (ends[place] - step))

    def between(self, start: int, stop: int) -> list[Interval]:
        """What there is of the data positions ``[start, stop)``."""
        first = int(np.searchsorted(self.stops, start, "right"))
        last = int(np.searchsorted(self.starts, stop))
        some = slice(first, last)
        starts = np.maximum(self.starts[some], start).tolist()
        stops = np.minimum(self.stops[some], stop).tolist()
        return list(zip(starts, stops, strict=True)) if start < stop else []

    def position(self, label: Any) -> int:
        """Data position of the first step that is not before a label."""
        index = self._sorted(f"at={label!r}")
        try:
            if index.dtype.kind in "iuf" and not isinstance(label, numbers.Real):
                raise TypeError("it is not a number")  # pandas would compare texts
            return int(index.get_slice_bound(label, "left"))
        except (TypeError, ValueError, KeyError) as error:
            raise TypeError(
                f"at={label!r} cannot be compared with the coordinate {self.axis.dim!r}, which "
                f"goes from {index[0]} to {index[-1]}: {error}"
            ) from error

    def before(self, position: int, gap: Gap) -> int:
        """Where data ends that is apart by a gap from what begins at a position."""
        if _in_steps(gap):
            return max(position - int(gap), 0)
        if position >= self.axis.length:
            return position
        return min(self._shifted(position, gap, -1), position)

    def after(self, position: int, gap: Gap) -> int:
        """Where data begins that is apart by a gap from what ends with a position."""
        if _in_steps(gap):
            return position + 1 + int(gap)
        return max(self._shifted(position, gap, 1), position + 1)

    def _shifted(self, position: int, gap: Gap, direction: int) -> int:
        index = self._sorted(f"gap={gap!r}")
        distance = self._distance(index, gap)
        if index.is_monotonic_increasing == (direction > 0):
            label = index[position] + distance
        else:
            label = index[position] - distance
        return int(index.get_slice_bound(label, "left" if direction < 0 else "right"))

    def check(self, gap: Gap) -> None:
        """Raise if a gap does not fit the coordinate."""
        if isinstance(gap, (bool, np.bool_)):
            raise TypeError(f"gap must be steps, a time or units of {self.axis.dim!r}, not {gap!r}")
        if _in_steps(gap):
            negative = gap < 0
        else:
            index = self._sorted(f"gap={gap!r}")
            distance = self._distance(index, gap)
            negative = not distance >= distance * 0
        if negative:
            raise ValueError(f"gap must not be negative, got {gap!r}")

    def _distance(self, index: pd.Index[Any], gap: Gap) -> Any:
        """A gap as what is added to labels."""
        numeric = index.dtype.kind in "iuf"
        try:
            if isinstance(gap, (float, np.floating)):
                if numeric:
                    return float(gap)
            elif isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
                return pd.Timedelta(gap)
            elif isinstance(index, xr.CFTimeIndex):
                return pd.Timedelta(gap).to_pytimedelta()
        except (TypeError, ValueError) as error:
            raise ValueError(f"gap={gap!r} is not understood as a time: {error}") from error
        wanted = "a float in its units" if numeric else "a time such as '14D'"
        raise TypeError(
            f"gap={gap!r} does not fit the coordinate {self.axis.dim!r}, which goes from "
            f"{index[0]} to {index[-1]}: give steps as an integer or, if it is apt, {wanted}"
        )

    def _sorted(self, what: str) -> pd.Index[Any]:
        """The coordinate, if it serves to look labels up."""
        dim, index = self.axis.dim, self.index
        if index is None:
            raise ValueError(
                f"{what} needs a coordinate along {dim!r}, which has none: fractions=(…) and a gap "
                "in steps do without"
            )
        if isinstance(index, pd.MultiIndex):
            raise ValueError(f"{what} needs a plain coordinate; {dim!r} has several levels")
        if not (index.is_monotonic_increasing or index.is_monotonic_decreasing):
            raise ValueError(
                f"{what} needs a sorted coordinate, and {dim!r} is not: ds.sortby({dim!r}) sorts it"
            )
        return index


def _in_steps(gap: Gap) -> TypeGuard[int]:
    # A numpy timedelta is a numpy integer, too.
    return isinstance(gap, (int, np.integer)) and not isinstance(gap, np.timedelta64)


def _shares(fractions: Sequence[float], count: int) -> list[int]:
    """Ends of the shares of some things, in order."""
    shares = [float(fraction) for fraction in fractions]
    if len(shares) < 2 or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"fractions must be two or more positive numbers that add up to 1, not {fractions!r}"
        )
    return [*(math.floor(end * count + 0.5) for end in np.cumsum(shares)[:-1]), count]


def _block(dataset: IterableDataset, axis: Axis) -> int:
    """Steps of the chunks in which a dim is stored, as many as have room for some windows."""
    chunks = (layout.chunks.get(axis.dim) for layout in dataset.plan.layouts)
    chunk = max((grid.largest for grid in chunks if grid is not None), default=1)
    return chunk * -(-WINDOWS_IN_A_BLOCK * axis.size // chunk)


def _made(dataset: D, along: _Along, parts: Sequence[Sequence[Interval]]) -> Split[D]:
    """The datasets of some parts of the data."""
    windows = _windows(dataset, along, parts)
    left_out = len(dataset.windows) - sum(map(len, windows))
    logger.info(
        "split along %r: of %d samples, %d are in no part, for their windows cross a boundary or "
        "lie in a gap",
        along.axis.dim,
        len(dataset.windows),
        left_out,
    )
    return Split((dataset.with_windows(part) for part in windows), left_out)


def _windows(
    dataset: IterableDataset,
    along: _Along,
    parts: Sequence[Sequence[Interval]],
    which: str = "",
) -> list[Windows]:
    """The windows of each part; ValueError if there are none of one."""
    axis = along.axis
    found = [dataset.plan.windows.within(axis.dim, part) for part in parts]
    for number, (windows, part) in enumerate(zip(found, parts, strict=True)):
        if len(windows):
            continue
        what = "nothing is left of it"
        if part:
            first, last = part[0][0], part[-1][1] - 1
            what = f"its steps, {first} to {last}"
            if along.index is not None:
                what += f" ({along.index[first]} to {along.index[last]})"
            what += f", have no room for a window of {axis.size}"
        raise ValueError(
            f"{which}part {number} of {len(parts)} along {axis.dim!r} has no sample: {what}. Move "
            "the boundaries, take fewer parts, a smaller gap or smaller windows"
        )
    return found


def _integer(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
