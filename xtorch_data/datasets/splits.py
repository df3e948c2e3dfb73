"""Parts of the data to train, validate and test on, none of which touches data of another."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ..common import html
from ..common.integers import as_integer
from ..common.random import SPLIT, generator
from ..common.redact import printable
from ..common.text import number_of
from ..planning.intervals import Interval
from ..planning.windows import Axis, Windows
from ..samples.arguments import as_seed
from ..sources.coordinates import Gap, SplitDim
from .iterable import IterableDataset
from .map import MapDataset
from .page import part_of

__all__ = ["Split", "kfold", "random_split", "split"]

logger = logging.getLogger(__name__)

Either = IterableDataset | MapDataset
D = TypeVar("D", bound=Either)

# Windows that a block of `random_split` has room for, end to end, where chunks have less.
WINDOWS_IN_A_BLOCK = 8


class Split(tuple[D, ...]):
    """The datasets of a split, in order; it unpacks like the tuple that it is.

    Shown, it says how many samples each part has, of those that ``where`` keeps, and from which
    label to which they reach.

    Attributes
    ----------
    left_out : int
        Samples that are in none of them: their windows cross a boundary or lie in a gap. Those that
        ``where`` leaves out are not counted.
    dim : Hashable
        The dim that was cut.
    """

    left_out: int
    dim: Hashable

    def __new__(cls, datasets: Iterable[D], left_out: int, dim: Hashable) -> Split[D]:
        """Take the datasets."""
        made = super().__new__(cls, datasets)
        made.left_out, made.dim = left_out, dim
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.left_out, self.dim

    def _head(self) -> str:
        head = f"{number_of(len(self), 'part')} along {self.dim!r}"
        out = [f"{self.left_out:,} at boundaries and in gaps"] if self.left_out else []
        by_where = sum(dataset.plan.left_out for dataset in self)
        out += [f"{by_where:,} by where"] if by_where else []
        return f"{head}; samples left out: {', '.join(out) or 'none'}"

    def _rows(self) -> list[tuple[str, str]]:
        """Samples of each part, and from where to where they reach."""
        return [(f"{dataset.plan.samples:,}", _reach(dataset, self.dim)) for dataset in self]

    def __repr__(self) -> str:
        rows = self._rows()
        width = max((len(samples) for samples, _ in rows), default=0)
        lines = [f"  {samples:>{width}} samples: {reach}" for samples, reach in rows]
        return "\n".join([f"<xtorch_data.Split into {self._head()}", *lines]) + ">"

    def _repr_html_(self) -> str:
        rows = [(str(place), *row) for place, row in enumerate(self._rows())]
        parts = [html.table(("part", "samples", printable(self.dim)), rows)]
        return html.page("xtorch_data.Split", self._head(), parts, repr(self))


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
    dataset : IterableDataset or MapDataset
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
    along = _along(dataset, dim)
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
        begins = [
            0,
            *(along.nth(end) if end < along.steps else along.axis.length for end in ends),
        ]
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
    dataset : IterableDataset or MapDataset
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
    along = _along(dataset, dim)
    along.check(gap)
    folds = as_integer(n_splits, "n_splits")
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
    dataset : IterableDataset or MapDataset
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
    along = _along(dataset, dim)
    along.check(gap)
    size = _block(dataset, along.axis) if block is None else as_integer(block, "block")
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


def _along(dataset: Either, dim: Hashable) -> SplitDim:
    if not isinstance(dataset, IterableDataset | MapDataset):
        raise TypeError(
            "dataset must be an xtorch_data.MapDataset or IterableDataset, not "
            f"{type(dataset).__name__}"
        )
    return SplitDim.of(dataset.plan.windows.axis(dim), dataset.windows.index(dim))


def _shares(fractions: Sequence[float], count: int) -> list[int]:
    """Ends of the shares of some things, in order."""
    shares = [float(fraction) for fraction in fractions]
    if len(shares) < 2 or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(
            f"fractions must be two or more positive numbers that add up to 1, not {fractions!r}"
        )
    return [*(math.floor(end * count + 0.5) for end in np.cumsum(shares)[:-1]), count]


def _block(dataset: Either, axis: Axis) -> int:
    """Steps of the chunks in which a dim is stored, as many as have room for some windows."""
    chunks = (layout.chunks.get(axis.dim) for layout in dataset.plan.layouts)
    chunk = max((grid.largest for grid in chunks if grid is not None), default=1)
    return chunk * -(-WINDOWS_IN_A_BLOCK * axis.size // chunk)


def _made(dataset: D, along: SplitDim, parts: Sequence[Sequence[Interval]]) -> Split[D]:
    """The datasets of some parts of the data."""
    _windows(dataset, along, parts)
    found: list[D] = []
    for number, part in enumerate(parts):
        try:
            found.append(part_of(dataset, dataset._inside.what.within(along.axis.dim, part)))
        except ValueError as error:  # where leaves nothing of it
            raise ValueError(
                f"part {number} of {len(parts)} along {along.axis.dim!r}: {error}"
            ) from error
    left_out = dataset.plan.samples - sum(part.plan.samples for part in found)
    logger.info(
        "split along %r: of %d samples, %d are in no part, for their windows cross a boundary or "
        "lie in a gap",
        along.axis.dim,
        dataset.plan.samples,
        left_out,
    )
    return Split(found, left_out, along.axis.dim)


def _reach(dataset: Either, dim: Hashable) -> str:
    """The first and the last label along a dim of the samples there are; steps without labels."""
    windows, where = dataset.plan.windows, dataset.plan.where
    axis = windows.axis(dim)
    place = windows.axes.index(axis)
    numbers = np.arange(len(axis)) if where is None else where.along(place, len(axis))
    if not len(numbers):
        return "none"
    first, last = axis.span(int(numbers[0]), int(numbers[-1]) + 1)
    text = dataset.windows.texts(dim)
    ends = [f"step {first:,}", f"step {last - 1:,}"]
    if text is not None:
        ends = [text(first), text(last - 1)]
    stretches = len(axis.stretches[0])
    holes = f", in {stretches:,} stretches" if stretches > 1 and where is None else ""
    return " to ".join(dict.fromkeys(ends)) + holes


def _windows(
    dataset: Either,
    along: SplitDim,
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
                what += f" ({printable(along.index[first])} to {printable(along.index[last])})"
            what += f", have no room for a window of {axis.size}"
        raise ValueError(
            f"{which}part {number} of {len(parts)} along {axis.dim!r} has no sample: {what}. Move "
            "the boundaries, take fewer parts, a smaller gap or smaller windows"
        )
    return found
