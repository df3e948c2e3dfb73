"""Parts whose steps change with the epochs: the same samples, and only what is used is read."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from helpers import CountingStore
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

STEPS, SIZE, PAST = 60, 9, 6


def data():
    values = np.arange(STEPS * 2.0).reshape(STEPS, 2)
    coords = {"time": np.arange(STEPS) * 10, "x": [1, 2]}
    return xr.DataArray(values, coords, ("time", "x"), name="a")


def samples(schedule, overlap=8, kind=xtd.MapDataset, **options):
    given = {"inputs": xtd.Select("a", time=slice(0, PAST)), **options}
    return kind(
        data(), {"time": SIZE, "x": -1}, {"time": overlap},
        targets=xtd.Select("a", time=schedule), **given,
    )  # fmt: skip


GROWING = xtd.Schedule({0: slice(6, 7), 2: slice(6, 9)})


def steps_of(schedule, epoch):
    return np.arange(SIZE)[schedule.phases[max(e for e in schedule.phases if e <= epoch)]]


def require_right(batch, windows, steps, past=PAST):
    """Compare a batch with plain slices, values and labels."""
    values, labeled = data().to_numpy(), batch.to_xarray("y")
    for place, number in enumerate(batch.index.tolist()):
        start = windows[number]["time"].start
        assert np.array_equal(batch.x[place], values[start : start + past])
        assert np.array_equal(batch.y[place], values[start + steps])
        times = labeled["time"].isel(sample=place, missing_dims="ignore")
        assert np.array_equal(times, (start + steps) * 10)


@st.composite
def schedules(draw):
    longest = sorted(draw(st.sets(st.integers(1, SIZE - 1), min_size=1)))
    begins = sorted({0, *draw(st.lists(st.integers(1, 4), max_size=2))})
    phases = {
        begin: sorted(draw(st.sets(st.sampled_from(longest), min_size=1))) for begin in begins
    }
    phases[draw(st.sampled_from(begins))] = longest
    return xtd.Schedule(phases)


@given(
    schedule=schedules(),
    overlap=st.integers(0, 8),
    past=st.integers(1, PAST),
    shuffle=st.booleans(),
    memory=st.sampled_from([450, 900, "1 GiB"]),
    cache=st.booleans(),
)
@examples(20)
def test_samples_are_those_of_plain_slices_in_every_phase(
    schedule, overlap, past, shuffle, memory, cache
):
    inputs = xtd.Select("a", time=slice(0, past))
    every = samples(schedule, overlap, inputs=inputs)
    longest = samples(max(schedule.phases.values(), key=len), overlap, inputs=inputs)
    how = {"batch_size": 4, "shuffle": shuffle, "memory": memory, "cache": cache}
    stream, plain = (xtd.IterableDataset(each, **how) for each in (every, longest))
    assert repr(every.windows) == repr(longest.windows)
    for epoch in range(5):
        found = list(stream)
        assert [each.index.tolist() for each in found] == [each.index.tolist() for each in plain]
        for batch in found:
            require_right(batch, every.windows, steps_of(schedule, epoch), past)


@pytest.mark.parametrize("overlap", [8, 0])
def test_only_what_is_used_is_read(overlap):
    store = CountingStore(zarr.storage.MemoryStore())
    data().to_dataset().chunk(time=1).to_zarr(store, consolidated=False)
    windows = {"time": SIZE, "x": -1}, {"time": overlap}
    x = xtd.Select("a", time=slice(None, -3))  # steps from the end stay those of the window

    def read(steps, epoch):
        made = xtd.MapDataset(
            xtd.open_zarr(store), *windows, inputs=x, targets=xtd.Select("a", time=steps)
        )
        stream = xtd.IterableDataset(made, shuffle=True, memory=900)
        stream.set_epoch(epoch)
        explained = stream.explain().chunk_reads
        store.counts.clear()
        for batch in stream:
            assert batch.x.shape[1:] == (6, 2)
        chunks = sum(times for key, times in store.counts.items() if "a/c/" in key)
        assert chunks == explained
        return chunks

    first, second = (read(GROWING, epoch) for epoch in (0, 2))
    assert second == read(slice(6, 9), 0)
    if overlap:
        assert first < second
    else:  # each window for itself, without its last two steps: 6 windows
        assert first == 6 * 7
        assert second == 6 * 9


def test_set_epoch_alone_moves_the_phase_once_it_was_called():
    stream = samples(GROWING, kind=xtd.IterableDataset)

    def length():
        return next(iter(stream)).y.shape[1]

    assert [length() for _ in range(3)] == [1, 1, 3]
    stream.set_epoch(1)
    assert [length() for _ in range(3)] == [1, 1, 1]
    assert stream.epoch == 4
    stream.set_epoch(2)
    assert [length() for _ in range(2)] == [3, 3]

    every = samples(GROWING)
    loader = xtd.DataLoader(every, batch_size=4)
    assert next(iter(loader)).y.shape[1] == 1
    every.set_epoch(2)
    assert [next(iter(loader)).y.shape[1] for _ in range(2)] == [3, 3]
    assert every[0][1].shape == (3, 2)
    every.set_epoch(1)
    assert every[0][1].shape == (1, 2)
    by_sampler = xtd.DataLoader(every, batch_size=4, sampler=range(20))
    assert [next(iter(by_sampler)).y.shape[1] for _ in range(3)] == [1, 1, 1]
    fresh = xtd.DataLoader(samples(GROWING), batch_size=4, sampler=range(20))
    assert [next(iter(fresh)).y.shape[1] for _ in range(3)] == [1, 1, 3]


@pytest.mark.parametrize("set_epoch", [False, True])
@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_an_epoch_goes_on_in_its_phase(epochs, set_epoch):
    how = {"kind": xtd.IterableDataset, "batch_size": 4, "shuffle": True}
    stream = samples(GROWING, **how)
    if set_epoch:
        stream.set_epoch(1)
    for _ in range(epochs):
        list(stream)
    batches = iter(stream)
    first = [next(batches) for _ in range(3)]
    state = json.loads(json.dumps(stream.state_dict()))
    rest = list(batches)
    then = next(iter(stream)).y.shape
    other = samples(GROWING, **how)
    other.load_state_dict(state)
    found = list(other)
    assert [each.index.tolist() for each in found] == [each.index.tolist() for each in rest]
    assert all(torch.equal(one.y, two.y) for one, two in zip(found, rest, strict=True))
    assert first[0].y.shape[1:] == found[0].y.shape[1:]
    assert next(iter(other)).y.shape == then
    longest = samples(slice(6, 9), **how)
    longest.load_state_dict(state)  # which has the same samples in the same order
    assert next(iter(longest)).index.tolist() == rest[0].index.tolist()


def test_splits_weights_and_anchors_are_those_of_the_longest_phase():
    every, longest = samples(GROWING), samples(slice(6, 9))
    for by in ("windows", "targets"):
        ours, theirs = (xtd.split(each, "time", at=300, by=by) for each in (every, longest))
        assert [each.windows[0] for each in ours] == [each.windows[0] for each in theirs]
        assert [len(each) for each in ours] == [len(each) for each in theirs]
        part = xtd.IterableDataset(ours[1], batch_size=4)
        for epoch in range(3):
            for batch in part:
                require_right(batch, ours[1].windows, steps_of(GROWING, epoch))
    weights = xr.DataArray(np.arange(STEPS) % 5.0, dims="time")
    how = {"shuffle": True, "weights": weights, "batch_size": 8}
    ours, theirs = (xtd.IterableDataset(each, **how) for each in (every, longest))
    assert [b.index.tolist() for b in ours] == [b.index.tolist() for b in theirs]
    scheduled = samples(slice(6, 9), inputs=xtd.Select("a", time=GROWING))
    assert scheduled._inside.definition.anchors["time"] == 8


def test_parts_of_other_sources_have_schedules():
    other = data().rename("b")
    steps = xtd.Schedule({0: [0], 1: [0, 2]})
    every = xtd.MapDataset(
        {"first": data(), "second": other},
        {"time": SIZE, "x": -1},
        {"time": 4},
        inputs=xtd.Select("a", time=slice(0, PAST)),
        targets=xtd.Select("second/b", time=steps),
    )
    stream = xtd.IterableDataset(every, batch_size=3, shuffle=True)
    for phase in ([0], [0, 2], [0, 2]):
        for batch in stream:
            for place, number in enumerate(batch.index.tolist()):
                start = every.windows[number]["time"].start
                assert np.array_equal(batch.y[place], other.values[start + np.array(phase)])
            tree = batch.to_xarray()
            assert np.array_equal(
                tree["second"]["time"].transpose("sample", ...)[0],
                (every.windows[batch.index[0]]["time"].start + np.array(phase)) * 10,
            )


def test_functions_see_the_steps_of_the_phase():
    seen = set()

    def doubled(target):
        seen.add(target.sizes["time"])
        return 2 * target

    stream = samples(GROWING, kind=xtd.IterableDataset, batch_size=4, target_transform=doubled)
    values = data().to_numpy()
    for steps in ([6], [6], [6, 7, 8]):
        batch = next(iter(stream))
        assert np.array_equal(batch.y[0], 2 * values[steps])
    assert seen == {1, 3}


def test_phases_are_told():
    stream = samples(GROWING, kind=xtd.IterableDataset)
    found = stream.explain()
    assert found.phases == {0: {"y": (1, 2)}, 2: {"y": (3, 2)}}
    assert "from epoch 2 on: y (3, 2)" in str(found)
    assert repr(GROWING) == "Schedule({0: slice(6, 7, None), 2: slice(6, 9, None)})"


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({}, "mapping of epochs"),
        (slice(6, 9), "mapping of epochs"),
        ({3: slice(6, 9)}, "begins at epoch 0, not 3"),
        ({-1: slice(6, 7), 0: slice(6, 9)}, "begins at epoch 0, not -1"),
        ({0: slice(6, 7), 1.5: slice(6, 9)}, "an epoch of Schedule"),
        ({0: slice(6, 7), "a": slice(6, 9)}, "an epoch of Schedule"),
        ({0: GROWING}, "a Schedule itself"),
        ({0: 6, 2: slice(6, 9)}, "single steps and several"),
        ({0: slice(5, 6), 2: slice(6, 9)}, r"has steps \[5\], which the longest phase lacks"),
        ({0: slice(6, 10)}, "goes beyond a window of 9 steps"),
        ({0: slice(6, 6)}, "takes no step"),
    ],
)
def test_schedules_that_cannot_be(phases, message):
    with pytest.raises((TypeError, ValueError), match=message):
        samples(xtd.Schedule(phases))


def test_leads_are_those_of_the_phase():
    times = xr.date_range("2020-01-01", periods=STEPS, freq="6h")
    every = xtd.MapDataset(
        data().assign_coords(time=times),
        {"time": SIZE, "x": -1},
        {"time": 8},
        inputs=xtd.Select("a", time=slice(None, -3)),
        targets=xtd.Select("a", time=GROWING),
    )
    hours = np.timedelta64(6, "h")
    for epoch, leads in ((0, [1]), (2, [1, 2, 3])):
        every.set_epoch(epoch)
        found = every.fetch([3, 4]).to_xarray("y")["lead_time"]
        assert np.array_equal(found / hours, leads)


def test_a_mosaic_takes_batches_of_the_longest_phase():
    stream = samples(GROWING, kind=xtd.IterableDataset, batch_size=4)
    mosaic = xtd.Mosaic(stream, keep="time")
    batch = next(iter(stream))
    with pytest.raises(ValueError, match="follows a Schedule"):
        mosaic.add(batch, batch.y)
    stream.set_epoch(2)
    for batch in stream:
        mosaic.add(batch, batch.y)
    found = mosaic.to_xarray()["a"]
    assert found.sizes["lead_time"] == 3
    assert found.sizes["init_time"] == len(stream.windows)
    valid = (found["init_time"] + found["lead_time"]).values.ravel()
    assert np.array_equal(found.values.ravel(), data().sel(time=valid).values.ravel())
