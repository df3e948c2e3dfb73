"""Data of a kind that no dataset takes, and what to write instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..common.redact import redacted

__all__ = ["remedy"]

# Names of dims in what to write; of fewer, the last ones.
DIMS = ("time", "y", "x")

# Endings of files whose format xarray tells by itself.
ENDINGS = {
    ".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".grib", ".grib2", ".grb", ".grb2", ".tif",
    ".tiff", ".npy", ".pt",
}  # fmt: skip


def remedy(data: Any) -> str | None:
    """What to write instead of some data, as the end of a sentence; None if nobody knows."""
    if isinstance(data, pd.DataFrame):
        return (
            "a pandas DataFrame becomes one by df.set_index(['time', …]).to_xarray(), with the "
            "columns that are its dims in set_index"
        )
    if isinstance(data, pd.Series):
        return (
            "a pandas Series becomes one by series.rename_axis('time').to_xarray(), with its index "
            "as the dim"
        )
    torch = sys.modules.get("torch")
    if isinstance(data, np.ndarray) or (torch is not None and isinstance(data, torch.Tensor)):
        kind, array = "a numpy array", "array"
        if not isinstance(data, np.ndarray):
            kind, array = "a torch tensor", "tensor.numpy()"
        dims = f"[{data.ndim} names]"
        if data.ndim <= len(DIMS):
            dims = repr([*DIMS[len(DIMS) - data.ndim :]])
        return f"{kind} becomes one by xarray.DataArray({array}, dims={dims}), which names its dims"
    if isinstance(data, (str, os.PathLike)):
        return f"a path must be opened first: {_opening(os.fspath(data))}"
    if isinstance(data, (list, tuple)) and data:
        return _of_several(data)
    return None


def _opening(path: str | bytes) -> str:
    """The call that opens a path, as far as its ending tells."""
    path = os.fsdecode(path)
    shown = repr(redacted(path))
    ending = os.path.splitext(path.rstrip("/"))[1].lower()
    if ending in ENDINGS:
        return f"xarray.open_dataset({shown})"
    if ending == ".zarr":
        return f"xtorch_data.open_zarr({shown})"
    return (
        f"xtorch_data.open_zarr({shown}) if it is Zarr, xarray.open_dataset({shown}) if it is "
        "NetCDF or another format"
    )


def _of_several(data: Sequence[Any]) -> str | None:
    """What to write instead of several paths, stores or datasets."""
    apart = "data that does not belong together is a dataset and a loader each, to take in turn"
    if all(isinstance(each, (str, os.PathLike)) for each in data):
        if any(_opening(os.fspath(each)).startswith("xtorch_data") for each in data):
            return (
                "several stores of one series become one by xarray.concat([xtorch_data.open_zarr("
                f"path) for path in paths], dim='time'), and {apart}"
            )
        return (
            f"several files of one series become one by xarray.open_mfdataset(paths), and {apart}"
        )
    if all(isinstance(each, (xr.Dataset, xr.DataArray)) for each in data):
        return (
            "several datasets of one series become one by xarray.concat(datasets, dim='time'), "
            f"and {apart}"
        )
    return None
