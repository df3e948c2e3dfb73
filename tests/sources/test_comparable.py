"""Labels as numbers against what their own types say."""

import datetime

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.sources.comparable import comparable


def of(labels, dim="x", **attrs):
    return comparable(xr.Dataset(coords={dim: (dim, labels, attrs)}), dim)


@given(
    st.lists(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)), min_size=1)
)
def test_times_are_microseconds_in_any_unit_and_as_cftime(times):
    since = [
        (each - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
        for each in times
    ]
    for unit in "us", "ns":
        assert of(np.array(times, dtype=f"M8[{unit}]")).values.tolist() == since
    for calendar in "standard", "proleptic_gregorian":
        labels = [
            cftime.datetime(*each.timetuple()[:6], each.microsecond, calendar=calendar)
            for each in times
        ]
        found = of(np.array(labels, dtype=object))
        assert (found.values.tolist(), found.kind) == (since, of(np.array(times, "M8[us]")).kind)


def test_nanoseconds_that_floats_are_off_by_are_rounded_away():
    off = np.datetime64("2001-01-01T06", "ns") + np.array([-256, 0, 256])
    assert len(set(of(off).values.tolist())) == 1


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap"])
def test_other_calendars_have_days_of_their_own(calendar):
    labels = xr.date_range("2000-02-27", periods=5, calendar=calendar, use_cftime=True)
    found, same = of(labels.values), of(labels.values.copy())
    assert np.diff(found.values).tolist() == [86_400_000_000] * 4
    found.require_same_kind(same, ("a", "b"))
    with pytest.raises(ValueError, match=f"a and b cannot be compared.*{calendar}.*standard"):
        found.require_same_kind(of(pd.date_range("2000", periods=2).values), ("a", "b"))


def test_missing_labels_are_known_as_such():
    assert of(np.array(["2000", "NaT"], "M8[s]")).missing.tolist() == [False, True]
    assert of(np.array([1.0, np.nan])).missing.tolist() == [False, True]
    assert of(np.array(["a", None], dtype=object)).missing.tolist() == [False, True]
    assert of(np.array([3, 4])).missing.tolist() == [False, False]
    noon = cftime.Datetime360Day(1970, 2, 30, 12)
    for gap in None, np.nan:
        found = of(np.array([gap, noon], dtype=object))
        assert found.missing.tolist() == [True, False]
        assert (found.kind, found.values[1]) == (of(np.array([noon])).kind, 59.5 * 86_400e6)


def test_longitudes_are_known_by_name_and_by_units():
    for found in of([0.0, 1.0], "lon"), of([0, 1], "x", units="degrees_east"):
        assert (found.kind, found.period) == ("longitude", 360)
    assert of([0.0, 1.0], "lat").period is None


def test_durations_and_numbers_and_text():
    assert of(pd.to_timedelta([6, 12], "h").values).values.tolist() == [
        21_600_000_000,
        43_200_000_000,
    ]
    assert of(np.array([1, 2], "u1")).values.dtype == np.int64
    assert of(np.array([1, 2], "f4")).values.dtype == np.float64
    assert of(np.array(["a", "b"])).is_text


def test_a_time_zone_is_refused_with_the_remedy():
    ds = xr.Dataset(coords={"time": pd.date_range("2000", periods=2, tz="UTC")})
    with pytest.raises(ValueError, match="'time' have a time zone.*tz_convert"):
        comparable(ds, "time")
    fixed = ds.assign_coords({"time": ds.indexes["time"].tz_convert(None)})
    assert comparable(fixed, "time").is_time


def test_the_step_is_the_median_of_those_that_are_some():
    assert of([0.0, 0.0, 2.0, 4.0, np.nan, 5.0]).step == 2
    assert of([1.0]).step == 0
    assert comparable(xr.Dataset(), "x") is None
