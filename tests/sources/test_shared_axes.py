"""Two grids in one dataset, windowed apart, are hardly what was meant: users are told."""

import warnings

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd


def two_grids(fine="lat", coarse="lat_c", attrs=None):
    ds = xr.Dataset(
        {"a": ((fine, "x"), np.zeros((32, 4))), "b": ((coarse, "x"), np.zeros((8, 4)))},
        {fine: np.arange(32.0), coarse: np.arange(8) * 4 + 1.5},
    )
    for name in (fine, coarse):
        ds[name].attrs.update(attrs or {})
    return ds


@pytest.mark.parametrize(
    ("names", "attrs"),
    [
        (("lat", "lat_c"), {}),
        (("longitude", "lon"), {}),
        (("j", "jc"), {"units": "degrees_north"}),
        (("i", "ic"), {"standard_name": "longitude"}),
    ],
)
def test_windows_along_both_are_told_of_with_counts(names, attrs):
    fine, coarse = names
    with pytest.warns(UserWarning, match="windowed apart") as found:
        dataset = xtd.MapDataset(two_grids(*names, attrs), {fine: 8, coarse: 2})
    (message,) = [str(each.message) for each in found]
    assert len(dataset) == 16 * 4 and "4 × 4 windows make 16 samples" in message
    assert "where 4 have the same place" in message
    assert "xtd.Source" in message and f"{fine}=xtd.Within()" in message


def test_what_is_said_instead_has_the_places_of_one_another():
    ds = two_grids()
    dataset = xtd.MapDataset(
        {"fine": ds[["a"]], "coarse": xtd.Source(ds[["b"]].rename(lat_c="lat"), lat=xtd.Within())},
        {"lat": 8, "x": -1},
    )
    assert len(dataset) == 4
    for number in range(4):
        fine = ds.lat[dataset.windows[number]["lat"]].values
        coarse = ds.lat_c[dataset.windows.of("coarse")[number]["lat"]].values
        assert ((fine[0] - 0.5 <= coarse) & (coarse < fine[-1] + 0.5)).all() and len(coarse) == 2


@pytest.mark.parametrize("input_dims", [{"lat": 8}, {"lat": 8, "lat_c": -1}, {"lat": 8, "x": 2}])
def test_nothing_is_said_where_one_is_windowed(input_dims):
    ds = two_grids()
    ds = ds if "lat_c" in input_dims else ds[["a"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xtd.MapDataset(ds, input_dims)


def test_latitude_and_longitude_are_two_axes():
    ds = xr.Dataset({"a": (("lat", "lon"), np.zeros((8, 8)))}, {"lat": range(8), "lon": range(8)})
    xtd.MapDataset(ds, {"lat": 2, "lon": 2})
