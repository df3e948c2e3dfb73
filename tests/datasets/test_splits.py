"""Parts of the data: compared with arithmetic on plain sets of steps, and with scikit-learn."""

import datetime
import itertools
import logging
import pickle

import cftime
import numpy as np
import pandas as pd
import pytest
import sklearn.model_selection
import xarray as xr
from helpers import Oracle, assert_once, chunk_reads, forecast, numbered, samples_of
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pages import page_of
from strategies import examples

import xtorch_data as xtd


def dataset_of(steps, size=1, overlap=0, index=None, **options):
    """Windows along ``time`` on a variable whose values are the numbers of the steps."""
    ds = numbered(steps)
    if index is not None:
        ds = ds.assign_coords(time=index)
    return xtd.IterableDataset(ds, {"time": size}, {"time": overlap}, inputs="a", **options)


def begins(dataset, dim="time"):
    """Where the windows along a dim begin."""
    axis = dataset.plan.windows.axis(dim)
    return axis.start(np.arange(len(axis))).tolist()


def inside(steps, length, size, stride):
    """Where windows begin that have all of their steps in a set."""
    return [
        begin
        for begin in range(0, length - size + 1, stride)
        if set(range(begin, begin + size)) <= steps
    ]


@st.composite
def series(draw, least=2):
    """Length of a dim, size of a window, and stride."""
    length = draw(st.integers(least, 60))
    size = draw(st.integers(1, max(1, length // 4)))
    return length, size, draw(st.integers(1, size + 2))


def test_what_cannot_be_split_is_told():
    for given_ in (numbered(9), xtd.DataLoader(dataset_of(9))):
        with pytest.raises(TypeError, match="must be an xtorch_data.MapDataset or Iterable"):
            xtd.split(given_, "time", fractions=(0.5, 0.5))
    daily = xr.date_range("2001-01-01", periods=9)
    with pytest.raises(TypeError, match="gap='5' has no unit: give 5 for steps"):
        xtd.split(dataset_of(9, index=daily), "time", fractions=(0.5, 0.5), gap="5")


def part_or_none(make):
    """A split, or None if it says that a part has no sample."""
    try:
        return make()
    except ValueError as error:
        assert "has no sample" in str(error)
        return None


# ---------------------------------------------------------------------------------------------
# split


@examples(6, 250)
@given(series(), st.data())
def test_parts_hold_every_window_that_lies_inside_and_no_step_is_in_two(series, data):
    length, size, stride = series
    cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), min_size=1, max_size=3)))
    gap = data.draw(st.sampled_from([0, 0, 1, 3]))
    dataset = dataset_of(length, size, size - stride, np.arange(length) * 3)
    # A label between coordinates belongs to the step after it.
    at = [3 * cut - data.draw(st.integers(0, 2)) for cut in cuts]
    allowed = [
        set(range(start, stop - (gap if stop < length else 0)))
        for start, stop in zip([0, *cuts], [*cuts, length], strict=True)
    ]
    expected = [inside(steps, length, size, stride) for steps in allowed]

    parts = part_or_none(lambda: xtd.split(dataset, "time", at=at, gap=gap))

    assert (parts is None) == (not all(expected))
    assume(parts is not None)
    assert [begins(part) for part in parts] == expected
    assert parts.left_out == len(dataset.windows) - sum(map(len, expected))
    assert_no_step_in_two(parts, size)


def assert_no_step_in_two(parts, size, apart=0):
    """Read them, and see that no step of the data comes from two parts, nor one too near."""
    found = []
    for part in parts:
        values = [int(value) for batch in part for value in batch.x.flatten()]
        assert len(values) == size * len(part.windows)
        found.append(set(values))
    for number, steps in enumerate(found):
        for other in found[number + 1 :]:
            assert all(abs(a - b) > apart for a in steps for b in other)


@examples(13)
@example((2, 1, 1), [3, 1], 0)  # the boundary at the very end
@given(series(), st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 3))
def test_fractions_are_shares_of_the_steps(series, weights, gap):
    length, size, stride = series
    shares = [weight / sum(weights) for weight in weights]
    # Half a step is rounded as the sum of shares, which are not exact, happens to be.
    assume(
        all(
            sum(weights[:n]) * length * 2 % (2 * sum(weights)) != sum(weights)
            for n in range(1, len(weights))
        )
    )
    ends = [int(np.floor(sum(weights[: n + 1]) / sum(weights) * length + 0.5)) for n in range(9)]
    ends = [0, *ends[: len(weights) - 1], length]
    dataset = dataset_of(length, size, size - stride)
    expected = [
        inside(set(range(start, stop - (gap if stop < length else 0))), length, size, stride)
        for start, stop in zip(ends, ends[1:], strict=False)
    ]
    parts = part_or_none(lambda: xtd.split(dataset, "time", fractions=shares, gap=gap))
    assert (parts is None) == (not all(expected))
    if parts is not None:
        assert [begins(part) for part in parts] == expected


def test_a_split_is_a_tuple_and_says_what_it_leaves_out(caplog):
    dataset = dataset_of(100, 8, 7)
    with caplog.at_level(logging.INFO, logger="xtorch_data"):
        parts = xtd.split(dataset, "time", fractions=(0.6, 0.2, 0.2), gap=2)
    train, val, test = parts
    assert [len(part.windows) for part in parts] == [51, 11, 13]
    assert parts.left_out == 93 - 75
    assert repr(parts).splitlines() == [
        "<xtorch_data.Split into 3 parts along 'time'; samples left out: 18 in no part",
        "  51 samples: step 0 to step 57",
        "  11 samples: step 60 to step 77",
        "  13 samples: step 80 to step 99>",
    ]
    assert "of 93 samples, 18 are in no part" in caplog.text
    again = pickle.loads(pickle.dumps(parts))
    assert (again.left_out, again.dim, len(again[1].windows)) == (18, "time", 11)
    assert repr(again) == repr(parts)
    assert type(train) is type(val) is type(test) is xtd.IterableDataset


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_a_split_shows_from_which_label_to_which_its_samples_reach_after_where(kind):
    time = xr.date_range("2020-01-01", periods=366)
    data = xr.DataArray(np.arange(366.0), dims="time", coords={"time": time}, name="a")
    wanted = np.ones(362, dtype=bool)
    wanted[:10] = wanted[355:] = wanted[100] = False
    dataset = kind(data, {"time": 5}, {"time": 4}, where=wanted)

    parts = xtd.split(dataset, "time", at="2020-07-01")

    reach = []
    for part in parts:
        labels = [part.windows.coords(int(i))["time"].values for i in np.flatnonzero(part.where)]
        ends = min(map(min, labels)), max(map(max, labels))
        reach.append([str(end.astype("datetime64[D]")) for end in ends])
    assert reach == [["2020-01-11", "2020-06-30"], ["2020-07-01", "2020-12-24"]]
    kept = [int(part.where.sum()) for part in parts]
    assert parts.left_out == int(wanted.sum()) - sum(kept) == 4
    assert repr(parts).splitlines() == [
        "<xtorch_data.Split into 2 parts along 'time'; samples left out: 4 in no part, 18 by where",
        f"  {kept[0]} samples: 2020-01-11 to 2020-06-30",
        f"  {kept[1]} samples: 2020-07-01 to 2020-12-24>",
    ]
    cells = page_of(parts).cells
    assert cells == ["1", str(kept[0]), "2020-01-11 to 2020-06-30"] + [
        "2", str(kept[1]), "2020-07-01 to 2020-12-24",
    ]  # fmt: skip


def test_a_split_shows_labels_of_any_kind_and_how_many_stretches_there_are():
    lat = xr.DataArray(np.linspace(60, -39, 100), dims="lat", attrs={"units": "degrees_north"})
    data = xr.DataArray(np.zeros((4, 100)), dims=("time", "lat"), coords={"lat": lat}, name="a")
    dataset = xtd.MapDataset(data, {"lat": 5}, {"lat": 4})
    assert "60°N to 11°N" in repr(xtd.split(dataset, "lat", fractions=(0.5, 0.5)))
    folds = list(xtd.kfold(dataset, "lat", n_splits=4))
    assert "in 2 stretches" in repr(folds[1]).splitlines()[1]
    assert "stretches" not in repr(folds[0])
    assert "left out: none\n" in repr(xtd.split(dataset, "time", fractions=(0.5, 0.5)))


DAILY = xr.date_range("2014-12-01", periods=90)
NOLEAP = xr.date_range("2014-12-01", periods=90, calendar="360_day", use_cftime=True)


@pytest.mark.parametrize(
    ("index", "label"),
    [
        (DAILY, "2015-01-01"),
        (DAILY, "2015"),
        (DAILY, np.datetime64("2015-01-01")),
        (DAILY, datetime.datetime(2015, 1, 1)),
        (DAILY, pd.Timestamp("2015-01-01")),
        (DAILY, pd.Timestamp("2014-12-31 18:00")),
        (NOLEAP, "2015-01-01"),
        (NOLEAP, "2015-01"),
        (NOLEAP, cftime.Datetime360Day(2015, 1, 1)),
    ],
)
@pytest.mark.parametrize(
    "gap", [0, 14, "14D", datetime.timedelta(days=14), np.timedelta64(14, "D"), "336h"]
)
def test_dates_of_any_calendar_and_gaps_in_time(index, label, gap):
    """The coordinate at the boundary belongs to the later part."""
    boundary = 30 if index is NOLEAP else 31
    train, val = xtd.split(dataset_of(90, index=index), "time", at=[label], gap=gap)
    assert begins(val) == list(range(boundary, 90))
    assert begins(train) == list(range(boundary - (14 if gap else 0)))
    assert str(val.windows.coords(0)["time"].values[0])[:10] == "2015-01-01"


@examples(13)
@given(st.data())
def test_a_gap_in_coordinate_units_compares_coordinates(data):
    """Also where these are irregular, or descend."""
    steps = data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=40))
    coordinate = np.cumsum(steps).astype(float)
    boundary = data.draw(st.integers(1, len(steps) - 1))
    gap = data.draw(st.sampled_from([0.0, 1.0, 4.5, 11.0]))
    expected = [n for n in range(boundary) if coordinate[n] < coordinate[boundary] - gap]
    assume(expected)
    for index in (coordinate, -coordinate, pd.to_timedelta(coordinate, "D")):
        timed = isinstance(index, pd.TimedeltaIndex)
        train, val = xtd.split(
            dataset_of(len(steps), index=index),
            "time",
            at=[index[boundary]],
            gap=f"{gap}D" if timed else gap,
        )
        assert begins(train) == expected
        assert begins(val) == list(range(boundary, len(steps)))


@pytest.mark.parametrize("dim", ["time", "y", "x"])
def test_along_any_dim_windowed_or_not(dim):
    """A dim that is not windowed is split as well: its places belong to one part each."""
    ds = forecast(time=24, y=12, x=10)
    dataset = xtd.IterableDataset(ds, {"time": 3, "y": 2}, {"time": 2, "y": 1}, batch_size=16)
    coordinate = ds[dim].values
    parts = xtd.split(dataset, dim, at=[coordinate[4], coordinate[8]], gap=1)
    seen = []
    for part in parts:
        labels = [batch.to_xarray() for batch in part]
        seen.append({value for each in labels for value in each[dim].values.ravel().tolist()})
    assert seen == [
        set(coordinate[some].tolist()) for some in (slice(0, 3), slice(4, 7), slice(8, None))
    ]


def test_names_along_a_dim_split_where_they_begin():
    ds = numbered((10, 5), ("time", "station")).assign_coords(station=list("abdef"))
    dataset = xtd.IterableDataset(ds, {"time": 2}, inputs="a")
    west, east = xtd.split(dataset, "station", at="c")
    assert [str(part.windows.coords(0)["station"].values) for part in (west, east)] == ["a", "d"]
    assert (len(west.windows), len(east.windows)) == (10, 15)


@pytest.mark.parametrize(
    ("index", "arguments", "error", "message"),
    [
        (None, {}, ValueError, "give either at"),
        (None, {"at": [3], "fractions": (0.5, 0.5)}, ValueError, "give either at"),
        (None, {"at": [3]}, ValueError, "needs a coordinate along 'time', which has none"),
        (None, {"fractions": (0.5, 0.5), "gap": "1D"}, ValueError, "needs a coordinate"),
        (None, {"fractions": (0.5, 0.6)}, ValueError, "add up to 1"),
        (None, {"fractions": (1.5, -0.5)}, ValueError, "positive"),
        (None, {"fractions": (1,)}, ValueError, "two or more"),
        (None, {"fractions": (0.5, 0.5), "gap": -1}, ValueError, "negative"),
        (None, {"fractions": (0.5, 0.5), "gap": True}, TypeError, "gap must be"),
        (None, {"fractions": (0.5, 0.5), "gap": 40}, ValueError, "part 1 of 2.*nothing is left"),
        (None, {"fractions": (0.95, 0.05)}, ValueError, "part 2 of 2.*38 to 39.*window of 4"),
        (np.r_[0:20, 19:39], {"fractions": (0.5, 0.5)}, ValueError, "19 more than once"),
        (np.r_[20:40, 0:20], {"at": [3]}, ValueError, "sorted.*sortby"),
        (np.arange(40), {"at": [0]}, ValueError, "part 1 of 2.*nothing is left"),
        (np.arange(40), {"at": [99]}, ValueError, "part 2 of 2.*nothing is left"),
        (np.arange(40), {"at": [20, 10]}, ValueError, "must follow the order"),
        (np.arange(40), {"at": [10, 10]}, ValueError, "part 2 of 3"),
        (np.arange(40), {"at": ["2015"]}, TypeError, "at='2015' cannot be compared"),
        (np.arange(40), {"at": [9], "gap": "1D"}, TypeError, "float in its units"),
        (np.arange(40), {"at": [9], "gap": -1.0}, ValueError, "negative"),
        (np.arange(40), {"at": [9], "gap": float("nan")}, ValueError, "negative"),
        (DAILY[:40], {"at": [9]}, TypeError, "at=9 cannot be compared.*dates as text, such as"),
        (DAILY[:40], {"at": ["soon"]}, TypeError, "at='soon' cannot be compared"),
        (DAILY[:40], {"at": ["2014-12-20"], "gap": 1.5}, TypeError, "a time such as"),
        (DAILY[:40], {"at": ["2014-12-20"], "gap": "one"}, ValueError, "not understood as a time"),
        (DAILY[:40], {"at": ["2014-12-20"], "gap": "-1D"}, ValueError, "negative"),
        (NOLEAP[:40], {"at": [np.datetime64("2015-01-01")]}, TypeError, "dates as text"),
        (
            DAILY[:40],
            {"at": ["2015-01-08"]},
            ValueError,
            r"part 2 of 2.*38 to 39 \(2015-01-08 00:00:00 to 2015-01-09.*Move the boundaries",
        ),
    ],
)
def test_what_cannot_be_split_is_refused(index, arguments, error, message):
    dataset = dataset_of(40, 4, 3, index, breaks="ignore")
    with pytest.raises(error, match=message):
        xtd.split(dataset, "time", **arguments)


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ([slice("2014", "2014"), slice("2014-12-31", "2015")], ValueError,
         r"slice\('2014', '2014'\) and slice\('2014-12-31', '2015'\) of ranges overlap along "
         "'time': both have its label 2014-12-31"),
        ([[slice("2014", "2014"), slice("2014-12-05", "2014-12-07")], slice("2015", None)],
         ValueError, "overlap"),
        ([slice("2014", "2014"), slice("2016", "2017")], ValueError,
         r"range slice\('2016', '2017'\) is empty: 'time' has no label in it.*2014-12-01.*2015-02"),
        ([slice("2014-12-20", "2014-12-10"), slice("2015", "2015")], ValueError, "is empty"),
        ([slice("2014", "2014"), []], ValueError, "part 2 of ranges=.* is empty"),
        ([], ValueError, "a slice of labels for each part"),
        (slice("2014", "2014"), ValueError, "a slice of labels for each part"),
        ([slice("2014", "2014", 2), slice("2015", "2015")], ValueError, "cannot have a step, 2"),
        (["2014", slice("2015", "2015")], TypeError, "is a slice of labels, such as .*not '2'"),
        ([slice(1, 2), slice(3, 4)], TypeError, r"slice\(1, 2\) cannot be compared with"),
        ([slice("2014", "2014"), slice("2015-02-27", None)], ValueError, "part 2 of 2.* of 4"),
    ],
)  # fmt: skip
def test_ranges_that_are_no_parts_are_refused(ranges, error, message):
    with pytest.raises(error, match=message):
        xtd.split(dataset_of(90, 4, 3, DAILY), "time", ranges=ranges)
    with pytest.raises(ValueError, match="give either at.*or fractions.*or ranges"):
        xtd.split(dataset_of(90, 4, 3, DAILY), "time", ranges=ranges, fractions=(0.5, 0.5))


@pytest.mark.parametrize("index", [DAILY, NOLEAP, DAILY[::-1], NOLEAP[::-1]])
def test_ranges_of_dates_are_whole_periods_as_those_of_sel(index):
    data = xr.DataArray(np.arange(90.0), dims="time", coords={"time": index}, name="a")
    dataset = xtd.MapDataset(data, {"time": 1})
    asked = [
        slice("2015-02", None),
        [slice("2014-12-05", "2014-12"), slice("2015-01-02", "2015-01")],
    ]
    found = xtd.split(dataset, "time", ranges=asked)
    ascending = data.sortby("time")
    for part, ranges in zip(found, asked, strict=True):
        several = ranges if isinstance(ranges, list) else [ranges]
        expected = {float(v) for each in several for v in ascending.sel(time=each)}
        assert {float(x) for (x,) in part} == expected
    # Of labels that descend, sel names the later one first.
    turned = [slice("2015-01", "2014-12")]
    if index.is_monotonic_increasing:
        with pytest.raises(ValueError, match="is empty"):
            xtd.split(dataset, "time", ranges=turned)
    else:
        (part,) = xtd.split(dataset, "time", ranges=turned)
        assert {float(x) for (x,) in part} == {
            float(v) for v in ascending.sel(time=slice("2014-12", "2015-01"))
        }


def test_ranges_of_one_part_that_touch_are_one_and_the_gap_is_between_parts_alone():
    dataset = dataset_of(90, 4, 3, DAILY)
    whole = slice("2014-12", "2015-01")
    one, two = (
        xtd.split(dataset, "time", ranges=[first, slice("2015-02", "2015-02")], gap="5D")
        for first in (whole, [slice("2014-12", "2014-12"), slice("2015-01", "2015-01")])
    )
    assert begins(one[0]) == begins(two[0]) == list(range(62 - 5 - 3))
    far = [slice("2014-12-01", "2014-12-10"), slice("2014-12-14", "2014-12-31")]
    first, second = xtd.split(dataset, "time", ranges=far, gap=3)
    assert (begins(first), begins(second)) == (list(range(7)), list(range(13, 28)))
    first, second = xtd.split(dataset, "time", ranges=far, gap=4)
    assert (begins(first), begins(second)) == (list(range(6)), list(range(13, 28)))


def test_unsorted_labels_do_with_fractions():
    dataset = dataset_of(40, 4, 3, np.random.default_rng(0).permutation(40))
    train, val = xtd.split(dataset, "time", fractions=(0.5, 0.5), gap=2)
    assert begins(train) == list(range(15))
    assert begins(val) == list(range(20, 37))
    with pytest.raises(ValueError, match="no dim 'tme'"):
        xtd.split(dataset, "tme", fractions=(0.5, 0.5))


def test_a_dim_of_several_levels_is_split_by_fractions_alone():
    ds = numbered((4, 5), ("y", "x")).stack(place=("y", "x"))
    dataset = xtd.IterableDataset(ds, {"place": 3}, inputs="a")
    assert len(xtd.split(dataset, "place", fractions=(0.5, 0.5))[0].windows) == 3
    with pytest.raises(ValueError, match="several levels"):
        xtd.split(dataset, "place", at=[(1, 2)])


# ---------------------------------------------------------------------------------------------
# kfold


@examples(13)
@given(series(4), st.integers(2, 5), st.integers(0, 4))
def test_folds_are_those_of_scikit_learn_less_the_gap(series, n_splits, gap):
    length, size, stride = series
    dataset = dataset_of(length, size, size - stride)
    assume(n_splits <= length)
    expected = []
    for train, test in sklearn.model_selection.KFold(n_splits).split(np.arange(length)):
        near = {step + distance for step in test for distance in range(-gap, gap + 1)}
        kept = [set(train) - near, set(test)]
        expected.append([inside(set(map(int, steps)), length, size, stride) for steps in kept])

    folds = part_or_none(lambda: list(xtd.kfold(dataset, "time", n_splits, gap=gap)))

    assert (folds is None) == (not all(all(parts) for parts in expected))
    assume(folds is not None)
    assert [[begins(part) for part in fold] for fold in folds] == expected
    assert_no_step_in_two(folds[n_splits // 2], size, apart=gap)


@pytest.mark.parametrize("gap", [0, 3])
def test_a_growing_past_is_that_of_scikit_learn(gap):
    """`split` at the boundaries of a fold is a fold of TimeSeriesSplit."""
    dataset = dataset_of(60, 4, 3, np.arange(60))
    folds = sklearn.model_selection.TimeSeriesSplit(5, gap=gap).split(np.arange(60))
    for train, test in folds:
        at = [int(test[0])] if test[-1] == 59 else [int(test[0]), int(test[-1]) + 1]
        parts = xtd.split(dataset, "time", at=at, gap=gap)
        assert begins(parts[0]) == inside(set(train.tolist()), 60, 4, 1)
        if len(at) == 1:
            assert begins(parts[1]) == inside(set(test.tolist()), 60, 4, 1)


@pytest.mark.parametrize("index", [DAILY, NOLEAP, DAILY[::-1]])
def test_gaps_in_time_are_left_out_on_both_sides_of_a_fold(index):
    dataset = dataset_of(90, index=index)
    folds = list(xtd.kfold(dataset, "time", 3, gap="7D"))
    assert [begins(train) for train, _ in folds] == [
        list(range(37, 90)),
        [*range(23), *range(67, 90)],
        list(range(53)),
    ]
    assert [begins(test) for _, test in folds] == [
        list(range(30)), list(range(30, 60)), list(range(60, 90))
    ]  # fmt: skip


@pytest.mark.parametrize("n_splits", [1, 41, 0])
def test_folds_must_be_two_or_more_and_have_a_step_each(n_splits):
    with pytest.raises(ValueError, match="n_splits must be 2 to 40"):
        xtd.kfold(dataset_of(40), "time", n_splits)


def test_folds_that_cannot_be_made_are_refused_at_once():
    with pytest.raises(TypeError, match="n_splits must be an integer"):
        xtd.kfold(dataset_of(40), "time", 2.5)
    with pytest.raises(ValueError, match="fold 1 of 5: part 2 of 2 along 'time' has no sample"):
        xtd.kfold(dataset_of(40, 9, 8), "time", 5)
    with pytest.raises(ValueError, match="negative"):
        xtd.kfold(dataset_of(40), "time", 5, gap=-3)


# ---------------------------------------------------------------------------------------------
# random_split


@examples(13)
@given(series(8), st.integers(1, 12), st.integers(0, 5), st.sampled_from([0, 0, 2]))
def test_blocks_are_dealt_out_whole(series, block, seed, gap):
    length, size, stride = series
    count = -(-length // block)
    shares = (0.5, 0.3, 0.2)
    dataset = dataset_of(length, size, size - stride)
    make = lambda: xtd.random_split(  # noqa: E731
        dataset, "time", shares, block=block, seed=seed, gap=gap
    )
    parts = part_or_none(make)
    assume(parts is not None)
    # Which part each block belongs to can be told from any of its windows.
    steps = [{s for b in begins(part) for s in range(b, b + size)} for part in parts]
    owner = {}
    for number, some in enumerate(steps):
        for step in some:
            assert owner.setdefault(step // block, number) == number
    blocks = [list(owner.values()).count(number) for number in range(3)]
    assert blocks[0] <= np.floor(0.5 * count + 0.5)
    assert sum(blocks[:2]) <= np.floor(0.8 * count + 0.5)
    assert [begins(part) for part in make()] == [begins(part) for part in parts]
    # What is missing crosses into another part's block, or lies in a gap before it.
    for number, part in enumerate(parts):
        allowed = {
            step
            for step in range(length)
            if owner.get(step // block) == number
            and not any(
                owner.get((step + ahead) // block, number) != number for ahead in range(1, gap + 1)
            )
        }
        if len(owner) == count:
            assert begins(part) == inside(allowed, length, size, stride)
    if len(owner) == count:
        assert len(steps[0] & steps[1] | steps[1] & steps[2] | steps[0] & steps[2]) == 0


def test_blocks_are_whole_chunks_and_parts_read_no_chunk_of_another():
    ds = numbered((2000, 3), ("time", "x")).chunk(time=25)
    dataset = xtd.IterableDataset(ds, {"time": 4, "x": -1}, {"time": 3}, shuffle=True, seed=1)
    parts = xtd.random_split(dataset, "time", (0.7, 0.3), seed=3)
    chunks = []
    for part in parts:
        read = chunk_reads(part.plan, 0, part.plan.intervals(0, 0, 1))
        chunks.append({step // 25 for begin in begins(part) for step in (begin, begin + 3)})
        assert read["a"] <= 1.3 * len(chunks[-1])
    assert len(chunks[0] | chunks[1]) == 80
    assert not chunks[0] & chunks[1]
    assert begins(parts[0]) != begins(xtd.random_split(dataset, "time", (0.7, 0.3), seed=4)[0])


def test_what_cannot_be_dealt_out_is_refused():
    dataset = dataset_of(40, 4, 3)
    with pytest.raises(ValueError, match="has no sample"):
        xtd.random_split(dataset, "time", (0.9, 0.1))  # two blocks
    with pytest.raises(ValueError, match="block must be 1 step or more"):
        xtd.random_split(dataset, "time", (0.9, 0.1), block=0)
    with pytest.raises(TypeError, match="block must be an integer"):
        xtd.random_split(dataset, "time", (0.9, 0.1), block="1")
    with pytest.raises(ValueError, match="seed"):
        xtd.random_split(dataset, "time", (0.9, 0.1), block=4, seed=-1)


# ---------------------------------------------------------------------------------------------
# By targets, and along coordinates; test_split_leaks.py compares them with plain Python


def forecasting(steps, past, ahead, index=None, kind=xtd.MapDataset, **options):
    """Windows of steps, of which the last ones are targets."""
    ds = numbered(steps)
    if index is not None:
        ds = ds.assign_coords(time=index)
    return kind(
        ds, {"time": past + ahead}, {"time": past + ahead - 1},
        inputs=xtd.Select("a", time=slice(0, past)),
        targets=xtd.Select("a", time=slice(past, None)), **options,
    )  # fmt: skip


def test_by_targets_the_first_test_window_looks_back_into_the_training_data():
    train, test = xtd.split(
        forecasting(90, 8, 2, DAILY), "time", at="2015-01-01", gap="14D", by="targets"
    )
    targets = [{float(v) for _, y in part for v in y} for part in (train, test)]
    assert targets == [set(range(8, 31 - 14)), set(range(31, 90))]
    assert test[0][0].tolist() == list(range(23, 31))
    assert max(float(x.max()) for x, _ in train) < 31 - 14


@pytest.mark.parametrize("function", [xtd.split, xtd.random_split, xtd.kfold])
def test_what_a_split_goes_by_is_windows_or_targets(function):
    how = (2,) if function is xtd.kfold else ()
    how = {"fractions": (0.5, 0.5)} if not how else {"n_splits": 2}
    with pytest.raises(ValueError, match="by must be 'windows' or 'targets', not 'inputs'"):
        function(forecasting(90, 8, 2), "time", **how, by="inputs")
    with pytest.raises(ValueError, match=r"part 'y', and the parts are \['x'\]: give targets="):
        function(dataset_of(90, 4, 3), "time", **how, by="targets")


def test_parts_by_targets_stay_such_with_other_windows_and_targets():
    _, test = xtd.split(forecasting(90, 8, 2, DAILY), "time", at="2015-01-01", by="targets")
    other = test.replace(
        input_dims={"time": 5}, input_overlap={"time": 4},
        inputs=xtd.Select("a", time=slice(0, 4)), targets=xtd.Select("a", time=4),
    )  # fmt: skip
    assert other[0][1] == 31 and len(other) == 59
    with pytest.raises(ValueError, match="part 'y'"):
        test.replace(targets=None)


def test_the_error_says_that_targets_would_do_if_they_do():
    samples = forecasting(40, 8, 2)
    with pytest.raises(
        ValueError,
        match="part 2 of 2 along 'time' has no sample: its steps, 32 to 39, have no room for a "
        "window of 10. by='targets' would leave 7 samples, whose inputs reach back.*; or move",
    ):
        xtd.split(samples, "time", fractions=(0.8, 0.2))
    where = np.zeros(31, dtype=bool)
    where[-2:] = where[:9] = True
    with pytest.raises(ValueError, match="'targets' would leave 2 samples"):
        xtd.split(samples.replace(where=where), "time", fractions=(0.8, 0.2))
    with pytest.raises(ValueError, match="nothing is left of it, where the data goes from.* Move"):
        xtd.split(samples, "time", fractions=(0.99, 0.01))
    with pytest.raises(ValueError, match="no room for the 2 steps of a window from its first"):
        xtd.split(samples, "time", fractions=(0.98, 0.02), by="targets")
    with pytest.raises(ValueError, match="fold 1 of 20: part 2 of 2.*window of 10. Move"):
        xtd.kfold(samples, "time", 20)  # of the first fold, all targets would look back too far
    with pytest.raises(ValueError, match="fold 4 of 4: part 2 of 2.*would leave 8 samples"):
        xtd.kfold(forecasting(39, 8, 2), "time", 4)


def test_beyond_counts_no_steps_that_are_inputs():
    train, test = xtd.split(forecasting(90, 8, 2), "time", fractions=(0.5, 0.5), by="targets")
    assert [xtd.IterableDataset(part).explain().beyond for part in (train, test)] == [
        {"time": 0}, {"time": 0}
    ]  # fmt: skip


def archive(**options):
    """Forecasts every 6 hours for two days, with the time that they are for."""
    ds = forecast(time=40, y=8, x=2).rename(time="init", y="lead")
    ds = ds.assign_coords(lead=np.arange(8) * np.timedelta64(6, "h"))
    ds = ds.assign_coords(valid_time=ds["init"] + ds["lead"])
    how = {"inputs": "a", "targets": xtd.Select("a", lead=slice(2, 4))} | options
    return ds, xtd.MapDataset(ds, {"lead": 4, "x": -1}, {"lead": 3}, **how)


def test_no_valid_time_is_in_two_parts():
    ds, samples = archive()
    parts = xtd.split(samples, "valid_time", at="2000-01-06", gap="1D")
    times = []
    for part in parts:
        numbers = part.fetch(range(len(part))).index.tolist()
        labels = [part.windows.coords(n)["valid_time"].values.ravel() for n in numbers]
        times.append(set(np.concatenate(labels).tolist()))
    assert not times[0] & times[1]
    assert min(times[1]) - max(times[0]) >= 86_400 * 10**9
    assert ds["valid_time"].values.min() == np.datetime64(min(times[0]), "ns")


def test_a_part_of_two_dims_streams_verifies_and_resumes(capsys):
    _, samples = archive()
    train, _ = xtd.split(samples, "valid_time", at="2000-01-06")
    stream = xtd.IterableDataset(train, batch_size=7, shuffle=True, seed=3)
    numbers = train.fetch(range(len(train))).index.tolist()
    batches = iter(stream)
    done = samples_of([next(batches) for _ in range(3)])
    state = stream.state_dict()
    again = xtd.IterableDataset(train, batch_size=7, shuffle=True, seed=3)
    again.load_state_dict(state)
    assert sorted(done + samples_of(again)) == numbers
    counts = xtd.verify(stream, 2, 2)
    assert counts.samples == len(train) and counts.ok
    assert "left out by the split" in stream._repr_html_()
    _, other = xtd.split(samples, "valid_time", at="2000-01-06")
    with pytest.raises(ValueError, match="What differs"):
        xtd.IterableDataset(other, batch_size=7, shuffle=True, seed=3).load_state_dict(state)


def test_normalization_is_of_the_labels_of_a_part_alone():
    ds, samples = archive(targets=None)
    train, test = xtd.split(samples, "valid_time", at="2000-01-06")
    normalize = xtd.Normalize.fit(train)
    batch = train.fetch(range(len(train)))
    seen = ds["a"].isel(x=slice(None)).where(False).load()
    for number in batch.index.tolist():
        cut = train.windows[number]
        seen[cut] = ds["a"][cut]
    np.testing.assert_allclose(normalize.mean["a"], float(seen.mean()), rtol=1e-6)
    assert len(test.replace(preprocess=normalize)) == len(test)


def test_where_and_weights_hold_in_parts_of_two_dims():
    _, samples = archive()
    wanted = np.random.default_rng(0).random(len(samples)) < 0.5
    train, test = xtd.split(samples.replace(where=wanted), "valid_time", at="2000-01-06")
    plain = xtd.split(samples, "valid_time", at="2000-01-06")
    for part, whole in zip((train, test), plain, strict=True):
        every = whole.fetch(range(len(whole))).index.tolist()
        kept = part.fetch(range(len(part))).index.tolist()
        assert set(kept) < set(every)
        assert len(part.replace(where=None)) == len(whole)
        again = whole.replace(where=np.isin(np.arange(len(whole.windows)), kept))
        assert again.fetch(range(len(again))).index.tolist() == kept
        weights = np.arange(1.0, len(part.windows) + 1)
        weighted = xtd.IterableDataset(part, shuffle=True, weights=weights)
        assert set(samples_of(weighted)) <= set(kept)
    assert "by where" in repr(
        xtd.split(samples.replace(where=wanted), "valid_time", at="2000-01-06")
    )


def test_parts_along_two_coordinates_of_two_dims():
    ds, _ = archive()
    ds = ds.assign_coords(day=ds["valid_time"].dt.dayofyear)
    samples = xtd.MapDataset(ds, {"lead": 2}, {"lead": 1}, inputs="a")
    train, _ = xtd.split(samples, "valid_time", at="2000-01-06")
    odd, even = xtd.split(train, "day", ranges=[[slice(1, 1), slice(3, 3)], slice(2, 2)])
    for part, days in ((odd, {1, 3}), (even, {2})):
        numbers = part.fetch(range(len(part))).index.tolist()
        for number in numbers:
            assert set(part.windows.coords(number)["day"].values.ravel()) <= days
        assert len(part.replace(dtype="f8")) == len(part)


@pytest.mark.parametrize("by", ["windows", "targets"])
@pytest.mark.parametrize("order", list(itertools.permutations(["valid_time", "init", "season"])))
def test_parts_are_cut_again_along_other_dims_and_coordinates(by, order):
    ds, _ = archive()
    season = np.repeat([0, 1, 2, 3], 10)[np.random.default_rng(0).permutation(40)]
    ds = ds.assign_coords(season=("init", season))
    samples = xtd.MapDataset(
        ds, {"lead": 3, "x": -1}, {"lead": 2}, inputs="a", targets=xtd.Select("a", lead=2)
    )
    last = {"valid_time": "2000-01-06", "init": "2000-01-06T12", "season": 1}
    part = samples
    for name in order:
        (part,) = xtd.split(part, name, ranges=[slice(None, last[name])], by=by)
    numbers = part.fetch(range(len(part))).index.tolist()
    found = {(cut["init"], cut["lead"].start) for cut in map(part.windows.__getitem__, numbers)}
    days = [ds[name].values for name in ("init", "valid_time")]
    expected = {
        (i, k)
        for i in range(40)
        for k in range(6)
        if days[0][i] <= np.datetime64("2000-01-06T12")
        and days[1][i, k + 2] < np.datetime64("2000-01-07")
        and season[i] < 2
    }
    assert found == expected
    assert len(part.replace(dtype="f8")) == len(part) == len(xtd.IterableDataset(part))
    assert part.replace(dtype="f8").windows[numbers[-1]] == part.windows[numbers[-1]]


def test_what_parts_along_coordinates_leave_out_are_steps_of_their_own():
    year = np.r_[[2000] * 7, [2001] * 9, [2000] * 5, [2002] * 6]
    ds = numbered(27).assign_coords(year=("time", year))
    samples = xtd.MapDataset(ds, {"time": 4}, inputs="a")
    first, second = xtd.split(samples, "year", at=2001)
    explained = [xtd.IterableDataset(part).explain() for part in (first, second)]
    assert [begins(part) for part in (first, second)] == [[0, 16], [8, 12]]  # and not at 4, 20, 24
    covered = [{s for b in begins(part) for s in range(b, b + 4)} for part in (first, second)]
    own = [set(np.flatnonzero(year == 2000)), set(np.flatnonzero(year > 2000))]
    assert [each.beyond["time"] for each in explained] == [
        len(steps - some) for steps, some in zip(own, covered, strict=True)
    ]
    _, forecasts = archive()
    train, _ = xtd.split(forecasts, "valid_time", at="2000-01-06")
    explained = xtd.IterableDataset(train).explain()
    assert explained.beyond == {"lead": 0, "x": 0}
    assert explained.left_out["split"] == explained.windows - len(train) > 0


def test_labels_without_an_order_are_refused():
    ds = numbered(4).assign_coords(kind=("time", np.array([1j, 2, 3, 4], dtype=object)))
    with pytest.raises(TypeError, match="labels of the coordinate 'kind' cannot be put in order"):
        xtd.split(xtd.MapDataset(ds, {"time": 1}), "kind", fractions=(0.5, 0.5))


@pytest.mark.parametrize("by", ["windows", "targets"])
def test_random_blocks_of_a_coordinate_are_single_labels_where_windows_have_one(by):
    storm = np.repeat(np.random.default_rng(1).permutation(20), 12)
    ds = numbered(240).assign_coords(storm=("time", storm))
    samples = xtd.MapDataset(
        ds, {"time": 4}, {"time": 3}, inputs="a", targets=xtd.Select("a", time=3)
    )
    parts = xtd.random_split(samples, "storm", (0.7, 0.3), by=by)
    storms = []
    for part in parts:
        labels = [part.windows.coords(n)["storm"].values for n in range(len(part.windows))]
        storms.append({int(s) for each in labels for s in (each if by == "windows" else each[3:])})
    assert [len(some) for some in storms] == [14, 6]
    assert not storms[0] & storms[1]
    assert len(parts[0].windows) >= 14 * 9
    hours = numbered(240).assign_coords(hour=("time", np.arange(240)))
    parts = xtd.random_split(xtd.MapDataset(hours, {"time": 4}, {"time": 3}), "hour", (0.5, 0.5))
    blocks = [{begin // 32 for begin in begins(part)} for part in parts]  # 8 windows of 4 hours
    assert sorted([*blocks[0], *blocks[1]]) == list(range(8))


def test_coordinates_that_cannot_be_split_are_told():
    ds, samples = archive()
    with pytest.raises(ValueError, match=r"no dim 'valid' in the samples.*'valid_time'\]"):
        xtd.split(samples, "valid", at="2000-01-06")
    train, _ = xtd.split(samples, "valid_time", at="2000-01-06")
    with pytest.raises(ValueError, match="no dim 'valid_time'"):
        train.replace(ds=ds.drop_vars("valid_time"))
    with pytest.raises(TypeError, match="at=3 cannot be compared with the coordinate 'valid_time'"):
        xtd.split(samples, "valid_time", at=3)
    with pytest.raises(ValueError, match="n_splits must be 2 to 47, the labels of 'valid_time'"):
        xtd.kfold(samples, "valid_time", 48)
    with pytest.raises(ValueError, match="no window has all its labels among those it has, 2000"):
        xtd.split(samples, "valid_time", fractions=(0.98, 0.02))
    with pytest.raises(TypeError, match="give 2 for labels"):
        xtd.split(samples, "valid_time", at="2000-01-06", gap="2")


# ---------------------------------------------------------------------------------------------
# Parts are datasets like others


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    ds = forecast(time=120, y=6, x=5)
    path = tmp_path_factory.mktemp("splits") / "data.zarr"
    encoding = {"a": {"chunks": (16, 6, 5)}, "b": {"chunks": (10, 3, 5)}}
    ds.to_zarr(path, consolidated=False, encoding=encoding)
    return ds, path


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["9 kB", "30 kB", "1 GiB"])
@pytest.mark.parametrize("functions", ["none", "preprocess", "transform"])
def test_samples_of_a_fold_are_slices_of_the_data_with_their_labels(
    store, shuffle, memory, functions
):
    """The training part of a middle fold has a hole."""
    ds, path = store
    double = {functions: lambda block: block * 2} if functions != "none" else {}
    dataset = xtd.IterableDataset(
        xtd.open_zarr(path, consolidated=False), {"time": 8, "y": -1, "x": -1}, {"time": 7},
        inputs=["a", "b"], batch_size=7, shuffle=shuffle, memory=memory, **double,
    )  # fmt: skip
    oracle = Oracle(ds)
    _, (train, val), _ = xtd.kfold(dataset, "time", 3, gap="12h")
    assert begins(train) == [*range(31), *range(82, 113)]
    assert begins(val) == list(range(40, 73))
    for part in (train, val):
        batches = list(part)
        assert_once(samples_of(batches), len(part.windows))
        for batch in batches:
            labeled = batch.to_xarray()
            for row, number in enumerate(batch.index.tolist()):
                window = part.windows[number]
                expected = oracle.part(["a", "b"], window, ("time", "y", "x"))
                expected = expected * (2 if double else 1)
                np.testing.assert_array_equal(batch.x[row].numpy(), expected)
                times = labeled["time"].values[row]
                np.testing.assert_array_equal(times, ds["time"].values[window["time"]])


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_hole_is_neither_read_nor_held(store, shuffle):
    """But for what lies in the same chunks as the windows beside it."""
    _, path = store
    dataset = xtd.IterableDataset(
        xtd.open_zarr(path, consolidated=False), {"time": 4, "y": -1, "x": -1}, {"time": 3},
        inputs="b", shuffle=shuffle, memory="6 kB",
    )  # fmt: skip
    _, (train, _), _ = xtd.kfold(dataset, "time", 3)
    plan = train.plan
    intervals = plan.intervals(0, 0, 1)
    loads = [load for stage in plan.stages(0, intervals) for load in stage.loads]
    assert max(plan.nbytes(load) for load in loads) <= 6000
    for load in loads:
        start, stop = load.region[0]
        assert stop <= 40 or start >= 80
    if not shuffle:
        assert chunk_reads(plan, 0, intervals) == {"b": 2 * 8}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (3, 2)])
def test_verify_counts_the_samples_of_a_part(shuffle, world_size, workers, capsys):
    dataset = dataset_of(200, 8, 7, shuffle=shuffle, batch_size=5, uneven="keep")
    _, (train, val), *_ = xtd.kfold(dataset, "time", 5)
    for part, samples in ((train, 33 + 113), (val, 33)):
        counts = xtd.verify(part, world_size, workers)
        assert (counts.samples, counts.repeated, counts.missing) == (samples, 0, 0)


@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_have_epochs_and_states_of_their_own(shuffle):
    dataset = dataset_of(200, 8, 7, shuffle=shuffle, batch_size=5, uneven="keep")
    list(dataset)
    train, val = xtd.split(dataset, "time", fractions=(0.7, 0.3))
    assert (dataset.epoch, train.epoch, val.epoch) == (1, 0, 0)
    batches = iter(train)
    done = samples_of([next(batches) for _ in range(6)])
    state = train.state_dict()
    list(val)
    again, other = xtd.split(dataset, "time", fractions=(0.7, 0.3))
    again.load_state_dict(state)
    assert_once(done + samples_of(again), len(train.windows))
    with pytest.raises(ValueError, match="What differs.*windows"):
        other.load_state_dict(state)
    fold, _ = next(xtd.kfold(dataset, "time", 3))
    with pytest.raises(ValueError, match="What differs.*windows"):
        fold.load_state_dict(state)
    if shuffle:
        assert samples_of(again) != samples_of(again)


def test_parts_are_cut_again():
    """Validation data out of a training part with a hole, and folds of a part."""
    dataset = dataset_of(90, 2, 1, index=np.arange(90))
    _, (outer, _), _ = xtd.kfold(dataset, "time", 3)
    assert begins(outer) == [*range(29), *range(60, 89)]
    for inner, val in xtd.kfold(outer, "time", 2):
        assert sorted(begins(inner) + begins(val)) == begins(outer)
    train, val = xtd.split(outer, "time", fractions=(0.75, 0.25), gap=5)
    assert begins(train) == [*range(29), *range(60, 69)]
    assert begins(val) == list(range(75, 89))
    early, late = xtd.split(outer, "time", at=[45], gap=5)  # the hole is a gap already
    assert begins(early) == list(range(29))
    assert begins(late) == list(range(60, 89))
    assert samples_of(late) == list(range(29))


def test_a_part_keeps_the_arguments():
    dataset = xtd.IterableDataset(
        forecast(time=120), {"time": 8, "y": -1, "x": -1}, inputs=["a"], targets="b", batch_size=3,
        shuffle=True, seed=4, drop_last=True, memory="1 MiB", rank=0, world_size=2, cache=True,
    )  # fmt: skip
    train, _ = xtd.split(dataset, "time", fractions=(0.8, 0.2))
    assert (train.batch_size, train.shuffle, train.plan.seed) == (3, True, 4)
    assert (train.plan.memory, train.rank, train.world_size) == (2**20, 0, 2)
    assert len(train) == 2  # 12 samples, 6 for each rank
    for _ in range(2):
        (x, y), _ = list(train)
        assert (x.shape, y.shape) == ((3, 1, 8, 4, 5), (3, 8, 4, 5))
    assert train.stats().blocks_cached > 0
    with pytest.raises(ValueError, match="1 samples cannot be shared by 2 ranks"):
        xtd.split(dataset, "time", fractions=(0.9, 0.1))
