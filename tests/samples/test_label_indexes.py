"""Labels of batches that are indexes: along dims taken whole, and of one sample."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import xtorch_data as xtd


def world(times=12):
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), rng.normal(size=(times, 4, 6)).astype("float32")),
            "height": (("lat", "lon"), rng.normal(size=(4, 6)).astype("float32")),
        },
        coords={
            "time": pd.date_range("2020-01-30", periods=times),
            "lat": [60.0, 50.0, 40.0, 30.0],
            "lon": np.arange(6) * 10.0,
            "area": (("lat", "lon"), rng.normal(size=(4, 6))),
            "season": ("time", list("wwwsssssssaa")[:times]),
        },
    )


def require_as_isel(labeled, ds, windows, numbers, name="t2m"):
    """Each sample is what isel cuts, with all its labels."""
    for row, number in enumerate(numbers):
        one, plain = labeled[name].isel(sample=row), ds[name].isel(windows[number])
        assert one.dims == plain.dims
        np.testing.assert_array_equal(one, plain)
        for coord in plain.coords:
            np.testing.assert_array_equal(one[coord], plain[coord])


@pytest.mark.parametrize("function", [None, lambda batch: batch + 0])
def test_dims_that_every_sample_takes_whole_keep_their_index(function):
    ds = world()
    samples = xtd.MapDataset(ds, {"time": 3, "lat": -1, "lon": 4}, {"lon": 2}, inputs="t2m")
    for batch in xtd.DataLoader(samples, batch_size=3, shuffle=True, batch_transform=function):
        labeled = batch.to_xarray()
        assert {dim: labeled[dim].dims for dim in ("time", "lat", "lon")} == {
            "time": ("sample", "time"),
            "lat": ("lat",),
            "lon": ("sample", "lon"),
        }
        assert set(labeled.indexes) == {"sample", "lat"}
        assert labeled["area"].dims == ("sample", "lat", "lon")
        require_as_isel(labeled, ds, samples.windows, batch.index.tolist())
        np.testing.assert_array_equal(labeled.t2m.sel(lat=40.0), labeled.t2m.isel(lat=2))


def test_whole_dims_have_the_same_labels_in_parts_that_cut_them_alike_and_otherwise():
    ds = world()
    cut = xtd.Select("t2m", lat=slice(1, 3))
    samples = xtd.MapDataset(
        ds, {"time": 2, "lat": -1, "lon": -1}, inputs="t2m", targets=cut,
    )  # fmt: skip
    labeled = samples.fetch([0, 4]).to_xarray()
    assert labeled["lat_x"].values.tolist() == [60, 50, 40, 30]
    assert labeled["lat_y"].values.tolist() == [50, 40]
    assert labeled["lon"].values.tolist() == ds["lon"].values.tolist()
    assert {"lat_x", "lat_y", "lon"} <= set(labeled.indexes)
    assert labeled["area_y"].dims == ("lat_y", "lon")
    np.testing.assert_array_equal(labeled["area_y"], ds["area"][1:3])
    listed = samples.replace(targets=xtd.Select("t2m", lat=[3, 0])).fetch([1]).to_xarray("y")
    assert listed.indexes["lat"].tolist() == [30, 60]
    one = samples.replace(targets=xtd.Select("t2m", lat=1)).fetch([1, 2]).to_xarray("y")
    assert one["lat"].values.tolist() == [50, 50]


def test_labels_that_a_batch_flips_are_of_each_sample_in_every_batch():
    ds = world()
    samples = xtd.MapDataset(ds, {"time": 1, "lat": -1, "lon": -1}, inputs="t2m")
    loader = xtd.DataLoader(samples, batch_size=2, augment=xtd.RandomFlip("lat", p=0.5))
    for batch in loader:
        labeled = batch.to_xarray()
        assert labeled["lat"].dims == ("sample", "lat") and labeled["lon"].dims == ("lon",)
        for row, number in enumerate(batch.index.tolist()):
            one = batch.to_xarray(sample=row)
            assert one.indexes["lat"].tolist() == labeled["lat"][row].values.tolist()
            np.testing.assert_array_equal(
                one["t2m"].sortby("lat", ascending=False), ds["t2m"].isel(samples.windows[number])
            )


def test_whether_labels_are_an_index_depends_neither_on_the_batch_nor_on_splits():
    ds = world()
    samples = xtd.MapDataset(ds, {"time": 4, "lat": 3, "lon": -1}, inputs="t2m")
    parts = xtd.split(samples, "time", at=["2020-02-03", "2020-02-07"])
    assert [len(part) for part in parts] == [1, 1, 1]
    for each in (samples, *parts):
        labeled = each.fetch([0]).to_xarray()
        assert labeled["time"].dims == ("sample", "time")
        assert labeled["lat"].dims == ("lat",)  # of four steps, there is one window of three
        require_as_isel(labeled, ds, each.windows, [0])


def test_dims_of_other_sources_that_are_whole_have_an_index():
    ds = world()
    shores = ds[["height"]].isel(lon=slice(0, 4))
    wide = xr.Dataset({"s": (("time", "lat"), np.zeros((20, 9), "f4"))}).assign_coords(
        time=pd.date_range("2020-01-28", periods=20), lat=np.arange(90.0, 0.0, -10.0)
    )
    samples = xtd.MapDataset(
        {"era": ds[["t2m"]], "shore": xtd.Source(shores.rename(lat="la", lon="lo")), "wide": wide},
        {"time": 2, "lat": -1, "lon": 3},
        inputs="t2m",
    )
    tree = samples.fetch([1, 2]).to_xarray()
    assert set(tree["era"].indexes) == {"sample", "lat"}
    assert set(tree["shore"].indexes) == {"sample", "la", "lo"}
    assert tree["shore"]["area"].dims == ("la", "lo")
    assert tree["wide"]["lat"].values.tolist() == ds["lat"].values.tolist()
    assert set(tree["wide"].indexes) == {"sample", "lat"}
    assert tree["wide"]["time"].dims == ("sample", "time")


def test_labels_around_events_are_of_each_sample_also_of_a_single_event():
    ds = world()
    centers = {"time": ds["time"].values[[4]], "lat": [40.0]}
    samples = xtd.MapDataset(ds, {"time": 3, "lat": 2, "lon": -1}, centers=centers, inputs="t2m")
    labeled = samples.fetch([0]).to_xarray()
    assert labeled["time"].dims == ("sample", "time") and labeled["lat"].dims == ("sample", "lat")
    assert labeled["lon"].dims == ("lon",)


def test_batches_are_put_together_and_compared_as_any_dataset():
    ds = world()
    samples = xtd.MapDataset(ds, {"time": 3, "lat": -1, "lon": -1}, {"time": 2}, inputs="t2m")
    first, second = (samples.fetch(each).to_xarray() for each in ([4, 0, 2], [2, 5]))
    both = xr.concat([first, second], "sample", data_vars="all")
    require_as_isel(both, ds, samples.windows, [4, 0, 2, 2, 5])
    assert set(both.indexes) == {"sample", "lat", "lon"}
    error = second - first
    assert error.sizes["sample"] == 1 and not error["t2m"].any()
    # An order of samples that another object has takes labels along.
    weights = xr.DataArray(np.ones(3), {"sample": [0, 2, 4]}, dims="sample")
    weighted = weights * first["t2m"]
    for row, number in enumerate(weighted["sample"].values.tolist()):
        begin = ds["t2m"].isel(samples.windows[number])
        np.testing.assert_array_equal(weighted[row], begin)
        np.testing.assert_array_equal(weighted["time"][row], begin["time"])
    climatology = ds["t2m"].mean("time").isel(lat=slice(None, None, -1))
    np.testing.assert_allclose(
        (first["t2m"] - climatology).sel(lat=60.0).isel(sample=1),
        (ds["t2m"] - ds["t2m"].mean("time")).isel(samples.windows[0]).sel(lat=60.0),
        rtol=1e-5,
    )


def test_one_sample_has_indexes_that_find_its_labels():
    ds = world()
    samples = xtd.MapDataset(
        ds, {"time": 4, "lat": -1, "lon": 3}, inputs=xtd.Select("t2m", time=slice(0, 2)),
        targets=xtd.Select("t2m", time=slice(2, 4)),
    )  # fmt: skip
    batch = samples.fetch([3, 1, 4])
    for place, number in [(0, 3), (1, 1), (-1, 4)]:
        one = batch.to_xarray("y", sample=place)
        plain = ds["t2m"].isel(samples.windows[number]).isel(time=slice(2, 4))
        assert one.sizes == plain.sizes and one["sample"].item() == number
        assert {"time", "lat", "lon"} <= set(one.indexes)
        label = plain["time"].values[1]
        np.testing.assert_array_equal(one["t2m"].sel(time=label), plain.sel(time=label))
        error = one["t2m"] - ds["t2m"]  # by label
        assert error.shape == plain.shape and not error.any()
    assert set(batch.to_xarray(sample=0).data_vars) == {"t2m_x", "t2m_y"}
    with pytest.raises(IndexError, match="no sample 3 in a batch of 3"):
        batch.to_xarray(sample=3)
    single = xtd.IterableDataset(samples, batch_size=None)
    alone = next(iter(single))
    xr.testing.assert_identical(alone.to_xarray(sample=0), alone.to_xarray())
    xr.testing.assert_identical(
        samples.fetch([0]).to_xarray(sample=0), pickle.loads(pickle.dumps(alone)).to_xarray()
    )
    later = batch.to_xarray("y").isel(sample=1).set_xindex("time")  # the longer way
    xr.testing.assert_equal(later["t2m"].sel(time=later["time"][1].values), later["t2m"][1])


def test_one_sample_of_several_sources_is_a_tree_with_indexes():
    ds = world()
    samples = xtd.MapDataset(
        {"a": ds[["t2m"]], "b": ds[["t2m"]].rename(t2m="s")}, {"time": 2, "lat": -1, "lon": -1},
        inputs="t2m",
    )  # fmt: skip
    tree = samples.fetch([0, 3]).to_xarray(sample=1)
    for node, name in (("a", "t2m"), ("b", "s")):
        found = tree[node].to_dataset()[name].sel(time="2020-02-06")
        np.testing.assert_array_equal(found, ds["t2m"].sel(time="2020-02-06"))


def test_inverse_of_a_batch_with_whole_dims_is_in_units():
    ds = world()
    samples = xtd.MapDataset(ds, {"time": 3, "lat": -1, "lon": -1}, inputs="t2m")
    normalize = xtd.Normalize.fit(samples, per="lat")
    batch = samples.replace(preprocess=normalize).fetch([2, 0])
    expected = samples.fetch([2, 0]).x
    torch.testing.assert_close(normalize.inverse(batch, part="x"), expected)
