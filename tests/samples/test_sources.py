"""Samples of several sources against loops over labels in plain Python."""

import itertools
import warnings

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
    before = data.draw(st.integers(0, len(numbers) // world // size))
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
@examples(60)
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
    if not expected:
        with pytest.raises(ValueError, match="'b' leaves no sample.*'time'.* from .* to "):
            made({"a": a, "b": source}, **arguments)
        return
    if cut is not None:
        parts = {"x": xtd.Select("a", time=slice(0, cut)), "a": "a", "b": "b/b"}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*source 'b'.*breaks")
            samples = xtd.MapDataset({"a": a, "b": source}, parts=parts, **arguments)
    else:
        samples = made({"a": a, "b": source}, **arguments)
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
