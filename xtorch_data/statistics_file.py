"""Means and standard deviations in a file: NetCDF or JSON."""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["read_statistics", "write_statistics"]

FORMAT = "xtorch_data.Normalize"


def write_statistics(path: str | PathLike[str], mean: xr.Dataset, std: xr.Dataset) -> None:
    """Write both to a file, in the format that its name ends with."""
    is_json = _is_json(path)
    for name in [*mean.data_vars, *mean.coords]:
        if not isinstance(name, str):
            raise ValueError(f"a file names variables and dims by text, not {name!r}")
    if is_json:
        Path(path).write_text(json.dumps(_to_json(mean, std), indent=1, allow_nan=False) + "\n")
        return
    dim = "statistic"
    while dim in mean.variables:
        dim += "_"
    both = xr.concat([mean, std], pd.Index(["mean", "std"], name=dim), combine_attrs="override")
    both.attrs = {"format": FORMAT}
    # A fill value would be one more number that is not there.
    both.to_netcdf(path, encoding={name: {"_FillValue": None} for name in both.data_vars})


def read_statistics(path: str | PathLike[str]) -> tuple[xr.Dataset, xr.Dataset]:
    """Mean and standard deviation from a file."""
    if _is_json(path):
        try:
            content = json.loads(Path(path).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(_nothing_of_ours(path))
        return _of_json(content, "mean"), _of_json(content, "std")
    with xr.open_dataset(path, decode_cf=False) as opened:
        if opened.attrs.get("format") != FORMAT:
            raise ValueError(_nothing_of_ours(path))
        both = opened.load()
    both.attrs = {}
    # Labels may be dates. Of statistics, units such as "days since 2000" make no dates.
    coder = xr.coders.CFTimedeltaCoder(decode_via_units=False)
    labels = xr.decode_cf(both.coords.to_dataset(), decode_timedelta=coder)
    both = both.assign_coords(labels.coords)
    (dim,) = {variable.dims[0] for variable in both.data_vars.values()}
    mean, std = (both.sel({dim: name}, drop=True) for name in ("mean", "std"))
    return mean, std


def _is_json(path: str | PathLike[str]) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".nc"):
        raise ValueError(f"the name of the file must end in .nc or .json, not {str(path)!r}")
    return suffix == ".json"


def _nothing_of_ours(path: str | PathLike[str]) -> str:
    return f"{path} was not written by Normalize.save"


def _to_json(mean: xr.Dataset, std: xr.Dataset) -> dict[str, Any]:
    labels = {}
    for dim, index in mean.indexes.items():
        kind = "str" if index.inferred_type == "string" else index.dtype.str
        if kind != "str" and index.dtype.kind not in "iuf":
            raise ValueError(f"JSON has no labels such as those of {dim!r}: save them as .nc")
        labels[dim] = {"dtype": kind, "values": index.tolist()}
    return {
        "format": FORMAT,
        "labels": labels,
        "variables": {
            name: {
                "dims": list(each.dims),
                "mean": _with_null(each.values.tolist()),
                "std": _with_null(std[name].values.tolist()),
                "attrs": each.attrs,
            }
            for name, each in mean.data_vars.items()
        },
    }


def _of_json(content: dict[str, Any], statistic: str) -> xr.Dataset:
    labels = {
        dim: pd.Index(
            found["values"], dtype=np.dtype(found["dtype"]) if found["dtype"] != "str" else None
        )
        for dim, found in content["labels"].items()
    }
    variables = {}
    for name, found in content["variables"].items():
        values = np.array(found[statistic], dtype=np.float64)  # null becomes NaN
        variables[name] = xr.Variable(found["dims"], values, found["attrs"])
    return xr.Dataset(variables, labels)


def _with_null(values: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(values, list):
        return [_with_null(value) for value in values]
    return None if math.isnan(values) else values
