"""Statistics in a file: NetCDF or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..datasets.fitted_labels import FittedLabels, FittedRanges
from ..samples.date_parts import PART_OF, coordinate_of
from .kinds import KINDS, Kind

__all__ = ["FIRST", "Content", "read_statistics", "write_statistics"]

FORMAT = "xtorch_data.Normalize"
# Attribute of statistics of several sources: the name of the first one, whose variables have none
# in theirs.
FIRST = "first_source"
# What the attribute "names" says where a name has a slash, which NetCDF takes for that of a group.
QUOTED = "%2F is a slash, %25 a percent sign"
# Attribute, and key, for the labels that they were fitted on.
FITTED_ON = "fitted_on"
NOTHING_OF_OURS = "was not written by Normalize.save"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Content:
    """What a file has.

    Attributes
    ----------
    kind : Kind
        What statistics they are.
    first, second : xarray.Dataset
        The two statistics of that kind.
    fitted_on : FittedLabels
        Labels of what they were fitted on, if that is known.
    """

    kind: Kind
    first: xr.Dataset
    second: xr.Dataset
    fitted_on: FittedLabels = field(default_factory=dict)


def write_statistics(path: str | PathLike[str], content: Content) -> None:
    """Write them to a file, in the format that its name ends with."""
    is_json = _is_json(path)
    first = content.first
    for name in [*first.data_vars, *first.coords]:
        if not isinstance(name, str):
            raise ValueError(f"a file names variables and dims by text, not {name!r}")
    if is_json:
        Path(path).write_text(json.dumps(_to_json(content), indent=1, allow_nan=False) + "\n")
        return
    dim = "statistic"
    while dim in first.variables:
        dim += "_"
    index = pd.Index(content.kind.statistics, name=dim)
    both = xr.concat([first, content.second], index, combine_attrs="override")
    both.attrs = {"format": FORMAT, **first.attrs}
    if content.fitted_on:
        both.attrs[FITTED_ON] = json.dumps(_to_plain(content.fitted_on))
    names = {
        name: name.replace("%", "%25").replace("/", "%2F") for name in map(str, both.variables)
    }
    if any("/" in name for name in names):
        both = both.rename({name: new for name, new in names.items() if name != new})
        both.attrs["names"] = QUOTED
    # A fill value would be one more number that is not there.
    both.to_netcdf(path, encoding={name: {"_FillValue": None} for name in both.data_vars})


def read_statistics(path: str | PathLike[str]) -> Content:
    """Statistics from a file.

    Raises
    ------
    ValueError
        If the file was not written by `write_statistics`, or what is in it has been changed into
        something else; the message names the file and, where it can be told, the variable.
    OSError
        If there is no such file, or it may not be read.
    """
    read = _read_json if _is_json(path) else _read_netcdf
    if Path(path).is_dir():
        raise ValueError(f"{printable(path)} is a folder, and no file of Normalize.save")
    try:
        return read(path)
    except (FileNotFoundError, PermissionError):
        raise
    except Malformed as error:
        raise ValueError(f"{printable(path)} {error}") from error.__cause__
    except Exception as error:  # whatever a library makes of a file that is no NetCDF or is damaged
        kind = type(error).__name__
        raise ValueError(
            f"{printable(path)} cannot be read as a file of Normalize.save: {kind}: "
            f"{printable(error)}"
        ) from error


class Malformed(Exception):
    """What is wrong with a file; it goes on after its name."""


def _read_json(path: str | PathLike[str]) -> Content:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"is not JSON: {printable(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Malformed(NOTHING_OF_OURS)
    name = content.get("kind", "std")  # of older files there was no other
    if not isinstance(name, str) or name not in KINDS:
        raise Malformed(f"has statistics of kind {name!r}; the kinds are {list(KINDS)}")
    kind = KINDS[name]
    labels = {
        dim: _of("the labels of", dim, _coordinate, dim, found)
        for dim, found in _mapping(content, "labels").items()
    }
    found = _mapping(content, "variables").items()
    source = content.get(FIRST)
    if not isinstance(source, str | None):
        raise Malformed(f"has no name in {FIRST!r}, but {source!r}")
    attrs = {} if source is None else {FIRST: source}
    first, second = (
        xr.Dataset(
            {name: _of("variable", name, _variable, each, statistic) for name, each in found},
            labels,
            attrs,
        )
        for statistic in kind.statistics
    )
    return Content(kind, first, second, _fitted_on(content.get(FITTED_ON, {})))


def _read_netcdf(path: str | PathLike[str]) -> Content:
    with xr.open_dataset(path, decode_cf=False) as opened:
        if opened.attrs.get("format") != FORMAT:
            raise Malformed(NOTHING_OF_OURS)
        both = opened.load()
    if both.attrs.get("names") == QUOTED:
        names = (name for name in map(str, both.variables) if "%" in name)
        both = both.rename({name: name.replace("%2F", "/").replace("%25", "%") for name in names})
    try:
        fitted_on = json.loads(both.attrs.get(FITTED_ON, "{}"))
    except (TypeError, ValueError) as error:
        raise Malformed(f"is wrong in {FITTED_ON!r}, which is not JSON") from error
    both.attrs = {key: both.attrs[key] for key in (FIRST,) if key in both.attrs}
    for name, variable in both.data_vars.items():
        if not variable.dims or variable.dtype.kind not in "iuf":
            raise Malformed(
                f"has variable {name!r} with dims {variable.dims} and dtype {variable.dtype}: "
                "statistics are numbers, along a dim of two of them"
            )
    dims = {variable.dims[0] for variable in both.data_vars.values()}
    named = [set(both.indexes[dim]) for dim in dims if dim in both.indexes]
    kinds = [kind for kind in KINDS.values() if named == [set(kind.statistics)]]
    if len(dims) != 1 or not kinds:
        raise Malformed(
            f"has the dims {list(map(str, dims))} first in its variables, but it must be one, "
            "with the labels 'mean' and 'std', or 'min' and 'max'"
        )
    # Labels may be dates. Of statistics, units such as "days since 2000" make no dates.
    coder = xr.coders.CFTimedeltaCoder(decode_via_units=False)
    labels = xr.decode_cf(both.coords.to_dataset(), decode_timedelta=coder)
    both = both.assign_coords(labels.coords)
    (dim,) = dims
    first, second = (both.sel({dim: name}, drop=True) for name in kinds[0].statistics)
    return Content(kinds[0], first, second, _fitted_on(fitted_on))


def _is_json(path: str | PathLike[str]) -> bool:
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".nc"):
        raise ValueError(f"the name of the file must end in .nc or .json, not {str(path)!r}")
    return suffix == ".json"


def _to_plain(fitted_on: FittedLabels) -> dict[str, Any]:
    return {dim: asdict(ranges) for dim, ranges in fitted_on.items()}


def _fitted_on(found: Any) -> dict[str, FittedRanges]:
    """Labels from what `_to_plain` has made."""
    try:
        return {dim: FittedRanges.of(**each) for dim, each in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise Malformed(f"is wrong in {FITTED_ON!r}: {printable(error)}") from error


def _to_json(content: Content) -> dict[str, Any]:
    labels: dict[Hashable, Any] = {}
    first, (one, other) = content.first, content.kind.statistics
    for dim, index in first.indexes.items():
        kind = "str" if index.inferred_type == "string" else index.dtype.str
        if kind != "str" and index.dtype.kind not in "iuf":
            raise ValueError(f"JSON has no labels such as those of {dim!r}: save them as .nc")
        labels[dim] = {"dtype": kind, "values": index.tolist()}
        if PART_OF in first[dim].attrs:
            labels[dim][PART_OF] = first[dim].attrs[PART_OF]
    return {
        "format": FORMAT,
        "kind": content.kind.name,
        **first.attrs,
        **({FITTED_ON: _to_plain(content.fitted_on)} if content.fitted_on else {}),
        "labels": labels,
        "variables": {
            name: {
                "dims": list(each.dims),
                one: _with_null(each.values.tolist()),
                other: _with_null(content.second[name].values.tolist()),
                "attrs": each.attrs,
            }
            for name, each in first.data_vars.items()
        },
    }


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise Malformed(f"has no {key!r} by name: {printable(repr(found)[:80])}")
    return found


def _of(what: str, name: str, function: Callable[..., T], *args: Any) -> T:
    """What a function makes of a part of the file; its errors name that part."""
    try:
        return function(*args)
    except Exception as error:
        kind = "has no" if isinstance(error, KeyError) else f"is not: {type(error).__name__}:"
        raise Malformed(f"is wrong in {what} {name!r}, which {kind} {printable(error)}") from error


def _coordinate(dim: str, found: dict[str, Any]) -> xr.Variable:
    return coordinate_of(dim, _index(found), found.get(PART_OF))


def _index(found: dict[str, Any]) -> pd.Index[Any]:
    values, kind = found["values"], found["dtype"]
    if kind == "str":
        if not all(isinstance(value, str) for value in values):
            raise TypeError("labels of dtype 'str' must be texts")
        return pd.Index(values)  # type: ignore[no-any-return]
    if np.dtype(kind).kind not in "iuf" or np.asarray(values).dtype.kind not in "iuf":
        raise TypeError(f"labels must be numbers or texts, not of dtype {kind!r}")
    return pd.Index(values, dtype=np.dtype(kind))  # type: ignore[no-any-return]


def _variable(found: dict[str, Any], statistic: str) -> xr.Variable:
    dims, attrs = found["dims"], found["attrs"]
    if not isinstance(dims, list) or not isinstance(attrs, dict):
        raise TypeError("its 'dims' must be a list and its 'attrs' a mapping")
    _require_numbers(found[statistic])
    values = np.array(found[statistic], dtype=np.float64)  # null becomes NaN
    return xr.Variable(dims, values, attrs)


def _require_numbers(values: Any) -> None:
    if isinstance(values, list):
        for value in values:
            _require_numbers(value)
    elif values is not None and (isinstance(values, bool) or not isinstance(values, int | float)):
        raise TypeError(f"{values!r} is no number")


def _with_null(values: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(values, list):
        return [_with_null(value) for value in values]
    return None if math.isnan(values) else values
