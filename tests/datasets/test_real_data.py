"""Real files: a climate model run in a 360-day calendar and ocean temperatures with land masked."""

from pathlib import Path

import iris_sample_data
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import Oracle, assert_labels, assert_once, xbatcher_windows

import xtorch_data as xtd

# file: variable, windows, overlap
FILES = {
    "A1B_north_america.nc": (
        "air_temperature", {"time": 9, "latitude": -1, "longitude": -1}, {"time": 8},
    ),
    "ostia_monthly.nc": (
        "surface_temperature", {"time": 12, "latitude": 18, "longitude": 108}, {"time": 6},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=FILES)
def file(request):
    return Path(iris_sample_data.path) / request.param


@pytest.fixture(scope="module", params=["netcdf", "zarr", "lazy slice of zarr"])
def real(request, file, tmp_path_factory):
    """The variable, the data as a user opens them, and the windows to cut."""
    name, input_dims, overlap = FILES[file.name]
    ds = xr.open_dataset(file)
    if request.param == "netcdf":
        yield name, ds, input_dims, overlap
        ds.close()
        return
    path = tmp_path_factory.mktemp("real") / f"{file.stem}.zarr"
    with ds:
        data = ds[[name]].load()
        data[name].encoding.clear()
        data.to_zarr(
            path, consolidated=False, zarr_format=3, encoding={name: {"chunks": (7, 10, 50)}}
        )
    ds = xtd.open_zarr(path, consolidated=False)
    if request.param != "zarr":
        ds = ds.isel(time=slice(5, 50), latitude=slice(None, None, -1))
    yield name, ds, input_dims, overlap


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["400 kB", "1 GiB"])
@pytest.mark.filterwarnings("ignore:(?is).*memory:UserWarning")
def test_values_and_labels_of_a_real_file_are_those_of_isel(real, shuffle, memory):
    name, ds, input_dims, overlap = real
    windows = xbatcher_windows(ds, [name], input_dims, overlap)
    oracle = Oracle(ds[[name]])
    read = ds[[name]].compute()
    dataset = xtd.IterableDataset(
        ds, input_dims, overlap, inputs=[name], batch_size=10, shuffle=shuffle, memory=memory
    )
    assert len(dataset.windows) == len(windows)
    numbers = []
    for batch in dataset:
        numbers += batch.index.tolist()
        labels = batch.to_xarray()
        assert labels[name].dims == ("sample", *input_dims)
        assert_labels(labels, [oracle.coords([name], windows[k]) for k in batch.index.tolist()])
        for place, number in enumerate(batch.index.tolist()):
            plain = read[name].isel(windows[number]).transpose(*input_dims)
            np.testing.assert_array_equal(batch.x[place, 0].numpy(), plain.values)
            np.testing.assert_array_equal(labels[name].values[place], plain.values)
    assert_once(numbers, len(windows))


def test_time_labels_are_the_dates_of_the_file(real):
    name, ds, input_dims, overlap = real
    dataset = xtd.IterableDataset(ds, input_dims, overlap, inputs=name, batch_size=4, shuffle=True)
    windows = xbatcher_windows(ds, [name], input_dims, overlap)
    labels = next(iter(dataset)).to_xarray()
    assert labels["time"].dims == ("sample", "time")
    for sample in labels["sample"].values:
        found = labels["time"].sel(sample=sample).values
        expected = ds["time"].values[windows[sample]["time"]]
        assert list(found) == list(expected)
        assert type(found[0]) is type(expected[0])


def test_sea_temperatures_keep_their_nan_over_land(real):
    name, ds, input_dims, overlap = real
    batches = list(xtd.IterableDataset(ds, input_dims, overlap, inputs=name, batch_size=16))
    plain = ds[name].transpose(*input_dims).values
    stride = input_dims["time"] - overlap["time"]
    missing = sum(int(torch.isnan(batch.x).sum()) for batch in batches)
    expected = 0
    longitudes = 108 if name == "surface_temperature" else plain.shape[2]
    for start in range(0, plain.shape[0] - input_dims["time"] + 1, stride):
        window = plain[start : start + input_dims["time"]]
        expected += int(np.isnan(window[..., : plain.shape[2] // longitudes * longitudes]).sum())
    assert missing == expected
    assert (missing > 0) == (name == "surface_temperature")


def test_monthly_fields_one_step_at_a_time_from_netcdf():
    """No windowed time: each date is a sample of its own, with its date as label."""
    with xr.open_dataset(Path(iris_sample_data.path) / "ostia_monthly.nc") as ds:
        dataset = xtd.IterableDataset(
            ds, {"longitude": 432, "latitude": 18}, inputs="surface_temperature", batch_size=8
        )
        numbers = []
        for batch in dataset:
            labels = batch.to_xarray()
            assert labels["time"].dims == ("sample",)
            for place, number in enumerate(batch.index.tolist()):
                plain = ds["surface_temperature"].isel(time=number).transpose()
                np.testing.assert_array_equal(batch.x[place].numpy(), plain.values)
                assert labels["time"].values[place] == plain["time"].values
                reference = labels["forecast_reference_time"].values[place]
                assert reference == plain["forecast_reference_time"].values
            numbers += batch.index.tolist()
        assert_once(numbers, 54)
