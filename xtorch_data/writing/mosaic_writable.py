"""What a Zarr store can hold of a mosaic: names, encodings and values."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..common.redact import printable, redacted
from .encodings import UNSIGNED
from .mosaic_layout import MosaicLayout
from .zarr_target import RECORD

__all__ = [
    "filled",
    "require_chunks",
    "require_coords",
    "require_elsewhere",
    "require_fits",
    "require_names",
    "require_text",
]

# What a group of arrays cannot name one of them, as it is another file of it.
TAKEN = ("", ".", "..", "zarr.json", RECORD)
MISSING = ("_FillValue", "missing_value")


def require_names(layout: MosaicLayout, encoding: Mapping[Any, Mapping[str, Any]]) -> None:
    """Raise TypeError or ValueError if Zarr cannot hold the names, or encodings fit none."""
    variables = layout.part.variables
    require_text((*variables, *layout.coords.variables, *layout.dims))
    for name in (*variables, *layout.coords.variables):
        if name in TAKEN or "/" in str(name):
            raise ValueError(f"Zarr cannot hold a variable of the name {name!r}: rename it")
    for dim, index in layout.coords.indexes.items():
        if isinstance(index, pd.MultiIndex):
            raise ValueError(
                f"Zarr cannot hold the MultiIndex of {dim!r}: ds.reset_index({dim!r}) makes "
                "coordinates of its levels"
            )
    if not isinstance(encoding, Mapping):
        raise TypeError(f"encoding is a mapping of names to mappings, not {encoding!r}")
    for name, own in encoding.items():
        if name not in variables and name not in layout.coords.variables:
            raise ValueError(
                f"encoding names {name!r}, which the result does not have; its variables are "
                f"{list(variables)}"
            )
        if not isinstance(own, Mapping):
            raise TypeError(f"encoding[{name!r}] is a mapping of options, not {own!r}")


def require_text(names: Iterable[Hashable]) -> None:
    """Raise ValueError if a name is no text."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"Zarr names variables and dims by text, not {name!r}")


def require_elsewhere(path: Any, origins: Iterable[str]) -> None:
    """Raise ValueError if data that is read lies where the result is to be written."""
    if not isinstance(path, str | os.PathLike):
        return
    place = os.fspath(path)
    if "://" in place:
        if printable(redacted(place)) in origins:
            raise ValueError(f"{printable(redacted(place))} is the data itself: give another path")
        return
    place = os.path.join(os.path.realpath(os.path.expanduser(place)), "")
    for origin in origins:
        if os.path.isabs(origin) and os.path.join(os.path.realpath(origin), "").startswith(place):
            raise ValueError(f"{origin} is the data that is read: give another path")


def require_chunks(name: str, key: str, given: Any, count: int) -> tuple[int, ...]:
    """Chunks or shards as a tuple with a size for each dim; ValueError if they are none."""
    sizes: list[Any] = list(given) if isinstance(given, Sequence | np.ndarray) else []
    if isinstance(given, str) or len(sizes) != count:
        raise ValueError(f"encoding[{name!r}][{key!r}] is {given!r}, and {name!r} has {count} dims")
    if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(f"encoding[{name!r}][{key!r}] is {given!r}: sizes are positive integers")
    return tuple(map(int, sizes))


def filled(
    name: str, dtype: np.dtype[Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """An encoding by which what is missing is told from what is there.

    And whether chunks that are never written are missing as well. ValueError if values are stored
    as integers of which none stands for what is missing.
    """
    found = {key: value for key, value in given.items() if key not in ("chunks", "shards")}
    if dtype.kind not in "fc":
        return found, False
    stored = np.dtype(found.get("dtype", dtype))
    if stored.kind not in "fc":
        if all(found.get(key) is None for key in MISSING):
            raise ValueError(
                f"encoding[{name!r}] stores {dtype} as {stored}, which has no value for what is "
                "missing: give it a _FillValue"
            )
        return found, False
    if stored.kind == "c":
        return found, False
    if "missing_value" not in found:
        found = {"_FillValue": np.nan, **found}
    found = {"fill_value": np.nan, **found}
    return found, bool(np.isnan(found["fill_value"]))


def require_fits(name: str, values: np.ndarray[Any, Any], encoding: Mapping[str, Any]) -> None:
    """Raise ValueError if values lie beyond the integers that they are stored as."""
    stored = np.dtype(encoding.get("dtype", values.dtype))
    if values.dtype.kind not in "fiu" or stored.kind not in "iu" or not values.size:
        return
    scale, offset = encoding.get("scale_factor", 1), encoding.get("add_offset", 0)
    ends = np.iinfo(f"u{stored.itemsize}" if encoding.get(UNSIGNED) == "true" else stored)
    for value in (float(np.fmin.reduce(values, None)), float(np.fmax.reduce(values, None))):
        if not np.isnan(value) and not ends.min - 0.5 <= (value - offset) / scale <= ends.max + 0.5:
            raise ValueError(
                f"{name!r} has the value {value:g}, which encoding[{name!r}] cannot store as "
                f"{stored} with scale_factor {scale} and add_offset {offset}"
            )


def require_coords(
    made: xr.Dataset, names: Sequence[str], coords: xr.Dataset, region: Mapping[Any, slice]
) -> None:
    """Raise ValueError if `inverse` made what is not written chunk by chunk."""
    expected: Any = coords.isel(region, missing_dims="ignore").variables
    for name, variable in made.variables.items():
        known = name in names or (name in expected and expected[name].equals(variable))
        if not known:
            raise ValueError(
                f"inverse made {name!r}, and with a path only predictions are written, with the "
                "coordinates of the data: assign it to the result"
            )
