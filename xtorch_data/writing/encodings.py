"""Encodings of variables that are written: what of them is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from zarr.codecs import BloscCodec

__all__ = ["RELATED", "kept", "stored_as"]

# What of a variable's encoding says what its values are stored as. The rest says how its old store
# kept them.
STORED_AS = (
    "dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned", "fill_value",
    "units", "calendar",
)  # fmt: skip
# What of that tells how numbers are packed, and which of them are missing.
UNSIGNED = "_Unsigned"
MASKED = ("scale_factor", "add_offset", "_FillValue", "missing_value", UNSIGNED)
# Names of variables that belong to it, which xarray takes from the variable itself.
RELATED = (
    "coordinates", "bounds", "grid_mapping", "climatology", "geometry", "node_coordinates",
    "node_count", "part_node_count", "interior_ring", "cell_measures", "formula_terms",
)  # fmt: skip


def stored_as(variable: xr.Variable, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a variable is stored as: as it was, but for what is wanted."""
    found = kept(variable, STORED_AS)
    if variable.dtype.kind in "mU":  # of their own, which tells them from numbers
        for key in ("dtype", "units"):
            found.pop(key, None)
    if not _unpacks_alike(found, variable.dtype):
        found = {}
    if isinstance(found.get("dtype"), np.dtype):
        found["dtype"] = found["dtype"].newbyteorder("=")  # others are slower, or not read by all
    if variable.dtype.kind == "f" and not {"_FillValue", "missing_value"} & {
        *found,
        *variable.attrs,
    }:
        found["_FillValue"] = None  # nothing was masked, and nothing will be
    if variable.dtype.kind in "fiubmM" and variable.ndim:
        found["compressors"] = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),)
    return found | dict(wanted)


def _unpacks_alike(kept: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    """Whether packed values are the same once Zarr has made float64 of factors of float32."""
    factors = [np.asarray(kept.get(key, 0)) for key in ("scale_factor", "add_offset")]
    if dtype != np.float32 or all(factor.dtype != np.float32 for factor in factors):
        return True
    stored = np.dtype(kept.get("dtype", dtype))
    if stored.kind not in "iu" or stored.itemsize > 2:  # too many to try
        return False
    bits = 8 * stored.itemsize
    packed = np.arange(-(2 ** (bits - 1)), 2**bits)  # also of the other sign
    scale, offset = kept.get("scale_factor", 1), kept.get("add_offset", 0)
    narrow, wide = (
        packed.astype(each) * np.asarray(scale, each) + np.asarray(offset, each)
        for each in (np.dtype("f4"), np.dtype("f8"))
    )
    return bool(np.array_equal(narrow, wide))


def kept(variable: xr.Variable, keys: Iterable[str]) -> dict[str, Any]:
    """Some keys of the encoding of a variable, of those that it has."""
    return {key: variable.encoding[key] for key in keys if key in variable.encoding}
