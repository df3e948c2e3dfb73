"""Labels of statistics, which may be parts of dates: of which labels of the data they are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable

__all__ = [
    "PART_OF",
    "PARTS",
    "coordinate_of",
    "labels_for",
    "no_statistics",
    "parts_of_dates",
    "split_name",
]

# Attribute of a coordinate of statistics that are by parts of dates: "time.month".
PART_OF = "datetime_part"
# Of those that `xarray.Dataset.dt` has, the ones that are groups.
PARTS = (
    "year",
    "quarter",
    "season",
    "month",
    "day",
    "dayofyear",
    "dayofweek",
    "weekday",
    "hour",
    "minute",
    "second",
)  # fmt: skip


def split_name(name: Any) -> tuple[str, str] | None:
    """Coordinate and part that a name such as ``"time.month"`` has; None for other names."""
    coordinate, _, part = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    return (coordinate, part) if coordinate and part in PARTS else None


def coordinate_of(dim: Hashable, index: pd.Index[Any], of: Any = None) -> xr.Variable:
    """The coordinate of a dim of statistics; `of` says which part of which dates it has."""
    attrs = None if of is None else {PART_OF: of}
    made: xr.Variable = xr.IndexVariable(dim, index, attrs)  # type: ignore[no-untyped-call]
    return made


def parts_of_dates(labels: xr.Variable, part: str) -> npt.NDArray[Any]:
    """A part of each of some dates, as the ``.dt`` of xarray has it; NaN of a missing date.

    TypeError if they are no dates.
    """
    dates = labels.to_numpy().ravel()
    missing = pd.isna(dates)
    there = dates[~missing]
    if labels.dtype.kind != "M" and not (
        labels.dtype.kind == "O" and all(hasattr(date, "calendar") for date in there)
    ):
        raise TypeError(
            f"labels of dtype {labels.dtype}, such as {there[:1].tolist()}, are no dates"
        )
    if not there.size:
        return np.full(labels.shape, np.nan)
    accessor = xr.DataArray(there, dims="date").dt
    # Dates of cftime have no quarter.
    found = (accessor.month + 2) // 3 if part == "quarter" else getattr(accessor, part)
    values = found.to_numpy()
    if values.dtype.kind not in "iu":
        values = values.astype(object)
    if missing.any():
        every = np.full(dates.shape, np.nan, dtype=np.float64 if values.dtype != object else object)
        every[~missing] = values
        values = every
    return values.reshape(labels.shape)


def no_statistics(name: Hashable, dim: Hashable, index: pd.Index[Any], label: Any) -> str:
    """What is said of a label that statistics of a variable do not have along a dim."""
    return (
        f"there are no statistics of {name!r} for {printable(dim)}={printable(label)}: they are of "
        f"{len(index)} labels, {printable(index[0])} to {printable(index[-1])}"
    )


def labels_for(
    coordinate: xr.DataArray, coords: Mapping[Any, xr.DataArray | xr.Variable]
) -> xr.Variable:
    """Labels of the data that are looked up along a dim of statistics.

    Parameters
    ----------
    coordinate : xarray.DataArray
        The coordinate of the statistics along it.
    coords : mapping of Hashable to xarray.DataArray or xarray.Variable
        Coordinates of the data.

    Returns
    -------
    xarray.Variable
        Labels, of whatever dims the data has them along; parts of dates, if statistics go by these.

    Raises
    ------
    KeyError
        With the name of the coordinate that the data lacks.
    TypeError
        If statistics go by parts of dates, and the labels are none.
    """
    of = split_name(coordinate.attrs.get(PART_OF))
    name: Hashable = coordinate.name if of is None else of[0]
    if name not in coords:
        raise KeyError(name)
    found = coords[name]
    labels = found.variable if isinstance(found, xr.DataArray) else found
    if of is None:
        return labels
    try:
        return xr.Variable(labels.dims, parts_of_dates(labels, of[1]))
    except TypeError as error:
        raise TypeError(f"{'.'.join(of)!r} is a part of dates, and of {name!r} {error}") from error
