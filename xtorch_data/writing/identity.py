"""What tells a copy, and the values of variables, from any others."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["checksum", "identity_of"]


def identity_of(
    ds: xr.Dataset, whole: xr.Dataset, encodings: Mapping[Any, Mapping[str, Any]]
) -> dict[str, Any]:
    """What must be the same for a copy to go on."""
    layout = {
        name: [list(map(str, each.dims)), list(each.shape), str(each.dtype)]
        for name, each in ds.variables.items()
    }
    chunks = {name: [each.get("chunks"), each.get("shards")] for name, each in encodings.items()}
    others = {
        name: {
            key: str(value)
            for key, value in sorted(each.items())
            if key not in ("chunks", "shards")
        }
        for name, each in encodings.items()
    }
    attrs = [str(ds.attrs), {name: str(each.attrs) for name, each in ds.variables.items()}]
    values = {name: checksum(each) for name, each in whole.variables.items()}
    found = {
        "source": ds.encoding.get("source", ""),
        "variables": layout,
        "chunks": chunks,
        "encoding": others,
        "attributes": attrs,
        "coordinates": values,
    }
    return {key: _digest(value) for key, value in found.items()}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksum(variable: xr.Variable, dtype: np.dtype[Any] | None = None) -> int:
    """A number that changes with any value of a variable in memory.

    The same for equal values in another byte order, unit of time or kind of text; and in another
    dtype of numbers, if it is of which the values were.
    """
    values = np.asarray(variable.values)
    native = values.dtype.newbyteorder("=") if dtype is None else dtype.newbyteorder("=")
    # Copies of a region are made only for another dtype: they count as memory.
    if native != values.dtype and native.kind in "fciu" and values.dtype.kind in "fciu":
        with np.errstate(all="ignore"):
            before = values.astype(native)
            if np.array_equal(before.astype(values.dtype), values, equal_nan=True):
                values = before
    kind = values.dtype.kind
    if kind in "mM":
        seconds = values.astype(f"{kind}8[s]")
        rest = (values - seconds).astype("m8[ns]")
        return zlib.crc32(rest.tobytes(), zlib.crc32(seconds.tobytes()))
    if kind not in "fciub":
        return zlib.crc32("\0".join(map(str, values.ravel().tolist())).encode())
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if kind in "fc" and (missing := np.isnan(values)).any():
        values = np.where(missing, np.nan, values).astype(values.dtype)  # one of all its bits
    return zlib.crc32(values.reshape(-1).view("u1").data)
