"""Samples that are left out, and samples that are drawn by weights."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import forecast, numbered, samples_of, tiny_memory_allowed
from hypothesis import assume, given
from hypothesis import strategies as st
from lines import make_line, plans
from lines import samples_of as of_stage
from strategies import cases, examples

import xtorch_data as xtd
from xtorch_data.planning.line import Line, run_length
from xtorch_data.planning.selection import BlockSums, Masked, SampleTable, Weighted


@st.composite
def tables(draw, windows, kind="where"):
    """A table over some axes, and what it says of each sample."""
    places = range(len(windows.axes))
    axes = tuple(place for place in places if draw(st.booleans()))
    shape = [windows.shape[place] for place in axes]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    density = draw(st.sampled_from([0.02, 0.3, 0.9, 1.0]))
    values = rng.random(shape) < density
    if kind == "weights":
        values = values * rng.integers(1, 5, shape).astype(float)
    own = [size if place in axes else 1 for place, size in enumerate(windows.shape)]
    full = np.broadcast_to(values.reshape(own), windows.shape).ravel()
    assume(full.any())
    return SampleTable(axes, values), full


def walk(line, start=0, stop=None):
    stages = line.stages([(start, len(line) if stop is None else stop)])
    return [number for stage in stages for number in of_stage(stage, line.grid.windows)]


@given(plans(), st.booleans(), st.integers(1, 5), st.data())
def test_a_filtered_line_is_the_line_less_what_is_left_out(plan, shuffle, pool, data):
    windows = plan[0]
    table, full = data.draw(tables(windows))
    grid = make_line(plan, shuffle).grid
    kept = Masked(BlockSums([table], grid))
    line = Line(grid, shuffle, 3, 1, pool, kept)
    expected = np.flatnonzero(full).tolist()
    whole = walk(line)
    assert len(line) == len(expected)
    assert (sorted(whole) if shuffle else whole) == expected
    start = data.draw(st.integers(0, len(line)))
    stop = data.draw(st.integers(start, len(line)))
    assert walk(line, start, stop) == whole[start:stop]
    # Where samples come in C order, either number is found from the other.
    assert [kept.sample(position) for position in range(len(line))] == expected
    before = np.append(0, np.cumsum(full))
    assert [kept.position(sample) for sample in range(len(windows) + 1)] == before.tolist()


@given(plans(max_samples=400), st.booleans(), st.data())
def test_no_block_is_read_of_which_nothing_is_wanted(plan, shuffle, data):
    windows = plan[0]
    table, full = data.draw(tables(windows))
    grid = make_line(plan, shuffle).grid
    line = Line(grid, shuffle, 0, 0, 2, Masked(BlockSums([table], grid)))
    numbers = np.arange(len(windows)).reshape(windows.shape)
    blocks = []
    held = None
    for stage in line.stages([(0, len(line))]):
        for load in stage.loads:
            blocks.append(load.block)
            box = tuple(slice(first, last) for first, last in grid.box(load.block))
            assert full[numbers[box]].any()
            if load.carried is not None:  # what is taken over was handed on
                assert held is not None
                assert held[0] <= load.carried
                assert held[1] == load.region[load.axis][0]
            held = None if load.keep is None else (load.keep, load.region[load.axis][1])
    assert not shuffle or len(blocks) == len(set(blocks))


@given(plans(), st.integers(1, 5), st.data())
def test_a_draw_holds_as_many_samples_and_none_of_weight_zero(plan, pool, data):
    windows = plan[0]
    table, full = data.draw(tables(windows, "weights"))
    grid = make_line(plan, True).grid

    def line(epoch):
        drawn = Weighted(BlockSums([table], grid), len(windows), 5, epoch, run_length(grid))
        return Line(grid, True, 5, epoch, pool, drawn)

    whole = walk(line(0))
    assert len(whole) == len(windows)
    assert full[whole].all()
    start = data.draw(st.integers(0, len(windows)))
    stop = data.draw(st.integers(start, len(windows)))
    assert walk(line(0), start, stop) == whole[start:stop]
    if np.count_nonzero(full) > 20:
        assert sorted(walk(line(1))) != sorted(whole)


def frequencies(dataset, epochs):
    counts = np.zeros(len(dataset.windows))
    for epoch in range(epochs):
        for stage in dataset.plan.stages(epoch, dataset.plan.left(epoch)):
            np.add.at(counts, stage.numbers(dataset.plan.windows), 1)
    return counts


@pytest.mark.parametrize("memory", ["1 kB", "1 GiB"])  # many blocks, and one
def test_samples_come_as_often_as_they_weigh(memory):
    weights = np.array([0.0, 1.0, 1.0, 2.0, 0.5, 7.0] * 20)
    ds = numbered((6, 20), ("time", "x")).chunk({"time": 2, "x": 3})
    along_x = xr.DataArray(weights.reshape(20, 6), dims=("x", "time"))
    dataset = xtd.IterableDataset(
        ds, {"time": 1}, weights=along_x, shuffle=True, seed=4, memory=memory
    )
    assert (len(dataset.plan.grid) > 1) == (memory == "1 kB")
    times = 500
    counts = frequencies(dataset, times)
    expected = times * len(weights) * weights / weights.sum()
    assert counts.sum() == times * len(weights)
    assert (counts[weights == 0] == 0).all()
    # Independent draws: the counts of one sample vary as those of coins that are thrown.
    chance = weights / weights.sum()
    deviation = np.sqrt(times * len(weights) * chance * (1 - chance))
    off = (counts - expected)[weights > 0] / deviation[weights > 0]
    assert np.abs(off).max() < 4
    assert 0.6 < (off**2).mean() < 1.4  # 100 squares, so within three deviations


def test_weights_are_given_for_each_sample_or_along_dims():
    ds = forecast(time=12, y=2, x=3)
    first = xtd.Select("a", time=0)
    arguments = {"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "shuffle": True}
    arguments |= {"inputs": "b", "targets": first}
    rng = np.random.default_rng(0)
    of_steps = xr.DataArray(rng.random(12), dims="time")
    of_windows = of_steps.isel(time=slice(9))
    on_map = xr.DataArray(rng.random((3, 2)), dims=("x", "y"))
    for weights in (of_steps, of_windows, of_steps * on_map, on_map, on_map.astype("float32")):
        shape = {"y": 2, "x": 3, "time": 9}
        each = xr.DataArray(np.ones((2, 3, 9)), dims=("y", "x", "time"))
        expected = (each * weights.isel(time=slice(9), missing_dims="ignore")).transpose(*shape)
        ours = xtd.IterableDataset(ds, weights=weights, **arguments)
        flat = xtd.IterableDataset(ds, weights=expected.values.ravel(), **arguments)
        as_samples = xtd.IterableDataset(
            ds, weights=xr.DataArray(expected.values.ravel(), dims="sample"), **arguments
        )
        torchs = xtd.IterableDataset(ds, weights=torch.tensor(expected.values.ravel()), **arguments)
        numbers = samples_of(ours)
        assert numbers == samples_of(flat) == samples_of(as_samples) == samples_of(torchs)
    labeled = of_steps.assign_coords(time=ds.time)
    assert samples_of(xtd.IterableDataset(ds, weights=labeled, **arguments)) == samples_of(
        xtd.IterableDataset(ds, weights=of_steps, **arguments)
    )


@given(
    target=st.one_of(
        st.none(),
        st.integers(-4, 3),
        st.sampled_from([slice(2, 4), slice(0, 4, 2), slice(3, None), [0, 1, 3], [3, 0, -2]]),
    ),
    stride=st.integers(1, 5),
    bad=st.sets(st.integers(0, 29), max_size=20),
)
@examples(30)
def test_weights_of_steps_are_means_over_the_steps_of_the_targets(target, stride, bad):
    """Compared with the mean of isel."""
    ds = forecast(time=30, y=2, x=3)
    steps = xr.DataArray([0.0 if n in bad else 1.0 + n for n in range(30)], dims="time")
    arguments = {"input_dims": {"time": 4, "y": -1, "x": -1}, "inputs": "b"}
    arguments["input_overlap"] = {"time": max(0, 4 - stride)}
    if target is not None:
        arguments["targets"] = xtd.Select("a", time=target)
    samples = xtd.MapDataset(ds, **arguments)
    windows = (samples.windows[number]["time"] for number in range(len(samples)))
    cut = slice(None) if target is None else target
    wanted = [float(steps[window].values[cut].mean()) for window in windows]
    if not any(wanted):
        return
    found = xtd.IterableDataset(samples, shuffle=True, weights=steps).plan.weights.values
    np.testing.assert_allclose(found, np.array(wanted) / max(wanted), rtol=1e-12)


@examples(4, 200)
@given(cases(), st.data())
def test_a_filtered_stream_is_the_stream_less_what_is_left_out(case, data):
    with case.stored.open() as ds, tiny_memory_allowed():
        everything = xtd.IterableDataset(ds, **case.arguments)
        table, full = data.draw(tables(everything.plan.windows))
        dims = [everything.plan.windows.axes[place].dim for place in table.axes]
        where = xr.DataArray(table.values, dims=dims)
        dataset = xtd.IterableDataset(ds, where=where, **case.arguments)
        found = list(dataset)
        kept = np.flatnonzero(full)
        numbers = samples_of(found)
        counted = len(kept) // case.batch_size * case.batch_size if case.drop_last else len(kept)
        assert len(numbers) == counted
        assert len(found) == len(dataset)
        assert set(numbers) <= set(kept.tolist())
        assert len(set(numbers)) == len(numbers)
        if not case.shuffle:
            assert numbers == kept[:counted].tolist()
        all_of = {}
        for batch in everything:
            all_of.update(zip(batch.index.tolist(), batch.x, strict=True))
        for batch in found:
            for number, x in zip(batch.index.tolist(), batch.x, strict=True):
                if number in all_of:
                    torch.testing.assert_close(x, all_of[number], rtol=0, atol=0, equal_nan=True)


def enough_there(window):
    return float(window.a.isnull().mean()) <= 0.25


def with_gaps():
    ds = forecast(time=40, y=3, x=2)
    holes = np.random.default_rng(1).random(ds.a.shape) < 0.2
    return ds.assign(a=ds.a.where(~holes))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_function_is_asked_about_every_window_once(shuffle):
    ds = with_gaps()
    asked = []

    def enough(window):
        asked.append(1)
        assert set(window.data_vars) == {"a", "b"}
        assert set(window.coords) == {"time", "y", "x", "longitude"}
        return enough_there(window)

    dataset = xtd.IterableDataset(
        ds,
        {"time": 4},
        {"time": 3},
        inputs="a",
        targets="b",
        where=enough,
        shuffle=shuffle,
        batch_size=8,
    )
    windows = dataset.windows
    assert len(asked) == len(windows) == 37 * 6
    expected = [n for n in range(len(windows)) if enough_there(ds.isel(windows[n]))]
    assert 0 < len(expected) < len(windows)
    for _ in range(2):
        numbers = samples_of(dataset)
        assert (sorted(numbers) if shuffle else numbers) == expected
    assert len(asked) == len(windows)
    assert f"{len(windows) - len(expected)} left out" in repr(dataset)
    assert dataset.plan.left_out == len(windows) - len(expected)
    # The answers serve another dataset; they carry the labels of first steps.
    again = xtd.IterableDataset(ds, {"time": 4}, {"time": 3}, where=dataset.where)
    assert samples_of(again) == expected
    assert dataset.where.time.equals(ds.time[:37])


def test_a_function_gets_what_preprocess_makes():
    ds = with_gaps()

    def shifted(block):
        return block.assign(c=block.a.fillna(0) + 100)

    dataset = xtd.IterableDataset(
        ds, {"time": 4}, inputs="c", preprocess=shifted, where=lambda w: bool(w.c.mean() > 100)
    )
    filled = ds.a.fillna(0)
    expected = [
        n for n in range(len(dataset.windows)) if filled.isel(dataset.windows[n]).mean() > 0
    ]
    assert samples_of(dataset) == expected


@pytest.mark.parametrize("given", ["where", "weights", "both"])
@pytest.mark.parametrize("world_size, workers, batch_size", [(1, 1, 3), (3, 1, 4), (2, 3, 5)])
def test_ranks_and_workers_share_what_there_is(given, world_size, workers, batch_size):
    ds = forecast(time=30, y=3, x=3).chunk({"time": 7, "x": 1})
    arguments = {"input_dims": {"time": 4}, "input_overlap": {"time": 2}, "memory": "4 kB"}
    arguments |= {"shuffle": True, "batch_size": batch_size, "uneven": "keep"}
    rng = np.random.default_rng(2)
    windows = xtd.IterableDataset(ds, **arguments).windows
    if given != "weights":
        arguments["where"] = rng.random(len(windows)) < 0.4
    if given != "where":
        arguments["weights"] = xr.DataArray(rng.random(3), dims="x")
    whole = xtd.IterableDataset(ds, **arguments)
    expected = sorted(samples_of(whole))
    assert len(expected) == len(whole.plan.windows) - whole.plan.left_out
    shared, batches = [], 0
    for rank in range(world_size):
        for worker in range(workers):
            part = whole.plan.intervals(0, rank, world_size, worker, workers)
            for stage in whole.plan.stages(0, part):
                shared += stage.numbers(whole.plan.windows).tolist()
        batches += whole.plan.batches(0, rank, world_size)
    assert sorted(shared) == expected
    counts = xtd.verify(whole, world_size, workers)
    assert (counts.samples, counts.repeated, counts.missing) == (len(expected), 0, 0)
    assert sum(counts.batches_per_rank) == batches


@pytest.mark.parametrize("given", ["where", "weights"])
def test_an_epoch_is_resumed_with_other_ranks(given):
    ds = forecast(time=40, y=2, x=2)
    rng = np.random.default_rng(3)
    values = rng.random(37 * 4)
    arguments = {"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "shuffle": True}
    arguments |= {given: values < 0.5 if given == "where" else values, "batch_size": 5}
    whole = sorted(samples_of(xtd.IterableDataset(ds, uneven="keep", **arguments)))
    done, state = [], None
    for rank in range(2):
        dataset = xtd.IterableDataset(ds, rank=rank, world_size=2, uneven="keep", **arguments)
        batches = iter(dataset)
        for _ in range(3):
            done += next(batches).index.tolist()
        state = json.loads(json.dumps(dataset.state_dict()))
    rest = []
    for rank in range(3):
        dataset = xtd.IterableDataset(ds, rank=rank, world_size=3, uneven="keep", **arguments)
        dataset.load_state_dict(state)
        rest += samples_of(dataset)
    assert sorted(done + rest) == whole
    other = xtd.IterableDataset(ds, **{**arguments, given: np.roll(arguments[given], 1)})
    with pytest.raises(ValueError, match=given):
        other.load_state_dict(state)


def test_parts_of_a_split_keep_their_filter_and_weights():
    ds = with_gaps()
    arguments = {"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "inputs": "a"}
    rng = np.random.default_rng(5)
    weights = rng.integers(0, 3, 37 * 6).astype(float)
    dataset = xtd.IterableDataset(
        ds, where=enough_there, weights=weights, shuffle=True, batch_size=7, **arguments
    )
    for part in xtd.split(dataset, "time", fractions=(0.5, 0.5)):
        windows = part.windows
        keeps = [n for n in range(len(windows)) if enough_there(ds.isel(windows[n])[["a"]])]
        assert part.plan.samples == len(keeps) < len(windows)
        drawn = {n for epoch in range(20) for n in samples_of(part)}
        first = {(str(windows.coords(n)["time"].values[0]), *index_of(windows, n)) for n in keeps}
        whole = dataset.windows
        weighing = {
            (str(whole.coords(n)["time"].values[0]), *index_of(whole, n))
            for n in range(len(whole))
            if weights[n] > 0
        }
        labels = {(str(windows.coords(n)["time"].values[0]), *index_of(windows, n)) for n in drawn}
        assert labels == first & weighing


def index_of(windows, number):
    return windows[number]["y"], windows[number]["x"]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"weights": np.ones(5)}, ValueError, r"shape \(5,\).* 80 samples"),
        ({"weights": -np.ones(80)}, ValueError, "negative"),
        ({"weights": np.zeros(80)}, ValueError, "weights of all samples are 0"),
        ({"weights": np.full(80, np.nan)}, ValueError, "finite"),
        ({"weights": np.full(80, "a")}, TypeError, "numbers"),
        ({"weights": np.ones(80), "shuffle": False}, ValueError, "shuffle=True"),
        ({"weights": xr.DataArray(np.ones(3), dims="level")}, ValueError, "dim 'level'"),
        ({"weights": xr.DataArray(np.ones(3), dims="x")}, ValueError, "3 values along 'x'"),
        ({"weights": xr.Dataset({"a": ("x", np.ones(4))})}, TypeError, "DataArray"),
        ({"where": np.zeros(80, bool)}, ValueError, "where leaves none of the 80 samples"),
        ({"where": lambda window: False}, ValueError, "where leaves none of the 80 samples"),
        ({"where": np.ones(80)}, TypeError, "float64"),
        ({"where": np.ones(81, bool)}, ValueError, r"shape \(81,\)"),
        ({"where": xr.DataArray(np.ones(8, bool), dims="time")}, ValueError, "rolling"),
        ({"where": lambda window: window.a.mean()}, TypeError, "True or False"),
        ({"where": lambda window, rng: True}, TypeError, "random"),
        ({"where": lambda: True}, TypeError, "where|positional"),
        (
            {"where": np.arange(80) < 3, "weights": np.arange(80) >= 3},
            ValueError,
            "weights of all samples are 0",
        ),
        (
            {"where": xr.DataArray(np.ones(4, bool), {"x": [1, 2, 3, 4]}, dims="x")},
            ValueError,
            "labeled along 'x'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    ds = forecast(time=8, y=4, x=4)
    with pytest.raises(error, match=message):
        xtd.IterableDataset(
            ds,
            **{"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "shuffle": True}
            | arguments,
        )


@pytest.mark.parametrize("way", ["all", "breaks", "part", "part with breaks"])
@pytest.mark.parametrize("overlap", [0, 2, 3])
def test_the_mask_that_a_message_offers_is_that_of_whole_windows(way, overlap):
    """The hint is executed as it is written."""
    ds = numbered(80).drop_vars("time", errors="ignore")
    at = np.arange(80) * 6
    if "breaks" in way:
        at = at + np.repeat([0, 100, 200, 300], [17, 1, 30, 32])  # nothing fits into one step
    ds = ds.assign_coords(time=at)
    dataset = xtd.MapDataset(ds, {"time": 4}, {"time": overlap}, breaks="split")
    if "part" in way:
        dataset = xtd.split(dataset, "time", fractions=(0.3, 0.7))[1]
    mask = xr.DataArray(np.random.default_rng(8).random(80) < 0.8, {"time": at}, dims="time")

    with pytest.raises(ValueError, match="From a mask of steps") as refused:
        dataset.replace(where=mask)
    hint = re.search(r"mask\.rolling.*\)(?=, with the dataset)", str(refused.value))[0]
    found = dataset.replace(where=eval(hint, {"mask": mask, "dataset": dataset}))

    numbers = range(len(dataset.windows))
    expected = [n for n in numbers if mask.isel(time=dataset.windows[n]["time"]).all()]
    assert 0 < len(expected) < len(numbers)
    assert samples_of(xtd.IterableDataset(found)) == expected


def even(window):
    return bool(window.a % 2 == 0)


def test_what_cannot_be_read_is_wanted_and_skipped_by_every_rank(tmp_path):
    numbered(40).chunk(time=5).to_zarr(tmp_path / "store", zarr_format=3, consolidated=False)
    chunk = tmp_path / "store/a/c/6"
    chunk.write_bytes(chunk.read_bytes()[:5])
    opened = xr.open_zarr(tmp_path / "store", consolidated=False, chunks=None)
    lengths, found = set(), []
    for rank in range(2):
        dataset = xtd.IterableDataset(
            opened,
            {"time": 1},
            where=even,
            on_error="skip",
            retries=0,
            batch_size=4,
            rank=rank,
            world_size=2,
        )
        lengths.add((len(dataset), dataset.plan.samples))
        found += samples_of(dataset)
    assert len(lengths) == 1
    assert sorted(set(found)) == [n for n in range(0, 40, 2) if n not in range(30, 35)]


def test_a_dim_of_the_data_may_be_named_sample():
    values = np.arange(6.0).reshape(3, 2)
    ds = xr.Dataset({"a": (("sample", "x"), values)}, {"sample": ["a", "b", "c"]})
    last = xr.DataArray([False, False, True], {"sample": ["a", "b", "c"]}, dims="sample")
    dataset = xtd.IterableDataset(ds, {}, where=last)
    assert samples_of(dataset) == [4, 5]
    with pytest.raises(ValueError, match="labeled along 'sample'"):
        xtd.IterableDataset(ds, {}, where=last[::-1])


def test_tables_along_other_dims_are_not_multiplied_out():
    ds = forecast(time=40, y=6, x=5)
    on_map = xr.DataArray(np.random.default_rng(0).random((6, 5)) < 0.5, dims=("y", "x"))
    in_time = xr.DataArray(np.random.default_rng(1).random(37), dims="time")
    arguments = {"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "shuffle": True}
    apart = xtd.IterableDataset(ds, where=on_map, weights=in_time, **arguments)
    both = (on_map * in_time).transpose("y", "x", "time").values.ravel()
    assert apart.plan.line(0).choice.total == on_map.sum() * 37
    counts = frequencies(apart, 300)
    expected = counts.sum() * both / both.sum()
    assert (counts[expected == 0] == 0).all()
    off = (counts - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert np.abs(off).max() < 5
    # The weights of all samples would be 555 times 8 bytes each.
    assert max(sums.nbytes for sums in apart.plan._weights._sums) <= 37 * 8


def test_what_is_worked_out_of_a_mask_does_not_go_to_workers():
    dataset = xtd.IterableDataset(
        numbered((60, 50, 200), ("y", "x", "time")),
        {"time": 4},
        {"time": 3},
        where=xr.DataArray(np.arange(197) % 3 == 0, dims="time"),
    )
    before = len(pickle.dumps(dataset.plan))
    for stage in dataset.plan.stages(0, [(100_000, 100_500)]):
        stage.numbers(dataset.plan.windows)
    dataset.explain()
    assert len(pickle.dumps(dataset.plan)) == before < 10_000


def test_a_function_is_asked_where_variables_lack_a_windowed_dim():
    ds = xr.Dataset({"a": (("t", "x"), np.ones((9, 4))), "oro": ("x", np.arange(4.0))})
    dataset = xtd.IterableDataset(
        ds, {"t": 3, "x": 2}, inputs="oro", where=lambda window: bool(window.oro.max() > 2)
    )
    numbers = range(len(dataset.windows))
    assert samples_of(dataset) == [n for n in numbers if dataset.windows[n]["x"].start == 2]


def test_an_answer_that_is_no_bool_is_said_to_be_of_where():
    with pytest.raises(TypeError, match="where returns True or False") as caught:
        xtd.IterableDataset(numbered(9), {"time": 2}, where=lambda window: window["a"] > 2)
    assert caught.value.__notes__ == ["in where of sample 0"]


def test_a_random_preprocess_and_a_function_are_refused():
    with pytest.raises(ValueError, match="DataArray of booleans"):
        xtd.IterableDataset(
            numbered(9), {"time": 2}, preprocess=lambda block, rng: block, where=even
        )


def test_a_part_of_which_nothing_is_wanted_is_named():
    dataset = xtd.IterableDataset(numbered(20), {"time": 1}, where=np.arange(20) < 8)
    with pytest.raises(ValueError, match="part 2 of 2 along 'time': where leaves none"):
        xtd.split(dataset, "time", fractions=(0.5, 0.5))
