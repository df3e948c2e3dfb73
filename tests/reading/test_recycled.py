import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd
from xtorch_data.common.buffers import Buffers
from xtorch_data.reading import recycled as lazy


def stored(path):
    values = 250 + 40 * np.random.default_rng(0).random((30, 20, 70))
    values[3:5] = np.nan
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    ds = xr.Dataset({"v": (("time", "y", "x"), values)})
    ds.to_zarr(path, consolidated=False, encoding={"v": {**packed, "chunks": (7, 20, 70)}})
    return xtd.open_zarr(path, consolidated=False)


def test_functions_of_the_user_get_what_xarray_decodes(tmp_path):
    ds = stored(tmp_path / "v")
    seen = set()

    def preprocess(block):
        seen.add(block["v"].dtype)
        return block

    for _ in xtd.IterableDataset(ds, {"time": 6, "y": -1, "x": -1}, preprocess=preprocess):
        break
    assert seen == {ds["v"].dtype} == {np.dtype("f8")}


def test_the_given_dataset_stays_as_it_is(tmp_path):
    ds = stored(tmp_path / "v")
    again = lazy.with_recycled_memory(ds, Buffers(10**6), {"v": np.dtype("f4")})
    assert ds["v"].dtype == "float64"
    assert again["v"].dtype == "float32"
    assert lazy.is_lazy(ds["v"].variable)
    assert lazy.is_lazy(again["v"].variable)
    assert lazy.read_path(again["v"].variable) == "directly"
    assert lazy.read_path(again["v"].isel(time=slice(2, 9)).variable) == "directly"
    assert lazy.read_path(again["v"].isel(time=slice(None, None, 2)).variable) == "by zarr"
    np.testing.assert_array_equal(again["v"], ds["v"].values.astype("f4"))
    part = again.isel(time=slice(2, 9, 3), x=[3, 1])["v"]
    np.testing.assert_array_equal(part, ds["v"].values.astype("f4")[2:9:3, :, [3, 1]])


@pytest.mark.parametrize("engine", ["zarr", "netcdf4"])
def test_dates_of_another_calendar_are_there_for_preprocess(tmp_path, engine):
    time = xr.date_range("2000-01-01", periods=12, calendar="noleap", use_cftime=True)
    bounds = np.stack([time.values, time.values], axis=1)
    ds = xr.Dataset(
        {"t": ("time", np.arange(12.0)), "time_bnds": (("time", "bnds"), bounds)}, {"time": time}
    )
    if engine == "zarr":
        ds.to_zarr(tmp_path / "t.zarr", consolidated=False)
        lazy_ds = xtd.open_zarr(tmp_path / "t.zarr", consolidated=False)
    else:
        ds.to_netcdf(tmp_path / "t.nc", engine=engine)
        lazy_ds = xr.open_dataset(tmp_path / "t.nc", engine=engine)

    def preprocess(block):
        return block.assign(t=block["t"] + block["time_bnds"].notnull().sum("bnds"))

    dataset = xtd.IterableDataset(lazy_ds, {"time": 3}, inputs="t", preprocess=preprocess)
    found = np.concatenate([batch.x.numpy().ravel() for batch in dataset])
    np.testing.assert_array_equal(found, np.arange(12) + 2)
