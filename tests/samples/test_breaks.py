"""Windows and the labels of their dims: none crosses a place where labels jump."""

import itertools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from helpers import CountingStore
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

CALENDARS = ("datetime64", "standard", "360_day", "noleap", "all_leap", "julian")
# Label of each count of steps, by the kind of the label.
LABELS = {
    "day": lambda calendar: xr.date_range(
        "1999-11-20", periods=400, calendar=calendar, use_cftime=True
    ),
    "month": lambda calendar: xr.date_range(
        "1850-01-01", periods=400, freq="MS", calendar=calendar, use_cftime=True
    ),
    "year": lambda calendar: xr.date_range(
        "1850-01-01", periods=400, freq="YS", calendar=calendar, use_cftime=True
    ),
}


def labels_of(kind, calendar):
    """400 labels without a break."""
    if kind in LABELS:
        if calendar == "datetime64":
            freq = {"day": "D", "month": "MS", "year": "YS"}[kind]
            start = "1850-01-01" if kind != "day" else "1999-11-20"
            return xr.date_range(start, periods=400, freq=freq, unit="s").values
        return LABELS[kind](calendar).values
    return {
        "number": np.arange(400) * 2.5 - 7,
        "unsigned": np.arange(400, dtype="u2") * 3,
        "hours": np.arange(400) * np.timedelta64(6, "h"),
    }[kind]


def begins_between(breaks, length, size, stride):
    """Where windows begin, by xbatcher's rule on each stretch between breaks."""
    return [
        start + begin
        for start, stop in itertools.pairwise([0, *breaks, length])
        for begin in range(0, stop - start - size + 1, stride)
    ]


@st.composite
def series(draw):
    """Labels with some breaks, and where these are."""
    kind = draw(st.sampled_from(["day", "month", "year", "number", "unsigned", "hours"]))
    labels = labels_of(kind, draw(st.sampled_from(CALENDARS)))
    stretches, at = [], 0
    while at < 360 and len(stretches) < 5:
        at += draw(st.integers(0, 1)) * draw(st.integers(2, 30)) if stretches else 0
        stop = min(400, at + draw(st.integers(12, 70)))
        stretches.append(labels[at:stop])
        at = stop
    if kind != "unsigned" and draw(st.booleans()):  # backwards and repeated
        stretches.append(labels[draw(st.integers(0, 50)) :][:40])
    found = np.concatenate(stretches)
    if draw(st.booleans()) and kind != "unsigned":
        found = found[::-1]
    # What a break is, said again in plain Python.
    steps = [
        step.total_seconds()
        if hasattr(step, "total_seconds")
        else step / np.timedelta64(1, "s")
        if isinstance(step, np.timedelta64)
        else float(step)
        for step in (
            later.item() - earlier.item() if kind == "unsigned" else later - earlier
            for earlier, later in itertools.pairwise(found)
        )
    ]
    median = float(np.median(steps))
    breaks = [place + 1 for place, step in enumerate(steps) if abs(step - median) > abs(median) / 2]
    assume(len(breaks) <= 0.1 * len(steps))
    return found, breaks


@given(series(), st.data())
@examples(13)
def test_windows_are_laid_anew_between_breaks_and_come_once(labels_and_breaks, data):
    """In every order, on all ranks and workers, after a resume, by number, masked and split."""
    labels, breaks = labels_and_breaks
    length = len(labels)
    size = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, size + 2))
    expected = begins_between(breaks if size > 1 else [], length, size, stride)
    assume(expected)
    chunk = data.draw(st.integers(1, 50))
    ds = xr.Dataset({"v": ("time", np.arange(length, dtype="f4"))}, coords={"time": labels}).chunk(
        time=chunk
    )
    arguments = {"input_dims": {"time": size}, "input_overlap": {"time": size - stride}}
    samples = xtd.MapDataset(ds, **arguments, inputs="v", breaks="split")
    assert [samples.windows[place]["time"].start for place in range(len(samples))] == expected
    place = data.draw(st.integers(0, len(expected) - 1))
    rows = np.arange(size)
    np.testing.assert_array_equal(samples[place][0], expected[place] + rows)

    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(expected), max_size=len(expected)))
    )
    if not mask.any():
        mask[:] = True
    kept = samples.replace(where=mask)
    wanted = [begin for begin, keep in zip(expected, mask, strict=True) if keep]
    world, memory = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([200, "1 MiB"]))
    shuffle = data.draw(st.booleans())
    how = {"batch_size": 3, "shuffle": shuffle, "memory": memory, "uneven": "keep"}
    before = data.draw(st.integers(0, max(0, len(wanted) // world // 3 - 1)))
    found = []
    for rank in range(world):
        dataset = xtd.IterableDataset(kept, rank=rank, world_size=world, **how)
        batches = iter(dataset)
        for _ in range(before):
            found += _begins(next(batches), rows)
        state = dataset.state_dict()
        batches.close()
        resumed = xtd.IterableDataset(kept, rank=rank, world_size=world, **how)
        resumed.load_state_dict(state)
        for batch in resumed:
            found += _begins(batch, rows)
    assert sorted(found) == wanted

    if len(set(labels.tolist())) == length:
        share = data.draw(st.integers(1, 9)) / 10
        parts = _split(samples, share)
        if parts is not None:
            early, late = map(_starts, parts)
            assert {*early, *late} <= set(expected)
            assert max(early) + size <= min(late)


def _begins(batch, rows):
    """Where the windows of a batch begin, which hold their steps and nothing else."""
    begins = batch.x[:, 0].numpy()
    np.testing.assert_array_equal(batch.x.numpy(), begins[:, None] + rows)
    return begins.tolist()


def _starts(dataset):
    return [dataset.windows[place]["time"].start for place in range(len(dataset))]


def _split(samples, share):
    try:
        return xtd.split(samples, "time", fractions=(share, 1 - share))
    except ValueError:  # a part has no sample
        return None


DAILY = xr.date_range("2000-01-01", periods=120)


def daily(index, **arguments):
    """Windows of a week, a day apart, on a series with these days."""
    data = xr.DataArray(np.arange(len(index)), dims="time", coords={"time": index}, name="v")
    kind = arguments.pop("kind", xtd.MapDataset)
    return kind(data, input_dims={"time": 7}, input_overlap={"time": 6}, **arguments)


HOLE = DAILY.delete(slice(50, 60))
UNSORTED = DAILY[60:].append(DAILY[:60])
TWICE = DAILY[:50].append(DAILY[49:])


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
def test_breaks_are_warned_of_once_with_labels_and_counts(kind):
    message = (
        "'time' are mostly 1 day apart, but there is 1 break, between 2000-02-19 and 2000-03-01.*"
        "6 windows along 'time' are left out, 98 remain"
    )
    with pytest.warns(UserWarning, match=message) as told:
        dataset = daily(HOLE, kind=kind)
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = dataset.replace(inputs=["v"])
        xtd.split(made, "time", fractions=(0.5, 0.5))
        xtd.DataLoader(made, batch_size=4) if kind is xtd.MapDataset else xtd.DataLoader(made)
        daily(HOLE, kind=kind, breaks="split")
        daily(HOLE, kind=kind, breaks={"time": "split"})
        assert len(daily(HOLE, kind=kind, breaks="ignore").windows) == 104
    with pytest.warns(UserWarning, match="1 break, between 2000-02-09 and 2000-02-20"):
        made.replace(ds=daily_data(DAILY.delete(slice(40, 50))))


def daily_data(index):
    return xr.DataArray(np.arange(len(index)), dims="time", coords={"time": index}, name="v")


def test_raise_refuses_breaks_and_labels_that_may_have_some():
    with pytest.raises(ValueError, match="between 2000-02-19 and 2000-03-01, and breaks='raise'"):
        daily(HOLE, breaks="raise")
    assert len(daily(DAILY, breaks="raise")) == 114
    with pytest.raises(ValueError, match="only 8.%.* and breaks='raise'"):
        daily(DAILY[DAILY.day_of_week < 5], breaks="raise")


@pytest.mark.parametrize(
    ("index", "remedy"),
    [(UNSORTED, r"ds.sortby\('time'\)"), (TWICE, r"ds.drop_duplicates\('time'\)")],
)
def test_labels_in_no_order_and_repeated_ones_break_and_the_remedy_is_named(index, remedy):
    with pytest.warns(UserWarning, match=remedy):
        dataset = daily(index)
    for place in range(len(dataset)):
        days = dataset.windows.coords(place)["time"].values
        np.testing.assert_array_equal(np.diff(days), np.timedelta64(1, "D"))
    with pytest.raises(ValueError, match=remedy):
        daily(index, breaks="raise")


def test_labels_too_irregular_to_tell_are_warned_of():
    workdays = DAILY[DAILY.day_of_week < 5]
    with pytest.warns(UserWarning, match="only 8.% of the steps .* 1 day: too few to tell breaks"):
        dataset = daily(workdays)
    assert len(dataset) == len(workdays) - 6
    rng = np.random.default_rng(0)
    irregular = np.cumsum(rng.exponential(size=60))
    assert len(daily(irregular)) == 54  # and no warning, which would be an error here


def test_dims_that_cannot_jump_or_have_no_labels_to_tell_are_not_looked_at():
    """Taken whole, step by step, not windowed, or labeled by names."""
    names = np.array([f"station {number}" for number in range(20)])
    jumps = np.r_[0:10, 50:60]
    ds = xr.Dataset(
        {"v": (("station", "level", "time"), np.zeros((20, 20, 20)))},
        coords={"station": names, "level": jumps, "time": jumps},
    )
    for sizes in (
        {"station": 3, "level": -1, "time": 1},
        {"station": 3},
        {"level": 20},
    ):
        dataset = xtd.MapDataset(ds, input_dims=sizes)
        assert dataset.windows._labels.windows.same_as(
            xtd.MapDataset(ds, input_dims=sizes, breaks="ignore").windows._labels.windows
        )
    with pytest.warns(UserWarning, match="'time' are mostly 1 apart"):
        xtd.MapDataset(ds, input_dims={"time": 3})
    unlabeled = ds.drop_vars(["level", "time"])
    assert len(xtd.MapDataset(unlabeled, input_dims={"time": 3})) == 6 * 400


def test_labels_are_read_once_and_only_of_windowed_dims():
    ds = xr.Dataset(
        {"v": (("y", "time"), np.zeros((30, 40)))},
        coords={"time": np.arange(40.0), "y": np.arange(30.0)},
    )
    store = CountingStore(zarr.storage.MemoryStore())
    ds.to_zarr(store, consolidated=False)
    opened = xr.open_zarr(store, consolidated=False, chunks=None, create_default_indexes=False)
    store.counts.clear()
    xtd.MapDataset(opened, input_dims={"time": 5})
    assert {key: count for key, count in store.counts.items() if count} == {"time/c/0": 1}


@pytest.mark.parametrize("name", ["lon", "longitude", "x"])
def test_longitudes_go_around_the_circle(name):
    lon = np.r_[180:360, 0:180, 190:200] * 1.0  # rolled, then a jump of ten degrees
    attrs = {"units": "degrees_east"} if name == "x" else {}
    data = xr.DataArray(np.zeros(len(lon)), dims=name, coords={name: (name, lon, attrs)}, name="v")
    with pytest.warns(UserWarning, match="1 break, between 179.* and 190"):
        dataset = xtd.MapDataset(data, input_dims={name: 10}, input_overlap={name: 9})
    assert len(dataset) == 351 + 1
    data = data.drop_attrs()
    if name == "x":
        with pytest.warns(UserWarning, match="2 breaks, the first between 359.* and 0"):
            xtd.MapDataset(data, input_dims={name: 10})


def test_several_dims_break_each_by_itself():
    ds = xr.Dataset(
        {"v": (("y", "x"), np.arange(1600).reshape(40, 40))},
        coords={"y": np.r_[40:20:-1, 10:-10:-1] * 0.25, "x": np.r_[0:30, 60:70]},
    )
    sizes, overlap = {"y": 5, "x": 4}, {"y": 2}
    with pytest.warns(UserWarning) as told:
        dataset = xtd.MapDataset(ds, input_dims=sizes, input_overlap=overlap)
    assert len(told) == 2
    ys, xs = begins_between([20], 40, 5, 3), begins_between([30], 40, 4, 4)
    found = [
        (window["y"].start, window["x"].start)
        for window in (dataset.windows[place] for place in range(len(dataset)))
    ]
    assert found == list(itertools.product(ys, xs))
    one = xtd.MapDataset(
        ds, input_dims=sizes, input_overlap=overlap, breaks={"y": "ignore", "x": "split"}
    )
    assert len(one) == len(begins_between([], 40, 5, 3)) * len(xs)


@pytest.mark.parametrize(
    "labels",
    [
        HOLE.tz_localize("Europe/Paris"),
        HOLE.tz_localize("UTC"),
        pd.period_range("2000-01", periods=120, freq="M").delete(slice(50, 60)),
        HOLE.values.astype(">M8[s]"),
        np.array([day.date() for day in HOLE], dtype=object),
    ],
    ids=["zone", "UTC", "period", "big-endian", "date"],
)
def test_labels_of_every_kind_that_can_be_subtracted_are_told(labels):
    dataset = daily(labels, breaks="split")
    assert _starts(dataset) == begins_between([50], 110, 7, 1)
    with pytest.raises(ValueError, match="raise"):
        daily(labels, breaks="raise")


def test_missing_labels_break_on_both_sides():
    days = DAILY.values.copy()
    days[[30, 80]] = np.datetime64("NaT", "ns")
    dataset = daily(days, breaks="split")
    assert _starts(dataset) == begins_between([30, 31, 80, 81], 120, 7, 1)


def test_no_room_between_breaks_tells_the_longest_stretch():
    weeks = DAILY[np.arange(120) % 12 > 0]
    with pytest.raises(ValueError, match="longest stretch without a break has 11 steps.*has 12"):
        xtd.MapDataset(daily_data(weeks), input_dims={"time": 12})


@pytest.mark.parametrize("rules", ["no", {"time": "no"}, {"tme": "split"}, 3, ["split"]])
def test_rules_that_are_none_are_refused(rules):
    with pytest.raises(ValueError, match="breaks "):
        daily(HOLE, breaks=rules)


def test_generators_count_by_position():
    import xbatcher

    generator = xbatcher.BatchGenerator(daily_data(HOLE), input_dims={"time": 7})
    dataset = xtd.MapDataset(generator)
    assert len(dataset) == len(generator)
    with pytest.raises(ValueError, match="by position.*breaks='split'"):
        xtd.MapDataset(generator, breaks="split")


def test_states_of_windows_that_no_break_moves_hold():
    """Windows of two days without overlap lie the same, for the hole is at an even step."""
    data = daily_data(HOLE)
    by_position = xtd.IterableDataset(
        data, input_dims={"time": 2}, breaks="ignore", batch_size=3, shuffle=True
    )
    batches = iter(by_position)
    first = [next(batches).index.tolist() for _ in range(5)]
    state = by_position.state_dict()
    rest = [batch.index.tolist() for batch in batches]
    dataset = xtd.IterableDataset(
        data, input_dims={"time": 2}, breaks="split", batch_size=3, shuffle=True
    )
    dataset.load_state_dict(state)
    assert [batch.index.tolist() for batch in dataset] == rest
    assert len(first) + len(rest) == len(dataset)
    moved = daily(HOLE, kind=xtd.IterableDataset, breaks="split", batch_size=3)
    with pytest.raises(ValueError, match="other"):
        moved.load_state_dict(
            daily(HOLE, kind=xtd.IterableDataset, breaks="ignore", batch_size=3).state_dict()
        )


def test_a_dataset_with_breaks_is_sent_without_its_labels_steps():
    dataset = daily(HOLE, breaks="split")
    assert _starts(pickle.loads(pickle.dumps(dataset))) == _starts(dataset)
