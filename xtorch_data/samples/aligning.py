"""What the rules of other sources share: the sample axes, and a source while it is looked up."""

from __future__ import annotations

import numbers
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.text import number_of
from ..planning import alignment
from ..planning.edges import ExtendedDim, Laid
from ..planning.index_maps import IndexMap, IntArray, Term, term_of
from ..planning.selection import SampleTable, product
from ..planning.windows import Axis, Windows
from ..sources.comparable import Comparable, comparable
from ..sources.conventions import text_of
from ..sources.lazy_arrays import deferred
from .durations import seconds_of
from .losses import Loss
from .source_rules import Span

__all__ = [
    "ROUNDING",
    "TOLERANCE",
    "AlignedDim",
    "Laid",
    "OtherSource",
    "SampleAxes",
    "in_units",
    "range_of",
]

BoolArray = npt.NDArray[np.bool_]

# Labels match within this share of a step, and lie on an edge.
TOLERANCE = 0.01
# Labels alone, which have no step, match if they differ by the rounding of float32.
ROUNDING = 1e-6

# Data in memory is copied where it is laid out anew, which is faster to read than what is selected
# later, unless that takes so many times its memory.
MOST_COPIED = 2


@dataclass(frozen=True, eq=False)
class AlignedDim:
    """The place of a dim of another source in samples, before windows are left out.

    Attributes
    ----------
    map : IndexMap
        Without terms.
    begins : mapping of int to ndarray of int64
        By sample axis, what each window adds to where it begins in the source; any number for a
        window that is left out.
    term : tuple of int and Term, optional
        Instead, a sample axis and what it adds, where nothing is left out.
    """

    map: IndexMap
    begins: Mapping[int, IntArray] = field(default_factory=dict)
    term: tuple[int, Term] | None = None

    def of_windows(self, kept: Sequence[BoolArray]) -> IndexMap:
        """The index map of the windows that are kept along each sample axis."""
        terms = {place: term_of(begins[kept[place]]) for place, begins in self.begins.items()}
        if self.term is not None:
            place, term = self.term
            whole = kept[place].all()
            terms[place] = term if whole else term.take(term_of(np.flatnonzero(kept[place])))
        return replace(self.map, terms=terms)


class SampleAxes:
    """The sample axes, and which of their windows are left.

    Made by `aligned`, for as long as it runs; rules leave windows out.
    """

    def __init__(
        self,
        windows: Windows,
        first: xr.Dataset,
        anchor: Mapping[Hashable, int],
        beyond: Mapping[Hashable, ExtendedDim],
        around: Mapping[Hashable, Axis] | None = None,
        events: Mapping[Hashable, Comparable] | None = None,
    ) -> None:
        self.windows, self.first, self.anchor, self.beyond = windows, first, anchor, beyond
        self.kept = [np.ones(count, dtype=bool) for count in windows.shape]
        self.where: SampleTable | None = None  # which samples are left, where axes do not tell
        self.losses: list[Loss] = []
        self._events = events or {}  # labels of events, which are anchors
        # Dims of the first source, each with the sample axis that it follows.
        axes: dict[Hashable, tuple[int, Axis]] = {
            axis.dim: (place, axis) for place, axis in enumerate(windows.axes)
        }
        if around is not None:  # those of events follow the first axis, that of the events
            events_dim, *_ = axes
            del axes[events_dim]
            axes = {dim: (0, axis) for dim, axis in around.items()} | axes
        self._axes = axes
        self._labels: dict[Hashable, Comparable | None] = {}
        self._starts: dict[Hashable, IntArray] = {}

    @property
    def dims(self) -> list[Hashable]:
        """The dims of the first source."""
        return list(self._axes)

    def place(self, dim: Hashable) -> int | None:
        """The axis that a dim of the first source follows; None if it has no such dim."""
        return self._axes[dim][0] if dim in self._axes else None

    def axis(self, dim: Hashable) -> Axis:
        """Where windows begin along a dim of the first source, by number along its axis."""
        return self._axes[dim][1]

    def starts(self, dim: Hashable) -> IntArray:
        """Where each window begins along a dim of the first source."""
        if dim not in self._starts:
            axis = self.axis(dim)
            self._starts[dim] = axis.start(np.arange(len(axis)))
        return self._starts[dim]

    def anchors(self, dim: Hashable) -> tuple[Comparable, npt.NDArray[Any], BoolArray] | None:
        """Labels along a dim, and the label of each anchor; whether it is missing.

        The anchor of an event is its own label. None if there are no labels.
        """
        mine = self._events.get(dim)
        if mine is not None:
            return mine, mine.values, mine.missing
        mine = self.labels(dim)
        if mine is None:
            return None
        at = self.starts(dim) + self.anchor[dim]
        return mine, mine.values[at], mine.missing[at]

    def labels(self, name: Hashable) -> Comparable | None:
        """Labels of a coordinate of the first source, if it has that."""
        if name not in self._labels:
            self._labels[name] = comparable(self.first, name)
        return self._labels[name]

    def times(self) -> list[Hashable]:
        """Dims whose labels are times."""
        found = ((dim, self.labels(dim)) for dim in self.dims)
        return [dim for dim, labels in found if labels is not None and labels.is_time]

    def table(self) -> SampleTable | None:
        """Which samples of the windows that are left are left, where that is not all."""
        if self.where is None:
            return None
        values = self.where.values
        for at, place in enumerate(self.where.axes):
            values = values.compress(self.kept[place], axis=at)
        return SampleTable(self.where.axes, values)

    def leave_out(
        self,
        source: OtherSource,
        dim: Hashable,
        place: int,
        lacking: BoolArray,
        reason: str,
    ) -> None:
        """Leave windows along an axis out, and count those that were left until now.

        ValueError if none is left; `dim` is that of the source whose labels are the reason.
        """
        kept, axis = self.kept[place], self.windows.axes[place]
        gone = np.flatnonzero(kept & lacking)
        if not len(gone):
            return
        kept &= ~lacking
        starts = axis.start(np.arange(len(axis)))[gone]
        self.losses.append(Loss(source.name, axis.dim, reason, len(gone), starts))
        if not kept.any():
            lost = "; ".join(
                f"{number_of(loss.count, 'window')}: {loss.reason} (source {loss.source!r})"
                for loss in self.losses
                if loss.dim == axis.dim
            )
            along = axis.dim if axis.dim in self._axes else dim
            mine = range_of(self.first, along) if along in self.first.coords else "nowhere"
            raise ValueError(
                f"source {source.name!r} leaves no sample: of {number_of(len(kept), 'window')} "
                f"along {axis.dim!r} all are left out, {lost}. Its labels along {dim!r} go "
                f"{source.range_of(dim)}, those of the first source along {along!r} {mine}"
            )

    def leave_out_samples(self, source: OtherSource, table: SampleTable, reason: str) -> None:
        """Leave out those samples for which a table is False; count those left until now."""
        before: npt.NDArray[Any] = np.ones((), dtype=bool)
        for place in table.axes:
            before = before[..., None] & self.kept[place]
        own = self.where
        if own is not None and own.axes == table.axes:
            before = before & own.values
        count = int(np.count_nonzero(before & ~table.values))
        if not count:
            return
        dims = [self.windows.axes[place].dim for place in table.axes]
        self.losses.append(Loss(source.name, dims[0], f"{reason}, along {dims}", count))
        if count == np.count_nonzero(before):
            raise ValueError(
                f"source {source.name!r} leaves no sample: all {count:,} along {dims} are left out "
                f"for {reason}"
            )
        self.where = table if own is None else product(own, table, self.windows.shape)


class OtherSource:
    """Another source while its dims are looked up: its data as rules lay it out.

    Made by `aligned`, for as long as it runs.
    """

    def __init__(self, name: str, data: xr.Dataset) -> None:
        self.name, self.data = name, data
        self.laid: dict[Hashable, tuple[Hashable, IntArray]] = {}
        self._given = data

    def range_of(self, dim: Hashable) -> str:
        """First and last label along a dim of the data as it was given, as part of a sentence."""
        return range_of(self._given, dim)

    def labels(self, dim: Hashable) -> Comparable:
        """Labels along a dim; ValueError if there are none."""
        found = comparable(self.data, dim)
        if found is None:
            raise ValueError(
                f"source {self.name!r} has no labels along {dim!r}, by which its steps are found: "
                f"ds.assign_coords({{{dim!r}: …}})"
            )
        return found

    def ascending(self, dim: Hashable) -> Comparable:
        """Labels along a dim, which must have differences and ascend."""
        labels = self.labels(dim)
        if labels.is_text:
            raise ValueError(
                f"source {self.name!r} needs times or numbers along {dim!r}, and its labels are "
                f"others, such as {printable(labels.values[0])}"
            )
        if labels.missing.any():
            raise ValueError(
                f"source {self.name!r} has {number_of(int(labels.missing.sum()), 'label')} missing "
                f"along {dim!r}: ds.isel({{{dim!r}: ds[{dim!r}].notnull()}}) leaves them out"
            )
        if not labels.ascending:
            values = labels.values
            remedy = f"ds.sortby({dim!r})"
            if len(np.unique(values)) < len(values):
                remedy = f"ds.drop_duplicates({dim!r}), and {remedy} if they are in no order"
            raise ValueError(
                f"the labels of source {self.name!r} along {dim!r} must ascend: {remedy}"
            )
        return labels

    def require_once(self, dim: Hashable, ordered: npt.NDArray[Any], circle: bool) -> None:
        """Raise ValueError if one of some sorted labels comes more than once."""
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if not len(twice):
            return
        if circle:
            raise ValueError(
                f"source {self.name!r} has longitudes along {dim!r} that are the same modulo 360, "
                f"such as {ordered[twice[0]]:g}: ds.isel({{{dim!r}: slice(-1)}}) drops the last"
            )
        raise ValueError(
            f"source {self.name!r} has labels along {dim!r} more than once, such as "
            f"{ordered[twice[0]]:g}: ds.drop_duplicates({dim!r})"
        )

    def take(self, dim: Hashable, positions: IntArray) -> None:
        """Let the source have these steps along a dim, in this order."""
        steps = np.diff(positions)
        if len(positions) == self.data.sizes[dim] and (steps == 1).all():
            return
        self.laid[dim] = dim, positions
        if not len(steps) or (steps[0] and (steps == steps[0]).all()):
            begin, step = int(positions[0]), int(steps[0]) if len(steps) else 1
            stop = int(positions[-1]) + (1 if step > 0 else -1)
            cut = slice(begin, stop if stop >= 0 else None, step)
            self.data = self.data.isel({dim: cut})
        else:
            data = self.data
            if len(positions) > MOST_COPIED * data.sizes[dim]:
                variables = data.data_vars.variables.items()
                data = data.assign({name: deferred(each) for name, each in variables})
            self.data = data.isel({dim: positions})

    def find(self, dim: Hashable, wanted: Comparable) -> tuple[IntArray, BoolArray]:
        """Step of each of the first source's labels along a dim, and whether there is one.

        ValueError if labels do not compare, come twice, or none is found.
        """
        own = self.labels(dim)
        own.require_same_kind(wanted, (f"source {self.name!r} along {dim!r}", "the first source"))
        steps = (
            self._find_text(dim, own, wanted) if wanted.is_text else self._find(dim, own, wanted)
        )
        present = steps >= 0
        if not present.any():
            known = wanted.values[~wanted.missing]
            raise ValueError(
                f"source {self.name!r} has none of the labels that are wanted along {dim!r}: its "
                f"go {self.range_of(dim)}, those of the first source from "
                + (f"{shown(known[0], wanted)} to {shown(known[-1], wanted)}" if len(known) else "")
            )
        return steps, present

    def _find_text(self, dim: Hashable, own: Comparable, wanted: Comparable) -> IntArray:
        index = pd.Index(own.values)
        if not index.is_unique:
            raise ValueError(
                f"source {self.name!r} has labels along {dim!r} more than once: "
                f"ds.drop_duplicates({dim!r})"
            )
        found = index.get_indexer(pd.Index(wanted.values)).astype(np.int64)
        return np.where(wanted.missing, -1, found)

    def _find(self, dim: Hashable, own: Comparable, wanted: Comparable) -> IntArray:
        period = own.period or wanted.period
        known = np.flatnonzero(~own.missing)
        values, asked = own.values[known], wanted.values[~wanted.missing]
        if period is not None:
            values, asked = values % period, asked % period
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        self.require_once(dim, ordered, period is not None)
        distinct, inverse = np.unique(asked, return_inverse=True)
        within, of_wanted = (
            TOLERANCE * alignment.gaps(labels, period) for labels in (ordered, distinct)
        )
        if len(ordered) == len(distinct) == 1:
            rounding = ROUNDING * np.abs(distinct) if distinct.dtype.kind == "f" else 0.0
            within, of_wanted = np.minimum(within, rounding), np.minimum(of_wanted, rounding)
        place = alignment.nearest(ordered, distinct, within, of_wanted, period)
        steps = np.full(len(wanted.values), -1, dtype=np.int64)
        steps[~wanted.missing] = np.where(place >= 0, known[order[place]], -1)[inverse]
        return steps


def in_units(value: Span, labels: Comparable, what: str) -> Any:
    """A duration in microseconds where labels are times or durations, else a number."""
    if not labels.in_microseconds:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or value != value:
            raise TypeError(f"{what} must be a number, as the labels are, not {value!r}")
        return value
    number = isinstance(value, numbers.Real) and not isinstance(value, np.timedelta64)
    if number and value != 0:
        raise TypeError(f"{what} must be a duration, such as '6h', not {value!r}")
    seconds = 0.0 if number else seconds_of(value)
    if seconds is None:
        raise ValueError(
            f"{what} is {value!r}, which is no fixed duration such as '6h' or '1D', as pandas "
            "reads them (months and years differ in length)"
        )
    return round(seconds * 1e6)


def range_of(data: xr.Dataset, name: Hashable) -> str:
    """First and last label of a coordinate, as part of a sentence."""
    coord = data.coords[name]
    ends = (coord.values.flat[place] for place in (0, -1))
    return "from {} to {}".format(*(text_of(end, coord.attrs.get("units")) for end in ends))


def shown(label: Any, labels: Comparable) -> str:
    """One of some labels as text."""
    if labels.kind == "times of the standard calendar":
        return text_of(np.datetime64(int(label), "us"))
    if labels.kind == "duration":
        return text_of(np.timedelta64(int(label), "us"))
    return printable(label) if labels.is_time else text_of(label)
