"""Parts of the data to train, validate and test on, which share no label of what they go by."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

import numpy as np

from ..common.integers import as_integer
from ..common.redact import printable
from ..common.text import number_of
from ..common.user_warnings import telling_once
from ..planning.intervals import Interval
from ..samples.arguments import as_seed
from ..sources.coordinates import Along, Gap
from .fitted_labels import warn_of_statistics
from .iterable import IterableDataset
from .map import MapDataset
from .page import part_of
from .split_cuts import Cut, cut_at, cut_by_ranges, cut_by_shares, cut_fold, deal
from .split_dims import is_centered
from .split_parts import (
    WINDOWS_IN_A_BLOCK,
    By,
    Stretches,
    along_of,
    block_of,
    lead_of,
    require_targets,
)
from .split_result import Either, Split
from .what import What

__all__ = ["Split", "kfold", "random_split", "split"]

logger = logging.getLogger(__name__)

D = TypeVar("D", bound=Either)


def split(
    dataset: D,
    along: Hashable,
    *,
    at: Sequence[Any] | None = None,
    fractions: Sequence[float] | None = None,
    ranges: Sequence[slice | Sequence[slice]] | None = None,
    gap: Gap = 0,
    by: By = "windows",
) -> Split[D]:
    """Cut a dataset along a dim or a coordinate into parts that share no label of it.

    Every part holds the windows that lie wholly inside it: a window that crosses a boundary
    belongs to no part. With ``by="targets"`` it holds the samples whose targets lie inside it.
    Parts are datasets of the same class, with the same arguments, whose samples are numbered from 0
    and whose batches keep their coordinates.

    Parameters
    ----------
    dataset : IterableDataset or MapDataset
        What is cut. It may be a part itself.
    along : Hashable
        Any dim of the samples, in ``input_dims`` or not, or a coordinate of one or two of their
        dims, such as ``"valid_time"`` of a forecast's init and lead times, or ``"storm"``. Of a
        coordinate, the different labels are cut, in their order (text in that of the alphabet).
        They may come in any order and more than once. Where a label is missing (NaN, NaT), the step
        belongs to no part.
    at : sequence of labels, optional
        Where parts begin, from the second on: numbers, dates as text, ``datetime`` or cftime
        objects, names. The label at a boundary belongs to the later part.
    fractions : sequence of float, optional
        Shares of the dim's steps, or of a coordinate's labels, which add up to 1. Along a dim they
        need no coordinate.
    ranges : sequence of slice or list of slice, optional
        For each part a slice of labels, or several, with both ends included as in `sel` of xarray:
        ``slice("1980", "1999")`` ends with the last day of 1999. They must not overlap, and may
        come in any order and leave out some of the data. Those of one part that touch are one.
    gap : int, float, str or timedelta
        How much is left out between parts, at the end of the earlier one: steps (labels of a
        coordinate) if it is an integer, time if it is text such as ``"14D"`` or a timedelta, units
        of the labels if it is a float. Between ranges that are farther apart nothing is left out.
    by : {"windows", "targets"}
        What no two parts share, and what the gap lies between. ``"windows"``: all labels of a
        window. ``"targets"``: those of the part ``y`` alone. Other steps of a window may then reach
        back over the boundary, into the gap and into earlier parts, as a forecast made on the first
        day of a test does, but never past the end of their part.

    Returns
    -------
    Split
        A tuple of datasets, one for each part. ``left_out`` counts samples in none of them.

    Raises
    ------
    ValueError
        If a part has no sample, a range is empty or overlaps another, the labels are not fit to
        look others up, there is no part ``y`` to go by, or arguments do not fit together; the
        message says what would help. Also if windows along both dims of a coordinate are more than
        268 million (2**28).
    TypeError
        If a label or the gap cannot be compared with the labels.

    See Also
    --------
    kfold : Each part is tested on once.
    random_split : Blocks are dealt out at random.

    Notes
    -----
    In positions along a dim, with `first` the first step of a window that ``y`` takes (0 by
    windows), a window ``[start, start + size)`` is in a part that has the stretch ``[begin, end)``
    if ``start + first >= begin`` and ``start + size <= end``. Its step ``start + first`` lies in
    one stretch alone, and so the window is in one part alone. Of a part with several stretches, no
    window ends behind the one in which its targets begin.

    Along a coordinate the same holds for labels. By windows, all labels of a window are in the
    part; by targets, all labels of its targets are, and any other label of the window is in the
    part as well, or missing, or before the stretch of labels in which its targets begin. Along one
    dim, windows in no part are not numbered; of a coordinate of two dims they may be, as those are
    that ``where`` leaves out.

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

    Seven days in, the next one out: by targets, the first one of the test is that of 1 November.

    >>> samples = xtd.MapDataset(
    ...     t2m, {"time": 8}, {"time": 7},
    ...     inputs=xtd.Select("t2m", time=slice(0, 7)), targets=xtd.Select("t2m", time=7),
    ... )
    >>> xtd.split(samples, "time", at=["2020-11-01"], gap="14D", by="targets")
    <xtorch_data.Split into 2 parts along 'time' by targets; samples left out: 14 in no part
      284 samples, targets: 2020-01-08 to 2020-10-17
       61 samples, targets: 2020-11-01 to 2020-12-31>

    Parts of several ranges:

    >>> xtd.split(
    ...     samples, "time",
    ...     ranges=[[slice("2020-01", "2020-03"), slice("2020-07", "2020-12")],
    ...             slice("2020-04", "2020-06")],
    ... )
    <xtorch_data.Split into 2 parts along 'time'; samples left out: 14 in no part
      261 samples: 2020-01-01 to 2020-12-31, in 2 stretches
       84 samples: 2020-04-01 to 2020-06-30>
    """
    given = [name for name in (at, fractions, ranges) if name is not None]
    if len(given) != 1:
        raise ValueError(
            "give either at=[…], labels where parts begin, or fractions=(…), or ranges=[…], slices "
            "of labels"
        )
    line = _along(dataset, along, by)
    line.check(gap)
    if at is not None:
        labels = [at] if isinstance(at, str) or np.ndim(at) == 0 else list(at)
        cut: Cut = partial(cut_at, labels, gap)
    elif fractions is not None:
        cut = partial(cut_by_shares, fractions, gap)
    else:
        assert ranges is not None
        cut = partial(cut_by_ranges, ranges, gap)
    return _made(dataset, line, by, cut)


def kfold(
    dataset: D,
    along: Hashable,
    n_splits: int = 5,
    *,
    gap: Gap = 0,
    by: By = "windows",
) -> Iterator[Split[D]]:
    """Folds along a dim or a coordinate: each part is tested on once, with the rest to train on.

    Test folds are contiguous, as those of `sklearn.model_selection.KFold
    <https://scikit-learn.org/stable/modules/generated/sklearn.model_selection.KFold.html>`_
    without shuffling: steps of the dim, or different labels of the coordinate, in equal numbers,
    the first folds one larger if they cannot be equal. Training windows lie wholly before the test
    fold or wholly behind it.

    With ``by="targets"``, inputs of the test reach back into the training data before the fold,
    and **inputs of the training data behind the test fold reach back into the fold**: what the
    model is tested on, it has then seen as input, but never as a target. Use ``by="windows"``, or
    `split`, whose parts that come later may see earlier ones as inputs and never the reverse, if
    that must not be.

    Parameters
    ----------
    dataset : IterableDataset or MapDataset
        What is cut. It may be a part of a split.
    along : Hashable
        Any dim of the samples, or a coordinate of one or two of them, as for `split`.
    n_splits : int
        Number of folds.
    gap : int, float, str or timedelta
        How much is left out of the training data on both sides of the test fold, as for `split`.
    by : {"windows", "targets"}
        What training and test data do not share, as for `split`.

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
    line = _along(dataset, along, by)
    line.check(gap)
    folds = as_integer(n_splits, "n_splits")
    if not 2 <= folds <= line.steps:
        raise ValueError(
            f"n_splits must be 2 to {line.steps}, the {line.noun}s of {along!r}, not {folds}"
        )
    cuts = [partial(cut_fold, fold, folds, gap) for fold in range(folds)]
    for fold, cut in enumerate(cuts):
        _parts(dataset, line, by, cut, f"fold {fold + 1} of {folds}: ")
    return (_made(dataset, line, by, cut) for cut in cuts)


def random_split(
    dataset: D,
    along: Hashable,
    fractions: Sequence[float],
    *,
    block: int | None = None,
    seed: int = 0,
    gap: Gap = 0,
    by: By = "windows",
) -> Split[D]:
    """Deal blocks of a dim or a coordinate out at random, for data whose order does not matter.

    A part holds the windows that lie wholly in its blocks; neighboring blocks of one part are one.
    With blocks of whole chunks, no part reads what another one does, but for windows' halos. With
    ``by="targets"`` a part holds the samples whose targets lie in its blocks, and their inputs may
    reach back into any block before them.

    Parameters
    ----------
    dataset : IterableDataset or MapDataset
        What is dealt out. It may be a part of a split.
    along : Hashable
        Any dim of the samples, or a coordinate of one or two of them, as for `split`.
    fractions : sequence of float
        Shares of the blocks, which add up to 1.
    block : int, optional
        Steps in a block, or different labels of a coordinate. By default, along a dim, chunks as
        they are stored, as many as have room for 8 windows end to end. Of a coordinate, one label
        where most windows have a single one, as of a storm or a year; else as many as have room for
        8 windows.
    seed : int
        What the choice depends on.
    gap : int, float, str or timedelta
        How much is left out where the next block is another part's, as for `split`.
    by : {"windows", "targets"}
        What no two parts share, as for `split`.

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
    line = _along(dataset, along, by)
    line.check(gap)
    size = _block(dataset, line) if block is None else as_integer(block, "block")
    if size < 1:
        raise ValueError(f"block must be 1 {line.noun} or more, not {size}")
    return _made(dataset, line, by, partial(deal, fractions, size, as_seed(seed), gap))


def _along(dataset: Either, along: Hashable, by: By) -> Along:
    if not isinstance(dataset, IterableDataset | MapDataset):
        raise TypeError(
            "dataset must be an xtorch_data.MapDataset or IterableDataset, not "
            f"{type(dataset).__name__}"
        )
    if by not in get_args(By):
        raise ValueError(f"by must be 'windows' or 'targets', not {by!r}")
    what = dataset._inside.what
    if by == "targets":
        require_targets(what.definition)
    return along_of(what.definition, what.parts, along, by)


def _block(dataset: Either, line: Along) -> int:
    """Steps of the chunks in which a dim is stored, as many as have room for some windows.

    Or labels of a coordinate, see `block_of`.
    """
    if line.labels is not None:
        return block_of(dataset._inside.definition, line.labels)
    samples = dataset._inside.definition
    chunks = (layout.chunks.get(line.name) for layout in samples.primary.layouts)
    chunk = max((grid.largest for grid in chunks if grid is not None), default=1)
    size = samples.axis(line.name).size
    return chunk * -(-WINDOWS_IN_A_BLOCK * size // chunk)


def _made(dataset: D, line: Along, by: By, cut: Cut) -> Split[D]:
    """The datasets of the parts that are cut."""
    parts = _parts(dataset, line, by, cut)
    found: list[D] = []
    for number, part in enumerate(parts, 1):
        try:
            found.append(part_of(dataset, part))
        except ValueError as error:  # where leaves nothing of it
            raise ValueError(
                f"part {number} of {len(parts)} along {line.name!r}: {error}"
            ) from error
    with telling_once(dataset._told):
        for made in found:
            warn_of_statistics(made._inside.definition, made._inside.what.parts)
    left_out = dataset.plan.there - sum(part.plan.there for part in found)
    logger.info(
        "split along %r: of %d samples, %d are in no part, for their windows cross a boundary or "
        "lie in a gap or outside the ranges",
        line.name,
        dataset.plan.there,
        left_out,
    )
    return Split(found, left_out, line.name)


def _parts(dataset: Either, line: Along, by: By, cut: Cut, which: str = "") -> list[What]:
    """The samples of each part; ValueError, saying what would help, if there are none of one."""
    cuts, found = cut(line), []
    for number, part in enumerate(cuts):
        found.append(_within(dataset, line, by, part, number))
        if len(found[-1].definition.windows) > found[-1].outside:
            continue
        left, move = _left_by_targets(dataset, line, by, cut, number), "Move"
        if left:
            move = (
                f"by='targets' would leave {number_of(left, 'sample')}, whose inputs reach back "
                "over the boundary; or move"
            )
        raise ValueError(
            f"{which}part {number + 1} of {len(cuts)} along {line.name!r} has no sample: "
            f"{_lack(dataset, line, by, part)}. {move} the boundaries, take fewer parts, a smaller "
            "gap or smaller windows"
        )
    return found


def _within(
    dataset: Either, line: Along, by: By, part: Sequence[Interval], number: int = 0
) -> What:
    """The samples of a part."""
    stretches = Stretches(line.name, tuple(part), line.length, line.index, by, number)
    return dataset._inside.what.within(stretches, line.labels)


def _lack(dataset: Either, line: Along, by: By, part: Sequence[Interval]) -> str:
    """The reason why a part has no sample."""
    if not part:
        ends = (printable(line.label(at)) for at in (0, line.length - 1))
        return f"nothing is left of it, where the data goes from {' to '.join(ends)}"
    first, last = part[0][0], part[-1][1] - 1
    labels = f"{printable(line.label(first))} to {printable(line.label(last))}"
    if line.labels is not None:
        whose = "window" if by == "windows" else "sample's targets"
        return f"no {whose} has all its labels among those it has, {labels}"
    samples = dataset._inside.definition
    axis = samples.axis(line.name)
    room = f"a window of {axis.size}"
    if by == "targets":
        lead = lead_of(samples, axis, by)
        room = f"the {number_of(axis.size - lead, 'step')} of a window from its first target on"
    centered = is_centered(samples, line.name)
    if samples.others and not centered and len(samples.windows.within(line.name, part)):
        place = samples.place(line.name)
        names = ", ".join(
            repr(each.source)
            for each in samples.others
            if any(place in along.terms for along in each.windows.frame.maps)
        )
        return f"what its windows, {labels}, have of {names} lies in other parts"
    shown = "" if line.index is None else f" ({labels})"
    return f"its steps, {first} to {last}{shown}, have no room for {room}"


def _left_by_targets(dataset: Either, line: Along, by: By, cut: Cut, number: int) -> int:
    """Number of samples that ``by="targets"`` would leave in a part that has none."""
    what = dataset._inside.what
    if by == "targets" or all(part.name != "y" for part in what.definition.parts):
        return 0
    try:
        other = along_of(what.definition, what.parts, line.name, "targets")
        return _within(dataset, other, "targets", cut(other)[number]).samples
    except ValueError:
        return 0
