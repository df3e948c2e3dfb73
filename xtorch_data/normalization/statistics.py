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
from ..planning.chunk_fitting import DEFAULT_MEMORY
from ..planning.coverage import covered
from ..planning.plan import Plan
from ..planning.selection import SampleTable, product
from ..samples.arguments import as_bytes
from ..samples.definition import SampleDefinition
from ..sources.source import as_source
from .around_events import moments_around_events
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
    samples, plan, retries = _defined(dataset, variables)
    names = _names(samples.primary.variable_dtypes, variables)
    kept = _dims(per)
    have = {dim for name in names for dim in samples.primary.variable_dims[name]}
    labels = {dim: _labels(samples, dim, have) for dim in kept}
    moments_found = moments_of if samples.centers is None else moments_around_events
    found = moments_found(
        samples,
        _wanted(plan),
        names,
        kept,
        memory=plan.memory,
        retries=retries,
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
        dims = [dim for dim in kept if dim in samples.primary.variable_dims[name]]
        coords = {dim: labels[dim] for dim in dims}
        attrs = kept_attrs(samples.primary.labels.attrs.get(name, {}))
        mean[name] = xr.DataArray(moments.mean, coords, dims, attrs=attrs)
        std[name] = xr.DataArray(moments.std, coords, dims, attrs=attrs)
    return mean, std


def kept_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Those attributes of the data that its statistics have as well."""
    return {key: attrs[key] for key in KEPT_ATTRS if isinstance(attrs.get(key), str)}


def _defined(data: Any, variables: Iterable[Hashable] | None) -> tuple[SampleDefinition, Plan, int]:
    """The samples of a dataset, its plan and retries; of plain data, all places are samples."""
    if isinstance(data, (IterableDataset, MapDataset)):
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


def _labels(samples: SampleDefinition, dim: Hashable, have: set[Hashable]) -> Any:
    """Labels of the covered places along a dim that is kept."""
    if dim not in have:
        raise ValueError(
            f"per={dim!r} is no dim of the variables; theirs are {sorted(map(str, have))}"
        )
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
    axis = covered(samples.windows.axis(dim))
    found = index[axis.start(np.arange(len(axis)))]
    if isinstance(index, pd.MultiIndex) or not found.is_unique:
        raise ValueError(f"per={dim!r} needs a plain coordinate without a label that comes twice")
    return found


def _in_part(samples: SampleDefinition, dim: Hashable) -> bool:
    """Whether windows around events lie anywhere along a dim, or have several places of it."""
    assert samples.centers is not None
    axis = samples.primary.windows.axis(dim)
    return dim in samples.centers.names or (axis.windowed and not axis.whole)
