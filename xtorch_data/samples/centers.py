"""Events, one sample at each: their labels as the user gives them, and the cells these lie in."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.text import number_of
from ..planning import alignment
from ..planning.index_maps import IntArray
from ..planning.windows import Axis
from ..sources.comparable import Comparable, comparable
from ..sources.label_steps import LabelSteps
from .aligning import ROUNDING, in_units, range_of
from .losses import CENTERS, Loss

__all__ = ["Centers", "Placed", "placed"]

BoolArray = npt.NDArray[np.bool_]

# Names that the events' dim gets if none is given, or another dim has it.
DIMS = ("event", "center", "centers_event")
# Names of events that are as near to a dim as this are taken for mistaken ones.
NEAR = 0.75


@dataclass(frozen=True, eq=False)
class Centers:
    """The events of a dataset.

    Attributes
    ----------
    dim : Hashable
        The events' dim.
    names : tuple of Hashable
        Dims of the data of which they have labels.
    events : xarray.Dataset
        In memory: coordinates of these names, and their other variables.
    tolerance : mapping of Hashable to number or duration
        By dim, how far the nearest step may be; the others have their event in a cell.
    """

    dim: Hashable
    names: tuple[Hashable, ...]
    events: xr.Dataset
    tolerance: Mapping[Hashable, Any]

    @classmethod
    def of(cls, given: Any, dims: Iterable[Hashable], windowed: Any, tolerance: Any) -> Centers:
        """Check what a user gives; `dims` are those of the data, `windowed` those of a window."""
        dims = list(dims)
        events = _as_dataset(given, dims)
        (dim,) = events.dims
        if not events.sizes[dim]:
            raise ValueError("centers has no events")
        names = tuple(name for name in dims if name in events.variables)
        _require_named(events, names, dims)
        lacking = [name for name in names if name not in (windowed or {})]
        if lacking:
            raise ValueError(
                f"centers has labels along {lacking[0]!r}, of which input_dims has no size: "
                f"input_dims={{{lacking[0]!r}: steps, …}} says how large windows are"
            )
        if tolerance is not None and not isinstance(tolerance, Mapping):
            raise TypeError(f"tolerance must be a mapping of dims to distances, not {tolerance!r}")
        for name in tolerance or {}:
            if name not in names:
                raise ValueError(
                    f"tolerance names {name!r}, of which centers has no labels"
                    f"{_near(name, names)}; it has those of {list(names)}"
                )
        return cls(dim, names, events.set_coords(names), dict(tolerance or {}))

    def own(self, name: Hashable) -> Hashable:
        """The name of the events' label along a dim, where windows have labels of that dim."""
        found = f"center_{name}"
        while found in self.events.variables:
            found += "_"
        return found

    @property
    def labels(self) -> xr.Dataset:
        """All that is known of events, as coordinates along their dim: their numbers as well."""
        named = self.variables
        if self.dim not in named.variables:
            named = named.assign_coords({self.dim: np.arange(named.sizes[self.dim])})
        return named.set_coords(list(named.data_vars))

    @property
    def variables(self) -> xr.Dataset:
        """Their other variables, with all labels as coordinates."""
        return self.events.rename_vars({name: self.own(name) for name in self.names})

    def anchor_of(self, of: Hashable | None, data: xr.Dataset) -> Hashable:
        """The dim whose labels of events are anchors: by default the only one with times."""
        if of is not None:
            return of
        return next(name for name in self.names if self.label(name, data).is_time)

    def label(self, name: Hashable, attrs_of: xr.Dataset) -> Comparable:
        """Labels of events along a dim of the data, as numbers that compare."""
        variable = self.events.variables[name]
        attrs = variable.attrs or attrs_of.coords[name].attrs
        own = xr.Dataset(coords={name: (self.dim, variable.values, attrs)})
        found = comparable(own, name)
        assert found is not None
        return found


def _as_dataset(given: Any, dims: list[Hashable]) -> xr.Dataset:
    """Events as one Dataset of one dim, in memory."""
    if isinstance(given, pd.DataFrame):
        frame = given
        kept = isinstance(frame.index, pd.MultiIndex) or frame.index.name in dims
        if kept or (frame.index.name is not None and frame.index.name not in frame.columns):
            frame = frame.reset_index()
        found = {name: (DIMS[0], _values(frame[name])) for name in frame.columns}
        events = xr.Dataset(found)
        if not isinstance(frame.index, pd.RangeIndex) and DIMS[0] not in found:
            events = events.assign_coords({DIMS[0]: _values(frame.index.to_series())})
    elif isinstance(given, xr.Dataset):
        events = _of_dataset(given)
    elif isinstance(given, Mapping):
        events = _of_mapping(given)
    else:
        raise TypeError(
            "centers must be a Dataset, a DataFrame or a mapping of one-dimensional labels, not "
            f"{type(given).__name__}"
        )
    (dim,) = events.dims
    if dim in dims or dim == "sample":
        taken = {*dims, "sample", *events.variables} - {dim}
        name = next(name for name in DIMS if name not in taken)
        events = events.reset_index(dim) if dim in events.indexes else events
        events = events.rename_dims({dim: name})
    own = [name for name in events.coords if name != next(iter(events.dims))]
    return events.reset_coords(own)


def _values(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """Values of a column as numpy has them; missing integers and booleans as NaN."""
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        if pd.api.types.is_numeric_dtype(column.dtype) and column.isna().any():
            return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
        if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
            return np.asarray(column.to_numpy(dtype=object))
    return np.asarray(column.to_numpy())


def _of_dataset(given: xr.Dataset) -> xr.Dataset:
    used = dict.fromkeys(dim for each in given.variables.values() for dim in each.dims)
    for name, variable in given.variables.items():
        if variable.ndim > 1:
            raise ValueError(
                f"centers has {name!r} along {list(variable.dims)}: labels have one dim, that of "
                "the events"
            )
    if len(used) != 1:
        raise ValueError(f"centers must have one dim, that of the events, and has {list(used)}")
    scalars = [name for name, variable in given.variables.items() if not variable.ndim]
    return given.drop_vars(scalars).compute()


def _of_mapping(given: Mapping[Any, Any]) -> xr.Dataset:
    if not given:
        raise ValueError("centers is empty: {dim: labels, …}")
    found, dims, lengths = {}, dict[Hashable, None](), dict[Hashable, int]()
    for name, labels in given.items():
        attrs: dict[Any, Any] = {}
        if isinstance(labels, xr.DataArray | xr.Variable):
            dims.update(dict.fromkeys(labels.dims))
            attrs = labels.attrs
        values = _values(labels) if isinstance(labels, pd.Series) else np.asarray(labels)
        if values.ndim != 1:
            raise ValueError(
                f"centers has {name!r} of shape {values.shape}: labels are one-dimensional, one "
                "for each event"
            )
        if values.dtype.kind in "US":
            values = values.astype(object)
        found[name], lengths[name] = (values, attrs), len(values)
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"centers has labels of different lengths, {lengths}: each event has one of each"
        )
    if len(dims) > 1:
        raise ValueError(f"labels of centers are along one dim, that of the events, not {[*dims]}")
    dim = next(iter(dims), DIMS[0])
    if dim in found:
        dim = next(name for name in DIMS if name not in found)
    return xr.Dataset({name: (dim, *each) for name, each in found.items()})


def _near(name: Hashable, names: Iterable[Hashable]) -> str:
    near = _nearest(name, names)
    return "" if near is None else f": did you mean {near!r}?"


def _nearest(name: Hashable, names: Iterable[Hashable]) -> Hashable | None:
    """The dim that is meant by a name, if it is like one."""
    by_text = {str(each): each for each in names}
    for text, each in by_text.items():
        if len(str(name)) > 2 and text.lower().startswith(str(name).lower()):
            return each
    found = difflib.get_close_matches(str(name), list(by_text), n=1, cutoff=NEAR)
    return by_text[found[0]] if found else None


def _require_named(events: xr.Dataset, names: tuple[Hashable, ...], dims: list[Hashable]) -> None:
    """Raise ValueError if names of labels are like those of dims, or none is one."""
    free = [dim for dim in dims if dim not in names]
    for name in events.variables:
        near = _nearest(name, free)
        if name not in names and near is not None:
            raise ValueError(
                f"centers has {name!r}, and the data has a dim {near!r} of which centers has no "
                "labels: labels are named like the dims they are of; rename one of the two"
            )
    if not names:
        raise ValueError(
            f"centers has labels of no dim of the samples: it has {list(events.variables)}, and "
            f"their dims are {dims}"
        )


# ---------------------------------------------------------------------------------------------
# From labels to the windows around them.


@dataclass(frozen=True, eq=False)
class Placed:
    """The windows around events.

    Attributes
    ----------
    starts : mapping of Hashable to ndarray of int64
        By dim, where the window of each event begins; 0 for those that are left out.
    kept : ndarray of bool
        Which events have a window.
    losses : tuple of Loss
        Why the others have none.
    """

    starts: Mapping[Hashable, IntArray]
    kept: BoolArray
    losses: tuple[Loss, ...]


def placed(
    centers: Centers,
    data: xr.Dataset,
    axes: Mapping[Hashable, Axis],
    anchors: Mapping[Hashable, int],
    breaks: Any,
) -> Placed:
    """Find the window of each event, and leave out those that have none.

    Parameters
    ----------
    centers : Centers
        The events.
    data : xarray.Dataset
        The data, of which the coordinates are looked at.
    axes : mapping of Hashable to Axis
        By dim that they have labels of, the size of a window.
    anchors : mapping of Hashable to int
        By dim, the step of a window that has the event.
    breaks : str or mapping, optional
        What the user says is to become of breaks, which no window crosses unless they are ignored.

    Raises
    ------
    TypeError, ValueError
        If labels do not compare with those of the data, or no event is left.
    """
    count = centers.events.sizes[centers.dim]
    kept, losses = np.ones(count, dtype=bool), list[Loss]()

    def leave_out(lacking: BoolArray, reason: str) -> None:
        gone = np.flatnonzero(kept & lacking)
        if len(gone):
            losses.append(Loss(CENTERS, centers.dim, reason, len(gone), gone))
            kept[gone] = False

    starts: dict[Hashable, IntArray] = {}
    found = {}
    for name in centers.names:
        own = centers.label(name, data)
        leave_out(own.missing, f"no label along {name!r}")
        found[name] = own
    for name, own in found.items():
        positions = _breaks(data, name, breaks)
        steps = _steps(centers, name, own, data, positions)
        near = (
            "outside the data" if name not in centers.tolerance else "no step within the tolerance"
        )
        leave_out(steps < 0, f"{near} along {name!r}")
        axis = axes[name]
        begins = steps - anchors[name]
        leave_out(
            (begins < 0) | (begins + axis.size > axis.length),
            f"the window is not wholly inside along {name!r}",
        )
        before, after = (
            np.searchsorted(positions, at, side="right") for at in (begins, begins + axis.size - 1)
        )
        leave_out(before < after, f"the window would cross a break along {name!r}")
        starts[name] = begins
    if not kept.any():
        reasons = "; ".join(f"{each.count:,} {each.reason}" for each in losses)
        ranges = "; ".join(f"{name!r} goes {range_of(data, name)}" for name in centers.names)
        raise ValueError(
            f"no event of centers has a window: of {number_of(count, 'event')}, {reasons}. "
            f"In the data, {ranges}"
        )
    return Placed({n: np.where(kept, each, 0) for n, each in starts.items()}, kept, tuple(losses))


def _breaks(data: xr.Dataset, name: Hashable, rules: Any) -> IntArray:
    """First steps after breaks in the labels of the data along a dim."""
    rule = rules.get(name) if isinstance(rules, Mapping) else rules
    steps = None if rule == "ignore" else LabelSteps.of(data, name)
    breaks = None if steps is None else steps.breaks()
    return np.zeros(0, dtype=np.int64) if breaks is None else breaks.positions


def _steps(
    centers: Centers, name: Hashable, own: Comparable, data: xr.Dataset, breaks: IntArray
) -> IntArray:
    """Step of the data in whose cell each event lies, or which is nearest; -1 for none."""
    labels = comparable(data, name)
    if labels is None:
        raise ValueError(
            f"centers needs labels along {name!r} of the data, which has none: "
            f"ds.assign_coords({{{name!r}: …}})"
        )
    labels.require_same_kind(own, (f"the data along {name!r}", "centers"))
    tolerance = centers.tolerance.get(name)
    if labels.is_text:
        return _of_text(labels, own, name, tolerance)
    if tolerance is not None:
        tolerance = in_units(tolerance, labels, f"tolerance along {name!r}")
        if tolerance < 0:
            raise ValueError(f"tolerance along {name!r} is negative: {tolerance}")
    period = labels.period or own.period
    values, descending = _ascending(labels, name, period)
    asked = (
        own.values
        if values.dtype.kind == "i" == own.values.dtype.kind
        else (own.values.astype(np.float64))
    )
    asked = np.where(own.missing, values[0], asked)
    # Counted from the first label, so that times are exact as floats.
    origin = values[0]
    values, asked = (values - origin).astype(np.float64), (asked - origin).astype(np.float64)
    holes = len(values) - breaks[::-1] if descending else breaks
    steps = (
        _in_cell(values, asked, period, holes)
        if tolerance is None
        else _nearest_step(values, asked, period, float(tolerance))
    )
    if descending:
        steps = np.where(steps >= 0, len(values) - 1 - steps, -1)
    return np.where(own.missing, -1, steps)


def _ascending(
    labels: Comparable, name: Hashable, period: float | None
) -> tuple[npt.NDArray[Any], bool]:
    """Labels of the data, ascending, and whether they are so backwards."""
    values = labels.values
    if period is not None and len(values):  # a region may lie across the date line
        steps = (np.diff(values.astype(np.float64)) + period / 2) % period - period / 2
        values = values[0] + np.append(0.0, np.cumsum(steps))
    descending = len(values) > 1 and bool(values[0] > values[-1])
    if descending:
        values = values[::-1]
    if labels.missing.any() or not (values[1:] > values[:-1]).all():
        raise ValueError(
            f"centers needs labels along {name!r} of the data that are sorted, each once, none "
            f"missing: ds.sortby({name!r}).drop_duplicates({name!r})"
        )
    return values, descending


def _in_cell(
    labels: npt.NDArray[np.float64],
    asked: npt.NDArray[np.float64],
    period: float | None,
    holes: IntArray,
) -> IntArray:
    """The cell, from half-way to half-way between labels, in which each lies; -1 for none.

    At a hole of the labels cells end half a step behind it.
    """
    if len(labels) == 1:
        return _nearest_step(labels, asked, period, ROUNDING * max(1.0, abs(float(labels[0]))))
    edges = alignment.cell_edges(labels)
    if period is not None:
        asked = alignment.turned(asked, edges[0])
    found = np.searchsorted(edges, asked, side="right") - 1
    found = np.where((found < 0) | (found >= len(labels)), -1, found).astype(np.int64)
    if len(holes):
        half = float(np.median(np.diff(labels))) / 2
        far = np.abs(asked - labels[found]) > half
        beside = np.isin(found, holes) | np.isin(found, holes - 1)
        found[far & beside] = -1
    return found


def _nearest_step(
    labels: npt.NDArray[np.float64],
    asked: npt.NDArray[np.float64],
    period: float | None,
    tolerance: float,
) -> IntArray:
    """The label nearest to each, if it is not farther than a tolerance; -1 for none."""
    order = np.arange(len(labels))
    if period is not None:
        labels, asked = labels % period, asked % period
        order = np.argsort(labels, kind="stable")
        labels = labels[order]
    reach = np.full(len(labels), tolerance)
    found = alignment.nearest(labels, asked, reach, np.full(len(asked), tolerance), period)
    return np.where(found >= 0, order[found], -1)


def _of_text(labels: Comparable, own: Comparable, name: Hashable, tolerance: Any) -> IntArray:
    """The step with the same label."""
    if tolerance is not None:
        raise TypeError(
            f"tolerance along {name!r} is a distance, and its labels are such as "
            f"{printable(labels.values[0])}, which have none"
        )
    index = pd.Index(labels.values)
    if not index.is_unique:
        raise ValueError(
            f"the data has labels along {name!r} more than once: ds.drop_duplicates({name!r})"
        )
    found = index.get_indexer(pd.Index(own.values)).astype(np.int64)
    return np.where(own.missing, -1, found)
