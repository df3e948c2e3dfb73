"""What tests of forks share, in one process and in several."""

import numpy as np
import xarray as xr

import xtorch_data as xtd


def fields():
    return xr.Dataset(
        {"v": (("time", "x"), np.arange(400, dtype="f4").reshape(100, 4))},
        coords={"time": np.arange(100)},
    )


def openers(path):
    fields().to_zarr(path / "v.zarr", encoding={"v": {"chunks": (16, 4)}}, consolidated=False)
    fields().to_netcdf(path / "v.nc", encoding={"v": {"chunksizes": (16, 4)}})
    store = path / "v.zarr"
    return {
        "memory": fields,
        "zarr": lambda: xr.open_zarr(store, chunks=None, consolidated=False),
        "zarrs": lambda: xtd.open_zarr(store, consolidated=False),
        "dask": lambda: xr.open_zarr(store, consolidated=False),
        "dask over zarrs": lambda: xtd.open_zarr(store, chunks={}, consolidated=False),
        "netcdf4": lambda: xr.open_dataset(path / "v.nc", engine="netcdf4"),
        "h5netcdf": lambda: xr.open_dataset(path / "v.nc", engine="h5netcdf"),
    }
