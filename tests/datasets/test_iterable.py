"""An epoch, seen from outside: every sample once, its values and labels those of plain ``isel``."""

import asyncio
import contextlib
import math
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from helpers import (
    Oracle,
    add_noise,
    anomaly,
    assert_batch,
    assert_labels,
    assert_once,
    forecast,
    numbered,
    orders,
    samples_of,
    tiny_memory_allowed,
    twice_plus_one,
    xbatcher_windows,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, examples, window_arguments

import xtorch_data as xtd
from xtorch_data.gathering import gatherers, views


def build(ds, *args, **kwargs):
    with tiny_memory_allowed():
        return xtd.IterableDataset(ds, *args, **kwargs)


def kept_batches(loaded_batches):
    """All batches of an epoch, kept, and a copy of each taken when it came."""
    batches, copies = [], []
    for batch in loaded_batches:
        batches.append(batch)
        copies.append([tensor.clone() for tensor in batch])
    return batches, copies


# ---------------------------------------------------------------------------------------------
# The promise: every sample once, equal to isel


@examples(13, 600)
@given(cases())
def test_every_sample_once_and_equal_to_isel_for_any_data_windows_and_memory(case):
    every_sample_once_and_equal_to_isel(case)


# Each way that windows go from blocks to batches; which one is taken depends on sizes and strides.
# The bytes of windows up to which steps beside them are joined, and many selected by one call.
WAYS = {"selected": (10**9, 10**9), "one by one": (0, -1)}
# Copied, some may lie in two blocks.
TAKEN = dict.fromkeys(WAYS, {"windows selected"})
TAKEN["one by one"] = {"windows copied", "windows split"}


def take(way, patch):
    joined, selected = WAYS[way]
    patch.setattr(views, "SMALL_WINDOW_BYTES", joined)
    patch.setattr(gatherers, "SELECTED_BYTES", selected)


@pytest.mark.parametrize("way", WAYS)
@examples(5)
@given(case=cases())
def test_so_it_is_whichever_way_windows_go(way, case, monkeypatch):
    with monkeypatch.context() as patch:
        take(way, patch)
        dataset = every_sample_once_and_equal_to_isel(case)
    if len(dataset):
        taken = {path for path in dataset.stats().paths if path.startswith("windows")}
        assert taken and taken <= TAKEN[way]


@examples(5, 250)
@given(cases())
def test_so_it_is_if_windows_are_cut_on_a_device(case):
    every_sample_once_and_equal_to_isel(
        case, lambda dataset: xtd.DataLoader(dataset, device="cpu", gather="device")
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_ways_are_the_ones_that_were_asked_for(way, monkeypatch):
    ds = xr.Dataset({"v": (("time", "x"), np.random.default_rng(0).random((40, 3), "f4"))})
    take(way, monkeypatch)
    for shuffle in (False, True):
        dataset = xtd.IterableDataset(
            ds.chunk(time=5),
            {"time": 4, "x": -1},
            {"time": 3},
            inputs="v",
            batch_size=6,
            shuffle=shuffle,
            memory=300,
        )
        for batch in dataset:
            for number, window in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
                np.testing.assert_array_equal(window, ds["v"][number : number + 4])
        taken = {path for path in dataset.stats().paths if path.startswith("windows")}
        assert taken == TAKEN[way] - ({"windows split"} if shuffle else set())


def every_sample_once_and_equal_to_isel(case, load=iter):
    with case.stored.open() as ds:
        oracle = Oracle(ds)
        windows = xbatcher_windows(ds, case.names(ds), case.input_dims, case.input_overlap)
        total, size = len(windows), case.batch_size
        dataset = build(ds, **case.arguments)

        batches, copies = kept_batches(load(dataset))

        count = total // size if case.drop_last else math.ceil(total / size)
        assert len(dataset) == len(batches) == count
        numbers = samples_of(batches)
        assert len(numbers) == len(set(numbers))
        assert len(numbers) == (count * size if case.drop_last else total)
        assert set(numbers) <= set(range(total))
        assert all(len(batch) == size for batch in batches[:-1])
        if not case.shuffle:
            assert numbers == list(range(len(numbers)))
        for batch, copied in zip(batches, copies, strict=True):
            for tensor, copy in zip(batch, copied, strict=True):
                torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)
            assert_batch(batch, oracle, windows, case.parts(ds), list(case.input_dims))
    return dataset


@examples(20)
@given(cases())
def test_windows_are_those_of_xbatcher_and_coords_those_of_isel(case):
    ds = case.stored.ds.isel(case.stored.lazy)
    expected = xbatcher_windows(ds, case.names(ds), case.input_dims, case.input_overlap)
    windows = build(ds, **case.arguments).windows
    assert len(windows) == len(expected)
    assert [windows[number] for number in range(len(windows))] == expected
    assert windows[-1] == expected[-1]
    with pytest.raises(IndexError):
        windows[len(expected)]
    for number in {0, len(expected) // 2, len(expected) - 1}:
        found = xr.Dataset(coords=windows.coords(number))
        plain = ds[case.names(ds)].isel(expected[number])
        assert set(found.coords) == set(plain.coords)
        xr.testing.assert_equal(found, xr.Dataset(coords=plain.coords))


@examples(13)
@given(cases())
def test_labels_equal_xarray_isel_itself(case):
    """As the first test, but against xarray and not against numpy slices; one sample a batch."""
    with case.stored.open() as ds:
        windows = xbatcher_windows(ds, case.names(ds), case.input_dims, case.input_overlap)
        arguments = case.arguments | {"batch_size": None, "drop_last": False}
        dataset = build(ds, **arguments)
        for _, batch in zip(range(5), dataset, strict=False):
            number = batch.index.item()
            labels = batch.to_xarray()
            plain = ds[case.names(ds)].isel(windows[number]).compute()
            assert_labels(labels, [{name: (c.dims, c.values) for name, c in plain.coords.items()}])
            kept = {dim: cut for dim, cut in windows[number].items() if dim in case.input_dims}
            frame = xr.DataArray(
                np.zeros([cut.stop - cut.start for cut in kept.values()]), dims=list(kept)
            )
            for name in case.names(ds):
                found = labels[name].isel(sample=0) if "sample" in labels.dims else labels[name]
                bare = plain[name].drop_vars(plain[name].coords)
                expected = xr.broadcast(bare, frame)[0].transpose(*found.dims).values
                np.testing.assert_array_equal(found.values, expected.astype(found.dtype))


def test_one_sample_that_is_all_the_data_is_yielded_as_it_is():
    ds = forecast(time=5)
    dataset = build(ds, {"y": -1, "time": -1, "x": -1}, inputs="a")
    (batch,) = list(dataset)
    (x,) = batch
    np.testing.assert_array_equal(x.numpy()[0], ds["a"].transpose("y", "time", "x").values)


def test_input_dims_give_the_order_of_dims_and_a_list_the_variable_axis():
    ds = forecast(time=6, y=3, x=2)
    dataset = build(ds, {"x": 2, "time": 4}, inputs=["b", "a"], targets="a", batch_size=2)
    batch = next(iter(dataset))
    assert batch.x.shape == (2, 2, 2, 4)
    assert batch.y.shape == (2, 2, 4)
    plain = ds.isel(y=0, time=slice(0, 4)).transpose("x", "time")
    np.testing.assert_array_equal(batch.x[0, 0].numpy(), plain["b"].values)
    np.testing.assert_array_equal(batch.x[0, 1].numpy(), plain["a"].values)
    np.testing.assert_array_equal(batch.y[0].numpy(), plain["a"].values)


def test_inputs_left_out_are_all_data_variables_as_a_list():
    ds = forecast(names=("a", "b", "c"))
    (x,) = next(iter(build(ds, {"time": 4})))
    plain = ds.isel(time=slice(0, 4), y=0, x=0)
    np.testing.assert_array_equal(x[0].numpy(), np.stack([plain[n].values for n in "abc"]))


def test_dims_of_variables_that_are_not_used_make_no_samples():
    ds = forecast(time=8).assign(other=("level", np.arange(9.0)))
    dataset = build(ds, {"time": 8, "y": 4, "x": 5}, inputs=["a"])
    assert len(dataset.windows) == 1
    assert "level" not in next(iter(dataset)).to_xarray().dims


def test_text_that_is_not_used_does_no_harm():
    ds = forecast(time=8).assign(note=("time", np.array(["n"] * 8, dtype=object)))
    batches = list(build(ds, {"time": 4}, inputs="a"))
    assert_once(samples_of(batches), 2 * 4 * 5)


# ---------------------------------------------------------------------------------------------
# What may be handed in


def test_a_data_array_is_one_variable_without_that_axis():
    array = forecast(time=9)["a"]
    (batch,) = build(array, {"time": 4, "y": 4, "x": 5}, {"time": 3}, batch_size=6)
    np.testing.assert_array_equal(
        batch.x.numpy(), np.stack([array.isel(time=slice(k, k + 4)).values for k in range(6)])
    )
    assert list(batch.to_xarray().data_vars) == ["a"]


def test_a_data_array_without_a_name_is_called_x():
    array = forecast(time=9)["a"].rename(None).rename(x="longitude_index")
    labels = next(iter(build(array, {"time": 4}))).to_xarray()
    assert list(labels.data_vars) == ["x"]
    np.testing.assert_array_equal(labels["x"].values[0], array.values[:4, 0, 0])


def test_a_zarr_array_is_one_variable_with_the_dims_it_names():
    values = np.arange(60, dtype="float32").reshape(20, 3)
    array = zarr.create_array(
        zarr.storage.MemoryStore(), data=values, chunks=(7, 2), dimension_names=("time", "x")
    )
    batches = list(build(array, {"time": 5}, batch_size=4))
    assert_once(samples_of(batches), 12)
    found = torch.cat([batch.x for batch in batches]).numpy()
    expected = [values[5 * k : 5 * k + 5, x] for x in range(3) for k in range(4)]
    np.testing.assert_array_equal(found, expected)


def test_a_zarr_array_without_names_takes_dims():
    values = np.arange(60, dtype="int32").reshape(20, 3)
    array = zarr.create_array(zarr.storage.MemoryStore(), data=values, chunks=(7, 2))
    (batch,) = build(array, {"time": 20, "x": 3}, dims=("time", "x"))
    np.testing.assert_array_equal(batch.x.numpy()[0], values)
    assert batch.x.dtype == torch.int32


def test_a_zarr_group_is_the_dataset_that_xarray_opens_decoded(tmp_path):
    ds = forecast(time=12)
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9999}
    ds["a"][3, 2, 1] = np.nan
    ds.to_zarr(tmp_path / "g.zarr", encoding={"a": packed}, consolidated=False)
    plain = xr.open_zarr(tmp_path / "g.zarr", consolidated=False, chunks=None)
    group = zarr.open_group(tmp_path / "g.zarr", mode="r")
    (batch,) = build(group, {"time": 12, "y": 4, "x": 5}, inputs="a")
    np.testing.assert_array_equal(batch.x.numpy()[0], plain["a"].values.astype("float32"))
    labels = batch.to_xarray()
    np.testing.assert_array_equal(labels["time"].values, plain["time"].values)


def test_a_dataset_can_be_pickled_and_goes_on_in_the_same_order(tmp_path):
    ds = forecast(time=30)
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    dataset = build(
        xtd.open_zarr(tmp_path / "a.zarr", consolidated=False),
        {"time": 8},
        shuffle=True,
        batch_size=16,
        transform=twice_plus_one,
    )
    other = pickle.loads(pickle.dumps(dataset))
    for batch, same in zip(dataset, other, strict=True):
        assert torch.equal(batch.index, same.index)
        assert torch.equal(batch.x, same.x)


# ---------------------------------------------------------------------------------------------
# Dtypes and memory of the tensors


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ">f4", ">f8"])
def test_floating_data_is_float32(dtype):
    ds = forecast(time=6).astype(dtype)
    batch = next(iter(build(ds, {"time": 3}, inputs="a")))
    assert batch.x.dtype == torch.float32
    expected = ds["a"].isel(time=slice(0, 3), y=0, x=0).values.astype("float32")
    np.testing.assert_array_equal(batch.x[0].numpy(), expected)


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "uint16", "uint32", "int16", ">i2", "int32", ">i4", "int64", ">i8", "bool"],
)
def test_integers_and_booleans_keep_their_dtype(dtype):
    ds = numbered((12, 2), ("time", "x")).astype(dtype)
    batch = next(iter(build(ds, {"time": 3}, inputs="a", batch_size=8)))
    native = np.dtype(dtype).newbyteorder("=")
    assert batch.x.numpy().dtype == native
    values = ds["a"].values.astype(native)
    expected = [values[3 * k : 3 * k + 3, x] for x in range(2) for k in range(4)]
    np.testing.assert_array_equal(batch.x.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.float32])
def test_dtype_says_what_floating_data_becomes_and_leaves_integers(dtype):
    ds = forecast(time=6, dtype="float64").assign(n=("time", np.arange(6, dtype="int16")))
    dataset = build(ds, {"time": 3}, inputs="a", targets="n", dtype=dtype)
    batch = next(iter(dataset))
    assert batch.x.dtype == dtype
    assert batch.y.dtype == torch.int16
    plain = torch.from_numpy(ds["a"].isel(time=slice(0, 3), y=0, x=0).values.copy())
    assert torch.equal(batch.x[0], plain.to(dtype))


def test_nan_is_kept():
    ds = forecast(time=12)
    ds["a"] = ds["a"].where(ds["a"] > 0)
    for batch in build(ds, {"time": 4}, inputs="a", shuffle=True, batch_size=7):
        plain = np.concatenate(
            [ds["a"].values[k : k + 4, y, x][None] for k, y, x in _places(batch, 9, 4, 5)]
        )
        assert np.isnan(plain).any()
        np.testing.assert_array_equal(batch.x.numpy(), plain)


def _places(batch, starts, y, x):
    """Start, row and column of samples of ``forecast`` with stride 4 in time."""
    count = (starts + 3) // 4
    for number in batch.index.tolist():
        place, k = divmod(number, count)
        row, column = divmod(place, x)
        assert row < y
        yield 4 * k, row, column


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 5, None])
@pytest.mark.parametrize("window", [{"time": 4, "y": 4, "x": 5}, {"time": 30, "y": 4, "x": 5}])
def test_what_a_user_does_to_a_batch_reaches_neither_the_data_nor_other_batches(
    shuffle, batch_size, window
):
    ds = forecast(time=30, names=("a",))
    before = ds.copy(deep=True)
    overlap = {"time": window["time"] - 1}
    dataset = build(ds, window, overlap, inputs="a", shuffle=shuffle, batch_size=batch_size)
    size = window["time"]
    for _ in range(2):
        for batch in dataset:
            numbers = np.ravel(batch.index.numpy())
            expected = [before["a"].values[k : k + size] for k in numbers]
            np.testing.assert_array_equal(batch.x.numpy().reshape(-1, size, 4, 5), expected)
            batch.x.fill_(-1e9)
    xr.testing.assert_identical(ds, before)


def test_a_kept_batch_never_changes_while_iteration_goes_on():
    ds = forecast(time=200, y=8, x=8, names=("a",))
    dataset = build(
        ds, {"time": 8, "y": 8, "x": 8}, {"time": 7}, inputs="a", batch_size=16, memory="64 KiB",
        shuffle=True,
    )  # fmt: skip
    kept, views, copies = [], [], []
    for _ in range(3):
        for number, batch in enumerate(dataset):
            if number % 3 == 0:
                kept.append(batch)
            elif number % 3 == 1:
                # only a view of a part outlives the batch
                views.append(batch.x[2:5, 1:])
                copies.append(views[-1].clone())
    for view, copy in zip(views, copies, strict=True):
        assert torch.equal(view, copy)
    for batch in kept:
        plain = np.stack([ds["a"].values[k : k + 8] for k in batch.index.tolist()])
        np.testing.assert_array_equal(batch.x.numpy(), plain)


def test_an_array_from_a_tensor_outlives_its_batch():
    ds = forecast(time=100, names=("a",))
    dataset = build(ds, {"time": 8}, inputs="a", batch_size=32)
    arrays = [(batch.index.tolist(), batch.x.numpy()) for batch in dataset]
    per_place = 12
    for numbers, array in arrays:
        for number, values in zip(numbers, array, strict=True):
            place, k = divmod(number, per_place)
            y, x = divmod(place, 5)
            np.testing.assert_array_equal(values, ds["a"].values[8 * k : 8 * k + 8, y, x])


# ---------------------------------------------------------------------------------------------
# Batches and epochs


@pytest.mark.parametrize("shuffle", [False, True])
def test_batch_size_none_gives_samples_without_the_batch_dim(shuffle):
    ds = forecast(time=9)
    dataset = build(
        ds, {"time": 4, "x": 5}, {"time": 3}, inputs=["a", "b"], targets="a", batch_size=None,
        shuffle=shuffle,
    )  # fmt: skip
    windows = xbatcher_windows(ds, ["a", "b"], {"time": 4, "x": 5}, {"time": 3})
    samples = list(dataset)
    assert len(dataset) == len(samples) == len(windows)
    assert_once(samples_of(samples), len(windows))
    for sample in samples:
        assert sample.index.ndim == 0
        plain = ds.isel(windows[sample.index.item()])
        np.testing.assert_array_equal(sample.x.numpy(), np.stack([plain["a"], plain["b"]]))
        np.testing.assert_array_equal(sample.y.numpy(), plain["a"].values)


@pytest.mark.parametrize("batch_size", [1, 7, 12, 13, 60, 61, 1000])
def test_drop_last_leaves_out_only_the_batch_that_is_not_full(batch_size):
    ds = numbered(60)
    full = list(build(ds, {"time": 1}, batch_size=batch_size, shuffle=True))
    cut = build(ds, {"time": 1}, batch_size=batch_size, shuffle=True, drop_last=True)
    batches = list(cut)
    assert len(cut) == len(batches) == 60 // batch_size
    assert orders(batches) == orders(full)[: 60 // batch_size]
    assert all(len(batch) == batch_size for batch in batches)


def shuffled(seed=0, **kwargs):
    arguments = {"shuffle": True, "seed": seed, "batch_size": 32, "inputs": "a"} | kwargs
    return build(forecast(time=64, names=("a",)), {"time": 8}, {"time": 4}, **arguments)


def test_the_same_seed_and_epoch_give_the_same_order_and_the_next_epoch_another():
    one, two = shuffled(), shuffled()
    epochs = [orders(one) for _ in range(3)]
    assert [orders(two) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert orders(shuffled(seed=1)) != epochs[0]
    two.set_epoch(1)
    assert orders(two) == epochs[1]
    assert orders(two) == epochs[2]


def test_shuffled_is_not_in_order_and_mixes_far_places():
    numbers = samples_of(shuffled())
    assert_once(numbers, 15 * 4 * 5)
    steps = np.abs(np.diff(numbers))
    assert np.mean(steps == 1) < 0.1
    # Random pairs out of n are n / 3 apart on average.
    assert np.mean(steps) > len(numbers) / 6


def test_epoch_is_the_number_of_the_next_one():
    dataset = shuffled()
    assert dataset.epoch == 0
    list(dataset)
    assert dataset.epoch == 1
    next(iter(dataset))
    assert dataset.epoch == 2
    dataset.set_epoch(7)
    assert dataset.epoch == 7
    order = orders(dataset)
    assert dataset.epoch == 8
    other = shuffled()
    other.set_epoch(7)
    assert orders(other) == order


def test_breaking_off_leaves_the_next_epoch_whole():
    dataset = shuffled()
    for _ in dataset:
        break
    assert_once(samples_of(dataset), 15 * 4 * 5)


@contextlib.contextmanager
def global_random_state_untouched():
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert after[0] == before[0]
    for old, new in zip(before[1], after[1], strict=True):
        np.testing.assert_array_equal(old, new)
    assert torch.equal(before[2], after[2])


@pytest.mark.parametrize("through_loader", [False, True])
def test_global_random_state_is_left_alone_and_has_no_say(through_loader):
    def epoch():
        with global_random_state_untouched():
            dataset = shuffled(transform=add_noise)
            source = xtd.DataLoader(dataset) if through_loader else dataset
            return [(tuple(batch.index.tolist()), batch.x.sum().item()) for batch in source]

    first = epoch()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    assert epoch() == first


def test_a_dataset_iterates_in_a_notebook_that_runs_an_event_loop_of_its_own():
    async def cell():
        return samples_of(shuffled())

    assert_once(asyncio.run(cell()), 15 * 4 * 5)


def test_a_dataset_iterates_in_another_thread():
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(orders, shuffled()) for _ in range(2)]
        assert [future.result() for future in futures] == [orders(shuffled())] * 2


def test_two_iterators_of_one_dataset_do_not_disturb_each_other():
    ds = forecast(time=64, names=("a",))
    windows = xbatcher_windows(ds, ["a"], {"time": 8}, {"time": 4})
    dataset, reference = shuffled(memory="8 KiB"), shuffled(memory="8 KiB")
    expected = [orders(reference) for _ in range(2)]
    seen = [[], []]
    iterators = [iter(dataset), iter(dataset)]
    kept = []
    for _ in range(len(dataset)):
        for place, iterator in enumerate(iterators):
            batch = next(iterator)
            kept.append(batch)
            seen[place].append(tuple(batch.index.tolist()))
    assert all(next(iterator, None) is None for iterator in iterators)
    assert seen == expected
    for batch in kept:
        plain = np.stack([ds["a"].isel(windows[k]).values for k in batch.index.tolist()])
        np.testing.assert_array_equal(batch.x.numpy(), plain)


# ---------------------------------------------------------------------------------------------
# Select and parts


@st.composite
def selections(draw):
    """Windows over ``forecast`` and, for two parts, variables and an isel inside the window."""
    ds = forecast(time=12, y=5, x=4, names=("a", "b")).assign(
        c=(("x", "y"), np.arange(20, dtype="int16").reshape(4, 5)),
    )
    input_dims, overlap = draw(window_arguments({"time": 12, "y": 5, "x": 4}))
    parts = {}
    for part in ("x", "y", "static")[: draw(st.integers(1, 3))]:
        names = draw(st.sampled_from(["a", "b", ["a"], ["a", "b"], ["b", "c"]]))
        select = {}
        for dim in input_dims:
            size = ds.sizes[dim] if input_dims[dim] == -1 else input_dims[dim]
            kind = draw(st.sampled_from(["all", "slice", "stride", "reverse", "integer"]))
            if kind == "slice":
                start = draw(st.integers(0, size - 1))
                stop = draw(st.integers(start + 1, size))
                select[dim] = slice(start, stop)
            elif kind == "stride":
                select[dim] = slice(draw(st.integers(-size, size - 1)), None, 2)
            elif kind == "reverse":
                select[dim] = slice(None, None, -1)
            elif kind == "integer":
                select[dim] = draw(st.integers(-size, size - 1))
        parts[part] = (names, select)
    return ds, input_dims, overlap, parts


@examples(8, 400)
@given(selections(), st.booleans(), st.integers(20, 60))
def test_select_is_isel_inside_the_window(selection, shuffle, batch_size):
    ds, input_dims, overlap, parts = selection
    dataset = build(
        ds,
        input_dims,
        overlap,
        parts={part: xtd.Select(names, **select) for part, (names, select) in parts.items()},
        batch_size=batch_size,
        shuffle=shuffle,
    )
    oracle = Oracle(ds)
    used = ["a", "b", "c"]
    used = [n for n in used if any(n == names or n in names for names, _ in parts.values())]
    # dims not used by any part make no samples; all have a or b here, with all the dims
    windows = xbatcher_windows(ds, used, input_dims, overlap)
    numbers = []
    for batch in dataset:
        numbers += batch.index.tolist()
        for part, (names, select) in parts.items():
            expected = [
                oracle.part(names, windows[k], list(input_dims), select)
                for k in batch.index.tolist()
            ]
            np.testing.assert_array_equal(batch[part].numpy(), np.stack(expected))
            labels = batch.to_xarray(part).drop_vars("lead_time", errors="ignore")
            listed = [names] if isinstance(names, str) else names
            assert set(labels.data_vars) == set(listed)
            left = [dim for dim in input_dims if not isinstance(select.get(dim), int)]
            for place, name in enumerate(listed):
                assert labels[name].dims == ("sample", *left)
                values = batch[part] if isinstance(names, str) else batch[part][:, place]
                np.testing.assert_array_equal(labels[name].values, values.numpy())
            assert_labels(
                labels, [oracle.coords(listed, windows[k], select) for k in batch.index.tolist()]
            )
    assert_once(numbers, len(windows))


def test_a_forecast_selects_the_past_as_inputs_and_the_future_as_targets():
    ds = forecast(time=30)
    dataset = build(
        ds,
        {"time": 8, "y": 4, "x": 5},
        {"time": 7},
        inputs=xtd.Select(["a", "b"], time=slice(0, 2)),
        targets=xtd.Select("a", time=slice(2, 8)),
        batch_size=6,
        shuffle=True,
    )
    for batch in dataset:
        x, y = batch
        assert x.shape[1:] == (2, 2, 4, 5)
        assert y.shape[1:] == (6, 4, 5)
        for place, k in enumerate(batch.index.tolist()):
            past, future = ds.isel(time=slice(k, k + 2)), ds.isel(time=slice(k + 2, k + 8))
            np.testing.assert_array_equal(x[place].numpy(), np.stack([past["a"], past["b"]]))
            np.testing.assert_array_equal(y[place].numpy(), future["a"].values)


def test_to_xarray_names_a_variable_and_a_dim_after_the_part_where_parts_differ():
    ds = forecast(time=30)
    dataset = build(
        ds,
        {"time": 8, "x": 5},
        inputs=xtd.Select(["a", "b"], time=slice(0, 2)),
        targets=xtd.Select("a", time=slice(2, 8)),
        batch_size=3,
    )
    batch = next(iter(dataset))
    labels = batch.to_xarray()
    assert set(labels.data_vars) == {"a_x", "b", "a_y"}
    assert labels["a_x"].dims == labels["b"].dims == ("sample", "time_x", "x")
    assert labels["a_y"].dims == ("sample", "time_y", "x")
    for place in range(3):
        plain = ds.isel(y=0, time=slice(8 * place, 8 * place + 8))
        one = labels.isel(sample=place)
        np.testing.assert_array_equal(one["time_x"].values, plain["time"].values[:2])
        np.testing.assert_array_equal(one["time_y"].values, plain["time"].values[2:])
        np.testing.assert_array_equal(one["x"].values, plain["x"].values)
        np.testing.assert_array_equal(one["a_x"].values, plain["a"].values[:2])
        np.testing.assert_array_equal(one["b"].values, plain["b"].values[:2])
        np.testing.assert_array_equal(one["a_y"].values, plain["a"].values[2:])
    target = batch.to_xarray("y")
    assert set(target.data_vars) == {"a"}
    assert target["a"].dims == ("sample", "time", "x")
    np.testing.assert_array_equal(target["time"].values, labels["time_y"].values)


def test_a_variable_in_two_parts_cut_alike_keeps_one_time_axis():
    ds = forecast(time=30)
    labels = next(iter(build(ds, {"time": 8}, inputs=["a"], targets="a"))).to_xarray()
    assert set(labels.data_vars) == {"a_x", "a_y"}
    assert labels["a_x"].dims == labels["a_y"].dims == ("sample", "time")
    np.testing.assert_array_equal(labels["time"].values[0], ds["time"].values[:8])


def test_any_number_of_named_parts():
    ds = forecast(time=20).assign(orography=(("y", "x"), np.arange(20.0).reshape(4, 5)))
    dataset = build(
        ds,
        {"time": 8, "y": 4, "x": 5},
        parts={"x": ["a"], "y": xtd.Select("a", time=slice(2, 8)), "static": "orography"},
        batch_size=2,
    )
    (batch,) = dataset
    x, y, static = batch
    assert x.shape == (2, 1, 8, 4, 5)
    assert y.shape == (2, 6, 4, 5)
    assert static.shape == (2, 8, 4, 5)
    for place in range(2):
        plain = ds.isel(time=slice(8 * place, 8 * place + 8))
        np.testing.assert_array_equal(x[place, 0].numpy(), plain["a"].values)
        np.testing.assert_array_equal(y[place].numpy(), plain["a"].values[2:])
        for step in static[place]:
            np.testing.assert_array_equal(step.numpy(), ds["orography"].values)
    assert torch.equal(batch.static, static)


# ---------------------------------------------------------------------------------------------
# Transforms


def by_day(sample):
    """Uses the labels of the sample."""
    return sample * sample["time"].dt.dayofyear


def mean_over_time(sample):
    return sample.mean("time")


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("inputs", ["a", ["b", "a"]])
@pytest.mark.parametrize("function", [twice_plus_one, anomaly, by_day, mean_over_time])
def test_transform_is_the_function_on_each_sample(function, inputs, shuffle):
    ds = forecast(time=20)
    input_dims, overlap = {"time": 8, "x": 5}, {"time": 6}
    windows = xbatcher_windows(ds, ["a", "b"], input_dims, overlap)
    dataset = build(
        ds, input_dims, overlap, inputs=inputs, transform=function, shuffle=shuffle, batch_size=5
    )
    numbers = []
    for batch in dataset:
        for place, number in enumerate(batch.index.tolist()):
            plain = function(ds[inputs].isel(windows[number]))
            if isinstance(plain, xr.Dataset):
                plain = plain[inputs].to_dataarray()
            np.testing.assert_allclose(batch.x[place].numpy(), plain.values, rtol=2e-6, atol=1e-6)
        numbers += batch.index.tolist()
    assert_once(numbers, len(windows))


def test_transform_leaves_the_targets_alone_and_target_transform_the_inputs():
    ds = forecast(time=20)
    plain = build(ds, {"time": 8}, inputs=["a", "b"], targets="b", batch_size=9)
    both = build(
        ds, {"time": 8}, inputs=["a", "b"], targets="b", batch_size=9,
        transform=twice_plus_one, target_transform=anomaly,
    )  # fmt: skip
    for batch, changed in zip(plain, both, strict=True):
        np.testing.assert_allclose(changed.x.numpy(), batch.x.numpy() * 2 + 1, rtol=1e-6)
        y = batch.y.numpy()
        np.testing.assert_allclose(changed.y.numpy(), y - y.mean(1, keepdims=True), atol=1e-6)


def test_a_transform_that_works_in_place_harms_no_other_window_and_not_the_data():
    def in_place(sample):
        sample.values[...] *= 3
        return sample

    ds = forecast(time=20)
    before = ds.copy(deep=True)
    dataset = build(ds, {"time": 8, "y": 4, "x": 5}, {"time": 7}, inputs="a", transform=in_place)
    found = {}
    for _ in range(2):
        try:
            for batch in dataset:
                found[batch.index.item()] = batch.x.numpy()[0]
        except Exception as error:  # a block that cannot be written to is as good
            assert "read-only" in f"{error} {error.__cause__}"
    for k, values in found.items():
        np.testing.assert_array_equal(values, before["a"].values[k : k + 8] * np.float32(3))
    xr.testing.assert_identical(ds, before)


def test_a_transform_in_place_on_inputs_leaves_the_targets():
    def in_place(sample):
        sample.values[...] *= 3
        return sample

    ds = forecast(time=20)
    dataset = build(
        ds, {"time": 8}, inputs="a", targets="a", batch_size=7,
        transform=in_place, target_transform=lambda sample: sample + 0,
    )  # fmt: skip
    plain = build(ds, {"time": 8}, inputs="a", batch_size=7)
    for batch, other in zip(dataset, plain, strict=True):
        np.testing.assert_array_equal(batch.y.numpy(), other.x.numpy())
        np.testing.assert_array_equal(batch.x.numpy(), other.x.numpy() * np.float32(3))


def test_a_transform_whose_dtype_differs_between_samples_loses_nothing():
    """Either all fit into a wider dtype, or an error says that they do not."""

    def half_of_the_odd(sample):
        return sample * 0.5 if int(sample[0]) % 2 else sample

    dataset = build(numbered(8), {"time": 1}, inputs="a", transform=half_of_the_odd, batch_size=8)
    try:
        (batch,) = dataset
    except (TypeError, ValueError) as error:
        assert "dtype" in str(error)
        return
    expected = [0, 0.5, 2, 1.5, 4, 2.5, 6, 3.5]
    np.testing.assert_array_equal(batch.x.numpy().ravel(), expected)


def test_a_transform_that_orders_variables_differently_mixes_nothing_up():
    def sometimes_turned(sample):
        return sample[["b", "a"]] if sample["a"][0] > 0 else sample

    ds = forecast(time=20)
    dataset = build(ds, {"time": 8}, inputs=["a", "b"], transform=sometimes_turned, batch_size=40)
    plain = next(iter(build(ds, {"time": 8}, inputs=["a", "b"], batch_size=40)))
    try:
        (batch,) = dataset
    except (TypeError, ValueError) as error:
        assert "variable" in str(error)
        return
    assert torch.equal(batch.x, plain.x) or torch.equal(batch.x, plain.x.flip(1))


def noise_of(dataset, plain):
    """Sample number to what a transform added to each part."""
    added = {}
    for batch in dataset:
        for place, number in enumerate(batch.index.tolist()):
            added[number] = [(tensor[place] - plain[number]).flatten().numpy() for tensor in batch]
    return added


def test_rng_of_a_transform_depends_on_seed_epoch_and_sample_alone():
    ds = forecast(time=40, y=1, x=1, dtype="float64")
    plain = {k: torch.from_numpy(ds["a"].values[k : k + 8]).reshape(8, 1, 1) for k in range(33)}

    def noise(epoch=0, **kwargs):
        arguments = {"batch_size": 4, "dtype": torch.float64} | kwargs
        dataset = build(
            ds, {"time": 8, "y": 1, "x": 1}, {"time": 7}, inputs="a", targets="a",
            transform=add_noise, target_transform=add_noise, **arguments,
        )  # fmt: skip
        dataset.set_epoch(epoch)
        added = noise_of(dataset, plain)
        assert sorted(added) == list(range(33))
        for x, y in added.values():
            np.testing.assert_allclose(x, x[0], atol=1e-9)
            np.testing.assert_allclose(y, x, atol=1e-9)  # one draw hits inputs and targets
        return np.array([added[number][0][0] for number in range(33)])

    first = noise()
    assert len(np.unique(first.round(9))) == 33
    for other in (
        {"batch_size": 7},
        {"memory": "2 kB"},
        {"shuffle": True},
        {"shuffle": True, "batch_size": 5, "memory": "2 kB"},
    ):
        np.testing.assert_allclose(noise(**other), first, atol=1e-9)
    assert not np.isclose(noise(epoch=1), first).any()
    assert not np.isclose(noise(seed=1), first).any()


def test_rng_of_one_rank_of_three_is_that_of_one_alone():
    ds = forecast(time=40, y=1, x=1)
    arguments = {"inputs": "a", "transform": add_noise, "batch_size": 4, "uneven": "keep"}
    alone = {
        number: values
        for batch in build(ds, {"time": 8}, {"time": 7}, **arguments)
        for number, values in zip(batch.index.tolist(), batch.x, strict=True)
    }
    for rank in range(3):
        part = build(ds, {"time": 8}, {"time": 7}, rank=rank, world_size=3, **arguments)
        for batch in part:
            for number, values in zip(batch.index.tolist(), batch.x, strict=True):
                assert torch.equal(values, alone[number])


def wind_speed(block):
    return block.assign(speed=np.hypot(block["a"], block["b"]), a=block["a"] * 10)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["3 kB", "1 GiB"])
def test_preprocess_is_the_function_on_all_the_data(shuffle, memory):
    ds = forecast(time=30)
    after = wind_speed(ds)
    windows = xbatcher_windows(ds, ["a", "b"], {"time": 8, "x": 5}, {"time": 7})
    dataset = build(
        ds, {"time": 8, "x": 5}, {"time": 7}, inputs=["a", "b", "speed"], targets="speed",
        preprocess=wind_speed, shuffle=shuffle, memory=memory, batch_size=11,
    )  # fmt: skip
    numbers = []
    for batch in dataset:
        for place, number in enumerate(batch.index.tolist()):
            plain = after.isel(windows[number])
            stack = np.stack([plain[name].values for name in ("a", "b", "speed")])
            np.testing.assert_allclose(batch.x[place].numpy(), stack, rtol=1e-6)
            np.testing.assert_allclose(batch.y[place].numpy(), stack[2], rtol=1e-6)
        numbers += batch.index.tolist()
    assert_once(numbers, len(windows))


@pytest.mark.parametrize("storage", ["memory", "dask", "zarr"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_preprocess_that_works_in_place_changes_each_value_once_and_not_the_data(
    tmp_path, storage, shuffle
):
    def in_place(block):
        block["a"].values[...] *= 3
        block["static"].values[...] *= 5
        return block

    ds = forecast(time=40, names=("a",)).assign(static=(("y", "x"), np.ones((4, 5), "float32")))
    before = ds.copy(deep=True)
    data = ds
    if storage == "dask":
        data = ds.chunk(time=7)
    elif storage == "zarr":
        ds.to_zarr(tmp_path / "a.zarr", consolidated=False, encoding={"a": {"chunks": (7, 4, 5)}})
        data = xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)
    dataset = build(
        data, {"time": 8, "y": 4, "x": 5}, {"time": 7}, inputs="a", targets="static",
        preprocess=in_place, memory="4 kB", shuffle=shuffle, batch_size=4,
    )  # fmt: skip
    for _ in range(2):
        numbers = []
        for batch in dataset:
            numbers += batch.index.tolist()
            plain = [before["a"].values[k : k + 8] * np.float32(3) for k in batch.index.tolist()]
            np.testing.assert_array_equal(batch.x.numpy(), np.stack(plain))
            assert (batch.y == 5).all()
        assert_once(numbers, 33)
    xr.testing.assert_identical(ds, before)


def test_preprocess_runs_once_a_block_and_not_once_a_sample():
    calls = []

    def counting(block):
        calls.append(dict(block.sizes))
        return block

    ds = forecast(time=64)
    dataset = build(ds, {"time": 8}, {"time": 7}, inputs="a", preprocess=counting, batch_size=64)
    calls.clear()
    assert_once(samples_of(dataset), 57 * 20)
    assert 1 <= len(calls) <= 57 * 20 / 8


def test_preprocess_sees_the_labels_of_its_block():
    def by_hour(block):
        return block * block["time"].dt.hour

    ds = forecast(time=30)
    after = by_hour(ds)
    dataset = build(ds, {"time": 8, "y": 4, "x": 5}, inputs="a", preprocess=by_hour, memory="3 kB")
    for k, batch in enumerate(dataset):
        np.testing.assert_allclose(
            batch.x.numpy()[0], after["a"].values[8 * k : 8 * k + 8], rtol=1e-6
        )


def test_rng_of_preprocess_is_the_same_again_and_another_in_the_next_epoch():
    ds = forecast(time=40, y=1, x=1)

    def epochs():
        dataset = build(ds, {"time": 8}, inputs="a", preprocess=add_noise, batch_size=5)
        return [torch.cat([batch.x for batch in dataset]).numpy() for _ in range(2)]

    one, two = epochs()
    plain = ds["a"].values.reshape(5, 8)
    # one draw a block, so whole windows move by one number
    added = one - plain
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1], added.shape), atol=1e-6)
    assert (np.abs(added) > 1e-6).all()
    assert not np.isclose(one, two).any()
    for first, again in zip((one, two), epochs(), strict=True):
        np.testing.assert_array_equal(first, again)


def without_batch_mean(batch):
    return batch.assign(a=batch["a"] - batch["a"].mean("sample"), b=batch["b"] * batch["sample"])


@pytest.mark.parametrize("inputs", ["a", ["a"]])
def test_batch_transform_is_the_function_on_the_labeled_batch(inputs):
    ds = forecast(time=30)
    arguments = {"inputs": inputs, "targets": "b", "batch_size": 7, "shuffle": True}
    plain = build(ds, {"time": 8}, **arguments)
    changed = build(ds, {"time": 8}, batch_transform=without_batch_mean, **arguments)
    for batch, other in zip(plain, changed, strict=True):
        assert torch.equal(batch.index, other.index)
        x, y = batch.x.numpy(), batch.y.numpy()
        np.testing.assert_allclose(other.x.numpy(), x - x.mean(0, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(other.y.numpy(), y * batch.index.numpy()[:, None], rtol=1e-6)
        assert other.x.dtype == other.y.dtype == torch.float32


def test_batch_transform_sees_the_labels_of_every_sample():
    seen = {}  # batches may be made side by side

    def look(batch):
        seen[tuple(batch["sample"].values.tolist())] = batch
        return batch

    ds = forecast(time=30)
    windows = xbatcher_windows(ds, ["a"], {"time": 8})
    batches = list(build(ds, {"time": 8}, inputs="a", batch_transform=look, batch_size=7))
    oracle = Oracle(ds)
    for batch, numbers in zip(batches, orders(batches), strict=True):
        labels = seen[numbers]
        assert labels["a"].dims == ("sample", "time")
        np.testing.assert_array_equal(labels["a"].values, batch.x.numpy())
        assert_labels(labels, [oracle.coords(["a"], windows[number]) for number in numbers])


def test_a_variable_that_batch_transform_leaves_out_is_named():
    dataset = build(
        forecast(time=TIME),
        {"time": 4},
        inputs=["a", "b"],
        batch_transform=lambda batch: batch[["a"]],
    )
    with pytest.raises(ValueError, match="left out variable 'b' of part 'x'"):
        next(iter(dataset))


def test_rng_of_batch_transform_is_one_a_batch_and_the_same_again():
    ds = forecast(time=40, y=1, x=1)
    arguments = {"inputs": "a", "batch_size": 2}
    plain = torch.cat([batch.x for batch in build(ds, {"time": 4}, **arguments)])

    def epochs():
        dataset = build(ds, {"time": 4}, batch_transform=add_noise, **arguments)
        return [(torch.cat([batch.x for batch in dataset]) - plain).numpy() for _ in range(2)]

    first, again = epochs(), epochs()
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
        per_batch = one.reshape(5, -1)
        np.testing.assert_allclose(
            per_batch, np.broadcast_to(per_batch[:, :1], per_batch.shape), atol=1e-6
        )
        assert len(np.unique(per_batch[:, 0].round(6))) == 5
    assert not np.isclose(first[0], first[1]).any()


def test_transforms_run_in_the_order_preprocess_transform_batch_transform():
    ds = forecast(time=30)
    dataset = build(
        ds, {"time": 8}, inputs="a", batch_size=4,
        preprocess=lambda block: block + 1,
        transform=lambda sample: sample * 2,
        batch_transform=lambda batch: batch - 5,
    )  # fmt: skip
    plain = build(ds, {"time": 8}, inputs="a", batch_size=4)
    for batch, other in zip(plain, dataset, strict=True):
        np.testing.assert_allclose(other.x.numpy(), (batch.x.numpy() + 1) * 2 - 5, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# Errors, each its own, when the dataset is made


def drop_a_step(block):
    return block.isel(time=slice(1, None))


def average(block):
    return block.mean("time")


def text(length):
    return np.array(["text"] * length, dtype=object)


TIME = 24
WRONG = {
    # name: (what is handed in, arguments, words of the message)
    "unknown dim in input_dims": (None, {"input_dims": {"tme": 4}}, ["tme", "input_dims"]),
    "unknown dim in input_overlap": (None, {"input_overlap": {"tme": 2}}, ["tme", "input_overlap"]),
    "overlap of a dim without window": (None, {"input_overlap": {"y": 1}}, ["y", "input_overlap"]),
    "unknown variable in inputs": (None, {"inputs": "t2m"}, ["t2m"]),
    "unknown variable in a list": (None, {"inputs": ["a", "u10"]}, ["u10"]),
    "unknown variable in targets": (None, {"inputs": "a", "targets": "tp"}, ["tp"]),
    "unknown variable in parts": (None, {"parts": {"x": "z500"}}, ["z500"]),
    "unknown variable in Select": (None, {"inputs": xtd.Select(["q"], time=0)}, ["q"]),
    "dim coordinate in inputs": (
        None, {"inputs": ["a", "y"]}, ["'y' is a coordinate", "ds.assign({'y_value': ds['y']})"]
    ),
    "coordinate after preprocess": (
        None, {"inputs": "y", "preprocess": twice_plus_one}, ["'y'", "is a coordinate"]
    ),
    "other coordinate in inputs": (
        None, {"inputs": "longitude"}, ["is a coordinate", "ds.reset_coords('longitude')"]
    ),
    "no variable at all": (None, {"inputs": []}, ["x|inputs", "variable"]),
    "a variable instead of its name": (
        None, {"inputs": forecast(time=TIME)["a"]}, ["part 'x'", "name", "DataArray"]
    ),
    "names in a list in a list": (None, {"inputs": [["a"], "b"]}, ["part 'x'", "name"]),
    "Select in a list": (None, {"inputs": [xtd.Select("a")]}, ["part 'x'", "name"]),
    "a variable twice": (None, {"inputs": ["a", "b", "a"]}, ["part 'x'", "'a' twice"]),
    "a variable twice in Select": (None, {"targets": xtd.Select(["b", "b"])}, ["'y'", "'b' twice"]),
    "window larger than the dim": (None, {"input_dims": {"time": 25}}, ["time", "25", "24"]),
    "window of no step": (None, {"input_dims": {"time": 0}}, ["time", "0"]),
    "window of negative steps": (None, {"input_dims": {"time": -3}}, ["time", "-3"]),
    "window that is no integer": (None, {"input_dims": {"time": 2.5}}, ["time", "2.5"]),
    "overlap like the window": (None, {"input_overlap": {"time": 4}}, ["time", "4", "overlap"]),
    "overlap beyond the window": (None, {"input_overlap": {"time": 9}}, ["time", "9", "overlap"]),
    "overlap without its dim": (None, {"input_overlap": 3}, ["input_overlap", "mapping", "3"]),
    "memory as a flag": (None, {"memory": True}, ["memory", "bytes", "True"]),
    "zero samples": (lambda ds: ds.isel(time=slice(0, 0)), {}, ["time", "0"]),
    "zero samples along another dim": (lambda ds: ds.isel(y=slice(0, 0)), {}, ["y", "0"]),
    "empty dataset": (lambda ds: xr.Dataset(), {}, ["empty|no data variable|no variable"]),
    "object data": (lambda ds: ds.assign(o=("time", text(TIME))), {"inputs": "o"}, ["o", "object"]),
    "string data": (
        lambda ds: ds.assign(s=("time", text(TIME).astype("U4"))),
        {"inputs": ["a", "s"]},
        ["s", "U4"],
    ),
    "datetime data": (
        lambda ds: ds.assign(when=ds["time"].variable), {"inputs": "when"}, ["when", "datetime64"]
    ),
    "timedelta data": (
        lambda ds: ds.assign(lead=("time", np.arange(TIME) * np.timedelta64(1, "h"))),
        {"inputs": "a", "targets": "lead"},
        ["lead", "timedelta64"],
    ),
    "inputs and parts": (None, {"inputs": "a", "parts": {"x": "a"}}, ["inputs", "parts"]),
    "targets and parts": (None, {"targets": "a", "parts": {"x": "a"}}, ["targets", "parts"]),
    "no parts": (None, {"parts": {}}, ["parts"]),
    "Select of an unknown dim": (None, {"inputs": xtd.Select("a", lev=0)}, ["lev", "a|inputs|x"]),
    "Select of a dim without window": (None, {"inputs": xtd.Select("a", y=0)}, ["y", "input_dims"]),
    "Select beyond the window": (None, {"inputs": xtd.Select("a", time=4)}, ["time", "4"]),
    "windowed dim called sample": (
        lambda ds: ds.rename(time="sample"), {"input_dims": {"sample": 4}}, ["sample", "rename"]
    ),
    "variable called sample": (lambda ds: ds.rename(a="sample"), {}, ["sample"]),
    "Select of no step": (None, {"inputs": xtd.Select("a", time=slice(4, 8))}, ["time"]),
    "Select that stops beyond the window": (
        None, {"inputs": xtd.Select("a", time=slice(2, 5))}, ["slice(2, 5, None)", "of 4 steps"]
    ),
    "Select that starts beyond the window": (
        None, {"inputs": xtd.Select("a", time=slice(9, None, -1))}, ["9", "of 4 steps"]
    ),
    "preprocess that cuts a windowed dim": (
        None, {"preprocess": drop_a_step}, ["preprocess", "time"]
    ),
    "preprocess that drops a windowed dim": (None, {"preprocess": average}, ["preprocess", "time"]),
    "preprocess that is no function": (None, {"preprocess": 3}, ["preprocess"]),
    "transform that is no function": (None, {"transform": "mean"}, ["transform"]),
    "target_transform without targets": (
        None, {"inputs": "a", "target_transform": twice_plus_one}, ["target_transform", "y"]
    ),
    "batch_size 0": (None, {"batch_size": 0}, ["batch_size", "0"]),
    "negative batch_size": (None, {"batch_size": -4}, ["batch_size", "-4"]),
    "fractional batch_size": (None, {"batch_size": 2.5}, ["batch_size", "2.5"]),
    "batch_size as text": (None, {"batch_size": "many"}, ["batch_size", "many"]),
    "shuffle as text": (None, {"shuffle": "yes"}, ["shuffle must be True or False", "yes"]),
    "drop_last as a number": (None, {"drop_last": 1}, ["drop_last must be True or False", "1"]),
    "unknown uneven": (None, {"uneven": "maybe"}, ["uneven", "maybe", "drop", "pad", "keep"]),
    "memory without a unit": (None, {"memory": "a lot"}, ["memory", "a lot"]),
    "unknown unit of memory": (None, {"memory": "3 parsec"}, ["memory", "parsec"]),
    "negative memory": (None, {"memory": -5}, ["memory", "-5"]),
    "rank beyond the world": (None, {"rank": 4, "world_size": 3}, ["rank", "4", "3"]),
    "negative rank": (None, {"rank": -1, "world_size": 2}, ["rank", "-1"]),
    "no world": (None, {"rank": 0, "world_size": 0}, ["world_size", "0"]),
    "rank without world_size": (None, {"rank": 1}, ["rank", "world_size"]),
    "unknown dtype": (None, {"dtype": "float31"}, ["dtype", "float31"]),
    "seed that is no integer": (None, {"seed": "luck"}, ["seed", "luck"]),
    "negative seed": (None, {"seed": -1}, ["seed", "-1"]),
    "data that is no labeled array": (lambda ds: ds["a"].values, {}, ["ndarray"]),
}  # fmt: skip


def message_of(name):
    change, arguments, _ = WRONG[name]
    ds = forecast(time=TIME)
    data = ds if change is None else change(ds)
    with pytest.raises((ValueError, TypeError, KeyError)) as caught:
        xtd.IterableDataset(data, **({"input_dims": {"time": 4}} | arguments))
    return str(caught.value)


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused_when_the_dataset_is_made_in_words_that_name_it(name):
    message = message_of(name)
    for word in WRONG[name][2]:
        assert any(choice in message for choice in word.split("|")), f"{word!r} not in: {message}"
    assert len(message) > 20


def test_what_is_told_of_coordinates_makes_data_variables_of_them():
    ds = forecast(time=TIME)
    told = ds.assign({"y_value": ds["y"]}).reset_coords("longitude")
    names = ["a", "y_value", "longitude"]
    batch = next(iter(xtd.IterableDataset(told, {"time": 4, "y": -1, "x": -1}, inputs=names)))
    y, longitude = batch.x[0, 1:, 0].numpy()
    np.testing.assert_array_equal(y, np.float32(ds["y"].values[:, None] + np.zeros((4, 5))))
    np.testing.assert_array_equal(longitude, np.float32(ds["longitude"]))


@pytest.mark.parametrize("part", [slice(None), slice(-9, None), slice(1, -1), slice(3, None, -2)])
def test_open_and_negative_ends_of_a_select_are_those_of_isel(part):
    ds = forecast(time=TIME)
    dataset = xtd.IterableDataset(ds, {"time": 4}, inputs=xtd.Select("a", time=part))
    expected = ds["a"].isel(time=slice(0, 4), y=0, x=0).isel(time=part)
    np.testing.assert_array_equal(next(iter(dataset)).x[0], expected)


def test_flags_and_numbers_may_be_those_of_numpy():
    dataset = xtd.IterableDataset(
        forecast(time=TIME),
        {"time": np.int64(4)},
        shuffle=np.True_,
        drop_last=np.False_,
        memory=np.int64(10**6),
    )
    assert (dataset.shuffle, dataset.plan.drop_last) == (True, False)
    assert dataset.plan.memory == 10**6


def test_each_kind_of_bad_input_has_a_message_of_its_own():
    kinds = [
        "unknown dim in input_dims",
        "unknown variable in inputs",
        "window larger than the dim",
        "overlap beyond the window",
        "zero samples",
        "empty dataset",
        "object data",
        "string data",
        "inputs and parts",
        "preprocess that cuts a windowed dim",
        "negative batch_size",
        "unknown uneven",
        "memory without a unit",
    ]
    messages = [message_of(kind) for kind in kinds]
    # also when the names and numbers in it are left out
    skeletons = {"".join(c for c in message if c.isalpha())[:40] for message in messages}
    assert len(set(messages)) == len(kinds)
    assert len(skeletons) == len(kinds)


def test_input_dims_cannot_be_left_out():
    with pytest.raises((TypeError, ValueError), match="input_dims"):
        xtd.IterableDataset(forecast())


def test_arguments_after_input_overlap_go_by_name():
    with pytest.raises(TypeError):
        xtd.IterableDataset(forecast(), {"time": 4}, {"time": 2}, ["a"])


@pytest.mark.parametrize(
    "argument",
    [
        {"sampler": torch.utils.data.RandomSampler(range(3))},
        {"batch_size": 4},
        {"shuffle": True},
        {"drop_last": True},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_the_loader_refuses_what_the_dataset_has_said(argument):
    dataset = xtd.IterableDataset(forecast(), {"time": 4})
    with pytest.raises((TypeError, ValueError), match=next(iter(argument))):
        xtd.DataLoader(dataset, **argument)


@pytest.mark.parametrize("workers", [-1, 1.5, "two"])
def test_the_loader_refuses_a_bad_number_of_workers(workers):
    dataset = xtd.IterableDataset(forecast(), {"time": 4})
    with pytest.raises((TypeError, ValueError), match="num_workers"):
        xtd.DataLoader(dataset, num_workers=workers)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA")
def test_device_cuda_without_cuda_is_a_clear_error_when_the_loader_is_made():
    dataset = xtd.IterableDataset(forecast(), {"time": 4})
    with pytest.raises(RuntimeError, match="(?i)cuda"):
        xtd.DataLoader(dataset, device="cuda")


def test_a_sample_larger_than_the_memory_is_told_when_the_dataset_is_made():
    with pytest.warns(UserWarning, match="memory"):
        xtd.IterableDataset(forecast(), {"time": 8, "y": 4, "x": 5}, memory="500 B")


def test_a_dim_called_sample_of_which_each_place_is_a_sample_labels_them():
    ds = forecast(time=12, names=("a",)).rename(y="sample")
    ds = ds.assign_coords(sample=[f"s{place}" for place in range(ds.sizes["sample"])])
    dataset = xtd.IterableDataset(ds, {"time": 4, "x": -1}, inputs="a", batch_size=5)
    for batch in dataset:
        labelled = batch.to_xarray()
        for place, number in enumerate(batch.index.tolist()):
            expected = ds.isel(dataset.windows[number])
            assert labelled["sample"].values[place] == expected["sample"].item()
            np.testing.assert_array_equal(labelled["a"].values[place], expected["a"].values)


def test_a_preprocess_gives_every_block_the_same_dtype():
    ds = xr.Dataset({"v": ("time", np.arange(40.0))}).chunk(time=10)

    def preprocess(block):
        # Ones, on which it is tried, fit integers.
        return block.astype("i4") if float(block["v"].max()) < 20 else block + 0.5

    dataset = xtd.IterableDataset(ds, {"time": 2}, preprocess=preprocess, memory=200)
    with pytest.raises(TypeError, match="the dtype float64; on the block it was tried on"):
        list(dataset)
