"""Variables that no tensor holds, and advice how their values become numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from ..sources.lazy_arrays import in_memory
from ..sources.object_arrays import PANDAS_DTYPE, kind_of_objects

__all__ = ["NoTensorsError", "is_numeric"]


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether values become a tensor: floating ones are cast, of others torch has the dtype."""
    return dtype.kind in "fiub" or (dtype.kind == "c" and dtype.itemsize <= 16)


class NoTensorsError(TypeError):
    """Error for a variable whose dtype no tensor has; `usable` variables could be taken instead."""

    def __init__(
        self, part: str, name: Hashable, variable: xr.Variable, usable: list[Hashable]
    ) -> None:
        self.part, self.usable = part, usable
        dtype = variable.encoding.get(PANDAS_DTYPE, variable.dtype)
        self.fact = (
            f"variable {name!r} of part {part!r} has dtype {dtype}, of which there are no tensors"
        )
        argument = {"x": "inputs=", "y": "targets="}.get(part, "")
        instead = f"give {argument}{usable}, or " if usable else ""
        super().__init__(f"{self.fact}: {instead}{_recipe(name, variable)}")

    def __reduce__(self) -> Any:
        return TypeError, self.args


def _recipe(name: Hashable, variable: xr.Variable) -> str:
    """Advice how values become numbers, by what they are."""
    block, data, dtype = f"block[{name!r}]", f"ds[{name!r}]", variable.dtype
    pandas_dtype, kind = variable.encoding.get(PANDAS_DTYPE), dtype.kind
    objects = kind_of_objects(variable) if kind == "O" else None
    if kind == "O" and variable.encoding.get("dtype") == np.bool_:
        return (
            "it has booleans, of which those that are its fill value are missing: "
            f"{_with(name, f'{block} == 1')} takes missing ones for False, and opened with "
            "mask_and_scale=False none is missing"
        )
    if pandas_dtype == "category":
        before = f"ds.assign({{{name!r}: ({data}.dims, {data}.data.codes)}})"
        return f"give the codes of its categories, {before}, or {_with(name, f'{block} == …')}"
    if pandas_dtype is not None and pandas_dtype.startswith("period"):
        before = f"ds.assign({{{name!r}: ({data}.dims, {data}.data.day_of_year)}})"
        return f"make numbers of its periods before, such as {before}"
    if pandas_dtype is not None and pandas_dtype.startswith("interval"):
        before = f"ds.assign({{{name!r}: ({data}.dims, {data}.data.mid)}})"
        return f"make numbers of its intervals before, such as {before}"
    if objects in ("datetime", "datetime64", "date"):
        times = f"pd.to_datetime({data}.values, utc=True).day_of_year"
        before = f"ds.assign({{{name!r}: ({data}.dims, {times})}})"
        return f"make numbers of its dates before, such as {before}"
    if kind == "m" or objects in ("timedelta", "timedelta64"):
        return _with(name, f'{block} / np.timedelta64(1, "h")')
    if kind == "M" or (kind == "O" and _holds_dates(variable, objects)):
        return _with(name, f"{block}.dt.dayofyear")
    if kind == "c":
        return _with(name, f"{block}.astype(complex)")
    if kind == "f":
        return _with(name, f"{block}.astype(float)")
    if kind == "V":
        fields = list(dtype.names or ())
        field = f"[{fields[0]!r}]" if fields else ".view(…)"
        before = f"ds.assign({{{name!r}: ({data}.dims, {data}.values{field})}})"
        return f"take its numbers before, such as {before}"
    if kind in "SUT" or objects in ("string", "bytes"):
        return _with(name, f"{block} == {_example(variable)}")
    if objects is not None:
        return _with(name, f"{block}.astype(float)")
    return _with(name, "…") + f" with {block} == … for text, or .astype(float) for numbers"


def _with(name: Hashable, made: str) -> str:
    return (
        f"make numbers of it, such as preprocess=lambda block: block.assign({{{name!r}: {made}}})"
    )


def _holds_dates(variable: xr.Variable, objects: str | None) -> bool:
    """Whether objects are dates of a calendar of cftime, as far as that is known."""
    if "calendar" in variable.encoding:
        return True
    if objects is None or not variable.size:
        return False
    first = variable[dict.fromkeys(variable.dims, 0)].to_numpy()[()]
    return hasattr(first, "calendar")


def _example(variable: xr.Variable) -> str:
    """A value to compare text with."""
    if not in_memory(variable) or not variable.size:
        return "…"
    return reprlib.repr(np.asarray(variable.to_numpy()).ravel()[:1].tolist()[0])
