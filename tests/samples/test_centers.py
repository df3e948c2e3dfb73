"""Samples around events against loops over them in plain Python."""

import itertools
import warnings
from pathlib import Path

import iris_sample_data
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from helpers import counted, reads
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

# What is left out is compared.
pytestmark = pytest.mark.filterwarnings("ignore:.* of centers are left out:UserWarning")

TIMES = pd.date_range("2000-01-01", periods=40, freq="6h")


def field(times=TIMES, latitudes=None, longitudes=None, levels=(1,)):
    """A number of its own for each place."""
    latitudes = np.linspace(60, 30, 7) if latitudes is None else latitudes
    longitudes = np.arange(0.0, 20.0, 2.0) if longitudes is None else longitudes
    coords = {"time": times, "level": list(levels), "latitude": latitudes, "longitude": longitudes}
    shape = tuple(len(each) for each in coords.values())
    values = np.arange(np.prod(shape), dtype="f4").reshape(shape) + 1
    return xr.Dataset({"t2m": (tuple(coords), values), "u": (tuple(coords), -values)}, coords)


def tracks(data, count, seed=0, beyond=0.1):
    """Events all over the data, and some beyond it or without a label."""
    rng = np.random.default_rng(seed)
    time = data.time.values
    span = (time[-1] - time[0]) * (1 + 2 * beyond)
    share = rng.random(count)
    if time.dtype == object:
        times = [time[0] + span * each - (time[-1] - time[0]) * beyond for each in share]
    else:
        times = (
            time[0] - (time[-1] - time[0]) * beyond + (share * span.astype("i8")).astype(span.dtype)
        )
    found = {"time": np.asarray(times)}
    for name in ("latitude", "longitude"):
        low, high = float(data[name].min()), float(data[name].max())
        reach = (high - low) * beyond
        found[name] = rng.uniform(low - reach, high + reach, count)
    found["longitude"] += 360 * rng.integers(-1, 2, count)
    storm, wind = rng.integers(0, 6, count), rng.random(count)
    return {**found, "storm": storm, "wind": wind}


def cell(labels, value, period=None):
    """The step in whose cell, from half-way to half-way, a value lies; None for none."""
    labels = list(labels)
    if period is not None:  # neighbors are less than half a circle apart
        for step in range(1, len(labels)):
            while labels[step] - labels[step - 1] > period / 2:
                labels[step] -= period
            while labels[step] - labels[step - 1] < -period / 2:
                labels[step] += period
    if len(labels) > 1 and labels[0] > labels[-1]:
        step = cell(labels[::-1], value, period)
        return None if step is None else len(labels) - 1 - step
    turns = (0,) if period is None else (-2, -1, 0, 1, 2)
    for turn, step in itertools.product(turns, range(len(labels))):
        other = value if not turn else value + turn * period
        half_before = (labels[step] - labels[step - 1]) / 2 if step else (labels[1] - labels[0]) / 2
        half_after = (
            (labels[step + 1] - labels[step]) / 2
            if step + 1 < len(labels)
            else (labels[step] - labels[step - 1]) / 2
        )
        if labels[step] - half_before <= other < labels[step] + half_after:
            return step
    return None


def expected_windows(data, events, sizes, anchors):
    """By event that has a window: where it begins along each dim that events have labels of."""
    found = {}
    for event in range(len(events["storm"])):
        begins = {}
        for dim in ("time", "latitude", "longitude"):
            if dim not in events:
                continue
            value = events[dim][event]
            missing = pd.isna(value)
            labels = data[dim].values
            period = 360.0 if dim == "longitude" else None
            step = None if missing else cell(labels, value, period)
            if step is None or not 0 <= step - anchors[dim] <= len(labels) - sizes[dim]:
                break
            begins[dim] = step - anchors[dim]
        else:
            found[event] = begins
    return found


@st.composite
def cases(draw):
    calendar = draw(st.sampled_from(["standard", "360_day"]))
    times = xr.date_range(
        "2000-01-01", periods=draw(st.integers(5, 14)), freq=draw(st.sampled_from(["6h", "D"])),
        calendar=calendar, use_cftime=calendar == "360_day",
    )  # fmt: skip
    latitudes = np.linspace(50.0, 20.0, draw(st.integers(3, 7)))
    if draw(st.booleans()):
        latitudes = latitudes[::-1]
    count = draw(st.sampled_from([4, 6, 8]))
    begin = draw(st.sampled_from([0.0, -180.0, 170.0]))
    longitudes = begin + np.arange(count) * draw(st.sampled_from([360 / count, 5.0]))
    if begin == 170.0:
        longitudes = (longitudes + 180) % 360 - 180  # across the date line
    data = field(times, latitudes, longitudes, levels=range(draw(st.integers(1, 3))))
    sizes = {dim: draw(st.integers(1, min(3, data.sizes[dim]))) for dim in data.sizes}
    del sizes["level"]
    if draw(st.booleans()):
        sizes["level"] = draw(st.integers(1, data.sizes["level"]))
    anchors = {dim: draw(st.integers(0, size - 1)) for dim, size in sizes.items()}
    events = tracks(data, draw(st.integers(1, 25)), draw(st.integers(0, 99)), 0.2)
    if draw(st.booleans()):
        events["latitude"][0] = np.nan
    if draw(st.booleans()):  # in every window of the others
        del events[draw(st.sampled_from(["time", "latitude", "longitude"]))]
    chunks = {dim: draw(st.integers(1, size)) for dim, size in data.sizes.items()}
    return data, sizes, anchors, events, chunks


@given(case=cases(), more=st.data())
@examples(13)
def test_samples_are_those_of_a_loop_over_events(case, more):
    data, sizes, anchors, events, chunks = case
    found = expected_windows(data, events, sizes, anchors)
    stored = zarr.storage.MemoryStore()
    encoding = {name: {"chunks": tuple(chunks[d] for d in data.t2m.dims)} for name in data}
    data.to_zarr(stored, encoding=encoding, consolidated=False)
    lazy = xr.open_zarr(stored, consolidated=False, chunks=None)
    given_as = more.draw(st.sampled_from(["mapping", "frame", "dataset"]))
    centers = {name: np.asarray(each) for name, each in events.items()}
    if given_as == "frame":
        centers = pd.DataFrame(centers)
    elif given_as == "dataset":
        centers = xr.Dataset({name: ("storm_step", each) for name, each in centers.items()})
    arguments = dict(
        input_dims=sizes, centers=centers, anchor=anchors, breaks="ignore",
        inputs=["t2m", "u"], targets="centers/wind",
    )  # fmt: skip
    ds = lazy if more.draw(st.booleans()) else data
    if not found:
        with pytest.raises(ValueError, match="no event of centers has a window"):
            xtd.MapDataset(ds, **arguments)
        return
    samples = xtd.MapDataset(ds, **arguments)
    # Other dims multiply, in the order of the data, windowed ones behind the others.
    others = [dim for dim in data.sizes if dim not in events and dim not in sizes]
    windowed = [dim for dim in sizes if dim not in events]
    ways = [[(dim, step) for step in range(data.sizes[dim])] for dim in others]
    ways += [
        [(dim, slice(at, at + sizes[dim])) for at in range(0, data.sizes[dim] - sizes[dim] + 1,
                                                           sizes[dim])]
        for dim in windowed
    ]  # fmt: skip
    expected = []
    for event, begins in found.items():
        around = {dim: slice(at, at + sizes[dim]) for dim, at in begins.items()}
        expected += [(event, around | dict(way)) for way in itertools.product(*ways)]
    assert len(samples) == len(expected)
    losses = samples._inside.definition.losses
    assert sum(each.count for each in losses) == len(events["storm"]) - len(found)

    def check(batch):
        for row, number in enumerate(batch.index.tolist()):
            event, window = expected[number]
            cut = data.isel(window).transpose(*sizes)
            np.testing.assert_array_equal(batch.x[row, 0], cut.t2m)
            np.testing.assert_array_equal(batch.x[row, 1], cut.u)
            assert batch.y[row] == np.float32(events["wind"][event])
            assert samples.windows[number] == window
            assert list(samples.windows.of("centers")[number].values()) == [event]
        labeled = batch.to_xarray()
        numbers = [expected[number][0] for number in batch.index.tolist()]
        assert labeled.storm.values.tolist() == events["storm"][numbers].tolist()
        for dim in events.keys() & sizes.keys():
            own = labeled[f"center_{dim}"].values
            assert (own == np.asarray(events[dim])[numbers]).all()
            first = [data[dim].values[expected[n][1][dim].start] for n in batch.index.tolist()]
            labels = labeled[dim].isel({dim: 0})  # of no sample where it is taken whole
            np.testing.assert_array_equal(np.broadcast_to(labels, len(first)), first)

    check(samples.fetch(range(len(samples))))
    world, size = more.draw(st.integers(1, 3)), more.draw(st.integers(1, 5))
    how = dict(
        batch_size=size, shuffle=more.draw(st.booleans()), uneven="keep",
        memory=more.draw(st.sampled_from([1, 500, "4 KiB", "1 MiB"])),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the memory is exceeded")
        ranks = [
            xtd.IterableDataset(samples, rank=rank, world_size=world, **how)
            for rank in range(world)
        ]
    seen = []
    for rank in ranks:
        for batch in rank:
            check(batch)
            seen += batch.index.tolist()
    assert sorted(seen) == list(range(len(samples)))
    if not how["shuffle"] and world == 1:
        assert seen == sorted(seen)
    counts = xtd.verify(ranks[0], world_size=world)
    assert (counts.samples, counts.missing, counts.repeated) == (len(samples), 0, 0)

    # Go on where it was left, on another topology.
    first = ranks[0]
    first.set_epoch(3)
    done = []
    batches = iter(first)
    for batch in itertools.islice(batches, more.draw(st.integers(0, len(first)))):
        done += batch.index.tolist()
    state = first.state_dict()
    if world == 1 and state["epoch"] == 3:
        later = [xtd.IterableDataset(samples, rank=rank, world_size=2, **how) for rank in range(2)]
        for each in later:
            each.load_state_dict(state)
            done += [number for batch in each for number in batch.index.tolist()]
        assert sorted(done) == list(range(len(samples)))


def events_of(data, count=60, **more):
    return tracks(data, count, **more)


SIZES = {"time": 4, "latitude": 3, "longitude": 4}


def test_the_anchor_is_the_middle_or_where_x_ends():
    data = field()
    events = {"time": TIMES[[10, 20]], "latitude": [45.0, 40.0], "longitude": [8.0, 9.5]}
    samples = xtd.MapDataset(data, input_dims=SIZES, centers=events, inputs="t2m")
    assert samples.windows[0] == {
        "level": 0, "time": slice(8, 12), "latitude": slice(2, 5), "longitude": slice(2, 6),
    }  # fmt: skip
    cut = samples.replace(
        inputs=xtd.Select("t2m", time=slice(0, 2)), targets=xtd.Select("t2m", time=slice(2, 4))
    )
    assert cut.windows[0]["time"] == slice(9, 13)  # step 1 is that of the event
    given_one = samples.replace(anchor={"time": 0})
    assert given_one.windows[1]["time"] == slice(20, 24)


def test_the_nearest_step_within_a_tolerance_instead_of_the_cell():
    data = field()
    times = TIMES[10] + pd.to_timedelta([0, 50, 70, -60, 170], unit="min")
    events = {"time": times, "latitude": [45.0] * 5, "longitude": [8.0] * 5}
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events, inputs="t2m", tolerance={"time": "1h"}
    )
    kept = [samples.windows.of("centers")[at]["event"] for at in range(len(samples))]
    assert kept == [0, 1, 3]
    near = samples.replace(tolerance={"time": "1h", "latitude": 1, "longitude": 0.5})
    assert len(near) == 3
    assert len(samples.replace(tolerance={"longitude": np.float64(0.1)})) == 5


def test_no_window_lies_across_a_break_and_no_event_in_a_hole():
    times = TIMES.delete(range(15, 25))
    data = field(times)
    hours = [14 * 6, 14 * 6 + 2, 14 * 6 + 5, 20 * 6, 24 * 6 + 4, 25 * 6, 28 * 6]
    events = {"time": TIMES[0] + pd.to_timedelta(hours, unit="h"), "latitude": [45.0] * 7,
              "longitude": [8.0] * 7}  # fmt: skip
    arguments = dict(input_dims=SIZES, centers=events, inputs="t2m", anchor={"time": 3})
    samples = xtd.MapDataset(data, **arguments, breaks="split")
    kept = [samples.windows.of("centers")[at]["event"] for at in range(len(samples))]
    assert kept == [0, 1, 6]
    counts = {each.reason: each.count for each in samples._inside.definition.losses}
    assert counts == {
        "outside the data along 'time'": 2,
        "the window would cross a break along 'time'": 2,
    }
    assert len(samples.replace(breaks="ignore")) == 7
    with pytest.raises(ValueError, match="allows none"):
        xtd.MapDataset(data, **arguments, breaks="raise")


def test_what_is_left_out_is_told_once_by_reason():
    data = field()
    events = {
        "time": [*TIMES[[10, 0, 12]], TIMES[0] - pd.Timedelta("9D"), pd.NaT],
        "latitude": [45.0, 45.0, np.nan, 45.0, 45.0],
        "longitude": [8.0] * 5,
    }
    with pytest.warns(UserWarning, match="4 of 5 events of centers are left out") as told:
        samples = xtd.MapDataset(data, input_dims=SIZES, centers=events, inputs="t2m")
    assert len(told) == 1
    for reason in (
        "1: no label along 'time'",
        "1: no label along 'latitude'",
        "1: outside the data along 'time'",
        "1: the window is not wholly inside along 'time'",
    ):
        assert reason in str(told[0].message)
    assert len(samples) == 1
    explained = xtd.IterableDataset(samples).explain()
    assert explained.left_out["centers"] == 4
    assert "no label along 'latitude'" in str(explained)
    assert "no label along 'latitude'" in repr(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xtd.IterableDataset(samples, shuffle=True)


def test_splits_along_time_share_no_label():
    data = field()
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), inputs="t2m", targets="centers/wind",
        anchor={"time": 1},
    )  # fmt: skip
    border, gap = TIMES[22], pd.Timedelta("1D")
    first_steps = samples.windows.first_steps("time")
    train, test = xtd.split(samples, "time", at=[border], gap=gap)
    inside = (
        [TIMES[at + 3] < border - gap for at in first_steps],
        [TIMES[at] >= border for at in first_steps],
    )
    assert [len(train), len(test)] == [sum(each) for each in inside]
    for part, there in ((train, inside[0]), (test, inside[1])):
        kept = part.fetch(range(len(part))).to_xarray()
        assert kept.event.values.tolist() == [
            samples.windows.of("centers")[at]["event"] for at in np.flatnonzero(there)
        ]
    train, test = xtd.split(samples, "time", at=[border], by="targets")
    own = [TIMES[at + 1] >= border for at in first_steps]  # the step that has the event
    assert len(test) == sum(own)
    assert len(train) == sum(TIMES[at + 3] < border for at in first_steps)
    stream = xtd.IterableDataset(test, shuffle=True, batch_size=4)
    assert sorted(n for batch in stream for n in batch.index.tolist()) == list(range(len(test)))
    assert "2000-01-06" in repr(xtd.split(samples, "time", at=[border]))
    folds = list(xtd.kfold(samples, "time", 3))
    for train, test in folds:
        own = {*train.fetch(range(len(train))).to_xarray().time.values.ravel().tolist()}
        assert own.isdisjoint(test.fetch(range(len(test))).to_xarray().time.values.ravel().tolist())
    again = test.replace(ds=data * 2)
    assert len(again) == len(test)


@pytest.mark.parametrize("by", ["windows", "targets"])
def test_splits_by_a_variable_of_the_events_share_no_value(by):
    data = field()
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), inputs="t2m", targets="centers/wind"
    )
    parts = [
        xtd.split(samples, "storm", fractions=(0.5, 0.5), by=by),
        xtd.random_split(samples, "storm", (0.5, 0.5), by=by),
        *xtd.kfold(samples, "storm", 3, by=by),
        xtd.split(samples, "event", fractions=(0.5, 0.5), by=by),
        xtd.split(samples, "latitude", fractions=(0.5, 0.5), by=by),
    ]
    for first, second in parts[:-2]:
        storms = [
            {*part.fetch(range(len(part))).to_xarray().storm.values.tolist()}
            for part in (first, second)
        ]
        assert storms[0].isdisjoint(storms[1])
        assert len(first) + len(second) == len(samples)
    for first, second in parts:
        numbers = [
            {*part.fetch(range(len(part))).to_xarray().event.values.tolist()}
            for part in (first, second)
        ]
        assert numbers[0].isdisjoint(numbers[1])


def test_where_and_weights_go_by_the_users_numbers():
    data = field(levels=(1, 2))
    samples = xtd.MapDataset(
        data.chunk(time=5, latitude=3), input_dims=SIZES, centers=events_of(data), inputs="t2m",
        targets="centers/wind",
    )  # fmt: skip
    every = samples.fetch(range(len(samples)))
    wanted = (every.y > 0.5).numpy()
    for where in (
        wanted,
        xr.DataArray(wanted[::2], dims="event"),
        lambda window: bool((window.t2m.isel(time=0) % 3 == 1).all()),
    ):
        if callable(where) and not isinstance(where, xr.DataArray):
            wanted = np.array([bool((each[0] % 3 == 1).all()) for each in every.x[:, 0]])
            wanted = np.array([(each[0].numpy() % 3 == 1).all() for each in every.x])
        if not wanted.any():
            continue
        kept = samples.replace(where=where)
        assert len(kept) == wanted.sum()
        assert kept.fetch(range(len(kept))).index.tolist() == np.flatnonzero(wanted).tolist()
        stream = xtd.IterableDataset(kept, shuffle=True, batch_size=3, memory=9000)
        seen = sorted(number for batch in stream for number in batch.index.tolist())
        assert seen == np.flatnonzero(wanted).tolist()
    weights = np.zeros(len(samples))
    weights[5] = 1.0
    stream = xtd.IterableDataset(samples, shuffle=True, weights=weights, batch_size=4, memory=9000)
    assert {number for batch in stream for number in batch.index.tolist()} == {5}


def test_functions_see_the_data_alone_and_the_samples_numbers():
    data = field()

    def noise(sample, rng):
        return sample + rng.random()

    samples = xtd.MapDataset(
        data.chunk(time=5), input_dims=SIZES, centers=events_of(data), inputs="t2m",
        preprocess=lambda block: block * 2, transform=noise, targets="centers/wind",
    )  # fmt: skip
    plain = samples.replace(preprocess=None, transform=None)
    drawn = {}
    for shuffle, memory in itertools.product((False, True), (9000, "1 MiB")):
        stream = xtd.IterableDataset(samples, shuffle=shuffle, memory=memory, batch_size=7, seed=3)
        for batch in stream:
            for row, number in enumerate(batch.index.tolist()):
                added = batch.x[row] - 2 * plain[number][0]
                torch.testing.assert_close(
                    added, added.flatten()[0].expand_as(added), atol=1e-3, rtol=0
                )
                # As random as the seed says, in every order.
                before = drawn.setdefault(number, float(added.flatten()[0]))
                assert abs(before - float(added.flatten()[0])) < 1e-2


def test_statistics_are_those_of_the_windows():
    data = field()
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), inputs=["t2m", "u"],
        targets="centers/wind",
    )  # fmt: skip
    every = samples.fetch(range(len(samples))).x.double()
    normalize = xtd.Normalize.fit(samples)
    np.testing.assert_allclose(normalize.mean.t2m, every[:, 0].mean())
    np.testing.assert_allclose(normalize.std.u, every[:, 1].std(correction=0))
    x = samples.replace(preprocess=normalize).fetch(range(len(samples))).x
    torch.testing.assert_close(
        x.double(), (every - every.mean((0, 2, 3, 4), True)) / every[:, 0].std(correction=0),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    levels = samples.replace(ds=field(levels=(1, 2, 3)))
    every = levels.fetch(range(len(levels))).to_xarray().t2m
    normalize = xtd.Normalize.fit(levels, per="level")
    np.testing.assert_allclose(normalize.mean.t2m, every.groupby("level").mean(...), rtol=1e-6)
    with pytest.raises(ValueError, match="around events have a part"):
        xtd.Normalize.fit(samples, per="time")


def test_other_sources_go_by_the_events_own_label():
    data = field()
    hours = pd.date_range(TIMES[0], TIMES[-1], freq="1h")
    station = xr.Dataset({"p": ("hour", np.arange(len(hours), dtype="f4"))}, {"hour": hours})
    same = (data[["u"]] * 10).isel(time=slice(None, None, -1))
    fine = xr.Dataset(
        {"z": (("latitude", "longitude"), np.random.default_rng(0).random((28, 40)))},
        {"latitude": 62 - np.arange(28) * 1.25 + 0.0, "longitude": -0.75 + np.arange(40) * 0.5},
    )
    events = events_of(data, beyond=0.0)
    samples = xtd.MapDataset(
        {
            "era": data,
            "station": xtd.Source(station, hour=xtd.AsOf(3, latency="90min")),
            "same": same,
            "fine": xtd.Source(fine, latitude=xtd.Within(size=6), longitude=xtd.Within()),
        },
        input_dims=SIZES, centers=events, inputs="t2m", targets="centers/wind",
    )  # fmt: skip
    assert samples.fetch([0]).keys() == ["x", "y", "station", "same", "fine"]
    for number in range(0, len(samples), 5):
        event = samples.windows.of("centers")[number]["event"]
        known = np.flatnonzero(hours + pd.Timedelta("90min") <= events["time"][event])[-3:]
        batch = samples.fetch([number])
        assert batch.station[0, 0].tolist() == known.tolist()
        window = data.isel(samples.windows[number])
        np.testing.assert_array_equal(batch.same[0, 0], window.u * 10)
        low = float(window.longitude[0]) - 1.0
        kept = (fine.longitude >= low) & (fine.longitude < low + 8)
        cut = fine.isel(samples.windows.of("fine")[number])
        np.testing.assert_array_equal(cut.longitude, fine.longitude[kept])
        np.testing.assert_array_equal(batch.fine[0, 0], cut.z.astype("f4"))
    tree = samples.fetch([0, 1]).to_xarray()
    assert sorted(tree.children) == ["centers", "era", "fine", "same", "station"]
    assert "storm" in tree["centers"].coords
    for shuffle in (False, True):
        stream = xtd.IterableDataset(samples, shuffle=shuffle, batch_size=5, memory="20 KiB")
        for batch in stream:
            again = samples.fetch(batch.index.tolist())
            for part in batch.keys():
                assert torch.equal(batch[part], again[part])
        assert xtd.verify(stream)
        stream.explain()
    with pytest.raises(ValueError, match="by='targets'"):
        xtd.split(samples, "storm", fractions=(0.5, 0.5))
    train, test = xtd.split(samples, "time", fractions=(0.5, 0.5))
    first = [part.fetch(range(len(part))).to_xarray() for part in (train, test)]
    assert first[0]["era"].time.values.max() < first[1]["era"].time.values.min()
    assert first[0]["station"].hour.values.max() < first[1]["station"].hour.values.min()


@pytest.mark.parametrize(
    ("centers", "more", "message"),
    [
        ({"time": [0, 1], "latitude": [1.0]}, {}, "different lengths"),
        ({"time": TIMES[:2], "lat": [1.0, 2.0]}, {}, "'lat', and the data has a dim 'latitude'"),
        ({"storm": [1, 2]}, {}, "labels of no dim"),
        ({"time": np.zeros((2, 2))}, {}, "one-dimensional"),
        ({"time": [0.0, 1.0]}, {}, "cannot be compared: they are times"),
        ({"time": ["2000-01-03"]}, {}, "cannot be compared"),
        ({"time": TIMES[:0]}, {}, "no events"),
        ({}, {}, "empty"),
        ({"time": TIMES[:2], "level": [1, 1]}, {}, "input_dims has no size"),
        ({"time": TIMES[:2]}, {"tolerance": {"tine": "1h"}}, "did you mean 'time'"),
        ({"time": TIMES[:2]}, {"tolerance": {"latitude": 1}}, "no labels"),
        ({"time": TIMES[5:7]}, {"tolerance": {"time": 1}}, "must be a duration"),
        ({"time": TIMES[5:7]}, {"tolerance": "1h"}, "tolerance must be a mapping"),
        ({"time": TIMES[5:7]}, {"input_overlap": {"time": 1}}, "input_overlap names 'time'"),
        ({"time": TIMES[5:7]}, {"targets": "centers/wind"}, "no data variable 'wind'"),
        ({"time": TIMES[5:7]}, {"anchor": {"time": 9}}, "outside a window of 4 steps"),
        ({"time": TIMES[5:7]}, {"tolerance": {"time": "-1h"}}, "is negative: '-1h'"),
        ({"time": TIMES[5:7].tz_localize("UTC")}, {}, "centers has 'time' with a time zone, UTC"),
        (pd.DataFrame([[TIMES[5], 1, 2]], columns=["time", "w", "w"]), {}, "column 'w'"),
        ({"time": TIMES[5:7], "sample": [1, 2]}, {}, "'sample', by which batches name"),
        ({"time": TIMES[5:7], "w": ["a", "b"]}, {"targets": "centers/w"}, "of centers has dtype"),
        ({"time": TIMES[5:7], "w": [1, 2]}, {"targets": xtd.Select("centers/w", time=0)},
         "variables of events have no dims"),
        ([1, 2], {}, "a Dataset, a DataFrame or a mapping"),
        (None, {"tolerance": {"time": "1h"}}, "which is not given"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_that_says_what_would(centers, more, message):
    with pytest.raises((ValueError, TypeError), match=message):
        xtd.MapDataset(field(), input_dims=SIZES, centers=centers, **{"inputs": "t2m", **more})


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("calendar", ["standard", "360_day"])
@pytest.mark.parametrize("given_as", ["lists", "objects", "frame"])
def test_labels_that_are_none_or_endless_are_left_out(calendar, given_as):
    times = xr.date_range("2000-01-01", periods=40, freq="6h", calendar=calendar, use_cftime=True)
    data = field(times)
    events = {
        "time": [None, times[10], times[11], times[12]],
        "latitude": [45, 45, None, 45],
        "longitude": [8.0, 8.0, 8.0, np.inf],
        "wind": [1, None, 3, 4],
    }
    if given_as == "objects":
        events = {name: np.array(each, dtype=object) for name, each in events.items()}
    centers = pd.DataFrame(events) if given_as == "frame" else events
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=centers, inputs="t2m", targets="centers/wind"
    )
    assert [samples.windows.of("centers")[i]["event"] for i in range(len(samples))] == [1]
    assert torch.isnan(samples[0][1])


def test_chunks_are_decoded_once_where_memory_allows():
    data = field(pd.date_range("2000-01-01", periods=96, freq="6h"),
                 np.linspace(60, 0, 24), np.arange(0.0, 48.0, 2.0))  # fmt: skip
    data = data[["t2m"]].astype("f4")
    chunks = {"t2m": (8, 1, 8, 8)}
    events = tracks(data, 400, beyond=0.0)
    lazy, counts = counted(data, chunks)
    samples = xtd.MapDataset(lazy, input_dims=SIZES, centers=events, inputs="t2m")
    touched = set()
    for number in range(len(samples)):
        window = samples.windows[number]
        cells = [
            range(cut.start // size, (cut.stop - 1) // size + 1)
            for cut, size in zip(
                [window["time"], slice(0, 1), window["latitude"], window["longitude"]],
                chunks["t2m"], strict=True,
            )
        ]  # fmt: skip
        touched.update(itertools.product(*cells))
    epochs = {}
    for shuffle, memory in itertools.product((False, True), ("4 MiB", "600 KiB")):
        counts.clear()
        stream = xtd.IterableDataset(samples, shuffle=shuffle, batch_size=8, memory=memory)
        explained = stream.explain()
        for _ in stream:
            pass
        epochs[shuffle, memory] = sum(reads(counts, ["t2m"]).values())
        (variable,) = explained.variables
        if shuffle or memory == "4 MiB":
            assert variable.chunk_reads == pytest.approx(epochs[shuffle, memory], rel=0.1)
        else:  # what is read ahead shares more than one block after another would
            assert variable.chunk_reads >= epochs[shuffle, memory]
    for shuffle in (False, True):
        assert epochs[shuffle, "4 MiB"] == len(touched)
    # With memory for a part of the data, neighbors share all the same.
    assert epochs[True, "600 KiB"] < 1.5 * len(touched)


def test_few_events_do_not_read_what_lies_between_them():
    data = field(pd.date_range("2000-01-01", periods=96, freq="6h"),
                 np.linspace(60, 0, 24), np.arange(0.0, 48.0, 2.0))  # fmt: skip
    lazy, counts = counted(data[["t2m"]], {"t2m": (4, 1, 4, 4)})
    events = {"time": data.time.values[[6, 90]], "latitude": [55.0, 5.0], "longitude": [6.0, 40.0]}
    for shuffle in (False, True):
        stream = xtd.IterableDataset(
            lazy, input_dims=SIZES, centers=events, inputs="t2m", shuffle=shuffle, memory="1 GiB"
        )
        counts.clear()
        for _ in stream:
            pass
        assert 2 <= sum(reads(counts, ["t2m"]).values()) <= 16


def test_tracks_over_a_real_grid_of_a_360_day_calendar():
    with xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc") as ds:
        events = tracks(ds, 80, beyond=0.05)
        sizes, anchors = {"time": 3, "latitude": 4, "longitude": 6}, {"time": 2}
        samples = xtd.MapDataset(
            ds, input_dims=sizes, centers=pd.DataFrame(events), anchor=anchors,
            inputs="air_temperature", targets="centers/wind",
        )  # fmt: skip
        expected = expected_windows(ds, events, sizes, {"time": 2, "latitude": 2, "longitude": 3})
        assert len(samples) == len(expected)
        for batch in xtd.IterableDataset(samples, shuffle=True, batch_size=8):
            for row, number in enumerate(batch.index.tolist()):
                event = list(expected)[number]
                window = {dim: slice(at, at + sizes[dim]) for dim, at in expected[event].items()}
                np.testing.assert_array_equal(batch.x[row], ds.air_temperature.isel(window))
                assert batch.y[row] == np.float32(events["wind"][event])
        with pytest.raises(ValueError, match="times of the 360_day calendar and times of the"):
            samples.replace(centers={**events, "time": TIMES.repeat(2)})


def test_a_state_is_refused_if_the_events_are_others():
    data = field()
    arguments = dict(input_dims=SIZES, inputs="t2m", shuffle=True)
    events = events_of(data, beyond=0.0)
    one = xtd.IterableDataset(data, centers=events, **arguments)
    next(iter(one))
    state = one.state_dict()
    moved = {**events, "latitude": events["latitude"][::-1].copy()}
    other = xtd.IterableDataset(data, centers=moved, **arguments)
    with pytest.raises(ValueError, match="of another dataset"):
        other.load_state_dict(state)
    xtd.IterableDataset(data, centers=events, **arguments).load_state_dict(state)


@pytest.mark.parametrize("given_as", [dict, pd.DataFrame, xr.Dataset])
def test_events_that_are_changed_later_change_no_sample(given_as):
    labels = {"time": TIMES.values[[9, 12]].copy(), "wind": np.array([1.0, 2.0])}
    events = given_as(labels)
    if given_as is xr.Dataset:
        events = xr.Dataset({name: ("event", each) for name, each in labels.items()})
    samples = xtd.MapDataset(
        field(), {"time": 4}, centers=events, inputs="t2m", targets="centers/wind"
    )
    for each in labels.values():
        each[:] = each[::-1].copy()
    if given_as is pd.DataFrame:
        events.loc[:, "wind"] = 9.0
    batch = samples.fetch([0, len(samples) - 1])
    assert batch.y.tolist() == [1, 2]
    assert (batch.to_xarray().center_time.values == TIMES.values[[9, 12]]).all()


def test_names_that_both_have_are_told_apart():
    data = field().rename(u="wind")
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), inputs=["wind"], targets="centers/wind"
    )
    labeled = samples.fetch([0, 1]).to_xarray()
    assert labeled.wind.dims == ("sample", "time", "latitude", "longitude")
    np.testing.assert_array_equal(labeled.center_wind, samples.fetch([0, 1]).y)
    # Also where events have the other name themselves.
    events = {"time": TIMES[[9, 12]], "wind": [1.0, 2.0], "center_wind": [3.0, 4.0]}
    events |= {"season": [5, 6], "center_season": [7, 8]}
    data = data.assign_coords(season=("time", np.arange(40) // 10))
    samples = xtd.MapDataset(data, {"time": 4}, centers=events, inputs="wind",
                             targets="centers/wind")  # fmt: skip
    labeled = samples.fetch([0, len(samples) - 1]).to_xarray()
    assert labeled.season.dims == ("sample", "time")
    found = ("center_wind_", "center_wind", "center_season_", "center_season")
    values = [labeled[name].values.tolist() for name in found]
    assert values == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_stats_count_what_is_read_around_events():
    data = field()
    lazy, counts = counted(data[["t2m"]], {"t2m": (4, 1, 4, 4)})
    stream = xtd.IterableDataset(
        lazy, input_dims=SIZES, centers=events_of(data), inputs="t2m", shuffle=True, batch_size=8
    )
    for _ in range(2):
        for _ in stream:
            pass
        stats = stream.stats()
        assert stats.bytes_read >= 4 * 4 * 4 * 4 * min(1, sum(counts.values()))
        assert stats.samples == len(stream.windows)
        counts.clear()


def test_chunks_around_events_are_kept_in_memory_and_on_disk(tmp_path):
    data = field()
    lazy, counts = counted(data[["t2m"]], {"t2m": (4, 1, 4, 4)})
    arguments = dict(input_dims=SIZES, centers=events_of(data), inputs="t2m")

    def epoch(stream):
        counts.clear()
        found = {n: x for b in stream for n, x in zip(b.index.tolist(), b.x, strict=True)}
        return found, stream.stats().bytes_read

    stream = xtd.IterableDataset(lazy, **arguments, shuffle=True, batch_size=8, cache=True)
    first, read = epoch(stream)
    assert read
    assert sum(counts.values())
    second, read = epoch(stream)
    assert not read
    assert not sum(counts.values())
    data[["t2m"]].to_zarr(tmp_path / "data.zarr", consolidated=False)
    for number in range(2):
        stored = xr.open_zarr(tmp_path / "data.zarr", consolidated=False, chunks=None)
        stream = xtd.IterableDataset(
            stored, **arguments, shuffle=True, batch_size=8, cache=tmp_path / "cells"
        )
        stream.explain()
        third, read = epoch(stream)
        assert bool(read) == (number == 0)
        for other in (second, third):
            assert all(torch.equal(first[number], other[number]) for number in first)
    by_number = xtd.MapDataset(lazy, **arguments, cache=False)
    counts.clear()
    by_number.fetch([0])
    read = sum(counts.values())
    by_number.fetch([0])
    assert sum(counts.values()) == 2 * read


def test_events_of_a_dataset_whose_dim_has_the_name_of_one_of_the_data():
    data = field()
    events = xr.Dataset(
        {"wind": ("time", [1.0, 2.0]), "site": 5},
        {"time": TIMES[[12, 25]], "latitude": ("time", [45.0, 40.0]), "longitude": 8.0},
    )
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events, inputs="t2m", targets="centers/wind"
    )
    assert [axis.dim for axis in samples._inside.definition.windows.axes] == [
        "event", "level", "longitude",
    ]  # fmt: skip
    assert samples.fetch([0, len(samples) - 1]).y.tolist() == [1.0, 2.0]
    indexed = pd.DataFrame({"wind": [1.0, 2.0], "latitude": [45.0, 40.0]}, index=TIMES[[12, 25]])
    indexed.index.name = "time"
    again = samples.replace(centers=indexed)
    assert again.windows[0] == samples.windows[0]


def test_flips_are_those_of_the_data():
    data = field()
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), inputs=["t2m", "u"],
        targets="centers/wind",
    )  # fmt: skip
    samples = samples.replace(preprocess=xtd.Normalize.fit(samples))
    flip = xtd.RandomFlip("latitude", p=1.0, signs={"u": "latitude"})
    plain = {n: x for b in xtd.DataLoader(samples) for n, x in zip(b.index.tolist(), b.x)}  # noqa: B905
    normalize = samples._inside.definition.primary.preprocess.function
    mean, std = (float(each.u) for each in (normalize.mean, normalize.std))
    for batch in xtd.DataLoader(samples, augment=flip):
        for number, x in zip(batch.index.tolist(), batch.x, strict=True):
            before = plain[number].flip(2)
            torch.testing.assert_close(x[0], before[0])
            torch.testing.assert_close(x[1], (-(before[1] * std + mean) - mean) / std)


def test_sources_at_valid_times_of_events_and_leads():
    inits = pd.date_range("2000-01-01", periods=20, freq="D")
    leads = pd.to_timedelta([0, 24, 48], unit="h")
    valid = inits.values[:, None] + leads.values
    archive = xr.Dataset(
        {"tp": (("init", "lead"), np.arange(60.0).reshape(20, 3))},
        {"init": inits, "lead": leads, "valid": (("init", "lead"), valid)},
    )
    times = pd.date_range("1999-12-25", periods=40, freq="D")
    analysis = xr.Dataset({"a": ("time", np.arange(40.0))}, {"time": times})
    lazy, _ = counted(analysis, {"a": (4,)})
    samples = xtd.MapDataset(
        {"archive": archive, "analysis": xtd.Source(lazy, time=xtd.At("valid"))},
        input_dims={"init": 1}, centers={"init": inits[[15, 3, 9, 4]]}, inputs="tp",
    )  # fmt: skip
    assert len(samples) == 12
    for shuffle, memory in itertools.product((False, True), (400, "1 MiB")):
        for batch in xtd.IterableDataset(samples, shuffle=shuffle, batch_size=5, memory=memory):
            for row, number in enumerate(batch.index.tolist()):
                init, lead = [15, 3, 9, 4][number // 3], number % 3
                assert batch.x[row].item() == init * 3 + lead
                label = valid[init, lead]
                assert batch.analysis[row].item() == analysis.a.sel(time=label).item()


def test_events_at_labels_that_are_text():
    data = xr.Dataset(
        {"q": (("time", "station"), np.arange(80.0).reshape(20, 4))},
        {"time": pd.date_range("2000-01-01", periods=20), "station": list("abcd")},
    )
    events = {"time": data.time.values[[4, 10, 19]], "station": ["b", "d", "x"]}
    samples = xtd.MapDataset(
        data, input_dims={"time": 5, "station": 1}, centers=events, anchor={"time": 4}, inputs="q"
    )
    assert len(samples) == 2
    assert samples[1][0][:, 0].tolist() == data.q.values[6:11, 3].tolist()
    with pytest.raises(TypeError, match="which have none"):
        samples.replace(tolerance={"station": 1})


def test_a_dim_of_bounds_that_makes_samples_is_told_of():
    data = field()
    data["latitude"].attrs["bounds"] = "latitude_bnds"
    data["latitude_bnds"] = ("latitude", "bnds"), np.zeros((7, 2))
    events = {"time": TIMES[[12]], "latitude": [45.0], "longitude": [8.0]}
    with pytest.warns(UserWarning, match="only that of bounds"):
        xtd.MapDataset(data, input_dims=SIZES, centers=events)


def test_an_event_may_lie_among_the_targets():
    data = field()
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), anchor={"time": 3},
        inputs=xtd.Select("t2m", time=slice(0, 2)), targets=xtd.Select("t2m", time=slice(2, 4)),
    )  # fmt: skip
    assert xtd.verify(samples)
    station = xr.Dataset({"p": ("hour", np.arange(40.0))}, {"hour": TIMES})
    beside = {"era": data, "p": xtd.Source(station, hour=xtd.AsOf(1, latency="0h"))}
    assert not xtd.verify(samples.replace(ds=beside))


@pytest.mark.parametrize("by", ["windows", "targets"])
def test_splits_along_a_coordinate_of_the_data_share_no_label_of_it(by):
    data = field(levels=(1, 2))
    names = np.array(["a", "b", "c", "d"])[np.arange(len(TIMES)) // 10]
    data = data.assign_coords(
        season=("time", names), both=(("time", "level"), np.arange(80).reshape(40, 2) // 8)
    )
    samples = xtd.MapDataset(
        data, input_dims=SIZES, centers=events_of(data), anchor={"time": 0},
        inputs=xtd.Select("t2m", time=slice(1, 4)), targets=xtd.Select("t2m", time=0),
    )  # fmt: skip
    every = samples.fetch(range(len(samples))).to_xarray()
    for along, border in (("season", "c"), ("both", 5)):
        first, second = xtd.split(samples, along, at=[border], by=by)
        starts = samples.windows.first_steps("time").repeat(2)
        levels = np.tile([0, 1], len(starts) // 2)
        expected: list = [[], []]
        for number, (start, level) in enumerate(zip(starts, levels, strict=True)):
            labels = data[along].values[start : start + 4]
            labels = labels if labels.ndim == 1 else labels[:, level]
            if (labels < border).all():
                expected[0].append(number)
            elif (labels >= border).all():
                expected[1].append(number)
        for part, numbers in zip((first, second), expected, strict=True):
            found = part.fetch(range(len(part))).to_xarray()
            assert found.event.values.tolist() == every.event.values[numbers].tolist()
            assert found.level.values.tolist() == every.level.values[numbers].tolist()
        repr(xtd.split(samples, along, at=[border], by=by))
