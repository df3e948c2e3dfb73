"""Statistics of a dataset's variables: arguments checked, results labeled."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch.utils.data
import xarray as xr

from ..common.redact import printable
from ..common.retry import RETRIES
from ..datasets.fitted_labels import FittedLabels, fitted_labels
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..planning.chunk_fitting import DEFAULT_MEMORY
from ..planning.coverage import covered
from ..planning.places import places_of
from ..planning.plan import Plan
from ..planning.selection import SampleTable, product
from ..samples.arguments import as_bytes
from ..samples.date_parts import PART_OF, PARTS, coordinate_of, split_name
from ..samples.definition import SampleDefinition
from ..samples.losses import CENTERS
from ..sources.source import as_source
from .around_events import tallies_around_events
from .date_groups import DateGroups, date_groups
from .files import FIRST
from .fit import tallies_of
from .kinds import Kind
from .moments import Tally

__all__ = ["Fitted", "Statistics", "as_statistics", "dates_of", "fitted"]

Statistics = Mapping[Any, Any] | xr.Dataset
DATASETS = (IterableDataset, MapDataset)

# Attributes of the data that its statistics have as well.
KEPT_ATTRS = ("units", "long_name", "standard_name")


@dataclass(frozen=True, eq=False)
class _Fit:
    """What is counted of one source.

    Attributes
    ----------
    samples : SampleDefinition
        The samples; of another source, the places that these have of it.
    wanted : sequence of SampleTable
        Which of their windows count: those that all tables want.
    names : list of Hashable
        Variables.
    shown : list of Hashable
        The same as users name them.
    """

    samples: SampleDefinition
    wanted: Sequence[SampleTable]
    names: list[Hashable]
    shown: list[Hashable]

    @property
    def dims(self) -> set[Hashable]:
        """Dims that any of the variables has."""
        found = self.samples.primary.variable_dims
        return {dim for name in self.names for dim in found[name]}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `xtorch_data.Normalize.fit` finds.

    Attributes
    ----------
    statistics : pair of dict
        Those of the kind that was asked for, by variable.
    source : str, optional
        Name of the first source, if they are of several.
    labels : FittedLabels
        Labels of what they were fitted on.
    """

    statistics: tuple[dict[Hashable, xr.DataArray], dict[Hashable, xr.DataArray]]
    source: str | None
    labels: FittedLabels


def fitted(
    dataset: Any,
    kind: Kind,
    per: Hashable | Iterable[Hashable],
    variables: Iterable[Hashable] | None,
    progress: bool | None,
) -> Fitted:
    """Statistics by variable; see `xtorch_data.Normalize.fit`."""
    samples, plan, retries = _defined(dataset, variables)
    fits = _by_source(samples, _wanted(plan), variables)
    order = _dims(per)
    have = set().union(*(fit.dims for fit in fits))
    kept = [dim for dim in order if dim in have]
    grouped = [_groups_of(fit, [name for name in order if name not in have]) for fit in fits]
    _require_known(order, have, grouped)
    labels = [_labels_of(fit, kept) for fit in fits]
    for own, groups in zip(labels, grouped, strict=True):
        own.update({each.name: each.labels for each in groups})
    for dim in dict.fromkeys(dim for own in labels for dim in own):
        _require_alike(dim, fits, labels)
    first, second = {}, {}
    for fit, groups, own in zip(fits, grouped, labels, strict=True):
        found = _tallies(
            fit,
            kind,
            kept,
            groups,
            memory=plan.memory,
            retries=retries,
            progress=progress,
        )
        for name, shown in zip(fit.names, fit.shown, strict=True):
            _require_values(shown, found[name])
            first[shown], second[shown] = (
                _labeled(values, fit, name, order, groups, own) for values in found[name].both
            )
    of_several = any(fit.samples is not samples for fit in fits)
    parts = dataset._inside.what.parts if isinstance(dataset, DATASETS) else ()
    return Fitted(
        (first, second),
        samples.primary.source if of_several else None,
        fitted_labels(samples, parts),
    )


def _labeled(
    values: npt.NDArray[np.float64],
    fit: _Fit,
    name: Hashable,
    order: Sequence[Hashable],
    groups: Sequence[DateGroups],
    labels: Mapping[Hashable, pd.Index[Any]],
) -> xr.DataArray:
    """A statistic of a variable, groups first as they are counted, with dims as they were asked."""
    samples = fit.samples.primary
    have = samples.variable_dims[name]
    parts: dict[Hashable, str] = {each.name: each.of for each in groups if each.dim in have}
    dims = [*parts, *(dim for dim in order if dim in have)]
    coords = {dim: coordinate_of(dim, labels[dim], parts.get(dim)) for dim in dims}
    attrs = _kept_attrs(samples.labels.attrs.get(name, {}))
    found = xr.DataArray(values, coords, dims, attrs=attrs)
    return found.transpose(*sorted(dims, key=lambda dim: order.index(parts.get(dim, dim))))


def _groups_of(fit: _Fit, names: Iterable[Hashable]) -> list[DateGroups]:
    """Groups by parts of dates of which any variable of a source has the dim."""
    asked = [name for name in names if isinstance(name, str) and split_name(name) is not None]
    found = (date_groups(fit.samples, name) for name in asked)
    return [each for each in found if each is not None and each.dim in fit.dims]


def _require_known(
    order: Sequence[Hashable], have: Iterable[Hashable], grouped: Sequence[Sequence[DateGroups]]
) -> None:
    """Raise ValueError if there is no dim or part of dates of a name, or two of one name."""
    have = set(have)
    groups = {each.of: each for found in grouped for each in found}
    for name in order:
        if name in have or name in groups:
            continue
        _, dot, part = name.rpartition(".") if isinstance(name, str) else ("", "", "")
        dates = f"; parts of dates are {', '.join(PARTS)}" if dot and part not in PARTS else ""
        dates = f", nor of dates along one{dates}" if dot else ""
        dates += f" (of dates along one, say 'time.{name}')" if name in PARTS else ""
        raise ValueError(
            f"per={name!r} is no dim of the variables{dates}; theirs are {sorted(map(str, have))}"
        )
    names = [each.name for each in groups.values()]
    for each in groups.values():
        if each.name in have or names.count(each.name) > 1:
            raise ValueError(
                f"per={each.of!r} gives statistics a dim {each.name!r}, and there is another of "
                "that name"
            )
        if each.dim in order:
            raise ValueError(f"per={each.of!r} groups steps of {each.dim!r}, which is kept as well")


def _by_source(
    samples: SampleDefinition, wanted: SampleTable | None, variables: Iterable[Hashable] | None
) -> list[_Fit]:
    """What is counted of each source of which there is something to count."""
    sources = [each for each in samples.sources if each.source != CENTERS]
    owners = {
        shown: (each, name)
        for each in sources
        for name, shown in samples.named(each, each.variable_dtypes).items()
    }
    first = samples.primary.source
    if variables is not None and first is not None:  # the first one has two names
        asked = [variables] if isinstance(variables, str) else list(variables)
        begin = f"{first}/"
        variables = [
            name.removeprefix(begin) if isinstance(name, str) and name not in owners else name
            for name in asked
        ]
    dtypes = {shown: each.variable_dtypes[name] for shown, (each, name) in owners.items()}
    wanted_names = _names(dtypes, variables)
    fits = []
    for each in sources:
        shown = [name for name in wanted_names if owners[name][0] is each]
        if not shown:
            continue
        names = [owners[name][1] for name in shown]
        if each is samples.primary:
            fits.append(_Fit(samples, () if wanted is None else (wanted,), names, shown))
            continue
        laid = {dim: steps for dim, (_, steps) in each.labels.laid.items()}
        places, tables = places_of(each.windows, wanted, laid)
        own = replace(each, labels=replace(each.labels, windows=places))
        fits.append(_Fit(own, tables, names, shown))
    return fits


def _tallies(
    fit: _Fit,
    kind: Kind,
    kept: Sequence[Hashable],
    groups: Sequence[DateGroups],
    *,
    memory: int,
    retries: int,
    progress: bool | None,
) -> dict[Hashable, Tally]:
    """Statistics of what is counted of a source; around events, of all that their windows hold."""
    what = (kind.tally, fit.samples, fit.wanted, fit.names, kept)
    how: dict[str, Any] = {"memory": memory, "retries": retries, "progress": progress}
    if fit.samples.centers is not None:
        return tallies_around_events(*what, **how)
    return tallies_of(*what, groups, **how)


def _labels_of(fit: _Fit, kept: Sequence[Hashable]) -> dict[Hashable, pd.Index[Any]]:
    """Labels of the covered places along the dims that are kept, of those that a source has."""
    return {dim: _labels(fit.samples, dim) for dim in kept if dim in fit.dims}


def _require_alike(
    dim: Hashable, fits: Sequence[_Fit], labels: Sequence[Mapping[Hashable, pd.Index[Any]]]
) -> None:
    """Raise ValueError if sources have different labels along a dim that is kept."""
    there = [(fit, own[dim]) for fit, own in zip(fits, labels, strict=True) if dim in own]
    for fit, own in there[1:]:
        if not own.equals(there[0][1]):
            first, other = there[0][0].samples.source, fit.samples.source
            raise ValueError(
                f"per={dim!r}: sources {first!r} and {other!r} have different labels along it. "
                f"Fit them one by one, with variables={fit.shown} and so on, and give each to its "
                f"source: preprocess={{{first!r}: …, {other!r}: …}}"
            )


def _require_values(name: Hashable, tally: Tally) -> None:
    """Raise ValueError if there are no statistics of a variable, or none that are numbers."""
    some = tally.count > 0
    if not some.any():
        raise ValueError(f"variable {name!r} has no value but NaN: there is no mean")
    first, second = (values[some] for values in tally.both)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite([first, second, second - first]).all()
    if not finite:
        raise ValueError(
            f"variable {name!r} has infinite values, or such that their squares or differences "
            "are: ds.where(np.isfinite(ds)) makes them NaN, which does not count"
        )


def _kept_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Those attributes of the data that its statistics have as well."""
    return {key: attrs[key] for key in KEPT_ATTRS if isinstance(attrs.get(key), str)}


def _defined(data: Any, variables: Iterable[Hashable] | None) -> tuple[SampleDefinition, Plan, int]:
    """The samples of a dataset, its plan and retries; of plain data, all places are samples."""
    if isinstance(data, DATASETS):
        return data._inside.definition, data.plan, data._inside.retries
    if isinstance(data, (torch.utils.data.Dataset, torch.utils.data.DataLoader)):
        raise TypeError(
            "Normalize.fit takes an xtorch_data.IterableDataset or MapDataset, or data, not "
            f"{type(data).__module__}.{type(data).__name__}"
        )
    source = as_source(data)
    ds = source.dataset
    inputs = _names({name: each.dtype for name, each in ds.data_vars.items()}, variables)
    if source.generator is not None:
        samples = SampleDefinition.of(data, None, inputs=inputs)
    else:
        samples = SampleDefinition.of(ds, {}, inputs=inputs)
    memory = as_bytes(DEFAULT_MEMORY)
    return samples, Plan.of(samples.windows, samples.layouts, memory=memory, warn=False), RETRIES


def _wanted(plan: Plan) -> SampleTable | None:
    """Which samples there are; None for all."""
    if plan.weights is None:
        return plan.where
    drawn = SampleTable(plan.weights.axes, plan.weights.values > 0)
    return drawn if plan.where is None else product(drawn, plan.where, plan.windows.shape)


def _names(
    dtypes: Mapping[Hashable, np.dtype[Any]], variables: Iterable[Hashable] | None
) -> list[Hashable]:
    """The variables that are wanted, of those there are."""
    if variables is None:
        names = [name for name, dtype in dtypes.items() if dtype.kind == "f"]
        if not names:
            raise ValueError(
                f"none of the variables {list(dtypes)} is floating; variables=[…] names others"
            )
        return names
    names = [variables] if isinstance(variables, str) else list(dict.fromkeys(variables))
    if not names:
        raise ValueError("variables names none; left out, it means all that are floating")
    for name in names:
        if name not in dtypes:
            raise ValueError(f"there is no variable {name!r}; the variables are {list(dtypes)}")
        if dtypes[name].kind not in "iuf":
            raise TypeError(f"variable {name!r} has dtype {dtypes[name]}: it has no mean to take")
    return names


def _dims(per: Hashable | Iterable[Hashable]) -> list[Hashable]:
    if isinstance(per, str) or not isinstance(per, Iterable):
        return [per]
    return list(dict.fromkeys(per))


def _labels(samples: SampleDefinition, dim: Hashable) -> pd.Index[Any]:
    """Labels of the covered places along a dim that is kept."""
    if samples.centers is not None and _in_part(samples, dim):
        raise ValueError(
            f"per={dim!r} keeps places along a dim of which samples around events have a part: "
            "take statistics per dim of which they have a place or the whole"
        )
    index = samples.labelled.index(dim)
    if index is None:
        raise ValueError(
            f"per={dim!r} needs a coordinate, by which statistics are looked up: "
            f"ds.assign_coords({printable(dim)}=range(ds.sizes[{dim!r}])) gives it one"
        )
    axis = covered(samples.windows.axis(dim), samples.beyond.get(dim))
    found: pd.Index[Any] = index[axis.start(np.arange(len(axis)))]
    if isinstance(index, pd.MultiIndex) or not found.is_unique:
        raise ValueError(f"per={dim!r} needs a plain coordinate without a label that comes twice")
    return found


def dates_of(per: Hashable | Iterable[Hashable]) -> dict[Hashable, str]:
    """By dim of statistics, the part of dates that its labels are, such as ``"time.month"``."""
    found: dict[Hashable, str] = {}
    for name in _dims(per):
        split = split_name(name)
        if split is None or split[1] in found:
            raise ValueError(
                f"per={name!r} must name a coordinate and a part of its dates, such as "
                f"'time.month', another for each; parts are {', '.join(PARTS)}"
            )
        found[split[1]] = str(name)
    return found


def as_statistics(
    values: Statistics, what: str, dates: Mapping[Hashable, str] | None = None
) -> xr.Dataset:
    """Numbers by variable as a Dataset, checked; `dates` says which dims are parts of dates."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{what} must be a mapping of variables to numbers, not {values!r}")
    found: dict[Hashable, xr.Variable] = {}
    labels: dict[Hashable, pd.Index[Any]] = {}
    first: dict[Hashable, Hashable] = {}  # the variable which had them
    parts = dict(dates or {})
    for name, value in values.items():
        array = xr.DataArray(value)
        for dim in array.dims:
            index = array.indexes.get(dim)
            if index is None or not index.is_unique or isinstance(index, pd.MultiIndex):
                raise ValueError(
                    f"{what} of {name!r} needs a coordinate along {dim!r}, a plain one without "
                    "repeated labels"
                )
            if (of := array.coords[dim].attrs.get(PART_OF)) is not None:
                known = split_name(of)
                if known is None or known[1] != dim or parts.setdefault(dim, of) != of:
                    raise ValueError(f"{what} of {name!r} cannot be per {of!r} along {dim!r}")
            other = first.setdefault(dim, name)
            if not labels.setdefault(dim, index).equals(index):
                raise ValueError(
                    f"{what} of {name!r} has other labels along {dim!r} than that of {other!r}: "
                    "make a Normalize of each, and Compose them"
                )
        numbers = np.array(array, dtype=np.float64)
        if np.isinf(numbers).any():
            raise ValueError(f"{what} of {name!r} is infinite")
        found[name] = xr.Variable(array.dims, numbers, _kept_attrs(array.attrs))
    source = values.attrs.get(FIRST) if isinstance(values, xr.Dataset) else None
    for dim in dates or {}:
        if dim not in labels:
            raise ValueError(
                f"per={parts[dim]!r} says of which dates dim {dim!r} is, but no {what} has it"
            )
    coords = {dim: coordinate_of(dim, index, parts.get(dim)) for dim, index in labels.items()}
    return xr.Dataset(found, coords, {FIRST: source} if isinstance(source, str) else {})


def _in_part(samples: SampleDefinition, dim: Hashable) -> bool:
    """Whether windows around events lie anywhere along a dim, or have several places of it."""
    assert samples.centers is not None
    axis = samples.primary.windows.axis(dim)
    return dim in samples.centers.names or (axis.windowed and not axis.whole)
