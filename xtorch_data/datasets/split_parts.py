"""Parts that splits leave of the data: found again by their labels, and which samples they have."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.redact import printable
from ..planning.coverage import wanted_along
from ..planning.edges import ExtendedDim
from ..planning.index_maps import IntArray, apart, runs_of, term_of
from ..planning.intervals import Interval
from ..planning.label_ranks import Ranks, ends_of_windows, in_stretches, members
from ..planning.selection import SampleTable
from ..planning.windows import Axis, Windows
from ..report.uncovered import PartOfSplit
from ..samples.definition import SampleDefinition
from ..sources.coordinates import Along, RankedLabels, runs
from .split_dims import dim_of, is_centered, is_dim, ranked, require_entries
from .split_sources import require_told, within_sources
from .where_and_weights import target_steps

__all__ = [
    "WINDOWS_IN_A_BLOCK",
    "By",
    "Stretches",
    "along_of",
    "block_of",
    "ends_of",
    "lead_of",
    "left_by",
    "reach_of",
    "require_targets",
]

BoolArray = npt.NDArray[np.bool_]
By = Literal["windows", "targets"]

# Windows that a block of `random_split` has room for, end to end.
WINDOWS_IN_A_BLOCK = 8


@dataclass(frozen=True, eq=False)
class Stretches:
    """What a split leaves of a dim, or of the different labels of a coordinate.

    Attributes
    ----------
    along : Hashable
        The dim, or the coordinate.
    intervals : tuple of Interval
        Places ``[start, stop)``, steps of the dim or labels in order, ascending and apart.
    length : int
        Number of places. With `index` it tells where they are in other data.
    index : pandas.Index, optional
        The label of each place.
    by : {"windows", "targets"}
        Whether a sample is in the part if all of its window is, or its targets are.
    number : int
        Which part of the split it is, from 0 on: the first one is taken for what is trained on.
    """

    along: Hashable
    intervals: tuple[Interval, ...]
    length: int
    index: pd.Index[Any] | None
    by: By
    number: int = 0

    @property
    def ends(self) -> tuple[str, str]:
        """First and last label, or step, of what is left."""
        first, last = self.intervals[0][0], self.intervals[-1][1] - 1
        if self.index is None:
            return str(first), str(last)
        return printable(self.index[first]), printable(self.index[last])

    # Which samples it has.

    def kept(
        self, samples: SampleDefinition, labels: RankedLabels | None = None
    ) -> tuple[Windows, SampleTable | None]:
        """Its windows, and which samples of these it has; None for all.

        Along one dim, windows are left out of its axis. Only where two dims decide together, there
        is a table over these two, of the windows that have any sample. `labels` are those of the
        coordinate, if they are known.

        Raises ValueError if labels cannot be told, or the table is too large.
        """
        windows = samples.windows
        if is_dim(samples, self.along):
            axis, found = samples.axis(self.along), self._of_dim(samples)
            lead = lead_of(samples, axis, self.by)
            if is_centered(samples, self.along):
                kept = _around_events(windows, axis, found, lead)
            else:
                kept = windows.within(self.along, found, lead)
            return within_sources(samples, kept, self.along, found, self.by, lead), None
        require_told(samples, self.along, self.by)
        labels = labels or ranked(samples, self.along)
        axes = [samples.axis(dim) for dim in labels.dims]
        require_entries(self.along, map(len, axes))
        targets = None if self.by == "windows" else _steps_named(samples, axes, self.by)
        inside = members(labels.ranks, *self._places(labels), axes, targets)
        numbers = [samples.place(dim) for dim in labels.dims]
        for place, number in enumerate(numbers):
            some = _along_axis(inside, place)
            windows = _only(windows, number, some)
            inside = inside.compress(some, axis=place)
        if inside.all():
            return windows, None
        values = inside.transpose(np.argsort(numbers).tolist())
        return windows, SampleTable(tuple(sorted(numbers)), values)

    def _places(self, labels: RankedLabels) -> tuple[IntArray, IntArray]:
        """Ranks ``[start, stop)`` that it has of a coordinate."""
        found = self.found(len(labels.index), labels.index)
        starts, stops = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return starts, stops

    def steps(self, samples: SampleDefinition) -> dict[Hashable, list[Interval]]:
        """Data positions along its dims that have a label of the part."""
        if is_dim(samples, self.along):
            return {self.along: self._of_dim(samples)}
        labels = ranked(samples, self.along)
        inside = in_stretches(labels.ranks, *self._places(labels))
        return {
            dim: _intervals(_along_axis(inside, place)) for place, dim in enumerate(labels.dims)
        }

    def _of_dim(self, samples: SampleDefinition) -> list[Interval]:
        """Intervals of its dim, as windows count its steps."""
        length, index, beyond = dim_of(samples, self.along)
        found = self.found(length, index)
        return found if beyond is None else beyond.laid(found)

    # Where it lies in other data.

    def found(self, length: int, index: pd.Index[Any] | None) -> list[Interval]:
        """Places of the same labels, or the same ones if neither data has labels.

        Raises ValueError if they cannot be told.
        """
        mine = self.index
        if mine is None and index is None and length == self.length:
            return list(self.intervals)
        if mine is None or index is None:
            raise ValueError(
                f"a part of a split is found again by its labels along {self.along!r}, which the "
                "data lacks: split a dataset of the new data"
            )
        if index.equals(mine):
            return list(self.intervals)
        if str(self.along).lower() in ("lon", "longitude"):
            self._require_same_circle(mine, index)
        if mine.dtype.kind == "f" and index.dtype.kind in "iuf" and len(mine) > 1:
            return self._near(index)
        if not (index.is_monotonic_increasing or index.is_monotonic_decreasing):
            raise ValueError(
                f"a part of a split is found again by its labels along {self.along!r}, which are "
                f"in no order in the new data: ds.sortby({self.along!r})"
            )
        found = []
        for start, stop in self.intervals:
            ends = [mine[start], mine[stop - 1]]
            try:
                steps = index.slice_indexer(
                    *sorted(ends, reverse=not index.is_monotonic_increasing)
                )
            except (TypeError, KeyError) as error:
                raise ValueError(
                    f"a part of a split, {printable(ends[0])} to {printable(ends[1])} along "
                    f"{self.along!r}, cannot be found among labels such as {printable(index[0])}: "
                    f"{printable(error)}"
                ) from error
            if steps.start < steps.stop:
                found.append((int(steps.start), int(steps.stop)))
        return sorted(found)

    def _require_same_circle(self, mine: pd.Index[Any], index: pd.Index[Any]) -> None:
        """Raise ValueError if longitudes are counted from another meridian."""
        for start, stop in self.intervals:
            for label in (mine[start], mine[stop - 1]):
                other = label - 360 if label > index.max() else label + 360
                outside = not index.min() <= label <= index.max()
                if outside and index.min() <= other <= index.max():
                    raise ValueError(
                        f"a part of a split has {label} along {self.along!r}, which is {other} in "
                        "the new data: count its longitudes as those of the data that was split"
                    )

    def _near(self, index: pd.Index[Any]) -> list[Interval]:
        """Places of numbers of another precision: within a hundredth of a step."""
        assert self.index is not None
        mine = self.index.to_numpy().astype(np.float64)
        theirs = index.to_numpy().astype(np.float64)
        slack = 0.01 * float(np.median(np.abs(np.diff(mine))))
        found = []
        for start, stop in self.intervals:
            low, high = sorted((mine[start], mine[stop - 1]))
            found += _intervals((theirs >= low - slack) & (theirs <= high + slack))
        return sorted(found)


# ---------------------------------------------------------------------------------------------
# What there is to cut.


def along_of(
    samples: SampleDefinition, parts: Iterable[Stretches], name: Hashable, by: By
) -> Along:
    """The steps of a dim, or the different labels of a coordinate, that some samples have.

    `parts` are what earlier splits have left, of which the samples are.
    """
    parts = list(parts)
    before = [part for part in parts if part.along == name]
    # Where windows reach back into what is not theirs, what there is begins with their targets.
    reaching = by == "targets" and any(part.by == "targets" for part in parts)
    if is_dim(samples, name):
        axis = _in_order(samples, name)
        length, index, beyond = dim_of(samples, name)
        lead = lead_of(samples, axis, by) if reaching else 0
        begin, end, earliest = 0, length, 0
        if before:
            found = before[-1].found(length, index)
            begin, end = found[0][0], found[-1][1]
            earliest = max(begin - lead_of(samples, axis, before[-1].by), 0)
        first = begin if by == "targets" else earliest
        there = _steps(axis, lead, first, end, earliest, beyond)
        return Along.of_steps(name, length, index, there)
    labels = ranked(samples, name)
    ranks = labels.ranks
    for place, dim in enumerate(labels.dims):
        axis = _in_order(samples, dim)
        covered = np.zeros(axis.length, dtype=bool)
        lead = lead_of(samples, axis, by) if reaching else 0
        # The labels of what lies beyond the ends are among those of the coordinate.
        for start, stop in zip(*_steps(axis, lead, 0, axis.length, 0), strict=True):
            covered[start:stop] = True
        ranks = ranks.compress(covered, axis=place)
    has = np.zeros(len(labels.index), dtype=bool)
    has[ranks[ranks >= 0]] = True
    for part in before:
        starts, stops = part._places(labels)
        if part.by == "targets" and by == "windows":  # windows reach back from their targets
            has[stops[-1] :] = False
        else:
            has &= in_stretches(np.arange(len(has), dtype=np.int32), starts, stops)
    if not has.any():
        raise ValueError(f"no sample has a label of the coordinate {name!r}: all are missing")
    return Along.of_labels(name, labels, has)


def _in_order(samples: SampleDefinition, dim: Hashable) -> Axis:
    """The windows along a dim, each once and in their order there."""
    axis = samples.axis(dim)
    if axis.starts.ascending:
        return axis
    return replace(axis, starts=term_of(np.unique(axis.start(np.arange(len(axis))))))


def _steps(
    axis: Axis,
    lead: int,
    begin: int,
    end: int,
    earliest: int,
    beyond: ExtendedDim | None = None,
) -> tuple[IntArray, IntArray]:
    """Steps ``[start, stop)`` of a dim that windows cover, without the first `lead` of each.

    Steps at `begin` and `end` that have no room for one more window belong to them; `earliest` is
    where the first window might begin.
    """
    first, last = axis.starts.bounds
    starts, stops = apart(first + lead, last + axis.size)
    reach = first[0]
    if beyond is not None:
        found = np.array(beyond.stretches(starts, stops), dtype=np.int64)
        starts, stops = found.T.copy()
        reach = starts[0] - lead
    if reach - earliest < axis.stride:
        starts[0] = begin
    if stops[-1] + axis.stride > end:
        stops[-1] = max(end, stops[-1])
    return starts, stops


def block_of(samples: SampleDefinition, labels: RankedLabels) -> int:
    """Labels of a coordinate in a block of `random_split`, if none are asked for.

    One where most windows have a single label; else as many as have room for some windows.
    """
    low, high = _ends(samples, labels, "windows")
    some = high >= 0
    each = int(np.median(high[some] - low[some])) + 1 if some.any() else 1
    return each if each == 1 else WINDOWS_IN_A_BLOCK * each


def reach_of(
    samples: SampleDefinition, where: SampleTable | None, part: Stretches
) -> tuple[Any, Any] | None:
    """First and last label of a coordinate that samples of a part have; None if none has any."""
    labels = ranked(samples, part.along)
    low, high = _ends(samples, labels, part.by)
    kept = high >= 0
    if where is not None:
        windows = samples.windows
        places = [samples.place(dim) for dim in labels.dims]
        table = wanted_along(where, windows, [windows.axes[place].dim for place in places])
        there = table.full(sorted(places), [windows.shape[place] for place in sorted(places)])
        kept = kept & there.transpose(np.argsort(np.argsort(places)).tolist())
    if not kept.any():
        return None
    return labels.index[low[kept].min()], labels.index[high[kept].max()]


def _ends(samples: SampleDefinition, labels: RankedLabels, by: By) -> tuple[Ranks, Ranks]:
    """First and last label, as ranks, of each window or of its targets."""
    axes = [samples.axis(dim) for dim in labels.dims]
    return ends_of_windows(labels.ranks, axes, _steps_named(samples, axes, by))


def left_by(samples: SampleDefinition, parts: Iterable[Stretches], outside: int) -> PartOfSplit:
    """Remains of the data after splits; `outside` are numbered samples that they have not."""
    steps: dict[Hashable, tuple[Sequence[Interval], int]] = {}
    for part in parts:
        for dim, found in part.steps(samples).items():
            axis = samples.axis(dim)
            if dim in steps and dim != part.along:
                found = _common(steps[dim][0], found, axis.length)
            steps[dim] = found, lead_of(samples, axis, part.by)
    return PartOfSplit(steps, outside)


def _around_events(
    windows: Windows, axis: Axis, intervals: Sequence[Interval], lead: int
) -> Windows:
    """Windows around events that lie in one of some intervals, but for their first steps."""
    begins = axis.start(np.arange(len(axis)))
    starts, stops = np.array(intervals, dtype=np.int64).reshape(-1, 2).T
    of = np.searchsorted(starts, begins + lead, side="right") - 1
    inside = (of >= 0) & (begins + axis.size <= np.append(stops, -1)[of])
    return Windows(windows.space.restrict(0, np.flatnonzero(inside)))


def require_targets(samples: SampleDefinition) -> None:
    """Raise ValueError if samples have no part ``y``."""
    names = [part.name for _, part in samples.every_part]
    if "y" not in names:
        raise ValueError(
            f"by='targets' goes by the labels of part 'y', and the parts are {names}: give "
            "targets=…, or name the part of the targets 'y', or split by='windows'"
        )


def _steps_named(samples: SampleDefinition, axes: Iterable[Axis], by: By) -> list[IntArray]:
    """Steps inside a window, along some axes, that decide where it belongs."""
    if by == "windows":
        return [np.arange(axis.size) for axis in axes]
    require_targets(samples)
    return [target_steps(axis, samples) for axis in axes]


def ends_of(samples: SampleDefinition, axis: Axis, by: By) -> Interval:
    """First of these steps, and behind the last one."""
    if by == "windows":
        return 0, axis.size
    (steps,) = _steps_named(samples, [axis], by)
    return int(steps.min()), int(steps.max()) + 1


def lead_of(samples: SampleDefinition, axis: Axis, by: By) -> int:
    """Steps of a window that come before those that decide where it belongs."""
    return ends_of(samples, axis, by)[0]


def _common(one: Iterable[Interval], other: Iterable[Interval], length: int) -> list[Interval]:
    """Intersection of two rows of intervals of a dim."""
    both = np.zeros((2, length), dtype=bool)
    for there, intervals in zip(both, (one, other), strict=True):
        for start, stop in intervals:
            there[start:stop] = True
    return _intervals(both[0] & both[1])


def _along_axis(table: BoolArray, place: int) -> BoolArray:
    """Places along one axis at which there is any True."""
    return np.asarray(table.any(axis=tuple(at for at in range(table.ndim) if at != place)))


def _only(windows: Windows, place: int, some: BoolArray) -> Windows:
    """Windows along an axis for which there is True."""
    if some.all():
        return windows
    first, last = runs(some).T
    return Windows(windows.space.restrict(place, runs_of(first, last - first, 1)))


def _intervals(there: BoolArray) -> list[Interval]:
    return [(int(start), int(stop)) for start, stop in runs(there)]
