"""Scaling to [0, 1], compared with numpy's extremes in float64 and scikit-learn's MinMaxScaler."""

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from normalize_data import WINDOW, fields
from sklearn.preprocessing import MinMaxScaler
from strategies import examples

import xtorch_data as xtd


def extremes(values, axis=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # places without a value
        return np.nanmin(values, axis), np.nanmax(values, axis)


def stored(ds, how):
    if how == "memory":
        return ds
    if how == "dask":
        return ds.chunk(time=5)
    store = zarr.storage.MemoryStore()
    ds.chunk(time=4).to_zarr(store, consolidated=False)
    return xr.open_zarr(store, chunks=None, consolidated=False)


@examples(6, 100)
@given(data=st.data())
def test_extremes_are_those_of_numpy_over_what_windows_cover(data):
    how = data.draw(st.sampled_from(["memory", "dask", "zarr"]))
    dtype = data.draw(st.sampled_from(["f2", "f4", "f8", ">f4", ">f8", "i2", ">i4", "u1"]))
    offset = 0.0 if dtype in ("f2", "u1") else data.draw(st.sampled_from([0.0, 1e4]))
    per = data.draw(st.sampled_from([(), ("level",), ("y", "x"), ("level", "y")]))
    ds = fields(nan=0.3, seed=data.draw(st.integers(0, 99)), offset=offset)[["u", "surface"]]
    ds = (ds if dtype[-2] == "f" else ds.fillna(3.0).clip(0, 100)).astype(dtype)
    preprocess = data.draw(st.sampled_from([None, lambda block: 2 * block.astype("f8") + 1]))
    samples = xtd.IterableDataset(
        stored(ds, how), WINDOW, inputs=["u"], targets="surface", preprocess=preprocess
    )
    train, _ = xtd.split(samples, "time", fractions=(0.6, 0.4))
    normalize = xtd.Normalize.fit(train, kind="minmax", per=per, variables=["u", "surface"])
    last = max(train.windows[i]["time"].stop for i in range(len(train.windows)))
    for name in ("u", "surface"):
        values = ds[name].isel(time=slice(0, last)).values.astype("f8")
        values = values if preprocess is None else 2 * values + 1
        kept = [dim for dim in per if dim in ds[name].dims]
        order = [dim for dim in ds[name].dims if dim in kept]
        axis = tuple(at for at, dim in enumerate(ds[name].dims) if dim not in kept)
        for found, wanted in zip(
            (normalize.min, normalize.max), extremes(values, axis), strict=True
        ):
            assert found[name].dims == tuple(kept)
            np.testing.assert_array_equal(found[name].transpose(*order).values, wanted)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("offset", [0.0, 1e6, -101_325.0])
def test_values_are_those_of_scikit_learn(dtype, offset):
    rng = np.random.default_rng(0)
    values = (offset + rng.normal(size=(200, 3))).astype(dtype)
    ds = xr.Dataset({"a": (("time", "level"), values)}, {"level": [1, 2, 3]})
    normalize = xtd.Normalize.fit(ds, kind="minmax", per="level")
    found = normalize(ds)["a"]
    wanted = MinMaxScaler().fit_transform(values.astype("f8"))
    assert found.dtype == dtype
    # Values are of the data's own precision: what is subtracted is exact.
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=3e-7 if dtype == "f4" else 1e-9)
    assert (found.min("time") == 0).all() and np.allclose(found.max("time"), 1, rtol=0, atol=1e-6)
    back = normalize.inverse(normalize(ds))["a"].values
    step = np.spacing(abs(values).max())
    assert abs(back - values).max() <= 2 * step


@pytest.mark.parametrize("kind", ["std", "minmax"])
def test_hostile_values_have_the_digits_of_float64(kind, tmp_path):
    pressure = np.array([101_324.0, 101_325.0, 101_326.0], "f4").repeat(50_000)
    ds = xr.Dataset({"ps": ("time", pressure)})
    normalize = xtd.Normalize.fit(ds.chunk(time=1_000), kind=kind)
    exact = pressure.astype("f8")
    if kind == "std":
        np.testing.assert_allclose(normalize.mean["ps"], exact.mean(), rtol=1e-15)
        np.testing.assert_allclose(normalize.std["ps"], exact.std(), rtol=1e-13)
        wanted = (exact - exact.mean()) / exact.std()
    else:
        assert (normalize.min["ps"], normalize.max["ps"]) == (101_324, 101_326)
        wanted = (exact - 101_324) / 2
    np.testing.assert_allclose(normalize(ds)["ps"].values, wanted, rtol=1e-6)

    packed = xr.Dataset({"t": ("time", 250 + 0.01 * np.arange(4_000.0))})
    encoding = {"t": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 270.0, "_FillValue": -1}}
    packed.to_netcdf(tmp_path / "packed.nc", encoding=encoding)
    with xr.open_dataset(tmp_path / "packed.nc") as opened:
        normalize = xtd.Normalize.fit(opened, kind=kind)
        values = opened["t"].values.astype("f8")
    if kind == "std":
        wanted = np.nanmean(values), np.nanstd(values)
        found = normalize.mean["t"], normalize.std["t"]
    else:
        wanted, found = extremes(values), (normalize.min["t"], normalize.max["t"])
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", ["std", "minmax"])
def test_constant_data_missing_places_and_a_single_sample(kind):
    one = xr.Dataset({"a": (("time", "level"), [[7.0, np.nan, 5.0]])}, {"level": [1, 2, 3]})
    normalize = xtd.Normalize.fit(one, kind=kind, per="level")
    np.testing.assert_array_equal(normalize(one)["a"], [[0, np.nan, 0]])
    np.testing.assert_array_equal(normalize.inverse(normalize(one))["a"], one["a"])
    np.testing.assert_array_equal(normalize(one + 3)["a"], [[3, np.nan, 3]])  # divided by 1
    with pytest.raises(ValueError, match="no value but NaN"):
        xtd.Normalize.fit(one.isel(level=[1]), kind=kind)
    with pytest.raises(ValueError, match="infinite values"):
        xtd.Normalize.fit(one.fillna(np.inf), kind=kind, per="level")
    with pytest.raises(ValueError, match="infinite values"):  # their difference is
        xtd.Normalize.fit(xr.Dataset({"a": ("time", [-1.7e308, 1.7e308])}), kind=kind)


def test_a_zero_has_no_sign_whatever_comes_first():
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
        normalize = xtd.Normalize.fit(xr.Dataset({"a": ("time", values)}), kind="minmax")
        assert not np.signbit([normalize.min["a"], normalize.max["a"]]).any()


def test_each_source_has_its_own():
    times = xr.date_range("2000-01-01", periods=20)
    a = xr.Dataset({"a": ("time", np.arange(20.0))}, {"time": times})
    b = xr.Dataset({"a": ("time", 7 * np.arange(20.0))}, {"time": times})
    raw = xtd.MapDataset(
        {"era5": a, "sst": xtd.Source(b, time=xtd.AsOf(3, latency="0h"))}, {"time": 4}, inputs="a"
    )
    normalize = xtd.Normalize.fit(raw, kind="minmax")
    assert normalize.of("sst").max["a"] == 7 * 19 and normalize.of("era5").min["a"] == 0
    batch = raw.replace(preprocess=normalize).fetch([1, 2])
    for part in ("x", "sst"):
        found = normalize.inverse(batch, part=part)
        torch.testing.assert_close(found, raw.fetch([1, 2])[part], rtol=1e-5, atol=1e-4)


def test_around_events_they_are_those_of_the_windows():
    times = xr.date_range("2000-01-01", periods=30)
    values = np.random.default_rng(0).normal(size=(30, 3))
    ds = xr.Dataset({"a": (("time", "level"), values)}, {"time": times, "level": [1, 2, 3]})
    around = xtd.MapDataset(ds, {"time": 3}, centers={"time": times[[5, 20]]}, inputs="a")
    normalize = xtd.Normalize.fit(around, kind="minmax", per="level")
    inside = np.concatenate([values[around.windows[i]["time"]] for i in (0, 3)])
    np.testing.assert_array_equal(normalize.min["a"], inside.min(0))
    np.testing.assert_array_equal(normalize.max["a"], inside.max(0))
    with pytest.raises(ValueError, match="per='time.month'.*around events"):
        xtd.Normalize.fit(around, per="time.month")


def test_a_flip_changes_the_sign_of_the_physical_value():
    values = np.random.default_rng(0).normal(3, 2, (6, 4)).astype("f4")
    ds = xr.Dataset({"v": (("time", "y"), values)}, {"y": np.arange(4.0)})
    normalize = xtd.Normalize.fit(ds, kind="minmax")
    samples = xtd.MapDataset(ds, {"y": 4}, inputs="v", preprocess=normalize)
    flip = xtd.RandomFlip("y", p=1, signs={"v": "y"})
    (batch,) = xtd.DataLoader(samples, batch_size=6, augment=flip)
    np.testing.assert_allclose(normalize.inverse(batch, "x"), -values[:, ::-1], atol=1e-5)


def test_statistics_may_be_given_or_be_wrong():
    normalize = xtd.Normalize(min={"a": 2.0}, max={"a": 4.0})
    assert normalize.kind == "minmax" and xtd.Normalize({"a": 2.0}, {"a": 4.0}).kind == "std"
    assert normalize(xr.DataArray([2.0, 3.0, 5.0], name="a")).values.tolist() == [0, 0.5, 1.5]
    assert repr(normalize) == "<xtorch_data.Normalize\n  a: min 2, max 4>"
    with pytest.raises(AttributeError, match="'minmax' have min and max, and no mean"):
        normalize.mean  # noqa: B018
    for wrong in ({"mean": {"a": 1}, "max": {"a": 2}}, {"min": {"a": 1}}, {}):
        with pytest.raises(TypeError, match="mean and std, or min= and max="):
            xtd.Normalize(**wrong)
    with pytest.raises(ValueError, match="the max of 'a' is less than its min"):
        xtd.Normalize(min={"a": 2.0}, max={"a": 1.0})
    with pytest.raises(ValueError, match="kind must be 'std' or 'minmax', not 'robust'"):
        xtd.Normalize.fit(xr.Dataset({"a": ("x", [1.0])}), kind="robust")


@pytest.mark.parametrize("suffix", [".json", ".nc"])
def test_what_was_saved_is_loaded_to_the_last_digit(suffix, tmp_path):
    ds = fields(nan=0)[["u", "surface"]]
    normalize = xtd.Normalize.fit(ds, kind="minmax", per=("level", "y"))
    normalize.save(tmp_path / f"file{suffix}")
    loaded = xtd.Normalize.load(tmp_path / f"file{suffix}")
    assert loaded.kind == "minmax" and repr(loaded) == repr(normalize)
    xr.testing.assert_identical(loaded.min, normalize.min)
    xr.testing.assert_identical(loaded.max, normalize.max)
