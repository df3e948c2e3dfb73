"""Sizes and overlaps of windows as durations, compared with labels that are counted one by one."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import xbatcher
from helpers import forecast, twice_plus_one
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data.samples.durations import seconds_of

HOUR = np.timedelta64(1, "h")
EPOCH = np.datetime64("2000-01-01", "ns")


def labelled(labels):
    labels = np.asarray(labels)
    return xr.Dataset({"a": ("time", np.arange(float(len(labels))))}, {"time": labels})


def hourly(count, step=6):
    return labelled(EPOCH + np.arange(count) * step * HOUR)


def spelled(hours):
    """Ways to say so many hours."""
    days, rest = divmod(hours, 24)
    ways = [f"{hours}h", f"{hours} hours", f"P{days}DT{rest}H", f"{hours * 60}min",
            f"{days} days {rest:02}:00:00", timedelta(hours=hours), pd.Timedelta(hours=hours),
            np.timedelta64(hours, "h"), np.timedelta64(hours * 3_600_000, "ms"),
            pd.offsets.Hour(hours)]  # fmt: skip
    return ways if rest else [*ways, f"{days}D"]


@st.composite
def axes(draw):
    """Labels of a regular step in hours, of any kind that can be subtracted."""
    count, step = draw(st.integers(2, 30)), draw(st.sampled_from([1, 3, 6, 12, 24]))
    kind = draw(st.sampled_from(["ns", "s", "lead", "noleap", "360_day", "jitter"]))
    if kind in ("noleap", "360_day"):
        cftime = pytest.importorskip("cftime")
        first = cftime.datetime(2000, 2, 27, calendar=kind)
        labels = np.array([first + n * timedelta(hours=step) for n in range(count)])
    elif kind == "lead":
        labels = (np.arange(count) * step * HOUR).astype("timedelta64[ns]")
    else:
        unit = "ns" if kind == "jitter" else kind
        labels = (EPOCH + np.arange(count) * step * HOUR).astype(f"datetime64[{unit}]")
    if kind == "jitter":  # as of times that were decoded from floats
        rng = np.random.default_rng(draw(st.integers(0, 9)))
        labels = labels + rng.integers(-500, 500, count).astype("timedelta64[us]")
    return labels[::-1] if draw(st.booleans()) else labels, step


@examples(30, 1000)
@given(axes(), st.data())
def test_a_duration_is_as_many_steps_as_labels_lie_in_it(axis, data):
    labels, step = axis
    ds = labelled(labels)
    size = data.draw(st.integers(1, len(labels)))
    overlap = data.draw(st.integers(0, size - 1))
    asked = data.draw(st.sampled_from(spelled(size * step)))
    shared = data.draw(st.sampled_from([overlap, *spelled(overlap * step)]))
    samples = xtd.MapDataset(ds, {"time": asked}, {"time": shared})
    windows = [samples.windows[number]["time"] for number in range(len(samples))]
    ascending = np.sort(labels)
    near, long = timedelta(seconds=1), timedelta(hours=size * step)
    for window in windows:
        found = np.sort(labels[window])
        if ascending.dtype.kind != "O":
            near, long = np.timedelta64(1, "s"), size * step * HOUR
        inside = (ascending >= found[0] - near) & (ascending < found[0] + long - near)
        np.testing.assert_array_equal(found, ascending[inside])
    by_steps = xtd.MapDataset(ds, {"time": size}, {"time": overlap})
    assert windows == [by_steps.windows[number]["time"] for number in range(len(by_steps))]


def test_the_contract():
    ds = forecast(time=60)
    dataset = xtd.IterableDataset(ds, {"time": "48h", "x": 2}, {"time": "42h"})
    steps = xtd.IterableDataset(ds, {"time": 8, "x": 2}, {"time": 7})
    assert repr(dataset) == repr(steps)
    assert "time: 53 × 8 of 60" in repr(dataset.windows)
    batch = next(iter(dataset))
    np.testing.assert_array_equal(batch.x[0, 0], ds["a"].isel(time=slice(8), y=0, x=slice(2)))
    assert dataset.state_dict() == steps_state(steps)


def steps_state(steps):
    next(iter(steps))
    return steps.state_dict()


def test_other_data_counts_the_steps_anew():
    samples = xtd.MapDataset(hourly(40, step=6), {"time": "48h"}, {"time": "1D"})
    assert samples[0][0].shape == (1, 8)
    finer = samples.replace(ds=hourly(240, step=1))
    assert finer[0][0].shape == (1, 48)
    assert finer.windows[1]["time"] == slice(24, 72)
    with pytest.raises(ValueError, match="labels along 'time' are 1.25 days apart"):
        samples.replace(ds=hourly(40, step=30))
    train, _ = xtd.split(samples, "time", fractions=(0.5, 0.5))
    part = train.replace(ds=hourly(240, step=1))
    assert part[0][0].shape == (1, 48)
    assert part.windows.coords(len(part) - 1)["time"][-1] <= train.windows.coords(
        len(train) - 1)["time"][-1]  # fmt: skip


def test_functions_are_tried_on_windows_of_so_many_steps():
    seen = []

    def noting(block):
        seen.append(block.sizes["time"])
        return twice_plus_one(block)

    xtd.MapDataset(hourly(40), {"time": "30h"}, preprocess=noting)
    assert seen[0] == 5


def test_windows_begin_anew_after_a_break_and_are_all_as_long():
    labels = np.delete(hourly(80)["time"].values, [20, 21, 50])
    dataset = xtd.MapDataset(labelled(labels), {"time": "1D"}, {"time": "18h"}, breaks="split")
    for number in range(len(dataset)):
        found = dataset.windows.coords(number)["time"].values
        assert (np.diff(found) == 6 * HOUR).all() and len(found) == 4
    whole = {begin for begin in range(77 - 3) if labels[begin + 3] - labels[begin] == 18 * HOUR}
    assert len(dataset) == len(whole)
    with pytest.warns(UserWarning, match="2 breaks, the first"):
        assert len(xtd.MapDataset(labelled(labels), {"time": "1D"}, {"time": "18h"})) == len(whole)
    with pytest.raises(ValueError, match="breaks='raise'"):
        xtd.MapDataset(labelled(labels), {"time": "1D"}, breaks={"time": "raise"})
    with pytest.raises(ValueError, match="4 steps, given as a number, are counted by position"):
        xtd.MapDataset(labelled(labels), {"time": "1D"}, breaks={"time": "ignore"})
    with pytest.raises(ValueError, match="'18h'.*3 steps, given as a number"):
        xtd.MapDataset(labelled(labels), {"time": 4}, {"time": "18h"}, breaks="ignore")
    with pytest.raises(ValueError, match="go across a break"):  # breaks do not part all steps
        xtd.MapDataset(labelled(labels), {"time": f"{6 * len(labels)}h"})
    one = xtd.MapDataset(labelled(labels), {"time": "6h"}, {"time": "0h"}, breaks="ignore")
    assert len(one) == len(labels)
    regular = xtd.MapDataset(hourly(20), {"time": "1D"}, breaks="ignore")  # which breaks nowhere
    assert len(regular) == 5


def test_what_was_left_out_between_windows_may_be_a_duration():
    samples = xtd.MapDataset(hourly(20), {"time": "12h"}, {"time": "-6h"})
    assert [samples.windows[n]["time"].start for n in range(len(samples))] == [
        0,
        3,
        6,
        9,
        12,
        15,
        18,
    ]


MONTHS = pd.date_range("2020-01-01", periods=24, freq="MS")


@pytest.mark.parametrize(
    ("labels", "size", "words"),
    [
        ("6h", "50h", r"\['time'\] is '50h', which is no whole number of steps: labels along "
                      "'time' are 6 hours apart, so that 8 steps are 2 days, and 9 are 2.25 days"),
        ("6h", "1m", "0 steps are 0 seconds, and 1 is 6 hours"),
        ("6h", "7h", "1 step is 6 hours, and 2 are 12 hours"),
        ("6h", timedelta(minutes=1), "is 0:01:00, which is no whole number"),
        ("6h", "1M", "'1M', which is no fixed duration.*6 hours apart"),
        ("6h", "MS", "'MS', which is no fixed duration.*6 hours apart"),
        ("6h", "1MS", "'1MS', which is no fixed duration.*6 hours apart"),
        ("6h", "P1M", "no fixed duration"),
        ("6h", "1Y", "no fixed duration"),
        ("6h", "1YS", "no fixed duration"),
        ("6h", "2QS", "no fixed duration"),
        ("6h", "5B", "no fixed duration"),
        ("6h", np.timedelta64(1, "M"), "is 1 months, which is no fixed duration"),
        ("6h", np.timedelta64(1, "Y"), "no fixed duration"),
        ("6h", np.timedelta64("NaT", "ns"), "no fixed duration"),
        ("6h", pd.offsets.MonthBegin(2), "no fixed duration"),
        ("6h", pd.NaT, "integer|no fixed duration"),
        ("6h", "48", "no fixed duration"),
        ("6h", "1,5h", "no fixed duration"),
        ("6h", "", "no fixed duration"),
        ("6h", "NaT", "no fixed duration"),
        ("6h", "all", "no fixed duration"),
        ("6h", "0h", "'0h', but a window has 1 step or more; labels along 'time' are 6 hours"),
        ("6h", "-12h", "'-12h', but a window has 1 step or more"),
        ("6h", "60D", "240 steps; labels along 'time' are 6 hours apart, and the dim has 24"),
        ("months", "60D", "not evenly spaced: 28 days to 31 days apart; give a number of steps"),
        ("months", "1M", "no fixed duration.*28 days to 31 days apart"),
        ("one", "6h", "there is one label along 'time'"),
        ("none", "6h", "dim 'time' has no labels that are times; give a number of steps"),
        ("numbers", "6h", "no labels that are times"),
        ("text", "6h", "no labels that are times"),
        ("same", "6h", "not evenly spaced: 0 seconds apart"),
        ("unknown", "6h", "not evenly spaced"),
        ("some", "6h", "not evenly spaced: 6 hours to 7 hours apart"),
        ("doubtful", "6h", "not evenly spaced: 6 hours to 2 days apart"),
        ("zigzag", "6h", "not evenly spaced: -6 hours to 6 hours apart"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_number_of_steps_says_the_step_of_the_labels(labels, size, words):
    hours = {
        "6h": np.arange(24) * 6,
        "one": [0],
        "zigzag": np.arange(24) % 2 * 6,
        "same": np.zeros(20, int),
        "some": np.cumsum([0] + [6, 6, 6, 7] * 6),
        "doubtful": np.cumsum([0] + [6, 6, 6, 48] * 6),
    }
    of = {name: EPOCH + np.array(each) * HOUR for name, each in hours.items()}
    of |= {"months": MONTHS, "numbers": np.arange(24.0), "text": np.array(list("abcdef"))}
    of |= {"unknown": np.full(9, np.datetime64("NaT", "ns"))}
    ds = labelled(of.get(labels, np.arange(24)))
    ds = ds.drop_vars("time") if labels == "none" else ds
    with pytest.raises((ValueError, TypeError), match=words) as raised:
        xtd.MapDataset(ds, {"time": size})
    assert "input_dims['time']" in str(raised.value)
    if size not in ("0h", "-12h", "60D"):
        with pytest.raises((ValueError, TypeError), match="input_overlap"):
            xtd.MapDataset(ds, {"time": 1}, {"time": size})


def test_a_year_of_months_of_thirty_days_is_twelve_steps():
    pytest.importorskip("cftime")
    times = xr.date_range("2000-01-01", periods=24, freq="MS", calendar="360_day", use_cftime=True)
    assert xtd.MapDataset(labelled(times), {"time": "360D"})[1][0].shape == (1, 12)


def test_dims_that_are_not_there_and_generators_are_refused_as_ever():
    ds = forecast(time=20)
    with pytest.raises(ValueError, match="input_dims names dim 'tim'"):
        xtd.MapDataset(ds, {"tim": "48h"})
    with pytest.raises(ValueError, match="input_overlap names dim 'x', which is not in input_dims"):
        xtd.MapDataset(ds, {"time": "48h"}, {"x": "6h"})
    with pytest.raises(ValueError, match=r"input_overlap\['time'\] is 8; it must be less than"):
        xtd.MapDataset(ds, {"time": "48h"}, {"time": "2D"})
    with pytest.raises(TypeError, match=r"input_dims\['time'\] must be an integer"):
        xtd.MapDataset(ds, {"time": 48.0})
    generator = xbatcher.BatchGenerator(ds, {"time": 4})
    with pytest.raises(ValueError, match="of its own"):
        xtd.IterableDataset(generator, {"time": "24h"})


@given(
    st.text(max_size=12) | st.from_regex(r"-?\d{1,4} ?(h|D|min|s|W|days|M|MS|Y)", fullmatch=True)
)
def test_any_text_is_a_duration_of_pandas_or_none(text):
    try:
        wanted = pd.Timedelta(text).total_seconds()
    except ValueError:
        wanted = None
    except Warning:  # of units that pandas will not read for long
        return
    found = seconds_of(text)
    assert found is None or found == wanted
    if (
        text.endswith(("h", "D", "min", "s", "W", "days"))
        and text[:1].isdigit()
        and "," not in text
    ):
        assert found == wanted or np.isnan(wanted)
