"""Other sources of a sample: which of their steps belong to it, found from labels alone."""

from __future__ import annotations

import math
import numbers as python_numbers
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..planning import alignment
from ..planning.frames import Frame, SampleSpace
from ..planning.index_maps import IndexMap, IntArray, Term, term_of
from ..planning.selection import SampleTable
from ..planning.windows import Axis, Windows
from ..sources.comparable import Comparable, comparable
from .losses import BREAKS, Loss
from .source_rules import AsOf, At, Rule, Span, ValidTime, Within

__all__ = ["Aligned", "OtherData", "aligned", "in_units"]

# Labels match within this share of a step.
TOLERANCE = 0.01
# Steps of the regular line on which inits and leads are added up, and samples of a table of two
# axes, at most.
LONGEST_LINE, LARGEST_TABLE = 2**27, 2**28


# By dim of a source that is laid out anew: its name in the user's data, and the step of each step.
Laid = Mapping[Hashable, tuple[Hashable, IntArray]]


@dataclass(frozen=True, eq=False)
class OtherData:
    """Another source as the user gives it, and the rules of its dims."""

    name: str
    data: xr.Dataset  # lazy
    rules: Mapping[Hashable, Rule]
    ignores_breaks: bool = False


@dataclass(frozen=True, eq=False)
class Aligned:
    """What `aligned` finds.

    Attributes
    ----------
    windows : Windows
        Those of the first source of which every source has its part; a frame for each source.
    data : tuple of xarray.Dataset
        The other sources, lazily, in the order in which their frames count their steps.
    laid : tuple of mapping
        By dim of these that is laid out otherwise than the user's data: the dim there, and the step
        of each step.
    where : SampleTable, optional
        Which samples there are, where that is not a matter of single dims.
    losses : tuple of Loss
        What was left out, source by source.
    """

    windows: Windows
    data: tuple[xr.Dataset, ...]
    laid: tuple[Laid, ...]
    where: SampleTable | None
    losses: tuple[Loss, ...]


@dataclass(frozen=True, eq=False)
class _Found:
    """The place of a dim of another source in samples, before windows are left out."""

    map: IndexMap  # without terms
    begins: Mapping[int, IntArray] = field(default_factory=dict)  # by sample axis
    term: tuple[int, Term] | None = None  # instead, where nothing is left out


class _Axes:
    """The sample axes, and which of their windows are left."""

    def __init__(self, windows: Windows, first: xr.Dataset, anchor: Mapping[Hashable, int]) -> None:
        self.windows, self.first, self.anchor = windows, first, anchor
        self.kept = [np.ones(count, dtype=bool) for count in windows.shape]
        self.where: SampleTable | None = None
        self.losses: list[Loss] = []

    def starts(self, place: int) -> IntArray:
        axis = self.windows.axes[place]
        return axis.start(np.arange(len(axis)))

    def place(self, dim: Hashable) -> int | None:
        """The axis that a dim of the first source makes; None if it has no such dim."""
        return next((at for at, each in enumerate(self.windows.axes) if each.dim == dim), None)

    def labels(self, dim: Hashable, source: str) -> Comparable:
        """Labels of a dim of the first source."""
        found = comparable(self.first, dim)
        if found is None:
            raise ValueError(
                f"source {source!r} needs labels along {dim!r}, and the first has none"
            )
        return found

    def anchors(self, place: int, labels: Comparable) -> npt.NDArray[Any]:
        """Label of the anchor of each window along an axis."""
        axis = self.windows.axes[place]
        return np.asarray(labels.values[self.starts(place) + self.anchor[axis.dim]])

    def of_times(self, source: str, of: Hashable | None) -> int:
        """The axis whose labels are anchors."""
        dims = [axis.dim for axis in self.windows.axes]
        if of is None:
            times = [
                dim for dim in dims if (found := comparable(self.first, dim)) and found.is_time
            ]
            if len(times) != 1:
                raise ValueError(
                    f"source {source!r}: the first source has {len(times)} dims with times, "
                    f"{times}; AsOf(…, of=DIM) says whose label is the anchor"
                )
            (of,) = times
        if of not in dims:
            raise ValueError(f"source {source!r}: AsOf(of={of!r}) is no dim of the samples, {dims}")
        return dims.index(of)

    def leave_out(
        self, source: str, place: int, lacking: npt.NDArray[np.bool_], reason: str
    ) -> None:
        """Leave windows along an axis out, and count those that were left until now."""
        lost = np.flatnonzero(self.kept[place] & lacking)
        self.kept[place] &= ~lacking
        if len(lost):
            axis = self.windows.axes[place]
            self.losses.append(Loss(source, axis.dim, reason, len(lost), axis.start(lost)))


def aligned(
    windows: Windows,
    first: xr.Dataset,
    others: tuple[OtherData, ...],
    anchor: Mapping[Hashable, int],
) -> Aligned:
    """Find what samples have of other sources, and leave out those that lack something.

    Parameters
    ----------
    windows : Windows
        The windows of the first source.
    first : xarray.Dataset
        Its data, of which the coordinates are looked at.
    others : tuple of OtherData
        The other sources.
    anchor : mapping of Hashable to int
        By dim, the step of a window that a sample is at.

    Returns
    -------
    Aligned
        The windows that are left, and the data as frames count it.

    Raises
    ------
    ValueError
        If labels cannot be compared, a rule does not fit, or no window is left; the message names
        the source, the dim and both ranges of labels.
    """
    axes = _Axes(windows, first, anchor)
    sources = [_Source(axes, other) for other in others]
    found = [source.dims() for source in sources]
    numbers = {
        place: term_of(np.flatnonzero(kept))
        for place, kept in enumerate(axes.kept)
        if not kept.all()
    }
    space = windows.space
    for place, chosen in numbers.items():
        space = space.restrict(place, chosen)
    frames = [Frame(tuple(_map(each, axes.kept) for each in dims)) for dims in found]
    restricted = Windows(SampleSpace(space.axes, (*space.frames, *frames)))
    where = axes.where
    if where is not None:
        values = where.values
        for at, place in enumerate(where.axes):
            values = values[(slice(None),) * at + (axes.kept[place],)]
        where = SampleTable(where.axes, values)
    return Aligned(
        restricted,
        tuple(each.data for each in sources),
        tuple(each.laid for each in sources),
        where,
        tuple(axes.losses),
    )


def _map(found: _Found, kept: list[npt.NDArray[np.bool_]]) -> IndexMap:
    terms: dict[int, Term] = {
        place: term_of(begins[kept[place]]) for place, begins in found.begins.items()
    }
    if found.term is not None:
        place, term = found.term
        terms[place] = (
            term if kept[place].all() else term.take(term_of(np.flatnonzero(kept[place])))
        )
    return replace(found.map, terms=terms)


class _Source:
    """One other source while its dims are looked up."""

    def __init__(self, axes: _Axes, other: OtherData) -> None:
        self.axes, self.name, self.rules = axes, other.name, other.rules
        self.data, self.ignores_breaks = other.data, other.ignores_breaks
        self.laid: dict[Hashable, tuple[Hashable, IntArray]] = {}
        for dim in self.rules:
            if dim not in self.data.dims:
                raise ValueError(
                    f"source {self.name!r} has a rule for dim {dim!r}, which it lacks; its dims are "
                    f"{list(self.data.dims)}"
                )

    def dims(self) -> list[_Found]:
        """The place of each dim in samples, in the order of the source's dims."""
        given = list(self.data.dims)
        found: dict[Hashable, _Found] = {}
        # Leads are counted from the init that is chosen.
        for dim in sorted(given, key=lambda dim: isinstance(self.rules.get(dim), ValidTime)):
            rule = self.rules.get(dim)
            if isinstance(rule, AsOf):
                found[dim] = self._as_of(dim, rule)
            elif isinstance(rule, Within):
                found[dim] = self._within(dim, rule)
            elif isinstance(rule, ValidTime):
                found[dim] = self._valid_time(dim, rule, found)
            elif isinstance(rule, At):
                found[dim] = self._at(dim, rule)
            elif self.axes.place(dim) is not None:
                found[dim] = self._same_labels(dim)
            else:
                size = self.data.sizes[dim]
                found[dim] = _Found(IndexMap(dim, size, size, {}))
        return [found[dim] for dim in given]

    def _labels(self, dim: Hashable) -> Comparable:
        found = comparable(self.data, dim)
        if found is None:
            raise ValueError(
                f"source {self.name!r} has no labels along {dim!r}, by which its steps are found: "
                f"ds.assign_coords({{{dim!r}: …}})"
            )
        return found

    def _ascending(self, dim: Hashable) -> Comparable:
        """Labels of a dim, which must ascend."""
        labels = self._labels(dim)
        if not labels.ascending:
            values = labels.values
            remedy = f"ds.sortby({dim!r})"
            if len(np.unique(values)) < len(values):
                remedy = f"ds.drop_duplicates({dim!r})"
            raise ValueError(
                f"the labels of source {self.name!r} along {dim!r} must ascend: {remedy}"
            )
        return labels

    def _take(self, dim: Hashable, positions: IntArray) -> None:
        """Let the source have these steps along a dim, in this order."""
        steps = np.diff(positions)
        whole = len(positions) == self.data.sizes[dim]
        if whole and (steps == 1).all():
            return
        self.laid[dim] = dim, positions
        if len(steps) and steps[0] and (steps == steps[0]).all():
            begin, step = int(positions[0]), int(steps[0])
            stop = int(positions[-1]) + (1 if step > 0 else -1)
            cut = slice(begin, stop if stop >= 0 else None, step)
            self.data = self.data.isel({dim: cut})
        else:
            self.data = self.data.isel({dim: positions})

    def _same_labels(self, dim: Hashable) -> _Found:
        place = self.axes.place(dim)
        assert place is not None
        axis = self.axes.windows.axes[place]
        mine, theirs = comparable(self.axes.first, dim), comparable(self.data, dim)
        if mine is None or theirs is None:
            if mine is theirs is None and axis.length == self.data.sizes[dim]:
                made = IndexMap(dim, axis.length, axis.size, {}, axis.windowed)
                return _Found(made, term=(place, axis.starts))
            raise ValueError(
                f"source {self.name!r} and the first one have the dim {dim!r}, whose labels tell "
                "which steps are the same: give both a coordinate, or rename the dim"
            )
        positions, present = self._found_in(dim, mine, theirs)
        if not present.any():
            raise ValueError(
                f"source {self.name!r} has none of the labels of the first one along {dim!r}: it "
                f"goes {_range(self.data, dim)}, the first {_range(self.axes.first, dim)}"
            )
        self._take(dim, positions[present])
        counted = np.cumsum(present) - 1
        made = IndexMap(dim, self.data.sizes[dim], axis.size, {}, axis.windowed)
        if present.all():
            return _Found(made, term=(place, axis.starts))
        starts = self.axes.starts(place)
        there = alignment.whole_in(np.where(present, counted, -1), starts, axis.size)
        self.axes.leave_out(self.name, place, ~there, "labels that it lacks")
        return _Found(made, {place: np.where(there, counted[starts], 0)})

    def _found_in(
        self, dim: Hashable, mine: Comparable, theirs: Comparable
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Place in this source of each of the first one's labels, and whether it has it."""
        theirs.require_same_kind(mine, (f"source {self.name!r}", "the first one"))
        if mine.kind == "text":
            index = pd.Index(theirs.values)
            if not index.is_unique:
                raise ValueError(
                    f"source {self.name!r} has labels along {dim!r} more than once: "
                    f"ds.drop_duplicates({dim!r})"
                )
            positions = index.get_indexer(pd.Index(mine.values)).astype(np.int64)
            return positions, positions >= 0
        values = theirs.near(mine)
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError(
                f"source {self.name!r} has labels along {dim!r} more than once: "
                f"ds.drop_duplicates({dim!r})"
            )
        step = min(filter(None, (mine.step, theirs.step)), default=0.0)
        place = alignment.nearest(ordered, mine.values, TOLERANCE * step)
        return np.where(place >= 0, order[place], -1), place >= 0

    def _as_of(self, dim: Hashable, rule: AsOf) -> _Found:
        place = self.axes.of_times(self.name, rule.of)
        of = self.axes.windows.axes[place].dim
        labels, mine = self._ascending(dim), self.axes.labels(of, self.name)
        labels.require_same_kind(mine, (f"source {self.name!r}", f"the first one along {of!r}"))
        steps = self._steps(rule, labels, dim)
        latency = in_units(rule.latency, labels, f"source {self.name!r}: latency")
        age = None
        if rule.max_age is not None:
            age = in_units(rule.max_age, labels, f"source {self.name!r}: max_age")
        known = alignment.known_from(labels.values, latency, labels.step, rule.label == "left")
        if len(known) > 1 and (np.diff(known) < 0).any():
            known = np.maximum.accumulate(known)
        anchors = self.axes.anchors(place, mine)
        begins, old = alignment.as_of(anchors, labels.values, known, steps, age)
        self.axes.leave_out(self.name, place, (begins < 0) & (old < 0), "too little known")
        self.axes.leave_out(self.name, place, old >= 0, f"older than {rule.max_age}")
        self._leave_out_breaks(dim, place, labels, begins, steps)
        made = IndexMap(dim, len(labels.values), steps, {})
        return _Found(made, {place: begins})

    def _leave_out_breaks(
        self, dim: Hashable, place: int, labels: Comparable, begins: IntArray, steps: int
    ) -> None:
        """Leave out windows of steps that would cross a hole of this source."""
        from ..sources.label_steps import LabelSteps

        found = LabelSteps.of(self.data, dim)
        breaks = None if found is None or steps == 1 or self.ignores_breaks else found.breaks()
        if breaks is None:
            return
        first = np.searchsorted(breaks.positions, begins, side="right")
        last = np.searchsorted(breaks.positions, begins + steps - 1, side="right")
        self.axes.leave_out(self.name, place, (begins >= 0) & (first < last), BREAKS)

    def _steps(self, rule: AsOf, labels: Comparable, dim: Hashable) -> int:
        if isinstance(rule.steps, (int, np.integer)) and not isinstance(rule.steps, np.timedelta64):
            return int(rule.steps)
        span = in_units(rule.steps, labels, f"source {self.name!r}: AsOf")
        steps = span / labels.step if labels.step else 0.0
        if steps < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"source {self.name!r}: AsOf({rule.steps!r}) is no whole number of the steps along "
                f"{dim!r}, which are {_span(labels.step, labels)} apart"
            )
        return round(steps)

    def _within(self, dim: Hashable, rule: Within) -> _Found:
        place = self.axes.place(dim)
        if place is None:
            raise ValueError(
                f"source {self.name!r}: Within is for a dim that the first source has, too, and it "
                f"lacks {dim!r}"
            )
        axis = self.axes.windows.axes[place]
        mine, theirs = self.axes.labels(dim, self.name), self._labels(dim)
        theirs.require_same_kind(mine, (f"source {self.name!r}", "the first one"))
        if mine.is_time:
            raise ValueError(
                f"source {self.name!r}: Within along {dim!r}, which has times, would look ahead of "
                "the anchor: AsOf looks back"
            )
        if mine.kind == "text":
            raise ValueError(f"source {self.name!r}: Within needs numbers along {dim!r}, not text")
        values, own = theirs.near(mine), mine.values.astype(np.float64)
        sign = -1 if len(own) > 1 and own[0] > own[-1] else 1  # in the first source's direction
        own, values = own * sign, values * sign
        if (np.diff(own) <= 0).any():
            raise ValueError(
                f"source {self.name!r}: Within needs sorted labels along {dim!r}: "
                f"ds.sortby({dim!r}) of the first source"
            )
        order = np.argsort(values, kind="stable")
        self._take(dim, order)
        ordered, starts = values[order], self.axes.starts(place)
        if (np.diff(ordered) <= 0).any():
            raise ValueError(
                f"source {self.name!r} has labels along {dim!r} more than once: "
                f"ds.drop_duplicates({dim!r})"
            )
        edges = _edges(own, ordered)
        lower, upper = edges[starts], edges[starts + axis.size]
        if rule.size is not None:
            size = rule.size + 2 * rule.halo
            if size > len(ordered):
                raise ValueError(
                    f"source {self.name!r}: Within(size={rule.size}) with its halo is more than the "
                    f"{len(ordered)} steps along {dim!r}"
                )
            begins = alignment.nearest_steps(ordered, (lower + upper) / 2, size)
            # Not where the extent passes the ends of the labels.
            apart = np.diff(ordered).mean() if len(ordered) > 1 else 0.0
            outside = (lower < ordered[0] - apart) | (upper > ordered[-1] + apart)
            begins = np.where(outside, -1, begins)
        else:
            begins, counts = alignment.within(ordered, lower, upper, rule.halo)
            begins, size = self._equal(dim, begins, counts, lower, upper, rule)
        self.axes.leave_out(self.name, place, begins < 0, "extents beyond its ends")
        return _Found(IndexMap(dim, self.data.sizes[dim], size, {}), {place: begins})

    def _equal(
        self,
        dim: Hashable,
        begins: IntArray,
        counts: IntArray,
        lower: npt.NDArray[Any],
        upper: npt.NDArray[Any],
        rule: Within,
    ) -> tuple[IntArray, int]:
        """Begins of extents with as many steps as any other, and how many these are."""
        inside = begins >= 0
        if not inside.any() or counts[inside].max() == 2 * rule.halo:
            raise ValueError(
                f"source {self.name!r} has no steps in any sample's extent along {dim!r}: it goes "
                f"{_range(self.data, dim)}, the first source {_range(self.axes.first, dim)}"
            )
        size = int(np.bincount(counts[inside]).argmax())
        # At the ends a source may have fewer steps, for it ends there.
        ends = inside & (counts != size)
        inner = np.flatnonzero(inside)
        first, last = inner[0], inner[-1]
        middle = ends.copy()
        at_begin = np.cumsum(~ends & inside) == 0
        at_end = np.cumsum((~ends & inside)[::-1])[::-1] == 0
        middle &= ~(at_begin | at_end) | (counts > size)
        if middle.any():
            at = int(np.flatnonzero(middle)[0])
            raise ValueError(
                f"source {self.name!r} has {size - 2 * rule.halo} steps in most samples' extents "
                f"along {dim!r}, but {counts[at] - 2 * rule.halo} from {abs(lower[at]):.6g} to "
                f"{abs(upper[at]):.6g}: Within(size={size - 2 * rule.halo}) takes the nearest ones"
            )
        del first, last
        return np.where(counts == size, begins, -1), size

    def _valid_time(
        self, dim: Hashable, rule: ValidTime, found: Mapping[Hashable, _Found]
    ) -> _Found:
        inits = [each for each, of in self.rules.items() if isinstance(of, AsOf)]
        if len(inits) != 1:
            raise ValueError(
                f"source {self.name!r}: ValidTime counts from the init that an AsOf(1, …) of "
                f"another dim chooses, of which there are {len(inits)}"
            )
        (init,) = inits
        chosen = found[init]
        if chosen.map.size != 1:
            raise ValueError(
                f"source {self.name!r}: ValidTime counts from one init, and AsOf of {init!r} takes "
                f"{chosen.map.size}"
            )
        ((place, begins),) = chosen.begins.items()
        leads, labels = self._ascending(dim), self._labels(init)
        if leads.kind != "duration" and labels.is_time:
            raise ValueError(
                f"source {self.name!r}: the leads along {dim!r} must be durations, such as "
                f"ds.assign_coords({{{dim!r}: pd.to_timedelta(ds[{dim!r}].values, 'h')}})"
            )
        of = self.axes.windows.axes[place].dim
        anchors = self.axes.anchors(place, self.axes.labels(of, self.name))
        start, stop = (
            in_units(each, labels, f"source {self.name!r}: ValidTime")
            for each in (rule.start, rule.stop)
        )
        if not start < stop:
            raise ValueError(f"source {self.name!r}: ValidTime must start before it stops")
        there = self.axes.kept[place]
        first, size = np.full(len(begins), -1, dtype=np.int64), 0
        first[there], size = alignment.valid_leads(
            anchors[there], labels.values[begins[there]], leads.values, start, stop
        )
        if there.any() and not size:
            raise ValueError(
                f"source {self.name!r} has no leads from {rule.start} to {rule.stop} after the "
                f"anchor in most samples; they go {_range(self.data, dim)}"
            )
        self.axes.leave_out(self.name, place, first < 0, "another number of valid leads")
        return _Found(IndexMap(dim, len(leads.values), max(1, size), {}), {place: first})

    def _at(self, dim: Hashable, rule: At) -> _Found:
        coord = self.axes.first.coords.get(rule.coord)
        if coord is None or not 1 <= coord.ndim <= 2:
            raise ValueError(
                f"source {self.name!r}: At({rule.coord!r}) is a coordinate of one dim or two of the "
                f"first source, which has {list(map(printable, self.axes.first.coords))}"
            )
        places = []
        for along in coord.dims:
            place = self.axes.place(along)
            if place is None:
                raise ValueError(f"source {self.name!r}: {along!r} is no dim of the samples")
            places.append(place)
        axes = [self.axes.windows.axes[place] for place in places]
        windowed = [axis for axis in axes if axis.windowed]
        if len(windowed) > 1:
            raise ValueError(
                f"source {self.name!r}: of the dims of {rule.coord!r}, {list(coord.dims)}, one at "
                "most may be in input_dims"
            )
        mine = comparable(self.axes.first, rule.coord)
        assert mine is not None
        theirs = self._labels(dim)
        if coord.ndim == 1:
            begins, size = self._at_one(dim, mine, theirs, places[0], axes[0]), axes[0].size
        else:
            begins, size = self._at_two(dim, rule, mine, theirs, places, axes)
        if windowed and windowed[0].dim != dim:
            name = windowed[0].dim
            if name in self.data.dims:
                raise ValueError(
                    f"source {self.name!r}: {name!r} takes the place of {dim!r}, and the source has "
                    "a dim of that name: rename it"
                )
            self.data = self.data.drop_vars(name, errors="ignore").swap_dims({dim: name})
            if dim in self.laid:
                self.laid[name] = self.laid.pop(dim)
            else:
                self.laid[name] = dim, np.arange(self.data.sizes[name])
            dim = name
        length = self.data.sizes[dim]
        return _Found(IndexMap(dim, length, size if windowed else 1, {}, bool(windowed)), begins)

    def _at_one(
        self, dim: Hashable, mine: Comparable, theirs: Comparable, place: int, axis: Axis
    ) -> dict[int, IntArray]:
        """Lay the source out along the first one's dim."""
        positions, present = self._found_in(dim, mine, theirs)
        self._require_any(dim, present)
        self._take(dim, np.where(present, positions, positions[present][0]))
        starts = self.axes.starts(place)
        there = alignment.whole_in(np.where(present, 0, -1), starts, axis.size)
        self.axes.leave_out(self.name, place, ~there, "labels that it lacks")
        return {place: starts}

    def _require_any(self, dim: Hashable, present: npt.NDArray[np.bool_]) -> None:
        if not present.any():
            raise ValueError(
                f"source {self.name!r} has none of the labels along {dim!r} that are wanted; it "
                f"goes {_range(self.data, dim)}"
            )

    def _at_two(
        self,
        dim: Hashable,
        rule: At,
        mine: Comparable,
        theirs: Comparable,
        places: list[int],
        axes: list[Axis],
    ) -> tuple[dict[int, IntArray], int]:
        """Lay the source out on a regular line, on which the labels of two dims add up."""
        labels = mine.values
        rows, columns = labels[:, 0] - labels[0, 0], labels[0] - labels[0, 0]
        if not (labels == labels[0, 0] + rows[:, None] + columns).all():
            raise ValueError(
                f"source {self.name!r}: the labels of {rule.coord!r} are no sums of one of "
                f"{axes[0].dim!r} and one of {axes[1].dim!r}, as valid times are of inits and leads"
            )
        unit = (
            int(
                np.gcd.reduce(
                    [*np.diff(rows).astype(np.int64), *np.diff(columns).astype(np.int64), 0]
                )
            )
            or 1
        )
        inside = 1  # line steps from a step of a window to the next
        for axis, values in zip(axes, (rows, columns), strict=True):
            if axis.windowed and axis.size > 1:
                steps = np.diff(values)
                if (steps != steps[0]).any() or steps[0] <= 0:
                    raise ValueError(
                        f"source {self.name!r}: {axis.dim!r} must be evenly spaced, for windows of "
                        "it are looked up"
                    )
                inside = int(steps[0]) // unit
        row, column = (
            (values - values.min()).astype(np.int64) // unit for values in (rows, columns)
        )
        length = int(row.max() + column.max()) + 1
        if length > LONGEST_LINE:
            raise ValueError(
                f"source {self.name!r}: the labels of {rule.coord!r} span {length:,} of their "
                f"smallest steps; {LONGEST_LINE:,} can be looked up"
            )
        line = labels.min() + np.arange(length, dtype=np.int64) * unit
        positions, present = self._found_in(dim, replace(mine, values=line), theirs)
        self._require_any(dim, present)
        # Steps of a window lie side by side: the line is laid out phase by phase.
        width = -(-length // inside)
        laid = (np.arange(inside)[:, None] + np.arange(width) * inside).ravel().clip(max=length - 1)
        at = np.where(present, positions, positions[present][0])[laid]
        here = (
            (present[laid])
            & (np.arange(inside)[:, None] + np.arange(width) * inside < length).ravel()
        )
        begins, size, found = {}, 1, []
        for place, axis, values in zip(places, axes, (row, column), strict=True):
            chosen = values[self.axes.starts(place)]
            if axis.windowed and axis.size > 1:
                begins[place], size = chosen // inside, axis.size
            else:
                begins[place] = chosen % inside * width + chosen // inside
            found.append(begins[place])
        self._take(dim, at)
        if math.prod(map(len, found)) > LARGEST_TABLE:
            raise ValueError(
                f"source {self.name!r}: there are {math.prod(map(len, found)):,} samples to look up "
                f"one by one along {rule.coord!r}; {LARGEST_TABLE:,} can be"
            )
        self._table(places, found, here, size)
        return begins, size

    def _table(
        self, places: list[int], begins: list[IntArray], present: npt.NDArray[np.bool_], size: int
    ) -> None:
        """Leave out samples of two axes whose labels the source lacks."""
        sums = np.append(0, np.cumsum(~present))
        at = begins[0][:, None] + begins[1]
        there = sums[at + size] == sums[at]
        if there.all():
            return
        if places[0] > places[1]:
            places, there = places[::-1], there.T
        lost = int(np.count_nonzero(~there))
        dims = [self.axes.windows.axes[place].dim for place in places]
        self.axes.losses.append(
            Loss(self.name, dims[0], f"labels that it lacks, along {dims}", lost)
        )
        table = SampleTable(tuple(places), there)
        if self.axes.where is not None:
            from ..planning.selection import product

            table = product(self.axes.where, table, self.axes.windows.shape)
        self.axes.where = table


def in_units(value: Span, labels: Comparable, what: str) -> Any:
    """A duration in microseconds where labels are times or durations, else a number."""
    if labels.in_microseconds:
        if (
            isinstance(value, python_numbers.Real)
            and not isinstance(value, np.timedelta64)
            and value
        ):
            raise TypeError(f"{what} must be a duration, such as '6h', not {value!r}")
        try:
            found = pd.Timedelta(value if value else "0s")  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{what}={value!r} is no fixed duration: {printable(error)}"
            ) from error
        if found is pd.NaT:
            raise ValueError(f"{what} is missing: {value!r}")
        return int(found // pd.Timedelta(1, "us"))
    if not isinstance(value, python_numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, as the labels are, not {value!r}")
    return value


def _edges(labels: npt.NDArray[Any], finer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Edges of the cells of ascending labels, halfway between them."""
    if len(labels) == 1:  # a cell as wide as all there is
        reach = np.abs(finer - labels[0]).max() + 1 if len(finer) else 1.0
        return np.array([labels[0] - reach, labels[0] + reach])
    halfway = (labels[1:] + labels[:-1]) / 2
    first, last = labels[0] - (halfway[0] - labels[0]), labels[-1] + (labels[-1] - halfway[-1])
    return np.concatenate([[first], halfway, [last]])


def _range(data: xr.Dataset, dim: Hashable) -> str:
    labels = data.coords[dim].to_numpy()
    return f"from {printable(labels[0])} to {printable(labels[-1])}"


def _span(step: float, labels: Comparable) -> str:
    return str(pd.Timedelta(step, "us")) if labels.in_microseconds else f"{step:g}"
