"""Mean and standard deviation of a dataset's variables: arguments checked, results labeled."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch.utils.data
import xarray as xr

from ..common.redact import printable
from ..common.retry import RETRIES
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..planning.coverage import covered
from ..planning.plan import Plan
from ..planning.selection import SampleTable, product
from ..report.unfit_chunks import chunks_unsaid
from ..sources.source import as_source
from .fit import moments_of

__all__ = ["fitted", "kept_attrs"]

# Attributes of the data that its statistics have as well.
KEPT_ATTRS = ("units", "long_name", "standard_name")


def fitted(
    dataset: Any,
    per: Hashable | Iterable[Hashable],
    variables: Iterable[Hashable] | None,
    progress: bool | None,
) -> tuple[dict[Hashable, xr.DataArray], dict[Hashable, xr.DataArray]]:
    """Mean and standard deviation by variable; see `xtorch_data.Normalize.fit`."""
    dataset = _as_dataset(dataset, variables)
    samples = dataset._samples
    names = _names(samples.variable_dtypes, variables)
    kept = _dims(per)
    have = {dim for name in names for dim in samples.variable_dims[name]}
    labels = {dim: _labels(dataset, dim, have) for dim in kept}
    found = moments_of(
        samples,
        _wanted(dataset.plan),
        names,
        kept,
        memory=dataset.plan.memory,
        retries=getattr(dataset, "retries", RETRIES),
        progress=progress,
    )
    mean, std = {}, {}
    for name in names:
        moments = found[name]
        some = moments.count > 0
        if not some.any():
            raise ValueError(f"variable {name!r} has no value but NaN: there is no mean")
        if not np.isfinite([moments.mean[some], moments.std[some]]).all():
            raise ValueError(
                f"variable {name!r} has infinite values, or such that their squares are: "
                "ds.where(np.isfinite(ds)) makes them NaN, which does not count"
            )
        dims = [dim for dim in kept if dim in samples.variable_dims[name]]
        coords = {dim: labels[dim] for dim in dims}
        attrs = kept_attrs(samples.recipe.labels.attrs.get(name, {}))
        mean[name] = xr.DataArray(moments.mean, coords, dims, attrs=attrs)
        std[name] = xr.DataArray(moments.std, coords, dims, attrs=attrs)
    return mean, std


def kept_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Those attributes of the data that its statistics have as well."""
    return {key: attrs[key] for key in KEPT_ATTRS if isinstance(attrs.get(key), str)}


def _as_dataset(data: Any, variables: Iterable[Hashable] | None) -> Any:
    """A dataset of ours, of plain data one whose samples are all the places."""
    if isinstance(data, (IterableDataset, MapDataset)):
        return data
    if isinstance(data, (torch.utils.data.Dataset, torch.utils.data.DataLoader)):
        raise TypeError(
            "Normalize.fit takes an xtorch_data.IterableDataset or MapDataset, or data, not "
            f"{type(data).__module__}.{type(data).__name__}"
        )
    source = as_source(data)
    ds = source.dataset
    inputs = _names({name: each.dtype for name, each in ds.data_vars.items()}, variables)
    with chunks_unsaid():  # they are read in another order
        if source.generator is not None:
            return IterableDataset(data, inputs=inputs)
        return IterableDataset(ds, input_dims={}, inputs=inputs)


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


def _labels(dataset: Any, dim: Hashable, have: set[Hashable]) -> Any:
    """Labels of the covered places along a dim that is kept."""
    if dim not in have:
        raise ValueError(
            f"per={dim!r} is no dim of the variables; theirs are {sorted(map(str, have))}"
        )
    index = dataset.windows.index(dim)
    if index is None:
        raise ValueError(
            f"per={dim!r} needs a coordinate, by which statistics are looked up: "
            f"ds.assign_coords({printable(dim)}=range(ds.sizes[{dim!r}])) gives it one"
        )
    axis = covered(dataset.plan.windows.axis(dim))
    found = index[axis.start(np.arange(len(axis)))]
    if isinstance(index, pd.MultiIndex) or not found.is_unique:
        raise ValueError(f"per={dim!r} needs a plain coordinate without a label that comes twice")
    return found
