"""Lead times of parts that go beyond the anchor."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xtorch_data as xtd


def series(times, **coords):
    values = np.arange(len(times), dtype="float32")
    return xr.Dataset({"a": ("time", values)}, {"time": times, **coords})


def forecasts(times, x=slice(0, 3), y=slice(3, 5), size=5, **arguments):
    return xtd.MapDataset(
        series(times), {"time": size}, {"time": size - 1}, inputs=xtd.Select("a", time=x),
        targets=xtd.Select("a", time=y), **arguments,
    )  # fmt: skip


HOURLY = pd.date_range("2020-02-27", periods=20, freq="6h")


def test_a_part_beyond_the_anchor_tells_its_leads_as_kept_windows_do():
    samples = forecasts(HOURLY)
    batch = samples.fetch([7, 0])
    alone, both = batch.to_xarray("y"), batch.to_xarray()
    assert alone["lead_time"].dims == ("time",) and both["lead_time_y"].dims == ("time_y",)
    assert "lead_time_x" not in both.coords and "lead_time" not in batch.to_xarray("x").coords
    for row, number in enumerate(batch.index.tolist()):
        window = HOURLY[samples.windows[number]["time"]]
        expected = (window[3:] - window[2]).to_numpy()
        np.testing.assert_array_equal(alone["lead_time"], expected)
        np.testing.assert_array_equal(alone["time"][row] - window[2].to_numpy(), expected)
    field = xtd.predict(
        None, xtd.DataLoader(samples, batch_size=4), forward=lambda each: each.y, keep="time"
    )
    np.testing.assert_array_equal(alone["lead_time"], field["lead_time"])
    assert alone["lead_time"].attrs == field["lead_time"].attrs
    assert alone["lead_time"].attrs["standard_name"] == "forecast_period"
    by_lead = alone.isel(sample=0).swap_dims(time="lead_time").set_xindex("lead_time")
    assert by_lead["a"].sel(lead_time="12h").item() == 7 + 4


@given(
    st.lists(st.integers(1, 3), min_size=8, max_size=20),
    st.integers(0, 4),
    st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True),
    st.sampled_from(["dates", "cftime", "integers", "floats"]),
)
def test_leads_are_differences_of_labels_or_else_counted(steps, anchor, y, kind):
    days = np.cumsum(steps)
    times = {
        "dates": pd.Timestamp("2001-01-01") + pd.to_timedelta(days, "D"),
        "cftime": xr.date_range("2001-01-01", periods=days[-1] + 1, use_cftime=True)[days],
        "integers": days,
        "floats": days / 4,
    }[kind]
    samples = forecasts(times, x=slice(0, 2), y=y, anchor={"time": anchor}, breaks="ignore")
    labeled = samples.fetch(range(len(samples))).to_xarray("y")
    if max(y) <= anchor:
        assert "lead_time" not in labeled.coords
        return
    windows = days[np.arange(len(samples))[:, None] + np.arange(5)]
    apart = windows[:, y] - windows[:, [anchor]]
    found = labeled["lead_time"].values
    if (apart == apart[0]).all():
        unit = {"dates": np.timedelta64(1, "D"), "cftime": np.timedelta64(1, "D"), "floats": 0.25}
        np.testing.assert_array_equal(found, apart[0] * unit.get(kind, 1))
    else:
        assert found.tolist() == (np.array(y) - anchor).tolist()
        assert labeled["lead_time"].attrs == {"long_name": "steps since the forecast"}


@pytest.mark.parametrize("use_cftime", [False, True])
def test_leads_of_months_are_counted_in_every_batch(use_cftime):
    months = xr.date_range("2001-01-01", periods=12, freq="MS", use_cftime=use_cftime)
    samples = forecasts(months)
    for batch in xtd.DataLoader(samples, batch_size=1):
        assert batch.to_xarray("y")["lead_time"].values.tolist() == [1, 2]


def test_a_single_step_has_a_single_lead_and_parts_have_their_own():
    samples = xtd.MapDataset(
        series(HOURLY),
        {"time": 6},
        parts={
            "x": xtd.Select("a", time=slice(0, 3)),
            "next": xtd.Select("a", time=3),
            "last": xtd.Select("a", time=[5, 4]),
            "whole": "a",
            "early": xtd.Select("a", time=slice(0, 2)),
        },
    )
    labeled = samples.fetch([0, 1]).to_xarray()
    hours = {"next": 6, "last": [18, 12], "whole": [-12, -6, 0, 6, 12, 18]}
    for part, expected in hours.items():
        found = labeled[f"lead_time_{part}"].values.astype("timedelta64[h]").astype(int)
        assert found.tolist() == expected
    assert not {"lead_time_x", "lead_time_early"} & set(labeled.coords)


def test_splits_and_workers_keep_leads():
    samples = forecasts(HOURLY)
    for part in xtd.split(samples, "time", at=["2020-02-29"]):
        loader = xtd.DataLoader(part, batch_size=2, num_workers=0)
        for batch in loader:
            hours = batch.to_xarray("y")["lead_time"].values.astype("timedelta64[h]")
            assert hours.astype(int).tolist() == [6, 12]


def test_leads_count_from_the_anchor_of_events_and_of_the_first_of_several_sources():
    ds = series(HOURLY)
    around = xtd.MapDataset(
        ds, {"time": 5}, centers={"time": HOURLY[[6, 11]]},
        inputs=xtd.Select("a", time=slice(0, 3)), targets=xtd.Select("a", time=slice(3, 5)),
    )  # fmt: skip
    other = ds.rename(a="b")
    several = xtd.MapDataset(
        {"one": ds, "two": other}, {"time": 5}, inputs=xtd.Select("a", time=slice(0, 3)),
        targets=xtd.Select("a", time=slice(3, 5)),
    )  # fmt: skip
    for samples in (around, several):
        labeled = samples.fetch([0, 1]).to_xarray("y")
        assert labeled["lead_time"].values.astype("timedelta64[h]").astype(int).tolist() == [6, 12]


@pytest.mark.parametrize(
    "coords",
    [
        {},  # no labels
        {"time": list("abcdefghijklmnopqrst")},
        {"time": np.arange(20) * np.timedelta64(1, "h")},  # durations are leads themselves
    ],
)
def test_there_are_no_leads_without_times(coords):
    ds = xr.Dataset({"a": ("time", np.arange(20.0))}, coords)
    samples = xtd.MapDataset(
        ds, {"time": 5}, inputs=xtd.Select("a", time=slice(0, 3)),
        targets=xtd.Select("a", time=slice(3, 5)), breaks="ignore",
    )  # fmt: skip
    assert "lead_time" not in samples.fetch([0]).to_xarray("y").variables


def test_places_have_no_leads_and_a_name_that_is_taken_stays():
    ds = xr.Dataset({"a": ("lat", np.arange(20.0))}, {"lat": np.arange(20) * 1.0})
    samples = xtd.MapDataset(
        ds, {"lat": 5}, inputs=xtd.Select("a", lat=slice(0, 3)),
        targets=xtd.Select("a", lat=slice(3, 5)),
    )  # fmt: skip
    assert "lead_time" not in samples.fetch([0]).to_xarray("y").variables
    own = series(HOURLY).assign_coords(lead_time=("time", np.arange(20)))
    samples = xtd.MapDataset(
        own, {"time": 5}, inputs=xtd.Select("a", time=slice(0, 3)),
        targets=xtd.Select("a", time=slice(3, 5)),
    )  # fmt: skip
    assert samples.fetch([1]).to_xarray("y")["lead_time"].values.tolist() == [[8, 9]]


def test_windows_beyond_the_ends_and_plain_windows_tell_no_leads():
    beyond = xtd.MapDataset(
        series(HOURLY[:18]), {"time": 5}, inputs=xtd.Select("a", time=slice(0, 3)),
        targets=xtd.Select("a", time=slice(3, 5)), boundary={"time": "edge"},
    )  # fmt: skip
    assert len(beyond) == 4  # the last one is padded
    assert "lead_time" not in beyond.fetch([3]).to_xarray("y").coords
    plain = xtd.MapDataset(series(HOURLY), {"time": 5}, inputs="a", targets="a")
    assert not any("lead" in str(name) for name in plain.fetch([0]).to_xarray().variables)
