"""Events, one sample at each: their labels as the user gives them."""

from __future__ import annotations

import difflib
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..sources.comparable import Comparable, comparable

__all__ = ["Centers", "free_name"]

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
        if "sample" in events.variables:
            raise ValueError(
                "centers has 'sample', by which batches name their samples: give it another name"
            )
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
        return free_name(f"center_{name}", self.events.variables)

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
        _require_no_zone(name, variable)
        attrs = variable.attrs or attrs_of.coords[name].attrs
        own = xr.Dataset(coords={name: (self.dim, variable.values, attrs)})
        found = comparable(own, name)
        assert found is not None
        return found


def free_name(name: str, taken: Container[Hashable]) -> str:
    """A name like one that is wanted, which is none of those that are taken."""
    while name in taken:
        name += "_"
    return name


def _as_dataset(given: Any, dims: list[Hashable]) -> xr.Dataset:
    """Events as one Dataset of one dim, in memory."""
    if isinstance(given, pd.DataFrame):
        frame = given
        kept = isinstance(frame.index, pd.MultiIndex) or frame.index.name in dims
        if kept or (frame.index.name is not None and frame.index.name not in frame.columns):
            frame = frame.reset_index()
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise ValueError(f"centers has more than one column {twice[0]!r}")
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
    # What a user makes of the events later is no matter of samples that lie around these.
    return events.reset_coords(own).copy(deep=True)


def _values(column: pd.Series[Any]) -> npt.NDArray[Any]:
    """Values of a column as numpy has them; missing integers and booleans as NaN."""
    if column.dtype == object:
        column = pd.Series(list(column))  # None among numbers is missing
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
        elif values.dtype == object:
            values = _values(pd.Series(values))
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


def _require_no_zone(name: Hashable, labels: xr.Variable) -> None:
    """Raise ValueError if labels of events are times of a time zone."""
    if labels.dtype == object:
        zones = (getattr(label, "tzinfo", None) for label in labels.values)
        zone = next((zone for zone in zones if zone is not None), None)
        if zone is not None:
            raise ValueError(
                f"centers has {name!r} with a time zone, {zone}: "
                f"pd.to_datetime(events[{name!r}]).dt.tz_convert(None) has these times in UTC "
                "without one"
            )


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
