"""Statistics by parts of dates, compared with xarray's groupby, and found by label everywhere."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd


def data(calendar="standard", steps=900, freq="12h", start="2000-01-01", nan=0.2, seed=0):
    rng = np.random.default_rng(seed)
    time = xr.date_range(
        start, periods=steps, freq=freq, calendar=calendar, use_cftime=calendar != "standard"
    )
    values = 280 + 20 * rng.normal(size=(steps, 3))
    values[rng.random(values.shape) < nan] = np.nan
    return xr.Dataset(
        {
            "t": (("time", "latitude"), values.astype("f4"), {"units": "K"}),
            "height": ("latitude", [1.0, 2.0, 6.0]),
        },
        {"time": time, "latitude": [10.0, 20.0, 30.0]},
    )


def grouped(ds, parts):
    """The same by xarray, in float64."""
    array = ds["t"].astype("f8")
    if parts == ["quarter"]:  # dates of cftime have none
        return array.groupby((1 + (ds["time"].dt.month - 1) // 3).rename("quarter"))
    named = {part: getattr(ds["time"].dt, part) for part in parts}
    return array.assign_coords(named).groupby(parts)


PARTS = ["month", "season", "hour", "dayofyear", "weekday", "quarter", "year", "day"]


@examples(10, 150)
@given(data_=st.data())
def test_statistics_are_those_of_groupby(data_):
    calendar = data_.draw(st.sampled_from(["standard", "noleap", "360_day"]))
    ds = data(calendar, seed=data_.draw(st.integers(0, 99)))
    parts = data_.draw(
        st.one_of(
            st.sampled_from(PARTS).map(lambda part: [part]),
            st.just(["month", "hour"]),
            st.just(["hour", "season"]),
        )
    )
    per = [f"time.{part}" for part in parts]
    dims = data_.draw(st.sampled_from([[], ["latitude"]]))
    per = per + dims if data_.draw(st.booleans()) else dims + per
    preprocess = data_.draw(st.sampled_from([None, lambda block: block + 1.5]))
    samples = xtd.MapDataset(
        ds.chunk(time=64) if data_.draw(st.booleans()) else ds,
        {"time": 4, "latitude": 3},
        {"time": 2},
        inputs=["t", "height"],
        preprocess=preprocess,
    )
    train, _ = xtd.split(samples, "time", fractions=(0.9, 0.1))
    first, last = train.windows[0]["time"].start, train.windows[-1]["time"].stop
    of = grouped(ds.isel(time=slice(first, last)), parts)
    reduced = [dim for dim in ("time", "latitude") if dim not in dims]
    offset = 0 if preprocess is None else 1.5
    std = xtd.Normalize.fit(train, per=per)
    minmax = xtd.Normalize.fit(train, kind="minmax", per=per)
    for found, wanted in (
        (std.mean, of.mean(reduced) + offset),
        (std.std, of.std(reduced)),
        (minmax.min, of.min(reduced) + offset),
        (minmax.max, of.max(reduced) + offset),
    ):
        assert found["t"].dims == tuple(name.rpartition(".")[2] for name in per)
        assert found["height"].dims == tuple(dims)
        wanted = wanted.transpose(*found["t"].dims)
        for dim in wanted.dims:
            assert found[dim].values.tolist() == wanted[dim].values.tolist()
        np.testing.assert_allclose(found["t"].values, wanted.values, rtol=2e-7, atol=1e-6)


def test_each_group_is_looked_up_by_date_in_blocks_samples_and_batches():
    ds = data()
    samples = xtd.MapDataset(
        ds, {"time": 4, "latitude": 3}, {"time": 3}, inputs="t", targets=xtd.Select("t", time=3)
    )
    normalize = xtd.Normalize.fit(samples, per=("time.month", "latitude"))
    groups = ds["t"].groupby("time.month")
    wanted = (groups - groups.mean("time")) / groups.std("time").sel(month=ds["time"].dt.month)
    for argument in ("preprocess", "transform"):
        dataset = samples.replace(**{argument: normalize})
        numbers = [0, 400, 17]
        batch = dataset.fetch(numbers)
        for found, number in zip(batch.x, numbers, strict=True):
            plain = wanted.isel(time=slice(number, number + 4)).values
            np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-4)
    dataset = samples.replace(preprocess=normalize)
    numbers = [3, 300]
    batch, raw = dataset.fetch(numbers), samples.fetch(numbers)
    for part in ("x", "y"):  # labels are (sample, time), and (sample,)
        found = normalize.inverse(batch, part=part)
        torch.testing.assert_close(found, raw[part], rtol=1e-5, atol=1e-3, equal_nan=True)
        labeled = normalize.inverse(batch.to_xarray(part))["t"]
        np.testing.assert_allclose(labeled.values, raw[part], rtol=1e-5, atol=1e-3)
    streamed = xtd.IterableDataset(dataset, batch_size=16, shuffle=True)
    for batch in streamed:
        found, plain = normalize.inverse(batch, "y"), samples.fetch(batch.index).y
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-3, equal_nan=True)


def test_forecasts_are_restored_by_the_month_of_the_valid_time():
    ds = data(nan=0, freq="5D", steps=146)[["t"]]
    samples = xtd.MapDataset(
        ds,
        {"time": 6, "latitude": 3},
        {"time": 5},
        inputs=xtd.Select("t", time=slice(0, 3)),
        targets=xtd.Select("t", time=slice(3, 6)),
    )
    normalize = xtd.Normalize.fit(samples, per="time.month")
    loader = xtd.DataLoader(samples.replace(preprocess=normalize), batch_size=8)
    forecast = xtd.predict(
        torch.nn.Identity(), loader, forward=lambda batch: batch.y, keep="time", inverse=normalize
    )
    assert forecast["time"].dims == ("init_time", "lead_time")
    truth = ds["t"].sel(time=forecast["time"])
    np.testing.assert_allclose(
        forecast["t"].transpose(*truth.dims).values, truth.values, rtol=1e-5, atol=1e-3
    )


def test_a_part_may_lack_groups_that_are_in_its_chunks():
    ds = data(freq="1D", steps=731, nan=0)[["t"]]
    samples = xtd.MapDataset(ds, {"time": 4, "latitude": 3}, {"time": 3}, inputs="t")
    summers = [slice(f"{year}-06-01", f"{year}-08-31") for year in (2000, 2001)]
    train, val = xtd.split(samples, "time", ranges=summers)
    normalize = xtd.Normalize.fit(train, per="time.month")
    assert normalize.mean["month"].values.tolist() == [6, 7, 8]
    for part in (train, val):
        for function in (normalize, xtd.Compose([lambda block: block * 1.0, normalize])):
            whole = part.replace(preprocess=function)
            assert whole.fetch(range(len(whole))).x.isfinite().all()
            for batch in xtd.IterableDataset(whole, batch_size=16, shuffle=True):
                assert batch.x.isfinite().all()
    with pytest.raises(ValueError, match=r"no statistics of 't' for month=1: .* 3 labels, 6 to 8"):
        samples.replace(preprocess=normalize)
    with pytest.raises(ValueError, match="month=1"):
        normalize(ds)


def test_groups_of_nothing_but_nan_are_nan_as_those_of_xarray():
    ds = data(nan=0)
    ds = ds.where(ds["time"].dt.month != 3)[["t"]]
    normalize = xtd.Normalize.fit(ds, per="time.month")
    wanted = ds["t"].astype("f8").groupby("time.month").mean(...)
    np.testing.assert_allclose(normalize.mean["t"], wanted, rtol=1e-9)
    assert normalize.mean["t"].isnull().sum() == 1
    back = normalize.inverse(normalize(ds))["t"]
    np.testing.assert_allclose(back, ds["t"], rtol=1e-5)


def test_statistics_of_groupby_may_be_given():
    ds = data()[["t"]]
    groups = ds.groupby("time.month")
    mean, std = groups.mean(...), groups.std(...)
    normalize = xtd.Normalize(mean, std, per="time.month")
    # xarray takes means of float32 in float32.
    fitted = xtd.Normalize.fit(ds, per="time.month")
    xr.testing.assert_allclose(normalize(ds), fitted(ds), rtol=1e-3, atol=1e-4)
    again = xtd.Normalize(fitted.mean, fitted.std)
    xr.testing.assert_identical(again(ds), fitted(ds))
    with pytest.raises(ValueError, match="per 'month' and the data has no coordinate 'month'"):
        xtd.Normalize(mean, std)(ds)
    with pytest.raises(ValueError, match="per='time.week'"):
        xtd.Normalize(mean, std, per="time.week")
    with pytest.raises(ValueError, match="per='time.hour'.*no mean has it"):
        xtd.Normalize(mean, std, per="time.hour")


@pytest.mark.parametrize(
    ("ds", "per", "message"),
    [
        (data(), "time.week", "is no dim of the variables, nor of dates.*month"),
        (data(), "valid.month", "is no dim of the variables, nor of dates"),
        (data(), "month", "is no dim of the variables .*say 'time.month'"),
        (data(), "latitude.month", "'latitude.month' goes by parts of dates: .*no dates"),
        (data(), ("time", "time.month"), "'time.month' groups steps of 'time', which is kept"),
        (
            data().assign_coords(time=np.r_[data().time.values[:-1], np.datetime64("NaT", "ns")]),
            "time.month",
            "step 899 of 'time' has none",
        ),
        (
            data().assign_coords(valid=("time", data().time.values)),
            ("time.month", "valid.month"),
            "a dim 'month', and there is another",
        ),
        (
            data().assign_coords(valid=(("time", "latitude"), np.zeros((900, 3), "M8[ns]"))),
            "valid.month",
            "groups the steps of one dim",
        ),
    ],
)
def test_what_cannot_be_grouped_is_an_error(ds, per, message):
    with pytest.raises(ValueError, match=message):
        xtd.Normalize.fit(ds, per=per)


def test_an_object_without_such_dates_is_an_error():
    ds = data()
    normalize = xtd.Normalize.fit(ds, per="time.month")
    lacks = r"per 'month', a part of 'time', and the data has no coordinate 'time'"
    with pytest.raises(ValueError, match=lacks):
        normalize(ds.drop_vars("time"))
    with pytest.raises(ValueError, match="'time.month' is a part of dates"):
        normalize(ds.assign_coords(time=range(900)))


def test_another_coordinate_of_the_dim_serves_as_well():
    ds = data()
    ds = ds.assign_coords(valid=("time", ds["time"].values + np.timedelta64(20, "D")))
    normalize = xtd.Normalize.fit(ds, per="valid.month")
    wanted = ds["t"].astype("f8").groupby("valid.month").mean(...)
    np.testing.assert_allclose(normalize.mean["t"], wanted, rtol=1e-9)
    samples = xtd.MapDataset(ds, {"time": 4, "latitude": 3}, inputs="t")
    batch = samples.replace(preprocess=normalize).fetch([1, 5])
    torch.testing.assert_close(
        normalize.inverse(batch, "x"), samples.fetch([1, 5]).x, rtol=1e-5, atol=1e-3, equal_nan=True
    )


def test_steps_beyond_the_data_have_no_month_and_become_nan():
    ds = data(nan=0)[["t"]]
    samples = xtd.MapDataset(
        ds, {"time": 4, "latitude": 3}, inputs="t", halo={"time": 2}, boundary={"time": "constant"}
    )
    normalize = xtd.Normalize.fit(samples, per="time.month")
    batch, raw = samples.replace(preprocess=normalize).fetch([0]), samples.fetch([0])
    assert batch.x[0, :2].isnan().all() and batch.x[0, 2:].isfinite().all()
    torch.testing.assert_close(
        normalize.inverse(batch, "x"), raw.x, rtol=1e-5, atol=1e-3, equal_nan=True
    )


def test_a_flip_has_the_statistics_of_the_month():
    ds = data(nan=0, freq="1D", steps=366)[["t"]]
    normalize = xtd.Normalize.fit(ds, per="time.month")
    samples = xtd.MapDataset(ds, {"time": 5, "latitude": 3}, inputs="t", preprocess=normalize)
    flip = xtd.RandomFlip("latitude", p=1, signs={"t": "latitude"})
    for batch in xtd.DataLoader(samples, batch_size=10, augment=flip):
        plain = [ds["t"].isel(samples.windows[int(number)]).values for number in batch.index]
        found = normalize.inverse(batch, "x")
        np.testing.assert_allclose(found, -np.stack(plain)[:, :, ::-1], rtol=1e-5, atol=1e-2)
    with pytest.raises(ValueError, match="other statistics at each place along it"):
        xtd.DataLoader(samples, batch_size=2, augment=xtd.RandomFlip("time"))


@pytest.mark.parametrize("suffix", [".json", ".nc"])
@pytest.mark.parametrize("kind", ["std", "minmax"])
@pytest.mark.parametrize("per", ["time.month", ("time.season", "latitude")])
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_what_was_saved_still_finds_its_groups(suffix, kind, per, calendar, tmp_path):
    ds = data(calendar)
    normalize = xtd.Normalize.fit(ds, kind=kind, per=per)
    normalize.save(tmp_path / f"file{suffix}")
    loaded = xtd.Normalize.load(tmp_path / f"file{suffix}")
    assert repr(loaded) == repr(normalize)
    xr.testing.assert_identical(loaded(ds), normalize(ds))


def test_sources_are_grouped_by_their_own_dates():
    times = xr.date_range("2000-01-01", periods=366)
    a = xr.Dataset({"a": ("time", np.arange(366.0))}, {"time": times})
    b = xr.Dataset({"b": ("time", 7 * np.arange(366.0))}, {"time": times})
    raw = xtd.MapDataset(
        {"era5": a, "sst": xtd.Source(b, time=xtd.AsOf(3, latency="0h"))}, {"time": 4}, inputs="a"
    )
    normalize = xtd.Normalize.fit(raw, per="time.month")
    last = raw.windows[len(raw.windows) - 1]["time"].stop
    wanted = a["a"].isel(time=slice(0, last)).groupby("time.month").mean()
    np.testing.assert_allclose(normalize.of("era5").mean["a"], wanted)
    batch = raw.replace(preprocess=normalize).fetch([1, 80])
    for part in ("x", "sst"):
        found = normalize.inverse(batch, part=part)
        torch.testing.assert_close(found, raw.fetch([1, 80])[part], rtol=1e-5, atol=1e-2)


def test_files_of_older_versions_are_read(tmp_path):
    old = {
        "format": "xtorch_data.Normalize",
        "labels": {"level": {"dtype": "<i8", "values": [850, 500]}},
        "variables": {
            "u": {"dims": ["level"], "mean": [1.0, 2.0], "std": [3.0, None], "attrs": {}},
        },
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    normalize = xtd.Normalize.load(tmp_path / "old.json")
    assert normalize.kind == "std" and normalize.mean["u"].values.tolist() == [1, 2]
    both = xr.Dataset(
        {"u": (("statistic", "level"), [[1.0, 2.0], [3.0, np.nan]])},
        {"statistic": ["mean", "std"], "level": [850, 500]},
        {"format": "xtorch_data.Normalize"},
    )
    both.to_netcdf(tmp_path / "old.nc")
    assert repr(xtd.Normalize.load(tmp_path / "old.nc")) == repr(normalize)
    for wrong in (
        {"kind": "robust"},
        {"kind": ["std"]},
        {"kind": "minmax"},
        {"fitted_on": []},
        {"fitted_on": {"time": {"kind": "number"}}},
        {"fitted_on": {"time": {"kind": "number", "ranges": [["a", "b"]], "is_part": False}}},
        {"fitted_on": {"time": {"kind": "number", "ranges": [[2, 1]], "is_part": False}}},
        {"labels": {"level": {"dtype": "<i8", "values": [1, 2], "datetime_part": "time.month"}}},
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(old | wrong))
        with pytest.raises(ValueError, match=r"wrong\.json"):
            xtd.Normalize.load(tmp_path / "wrong.json")
