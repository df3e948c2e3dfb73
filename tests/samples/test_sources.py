"""Samples of several sources against loops over labels in plain Python."""

import itertools
import tracemalloc
import warnings

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data import AsOf, At, Source, ValidTime, Within

# What is left out is compared, also where it is most of the windows.
pytestmark = pytest.mark.filterwarnings("ignore:source '.*' leaves out:UserWarning")

FREQUENCIES = ["6h", "D", "h", "MS"]


def series(labels, name, dim="time", **coords):
    """A number of its own for each label."""
    values = np.arange(len(labels), dtype="f4") + 1
    return xr.DataArray(values, {dim: labels, **coords}, dims=dim, name=name)


def losses(samples):
    """How many windows each source has left out, by reason."""
    return {(each.source, each.reason): each.count for each in samples._inside.definition.losses}


def lost(samples):
    return sum(losses(samples).values())


def check(samples, sources, expected, data):
    """Compare with the arrays of each sample number and part: by number, and in streams.

    `sources` has the data that each part was taken of, as it was given.
    """
    numbers = sorted(expected)
    assert len(samples) == len(numbers)
    batch = samples.fetch(range(len(samples)))
    assert batch.index.tolist() == numbers
    compare(batch, expected)
    for number in data.draw(st.lists(st.sampled_from(numbers), max_size=3)):
        for name, source in sources.items():
            cut = source.isel(samples.windows.of(name)[number])
            np.testing.assert_array_equal(cut, expected[number][name])

    world, size = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5))
    how = {
        "batch_size": size,
        "shuffle": data.draw(st.booleans()),
        "memory": data.draw(st.sampled_from([1, 300, "1 MiB"])),
        "uneven": "keep",
    }
    before = data.draw(st.integers(0, max(0, len(numbers) // world // size - 1)))
    seen = []
    for rank in range(world):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "one sample takes")
            stream = xtd.IterableDataset(samples, rank=rank, world_size=world, **how)
            batches = iter(stream)
            seen += [compare(each, expected) for each in itertools.islice(batches, before)]
            state = stream.state_dict()
            batches.close()
            resumed = xtd.IterableDataset(samples, rank=rank, world_size=world, **how)
        resumed.load_state_dict(state)
        seen += [compare(each, expected) for each in resumed]
    assert sorted(number for each in seen for number in each) == numbers


def compare(batch, expected):
    numbers = batch.index.tolist()
    for place, number in enumerate(numbers):
        for part, values in expected[number].items():
            np.testing.assert_array_equal(batch[part][place].numpy(), values)
    return numbers


def made(sources, input_dims, **arguments):
    """A dataset of parts named like their sources, each one variable of that name."""
    parts = {name: name if place == 0 else f"{name}/{name}" for place, name in enumerate(sources)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*source 'b'.*breaks")
        return xtd.MapDataset(sources, input_dims, parts=parts, **arguments)


# As of.


@st.composite
def times(draw, around="2001-01-01"):
    """Labels of some cadence, perhaps with holes."""
    freq = draw(st.sampled_from(FREQUENCIES))
    count = draw(st.integers(8, 60))
    labels = pd.date_range(around, periods=count, freq=freq)
    labels += pd.Timedelta(hours=draw(st.integers(-60, 30)))
    holes = draw(st.sets(st.integers(0, count - 1), max_size=4))
    return labels.delete(sorted(holes)).astype(draw(st.sampled_from(["M8[ns]", "M8[us]", "M8[s]"])))


def breaks_of(labels):
    """Places before which labels jump, where most of them do not."""
    steps = [later - earlier for earlier, later in itertools.pairwise(labels)]
    median = sorted(steps)[(len(steps) - 1) // 2] / 2 + sorted(steps)[len(steps) // 2] / 2
    found = [place + 1 for place, step in enumerate(steps) if abs(step - median) > median / 2]
    return found if len(found) <= 0.1 * len(steps) else []


def known_at(labels, latency, label):
    """When each step is known."""
    if label == "point":
        return [each + latency for each in labels]
    steps = [later - earlier for earlier, later in itertools.pairwise(labels)]
    longest = max(step for step in steps if step <= 1.5 * pd.Series(steps).median())
    return [each + latency for each in [*labels[1:], labels[-1] + longest]]


HOURS = [0, 1, 5, 24, 36, 24 * 33]


@given(times(), times(), st.data())
@examples(30)
def test_as_of_windows_hold_what_is_known_at_the_anchor_and_nothing_later(mine, theirs, data):
    size = data.draw(st.integers(1, 4))
    stride = data.draw(st.integers(1, 3))
    steps = data.draw(st.integers(1, 5))
    latency = pd.Timedelta(hours=data.draw(st.sampled_from(HOURS)))
    label = data.draw(st.sampled_from(["point", "left"]))
    age = data.draw(st.none() | st.sampled_from(HOURS).map(lambda h: pd.Timedelta(hours=h)))
    ignore = data.draw(st.booleans())
    cut = data.draw(st.none() | st.integers(1, size))
    anchor = data.draw(st.none() | st.integers(-size, size - 1))
    assume(len(mine) >= size)

    step = (size if cut is None else cut) - 1 if anchor is None else anchor % size
    known, jumps = known_at(theirs, latency, label), [] if ignore else breaks_of(theirs)
    expected, few, old, broken, anchors = {}, 0, 0, 0, []
    a, b = series(mine, "a"), series(theirs, "b")
    for start in range(0, len(mine) - size + 1, stride):
        at = mine[start + step]
        usable = [place for place, each in enumerate(known) if each <= at]
        if len(usable) < steps:
            few += 1
        elif age is not None and at - theirs[usable[-1]] > age:
            old += 1
        elif any(usable[-1] - steps + 1 < place <= usable[-1] for place in jumps):
            broken += 1
        else:
            last = usable[-1]
            expected[len(expected)] = {
                "a": a.values[start : start + size],
                "b": b.values[last - steps + 1 : last + 1],
            }
            anchors.append(at)
    rule = AsOf(steps, latency=latency, label=label, max_age=age)
    arguments = {
        "input_dims": {"time": size},
        "input_overlap": {"time": size - stride},
        "breaks": "ignore",
        "anchor": None if anchor is None else {"time": anchor},
    }
    source = Source(b, time=rule, breaks="ignore" if ignore else None)
    parts = {"a": "a", "b": "b/b"}
    if cut is not None:
        parts = {"x": xtd.Select("a", time=slice(0, cut)), **parts}

    def samples_of(**sources):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*source 'b'.*breaks")
            return xtd.MapDataset(sources, parts=parts, **arguments)

    if not expected:
        with pytest.raises(ValueError, match="'b' leaves no sample.*'time'.* from .* to "):
            samples_of(a=a, b=source)
        return
    samples = samples_of(a=a, b=source)
    found = losses(samples)
    reasons = "fewer than", "newest", "breaks"
    for reason, count in zip(reasons, (few, old, broken), strict=True):
        assert sum(n for (_, told), n in found.items() if told.startswith(reason)) == count
    check(samples, {"a": a, "b": b}, expected, data)

    # Label of the last step, and what comes later: nothing of it is in any sample.
    for number, at in enumerate(anchors):
        last = b.isel(samples.windows.of("b")[number]).time[-1].values
        assert last + latency.to_timedelta64() <= at.to_datetime64()
    now = data.draw(st.sampled_from(anchors))
    later = b.copy(data=np.where([each > now for each in known], np.nan, b.values))
    source = Source(later, time=rule, breaks="ignore" if ignore else None)
    corrupted = samples.replace(ds={"a": a, "b": source})
    for number in [place for place, at in enumerate(anchors) if at <= now]:
        for one, other in zip(samples[number], corrupted[number], strict=True):
            assert torch.equal(one, other)


# The same labels.


def alike(one, other, step, circle):
    """Whether two labels are the same, within 1 % of a step."""
    if isinstance(one, float | int):
        apart = abs(one - other)
        return (min(apart % 360, -apart % 360) if circle else apart) <= 0.01 * step
    return one == other


def in_python(labels):
    """Labels one by one; times as datetimes, whatever their unit."""
    labels = np.asarray(labels)
    return (labels.astype("M8[us]") if labels.dtype.kind == "M" else labels).tolist()


@st.composite
def pairs_of_labels(draw):
    """Labels of two sources, how far they are apart, and whether on a circle."""
    kind = draw(
        st.sampled_from(
            ["times", "numbers", "longitudes", "text", "calendars", "360_day", "floats"]
        )
    )
    count = draw(st.integers(4, 24))
    step, circle = 1, False
    if kind in ("times", "calendars"):
        whole = pd.date_range("2000-02-25", periods=count, freq=draw(st.sampled_from(FREQUENCIES)))
        mine, theirs = whole.values, whole.values.astype("M8[s]")
    elif kind == "360_day":
        mine = theirs = xr.date_range(
            "2000-02-25", periods=count, calendar="360_day", use_cftime=True
        ).values
    elif kind == "text":
        mine = theirs = np.array([f"station {place}" for place in range(count)])
    elif kind == "numbers":
        mine = theirs = np.array([1000, 925, 850, 700, 500, 300, 100, 50, 20, 10, 5, 3, 2, 1])
    elif kind == "floats":
        step = draw(st.sampled_from([0.1, 0.25, 1 / 3]))
        mine = draw(st.integers(-50, 50)) + np.arange(count) * step
        theirs = (mine + draw(st.sampled_from([0, 0.005, -0.009])) * step).astype(
            draw(st.sampled_from(["f4", "f8"]))
        )
    else:
        step, circle = 15.0, True
        mine = np.arange(24) * step
        theirs = draw(st.sampled_from([mine, (mine + 180) % 360 - 180, mine - 360]))
    place = np.arange(len(mine))
    if draw(st.booleans()):
        mine = np.delete(mine, sorted(draw(st.sets(st.sampled_from(place.tolist()), max_size=2))))
    kept = draw(st.lists(st.sampled_from(place.tolist()), min_size=2, unique=True))
    order = draw(st.sampled_from(["same", "reversed", "any", "whole"]))
    if order == "whole":
        kept = place
    elif order != "any":
        kept = sorted(kept, reverse=order == "reversed")
    if kind == "calendars":
        mine = xr.date_range("2000-02-25", periods=count, freq="D", use_cftime=True).values
        theirs = mine.astype("M8[s]")
    return mine, theirs[np.asarray(kept)], step, circle


@given(pairs_of_labels(), st.data())
@examples(30)
def test_same_labels_are_found_wherever_they_lie(labels, data):
    mine, theirs, step, circle = labels
    dim = "longitude" if circle else "place"
    size = data.draw(st.integers(1, 3))
    windowed = data.draw(st.booleans()) or size > 1
    a, b = series(mine, "a", dim), series(theirs, "b", dim)
    own, others = (in_python(each) for each in (mine, theirs))
    assume(len(own) >= size)
    places = [
        next((at for at, each in enumerate(others) if alike(one, each, step, circle)), None)
        for one in own
    ]
    expected, missing = {}, 0
    for start in range(len(own) - size + 1):
        found = places[start : start + size]
        if None in found:
            missing += 1
            continue
        both = {"a": a.values[start : start + size], "b": b.values[found]}
        expected[len(expected)] = {name: v if windowed else v[0] for name, v in both.items()}
    arguments = {
        "input_dims": {dim: size} if windowed else {},
        "input_overlap": {dim: size - 1} if windowed else {},
        "breaks": "ignore",
    }
    if not expected:
        with pytest.raises(ValueError, match=f"source 'b' (has none|leaves no).*'{dim}'.* from "):
            made({"a": a, "b": b}, **arguments)
        return
    samples = made({"a": a, "b": b}, **arguments)
    assert lost(samples) == missing
    check(samples, {"a": a, "b": b}, expected, data)


# In the extent of a sample.


@given(st.data())
@examples(30)
def test_the_steps_within_a_sample_are_those_inside_its_cells(data):
    """Labels are multiples of a tenth, and so never where arithmetic would have them."""
    cell = 12  # tenths
    count = data.draw(st.integers(3, 12))
    ratio = data.draw(st.sampled_from([1, 2, 3, 0.5]))
    size = data.draw(st.integers(1, min(4, count)))
    if ratio == 0.5:
        size = 2
    stride = 2 if ratio == 0.5 else data.draw(st.integers(1, 2))
    halo = data.draw(st.integers(0, 2))
    fine = int(cell / ratio)
    own = [place * cell for place in range(data.draw(st.integers(-20, 20)), 40)][:count]
    first = own[0] - cell // 2 + data.draw(st.integers(-30, 14))
    theirs = [first + place * fine for place in range(data.draw(st.integers(1, 50)))]
    if data.draw(st.booleans()):
        own = own[::-1]
    order = data.draw(st.sampled_from(["ascending", "descending", "any"]))
    theirs = theirs[::-1] if order == "descending" else theirs
    if order == "any":
        theirs = data.draw(st.permutations(theirs))
    a = series(np.array(own) * 0.1, "a", "latitude")
    b = series(np.array(theirs) * 0.1, "b", "latitude")
    forward, ordered = 1 if own[0] < own[-1] else -1, sorted(theirs)
    starts = range(0, count - size + 1, stride)
    inside = []
    for start in starts:
        window = own[start : start + size]
        low, high = min(window) - cell / 2, max(window) + cell / 2
        inside.append([at for at, label in enumerate(ordered) if low <= label < high])
    # Where each sample passes an end of the source, nobody knows that there should be more.
    wanted = round(size * ratio)
    wanted = wanted if wanted in map(len, inside) else max(map(len, inside))
    found = []
    for start, places in zip(starts, inside, strict=True):
        if len(places) != wanted or not wanted:
            found.append(None)
        elif places[0] < halo or places[-1] + halo >= len(theirs):
            found.append(None)
        else:
            labels = ordered[places[0] - halo : places[-1] + 1 + halo][::forward]
            values = b.values[[theirs.index(label) for label in labels]]
            found.append({"a": a.values[start : start + size], "b": values})
    arguments = {"input_dims": {"latitude": size}, "input_overlap": {"latitude": size - stride}}
    source = Source(b, latitude=Within(halo=halo))
    expected = dict(enumerate(each for each in found if each is not None))
    if not expected:
        with pytest.raises(
            ValueError, match="source 'b' (leaves no sample|has no steps).*'latitude'"
        ):
            made({"a": a, "b": source}, **arguments)
        return
    samples = made({"a": a, "b": source}, **arguments)
    assert lost(samples) == found.count(None)
    check(samples, {"a": a, "b": b}, expected, data)


@given(st.data())
@examples(20)
def test_longitudes_within_a_sample_are_counted_around_the_circle(data):
    count = data.draw(st.sampled_from([12, 24]))
    step, ratio = 360 / count, data.draw(st.sampled_from([1, 2, 3]))
    begin = data.draw(st.sampled_from([0.0, -180.0, step / 2, 170.0, -170.0]))
    own = begin + np.arange(count) * step
    if data.draw(st.booleans()):  # a region, perhaps across the date line
        own = own[: data.draw(st.integers(3, 8))]
    wrapped = data.draw(st.sampled_from(["none", "0…360", "-180…180"]))
    if wrapped != "none":
        own = own % 360 if wrapped == "0…360" else (own + 180) % 360 - 180
    offset = data.draw(st.sampled_from([0.0, 0.5])) * step / ratio
    theirs = (np.arange(count * ratio) * step / ratio + offset) % 360
    if data.draw(st.booleans()):
        theirs = (theirs + 180) % 360 - 180
    theirs = np.roll(theirs, data.draw(st.integers(0, 5)))
    size = data.draw(st.integers(1, 3))
    a, b = series(own, "a", "lon"), series(theirs, "b", "lon")
    expected = {}
    for start in range(len(own) - size + 1):
        values = []
        for label in own[start : start + size]:
            low = label - step / 2
            inside = [
                ((other - low + 1e-6) % 360, place)
                for place, other in enumerate(theirs)
                if (other - low + 1e-6) % 360 < step
            ]
            values += [b.values[place] for _, place in sorted(inside)]
        expected[start] = {"a": a.values[start : start + size], "b": np.array(values)}
    arguments = {"input_dims": {"lon": size}, "input_overlap": {"lon": size - 1}}
    samples = made({"a": a, "b": Source(b, lon=Within())}, breaks="ignore", **arguments)
    assert not lost(samples)
    check(samples, {"a": a, "b": b}, expected, data)


@given(st.data())
@examples(20)
def test_as_many_nearest_steps_where_grids_do_not_divide_each_other(data):
    cell, fine = 12, data.draw(st.sampled_from([5, 7, 12, 19, 31]))
    count, size = data.draw(st.integers(4, 12)), data.draw(st.integers(1, 4))
    own = [place * cell for place in range(count)]
    first = data.draw(st.integers(-40, 10))
    theirs = [first + place * fine for place in range(data.draw(st.integers(2, 50)))]
    steps, halo = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 1))
    assume(steps + 2 * halo <= len(theirs))
    own = own[::-1] if data.draw(st.booleans()) else own
    a, b = series(np.array(own), "a", "y"), series(np.array(theirs), "b", "y")
    found = []
    for start in range(count - size + 1):
        window = own[start : start + size]
        low, high = min(window) - cell / 2, max(window) + cell / 2
        middle = (low + high) / 2
        nearest = sorted(range(len(theirs)), key=lambda at: (abs(theirs[at] - middle), theirs[at]))
        chosen = sorted(nearest[:steps])
        chosen = list(range(chosen[0] - halo, chosen[-1] + halo + 1))
        beyond = low < theirs[0] - fine or high > theirs[-1] + fine
        if beyond or chosen[0] < 0 or chosen[-1] >= len(theirs):
            found.append(None)
            continue
        if own[0] > own[-1]:
            chosen = chosen[::-1]
        found.append({"a": a.values[start : start + size], "b": b.values[chosen]})
    expected = dict(enumerate(each for each in found if each is not None))
    arguments = {"input_dims": {"y": size}, "input_overlap": {"y": size - 1}}
    source = Source(b, y=Within(size=steps, halo=halo))
    if not expected:
        with pytest.raises(ValueError, match="source 'b' leaves no sample.*'y'.* from .* to"):
            made({"a": a, "b": source}, **arguments)
        return
    samples = made({"a": a, "b": source}, **arguments)
    assert lost(samples) == found.count(None)
    check(samples, {"a": a, "b": b}, expected, data)


# Forecasts.


@given(times(), st.data())
@examples(20)
def test_the_leads_of_the_newest_forecast_are_those_that_are_valid(mine, data):
    inits = pd.date_range("2000-12-28", periods=data.draw(st.integers(3, 20)), freq="12h")
    inits += pd.Timedelta(minutes=data.draw(st.sampled_from([0, 30, 17])))
    inits = inits.delete(sorted(data.draw(st.sets(st.integers(0, len(inits) - 1), max_size=2))))
    hours = data.draw(
        st.sampled_from([range(0, 97, 6), [*range(0, 25, 3), *range(30, 121, 6)], range(1, 60)])
    )
    absent = data.draw(st.sets(st.sampled_from(list(hours)), max_size=2))
    leads = pd.to_timedelta([each for each in hours if each not in absent], "h")
    start = pd.Timedelta(hours=data.draw(st.sampled_from([-6, 0, 3])))
    stop = start + pd.Timedelta(hours=data.draw(st.sampled_from([1, 6, 24])))
    latency = pd.Timedelta(hours=data.draw(st.sampled_from([0, 5, 24])))
    size = data.draw(st.integers(1, 3))
    assume(len(inits) and len(mine) >= size)
    b = xr.DataArray(
        np.arange(len(inits) * len(leads), dtype="f4").reshape(len(inits), -1),
        {"init": inits, "lead": leads},
        dims=("init", "lead"),
        name="b",
    )
    a = series(mine, "a")
    found = []
    for first in range(len(mine) - size + 1):
        anchor = mine[first + size - 1]
        known = [place for place, init in enumerate(inits) if init + latency <= anchor]
        if not known:
            found.append(None)
            continue
        init = inits[known[-1]]
        valid = [p for p, lead in enumerate(leads) if anchor + start <= init + lead < anchor + stop]
        found.append((first, known[-1], valid))
    counts = pd.Series([len(each[2]) for each in found if each is not None and each[2]])
    often = int(counts.mode().min()) if len(counts) else 0
    found = [
        each if each is not None and often and len(each[2]) == often else None for each in found
    ]
    expected = dict(enumerate(each for each in found if each is not None))
    expected = {
        number: {"a": a.values[first : first + size], "b": b.values[[init]][:, valid]}
        for number, (first, init, valid) in expected.items()
    }
    source = Source(b, init=AsOf(1, latency=latency), lead=ValidTime(start, stop))
    arguments = {"input_dims": {"time": size}, "input_overlap": {"time": size - 1}}
    if not expected:
        with pytest.raises(ValueError, match="source 'b' leaves no sample.*'time'.* from "):
            made({"a": a, "b": source}, breaks="ignore", **arguments)
        return
    samples = made({"a": a, "b": source}, breaks="ignore", **arguments)
    assert lost(samples) == found.count(None)
    check(samples, {"a": a, "b": b}, expected, data)


@given(st.data())
@examples(25)
def test_analyses_are_found_at_the_valid_times_of_forecasts(data):
    freq = data.draw(st.sampled_from(["6h", "12h", "D", "MS"]))
    inits = pd.date_range("2001-01-01", periods=data.draw(st.integers(1, 8)), freq=freq)
    hours = data.draw(st.sampled_from([range(0, 73, 6), range(0, 120, 24), [0, 3, 6, 12, 18, 24]]))
    leads = pd.to_timedelta(list(hours)[: data.draw(st.integers(1, 8))], "h")
    valid = inits.values[:, None] + leads.values
    kind = data.draw(st.sampled_from(["sums", "others", "missing"]))
    if kind == "others":  # as months after an init are
        valid = valid + np.arange(valid.size).reshape(valid.shape) % 3 * np.timedelta64(6, "h")
    if kind == "missing":
        valid[-1, -1] = np.datetime64("NaT", "ns")
    dims = data.draw(st.permutations(["init", "lead"]))
    windowed = data.draw(st.sampled_from(["init", "lead", None]))
    analyses = pd.date_range(
        "2000-12-31", "2001-02-20", freq=data.draw(st.sampled_from(["3h", "6h"]))
    )
    holes = data.draw(st.sets(st.integers(0, min(60, len(analyses) - 1)), max_size=6))
    analyses = analyses.delete(sorted(holes))
    if data.draw(st.booleans()):
        analyses = analyses[::-1]
    a = xr.DataArray(
        np.arange(valid.size, dtype="f4").reshape(valid.shape),
        {"init": inits, "lead": leads, "valid_time": (("init", "lead"), valid)},
        dims=("init", "lead"),
        name="a",
    ).transpose(*dims)
    b = series(analyses, "b")
    size = data.draw(st.integers(1, a.sizes[windowed])) if windowed else 1
    input_dims = {windowed: size} if windowed else {}
    order = [dim for dim in dims if dim != windowed] + ([windowed] if windowed else [])
    counts = [a.sizes[dim] - (size - 1) * (dim == windowed) for dim in order]
    expected = {}
    for number, places in enumerate(itertools.product(*map(range, counts))):
        cut = {
            dim: slice(at, at + size) if dim == windowed else at
            for dim, at in zip(order, places, strict=True)
        }
        labels = np.atleast_1d(a.valid_time.isel(cut).values)
        if set(labels.tolist()) <= set(b.time.values.tolist()):
            values = b.sel(time=labels).values
            expected[number] = {
                "a": a.isel(cut).values,
                "b": values if windowed else values[0],
            }
    total = int(np.prod(counts))
    arguments = {
        "input_dims": input_dims,
        "input_overlap": {dim: size - 1 for dim in input_dims},
        "breaks": "ignore",
    }
    source = Source(b, time=At("valid_time"))
    if not expected:
        with pytest.raises(ValueError, match="source 'b' (has none|leaves no).*"):
            made({"a": a, "b": source}, **arguments)
        return
    samples = made({"a": a, "b": source}, **arguments)
    assert lost(samples) == total - len(expected)
    check(samples, {"a": a, "b": b}, expected, data)


@given(st.data())
@examples(13)
def test_a_source_is_found_at_a_coordinate_of_one_dim(data):
    count = data.draw(st.integers(3, 20))
    wanted = pd.date_range("2001-01-01", periods=40, freq="6h").values
    chosen = data.draw(st.lists(st.integers(0, 39), min_size=count, max_size=count))
    a = series(np.arange(count), "a", "event").assign_coords(at=("event", wanted[chosen]))
    kept = sorted(data.draw(st.sets(st.integers(0, 39), min_size=5)))
    b = series(wanted[kept], "b")
    size = data.draw(st.integers(1, 3))
    found = []
    for start in range(count - size + 1):
        places = [
            kept.index(each) if each in kept else None for each in chosen[start : start + size]
        ]
        whole = None not in places
        both = {"a": a.values[start : start + size], "b": b.values[places]} if whole else None
        found.append(both)
    expected = dict(enumerate(each for each in found if each is not None))
    assume(expected)
    arguments = {"input_dims": {"event": size}, "input_overlap": {"event": size - 1}}
    samples = made({"a": a, "b": Source(b, time=At("at"))}, **arguments)
    assert lost(samples) == found.count(None)
    check(samples, {"a": a, "b": b}, expected, data)


# Several at once, and what is refused.

GRID = {"latitude": np.linspace(10, -10, 21), "longitude": np.arange(0.0, 30.0)}


def grid(name, **coords):
    sizes = [len(each) for each in coords.values()]
    values = np.arange(np.prod(sizes), dtype="f4").reshape(sizes)
    return xr.DataArray(values, coords, dims=list(coords), name=name)


@given(st.data())
@examples(4)
def test_all_rules_together(data):
    mine = pd.date_range("2000-01-01", periods=24, freq="6h")
    days = pd.date_range("1999-12-20", periods=20).delete(3)
    inits = pd.date_range("1999-12-30", periods=16, freq="12h")
    leads = pd.to_timedelta(range(0, 48, 3), "h")
    era = grid("era", time=mine, **GRID)
    sst = grid("sst", time=days, longitude=GRID["longitude"][::-1] - 360)
    fine = {dim: (each[0], each[1] - each[0], len(each)) for dim, each in GRID.items()}
    topo = grid(
        "topo",
        **{d: f - s / 3 + np.arange(3 * n) * s / 3 for d, (f, s, n) in fine.items()},
    )
    gfs = grid("gfs", init=inits, lead=leads)
    const = xr.DataArray(np.arange(5, dtype="f4"), dims="k", name="const")
    sources = {
        "era": era,
        "sst": Source(sst, time=AsOf("3D", latency="1D", label="left")),
        "gfs": Source(gfs, init=AsOf(1, latency="5h"), lead=ValidTime("0h", "24h")),
        "topo": Source(topo, latitude=Within(), longitude=Within(halo=1)),
        "const": const,
    }
    sizes = {"time": 4, "latitude": 8, "longitude": 10}
    samples = made(sources, sizes, input_overlap={"time": 3})
    expected, number = {}, 0
    for t, y, x in itertools.product(range(21), range(0, 14, 8), range(0, 21, 10)):
        cut = {"time": slice(t, t + 4), "latitude": slice(y, y + 8), "longitude": slice(x, x + 10)}
        anchor = mine[t + 3]
        known = [at for at, day in enumerate(days) if day + pd.Timedelta("2D") <= anchor]
        whole = days[known[-1]] - days[known[-3]] == pd.Timedelta("2D")
        init = max(at for at, each in enumerate(inits) if each + pd.Timedelta("5h") <= anchor)
        valid = [
            at for at, lead in enumerate(leads) if anchor <= inits[init] + lead < anchor + leads[8]
        ]
        edges = 3 * x - 1 < 0 or 3 * (x + 10) + 1 > 90
        if edges or len(valid) != 8 or not whole:
            continue
        region = {"latitude": slice(3 * y, 3 * y + 24), "longitude": slice(3 * x - 1, 3 * x + 31)}
        lon = [29 - each for each in range(x, x + 10)]
        expected[number] = {
            "era": era.isel(cut).values,
            "sst": sst.isel(time=known[-3:], longitude=lon).values,
            "gfs": gfs.isel(init=[init], lead=valid).values,
            "topo": topo.isel(region).values,
            "const": const.values,
        }
        number += 1
    given = {"era": era, "sst": sst, "gfs": gfs, "topo": topo, "const": const}
    check(samples, given, expected, data)


YEAR = pd.date_range("2000-01-01", periods=100)


def refused(b, match, a=None, error=ValueError, **rules):
    a = series(YEAR, "a") if a is None else a
    sizes = {a.dims[0]: 2}
    with pytest.raises(error, match=match):
        made({"a": a, "b": Source(b, **rules)}, sizes)


def test_what_cannot_be_compared_is_refused():
    noleap = xr.date_range("2000-01-01", periods=100, calendar="noleap", use_cftime=True)
    b = series(noleap, "b")
    refused(b, "'b' along 'time' and the first source.*noleap.*standard")
    refused(b, "noleap calendar", time=AsOf(1, latency="0h"))
    refused(series(np.arange(100), "b"), "number and times", time=AsOf(1, latency="0h"))
    zone = series(YEAR.tz_localize("UTC"), "b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(zone, "time zone", time=AsOf(1, latency="0h"))
    refused(
        series(list("abc"), "b", "place"), "text and number", series(np.arange(9), "a", "place")
    )


def test_labels_twice_or_missing_or_in_no_order_are_refused_with_the_remedy():
    twice = series(YEAR.append(YEAR[:1]), "b")
    refused(twice, r"'b'.*'time' more than once.*drop_duplicates\('time'\)")
    refused(twice, r"'b' along 'time' must ascend.*drop_duplicates", time=AsOf(1, latency="0h"))
    mended = twice.drop_duplicates("time")
    assert len(made({"a": series(YEAR, "a"), "b": mended}, {"time": 2})) == 50
    backwards = series(YEAR[::-1], "b")
    refused(backwards, r"must ascend: ds.sortby\('time'\)", time=AsOf(1, latency="0h"))
    missing = series(YEAR.where(YEAR != YEAR[3]), "b")
    refused(missing, "1 label missing.*notnull", time=AsOf(1, latency="0h"))
    mended = missing.isel(time=missing["time"].notnull())
    rule = {"time": AsOf(1, latency="0h")}
    assert len(made({"a": series(YEAR, "a"), "b": Source(mended, rule)}, {"time": 2})) == 50
    circle = series(np.arange(0.0, 361.0, 10), "b", "lon")
    first = series(np.arange(0.0, 360.0, 10), "a", "lon")
    refused(circle, r"the same modulo 360.*slice\(-1\)", first)
    refused(circle, r"the same modulo 360", first, lon=Within())


def test_a_missing_label_is_no_label_of_another_source():
    """As integers, a missing time is as far from 1970 as can be, and further than integers go."""
    labels = pd.DatetimeIndex(["1969-12-31", "1970-01-01", "NaT", "1970-01-03"])
    a, b = series(labels, "a"), series(labels, "b")
    samples = made({"a": a, "b": b}, {})
    assert [float(samples[place][1]) for place in range(len(samples))] == [1, 2, 4]


def test_pressure_levels_are_matched_by_the_steps_beside_them():
    """Not by the median step, of which 1 % is more than there is between the uppermost levels."""
    a = series(np.array([1000.0, 800, 600, 400, 200, 2, 1, 0.5]), "a", "level")
    b = series(np.array([1000.0, 800, 600, 400, 200, 1]), "b", "level")
    samples = made({"a": a, "b": b}, {})
    assert [float(samples[place][1]) for place in range(len(samples))] == [1, 2, 3, 4, 5, 6]
    assert lost(samples) == 2


def test_durations_are_durations():
    b = series(YEAR, "b")
    for latency, error in (
        (5, TypeError),
        ("5", ValueError),
        ("1M", ValueError),
        ("soon", ValueError),
        ("-1h", ValueError),
        (np.timedelta64(1, "M"), ValueError),
    ):
        refused(b, "source 'b': latency along 'time'", error=error, time=AsOf(1, latency=latency))
    refused(b, "AsOf\\('30h'\\) is no whole number.*'time'.*1 day", time=AsOf("30h", latency="0h"))
    refused(b, "max_age", time=AsOf(1, latency="0h", max_age="1Y"))
    for latency in 0, "0h", pd.Timedelta(0), np.timedelta64(0, "h"):
        rule = {"time": AsOf("2D", latency=latency)}
        assert len(made({"a": series(YEAR, "a"), "b": Source(b, rule)}, {"time": 2})) == 50


def test_rules_that_do_not_fit():
    b, late = series(YEAR, "b"), AsOf(1, latency="0h")
    refused(b, "rule for dim 'place', which it lacks.*'time'", place=late)
    refused(b, "no dim of the samples, \\['time'\\]", time=AsOf(1, latency="0h", of="place"))
    refused(b, "Within along 'time'.*look ahead.*AsOf", time=Within())
    refused(b, "At\\('valid'\\) is no coordinate", time=At("valid"))
    place = series(np.arange(9), "a", "place")
    refused(b, "0 dims with times; AsOf\\(…, of=DIM\\)", place, time=late)
    refused(b, "Within is for a dim that the first source has", place, time=Within())
    with pytest.raises(ValueError, match="'place', whose labels are anchors"):
        made(
            {
                "a": place,
                "b": Source(series(np.arange(9), "b", "place"), place=Within()),
                "c": Source(series(np.arange(9), "c", "n"), n=AsOf(1, latency=0, of="place")),
            },
            {"place": 2},
        )
    leads = grid("b", init=YEAR, lead=np.arange(5))
    refused(leads, "ValidTime counts from the init.*there are 0", lead=ValidTime("0h", "6h"))
    refused(leads, "must be durations.*to_timedelta", init=late, lead=ValidTime("0h", "6h"))
    two = AsOf(2, latency="0h")
    refused(leads, "takes 2", init=two, lead=ValidTime("0h", "6h"))
    hours = leads.assign_coords(lead=pd.to_timedelta(np.arange(5), "h"))
    refused(hours, "must start before it stops", init=late, lead=ValidTime("6h", "0h"))
    bare = xr.DataArray(np.zeros(7), dims="time", name="b")
    refused(bare, "7 steps along 'time', the first one 100.*rename")
    refused(bare, "no labels along 'time'.*assign_coords", time=late)


def test_data_in_memory_is_not_copied_for_each_forecast_that_looks_it_up():
    inits = pd.date_range("2000-01-01", periods=40, freq="D")
    leads = pd.to_timedelta(np.arange(30) * 24, "h")
    valid = inits.values[:, None] + leads.values
    valid[0, 1] += np.timedelta64(1, "h")  # no sums, and so looked up one by one
    a = xr.DataArray(
        np.zeros((40, 30)),
        {"init": inits, "lead": leads, "valid": (("init", "lead"), valid)},
        dims=("init", "lead"),
        name="a",
    )
    days = pd.date_range("2000-01-01", periods=70)
    b = grid("b", time=days, x=np.arange(20_000))
    tracemalloc.start()
    samples = made({"a": a, "b": Source(b, time=At("valid"))}, {"lead": 3}, breaks="ignore")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * b.nbytes  # of 17 times, laid out one after the other
    np.testing.assert_array_equal(samples[9][1], b[1:4])  # the first one is left out


def test_at_most_one_dim_of_a_coordinate_is_windowed():
    inits, leads = pd.date_range("2000-01-01", periods=9), pd.to_timedelta(np.arange(5), "D")
    a = grid("a", init=inits, lead=leads)
    a = a.assign_coords(valid=a.init + a.lead)
    source = Source(series(YEAR, "b"), time=At("valid"))
    with pytest.raises(ValueError, match=r"'b'.*\['init', 'lead'\], one at most"):
        made({"a": a, "b": source}, {"init": 2, "lead": 2})
    taken = Source(grid("b", time=YEAR, lead=np.arange(3)), time=At("valid"))
    with pytest.raises(ValueError, match="'lead' of the samples takes the place.*rename"):
        made({"a": a, "b": taken}, {"lead": 2})


def test_rules_are_checked_when_they_are_made():
    for steps in 0, -1, np.int64(0):
        with pytest.raises(ValueError, match="steps must be 1 or more"):
            AsOf(steps, latency="0h")
    for steps in True, 1.5:
        with pytest.raises(TypeError, match="steps must be an integer"):
            AsOf(steps, latency="0h")
    with pytest.raises(TypeError):
        AsOf(1)
    with pytest.raises(ValueError, match="label must be"):
        AsOf(1, latency="0h", label="right")
    with pytest.raises(ValueError, match="halo must be 0"):
        Within(halo=-1)
    with pytest.raises(ValueError, match="size must be 1"):
        Within(size=0)
    with pytest.raises(ValueError, match="two rules for dim 'x'"):
        Source(None, {"x": Within()}, x=Within())
    with pytest.raises(TypeError, match="must be an AsOf, Within, ValidTime or At"):
        Source(None, x=3)


def test_unequal_numbers_within_samples_are_told_with_a_place():
    a = series(np.arange(0.0, 40), "a", "y")
    b = series(np.arange(0.0, 40, 0.7), "b", "y")
    with pytest.raises(
        ValueError, match=r"'b' has \d+ steps in most.*'y', but \d+ from .* to .*size="
    ):
        made({"a": a, "b": Source(b, y=Within())}, {"y": 4})
    alone = series(np.array([3.0]), "a", "y")
    with pytest.raises(ValueError, match="one label along 'y'.*size=n"):
        made({"a": alone, "b": Source(b, y=Within())}, {"y": 1})
    samples = made({"a": alone, "b": Source(b, y=Within(size=3))}, {"y": 1})
    np.testing.assert_allclose(b.y[samples.windows.of("b")[0]["y"]], [2.1, 2.8, 3.5])


def test_a_cell_holds_its_lower_edge_in_both_directions():
    """Also where labels descend: what is on an edge is in one sample, that above it."""
    fine = series(np.arange(-1.0, 4.01, 0.5), "b", "y")
    for own in np.arange(0.0, 4), np.arange(0.0, 4)[::-1]:
        samples = made({"a": series(own, "a", "y"), "b": Source(fine, y=Within())}, {"y": 1})
        for place, label in enumerate(own):
            found = fine.y[samples.windows.of("b")[place]["y"]].values
            assert sorted(found) == [label - 0.5, label]


def test_months_are_not_known_before_they_end():
    """The last one has no next label, and is as long as the longest."""
    months = pd.date_range("2001-01-01", periods=4, freq="MS")  # April has 30 days, March 31
    days = pd.date_range("2001-04-01", "2001-05-10")
    rule = AsOf(1, latency="0h", label="left")
    samples = made({"a": series(days, "a"), "b": Source(series(months, "b"), time=rule)}, {})
    assert len(samples) == 40
    for number in range(len(samples)):
        month = months[samples.windows.of("b")[number]["time"]][0]
        assert month + pd.offsets.MonthBegin() <= days[samples.windows[number]["time"]]


def test_what_no_sample_can_have_is_refused_of_every_source():
    def found(b, match, **rules):
        with pytest.raises(ValueError, match=match) as raised:
            made({"a": series(YEAR, "a"), "b": Source(b, **rules)}, {"time": 2})
        assert raised.value.__notes__ == ["of source 'b'"]

    late = AsOf(2, latency="0h")
    found(grid("b", time=YEAR, sample=np.arange(3)), "name of the batch dim", time=late)
    with pytest.warns(UserWarning, match="Duplicate dimension"):
        twice = xr.Dataset({"b": (("k", "k"), np.zeros((2, 2)))})
    found(twice, "has the dim 'k' twice")
    found(xr.Dataset({"b": ("k", np.zeros(0))}), "dim 'k' has size 0")
    ones = dask.array.ones(10, chunks=5)
    found(xr.DataArray(ones[ones > 0], dims="k", name="b"), "size of dim 'k' is unknown")
    sample = series(YEAR, "sample")
    with pytest.raises(ValueError, match="name of the batch dim"):
        xtd.MapDataset({"a": series(YEAR, "a"), "b": sample}, {"time": 2})
