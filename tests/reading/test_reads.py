"""What is read: each chunk once, within the memory budget, and nothing left behind on failure."""

import _thread
import itertools
import pickle
import threading
import time
import warnings

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import (
    WINDOW,
    assert_once,
    chunk_reads,
    chunks_of,
    counted,
    fields,
    forecast,
    numbered,
    reads,
    samples_of,
    xbatcher_windows,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

# ---------------------------------------------------------------------------------------------
# In order


@pytest.mark.parametrize("overlap", [0, 3, 7])
@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("memory", ["100 KiB", "1 GiB"])
def test_in_order_each_chunk_is_read_once(chunk, overlap, memory):
    ds = fields(300)
    chunks = {"a": (chunk, 8, 8), "b": (chunk, 8, 8)}
    opened, counts = counted(ds, chunks)
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": overlap}, inputs=["a", "b"], batch_size=16, memory=memory
    )
    for epoch in (1, 2):
        assert_once(samples_of(dataset), len(dataset.windows))
        found = reads(counts, "ab")
        covered = len(xbatcher_windows(ds, ["a"], WINDOW, {"time": overlap}))
        last = (covered - 1) * (8 - overlap) + 8
        assert len(found) == 2 * -(-last // chunk)
        assert set(found.values()) == {epoch}


@pytest.mark.parametrize("offset", [1, 5, 16, 23])
def test_in_order_each_chunk_is_read_once_from_a_grid_offset_by_lazy_slicing(offset):
    ds = fields(300)
    opened, counts = counted(ds, {"a": (16, 8, 8), "b": (16, 8, 8)})
    sliced = opened.isel(time=slice(offset, -3))
    dataset = xtd.IterableDataset(
        sliced, WINDOW, {"time": 7}, inputs=["a", "b"], batch_size=16, memory="150 KiB"
    )
    plain = ds.isel(time=slice(offset, -3))
    for batch in dataset:
        k = batch.index[0].item()
        np.testing.assert_array_equal(
            batch.x[0].numpy(),
            np.stack([plain[name].isel(time=slice(k, k + 8)).values for name in "ab"]),
        )
    found = reads(counts, "ab")
    touched = 297 // 16 - offset // 16 + 1
    assert len(found) == 2 * touched
    assert set(found.values()) == {1}


def test_in_order_each_chunk_is_read_once_when_variables_are_chunked_differently():
    ds = fields(300, names=("a", "b", "c"))
    chunks = {"a": (16, 8, 8), "b": (10, 4, 8), "c": (7, 8, 8)}
    opened, counts = counted(ds, chunks)
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": 7}, inputs=["a", "b", "c"], batch_size=16, memory="300 KiB"
    )
    assert_once(samples_of(dataset), 293)
    found = reads(counts, "abc")
    assert len(found) == sum(chunks_of(ds, chunks, "abc").values())
    assert set(found.values()) == {1}


@examples(10)
@given(
    chunks=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    window=st.integers(1, 30),
    overlap=st.integers(0, 29),
    offset=st.integers(0, 50),
    last=st.integers(200, 300),
    batch_size=st.integers(1, 40),
)
def test_in_order_each_chunk_is_read_once_whatever_the_chunks_and_windows(
    chunks, window, overlap, offset, last, batch_size
):
    overlap = min(overlap, window - 1)
    names = "abc"[: len(chunks)]
    ds = fields(300, names=tuple(names))
    opened, counts = counted(ds, {n: (c, 8, 8) for n, c in zip(names, chunks, strict=True)})
    # two thirds of the data
    memory = 200 * 8 * 8 * 4 * len(names)
    dataset = xtd.IterableDataset(
        opened.isel(time=slice(offset, last)), {"time": window, "y": 8, "x": 8},
        {"time": overlap}, inputs=list(names), batch_size=batch_size, memory=memory,
    )  # fmt: skip
    assert_once(samples_of(dataset), (last - offset - window) // (window - overlap) + 1)
    found = reads(counts, names)
    assert set(found.values()) == {1}


def test_in_order_a_variable_without_time_is_read_once():
    ds = fields(300, names=("a",)).assign(static=(("y", "x"), np.ones((8, 8), "float32")))
    opened, counts = counted(ds, {"a": (16, 8, 8), "static": (8, 4)})
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": 7}, inputs=["a", "static"], batch_size=16, memory="150 KiB"
    )
    assert_once(samples_of(dataset), 293)
    assert set(reads(counts, "a").values()) == {1}
    assert reads(counts, ["static"]) == {"static/c/0/0": 1, "static/c/0/1": 1}


def test_in_order_patches_in_space_read_each_chunk_once():
    ds = forecast(time=12, y=64, x=96, names=("a",))
    opened, counts = counted(ds, {"a": (1, 32, 24)})
    # a time step is 24 KiB
    dataset = xtd.IterableDataset(
        opened, {"time": 2, "y": 16, "x": 16}, {"time": 1, "y": 8, "x": 8}, inputs="a",
        batch_size=32, memory="240 KiB",
    )  # fmt: skip
    assert_once(samples_of(dataset), 11 * 7 * 11)
    found = reads(counts, "a")
    assert len(found) == 12 * 2 * 4
    assert set(found.values()) == {1}


def test_in_order_stations_read_each_chunk_once():
    values = np.random.default_rng(1).normal(size=(2000, 40)).astype("float32")
    opened, counts = counted(xr.Dataset({"a": (("time", "station"), values)}), {"a": (500, 5)})
    # all of time of 5 stations is 40 KB
    dataset = xtd.IterableDataset(
        opened, {"time": 30}, {"time": 29}, inputs="a", batch_size=1024, memory="200 kB"
    )
    numbers = []
    for batch in dataset:
        numbers += batch.index.tolist()
        station, k = divmod(batch.index[-1].item(), 1971)
        np.testing.assert_array_equal(batch.x[-1].numpy(), values[k : k + 30, station])
    assert_once(numbers, 1971 * 40)
    found = reads(counts, "a")
    assert len(found) == 4 * 8
    assert set(found.values()) == {1}


def test_variables_that_are_not_asked_for_are_not_read():
    opened, counts = counted(fields(64), {"a": (16, 8, 8), "b": (16, 8, 8)})
    list(xtd.IterableDataset(opened, WINDOW, inputs="a"))
    assert reads(counts, "a")
    assert not reads(counts, "b")


def test_making_a_dataset_and_its_length_read_no_data():
    opened, counts = counted(fields(64), {"a": (16, 8, 8), "b": (16, 8, 8)})
    dataset = xtd.IterableDataset(opened, WINDOW, shuffle=True)
    assert len(dataset) == 8
    assert dataset.windows[3]["time"] == slice(24, 32)
    assert not reads(counts, "ab")


def test_a_sharded_store_gives_the_values_of_isel(tmp_path):
    ds = fields(96, names=("a",))
    encoding = {"a": {"chunks": (4, 8, 8), "shards": (32, 8, 8)}}
    ds.to_zarr(tmp_path / "s.zarr", encoding=encoding, consolidated=False, zarr_format=3)
    opened = xtd.open_zarr(tmp_path / "s.zarr", consolidated=False)
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": 7}, inputs="a", shuffle=True, batch_size=8, memory="40 KiB"
    )
    numbers = []
    for batch in dataset:
        numbers += batch.index.tolist()
        plain = [ds["a"].values[k : k + 8] for k in batch.index.tolist()]
        np.testing.assert_array_equal(batch.x.numpy(), np.stack(plain))
    assert_once(numbers, 89)


# ---------------------------------------------------------------------------------------------
# Shuffled


@pytest.mark.parametrize(("chunk", "steps"), [(1, 512), (4, 1024), (16, 2048)])
def test_shuffled_at_most_a_quarter_more_than_one_read_a_chunk(chunk, steps):
    opened, counts = counted(fields(steps), {"a": (chunk, 8, 8), "b": (chunk, 8, 8)})
    # a fourth of the data; for the largest chunk 32 chunks of each variable
    memory = steps * 8 * 8 * 4 * 2 // 4
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": 7}, inputs=["a", "b"], batch_size=16, shuffle=True, memory=memory
    )
    for _ in range(2):
        counts.clear()
        assert_once(samples_of(dataset), steps - 7)
        found = reads(counts, "ab")
        assert len(found) == 2 * steps // chunk
        assert sum(found.values()) / len(found) <= 1.25


def test_shuffled_patches_at_most_a_quarter_more_than_one_read_a_chunk():
    ds = forecast(time=96, y=32, x=64, names=("a",))
    opened, counts = counted(ds, {"a": (1, 32, 64)})
    dataset = xtd.IterableDataset(
        opened, {"time": 2, "y": 16, "x": 16}, {"y": 8, "x": 8}, inputs="a", batch_size=32,
        shuffle=True, memory="256 KiB",
    )  # fmt: skip
    assert_once(samples_of(dataset), 48 * 3 * 7)
    found = reads(counts, "a")
    assert len(found) == 96
    assert sum(found.values()) / 96 <= 1.25


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0), (2, 2)])
def test_shuffled_each_cut_reads_at_most_one_pool_twice(as_worker, ranks, workers):
    steps, chunk = 2048, 16
    ds = fields(steps, names=("a",))
    opened, counts = counted(ds, {"a": (chunk, 8, 8)})
    memory = steps * 8 * 8 * 4 // 4
    for rank, worker in itertools.product(range(ranks), range(max(workers, 1))):
        dataset = xtd.IterableDataset(
            opened, WINDOW, {"time": 7}, inputs="a", batch_size=16, shuffle=True, memory=memory,
            rank=rank, world_size=ranks, uneven="keep",
        )  # fmt: skip
        as_worker(worker, workers, dataset)
        list(dataset)
    found = reads(counts, "a")
    chunks = steps // chunk
    cuts = ranks * max(workers, 1) - 1
    # a pool fits in the memory, with what the last windows of its blocks need
    assert sum(found.values()) <= 1.25 * (chunks + cuts * chunks / 4)
    assert len(found) == chunks


# ---------------------------------------------------------------------------------------------
# Memory


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_a_sample_larger_than_the_memory_works_one_window_a_block(shuffle, stored):
    ds = fields(60)
    opened = counted(ds, {"a": (5, 8, 8), "b": (7, 4, 8)})[0] if stored else ds
    with pytest.warns(UserWarning, match="memory"):
        dataset = xtd.IterableDataset(
            opened, WINDOW, {"time": 5}, inputs=["a", "b"], batch_size=4, shuffle=shuffle,
            memory="3 kB",
        )  # fmt: skip
    numbers = []
    for batch in dataset:
        numbers += batch.index.tolist()
        for place, number in enumerate(batch.index.tolist()):
            plain = ds.isel(time=slice(3 * number, 3 * number + 8))
            np.testing.assert_array_equal(
                batch.x[place].numpy(), np.stack([plain["a"].values, plain["b"].values])
            )
    assert_once(numbers, 18)


def test_enough_memory_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xtd.IterableDataset(fields(60), WINDOW, memory="1 MiB")


# ---------------------------------------------------------------------------------------------
# Failures, and leaving early


@pytest.fixture
def warm():
    """Have zarr and dask start the threads that they keep for themselves."""
    group = zarr.create_group(zarr.storage.MemoryStore())
    array = group.create_array("a", shape=(400,), chunks=(1,), dtype="float32")
    array[:] = 1.0
    assert array[:].sum() == 400
    assert dask.array.ones(400, chunks=1).sum().compute() == 400


@pytest.fixture
def broken(tmp_path):
    """A store of which one chunk is cut off."""
    path = tmp_path / "broken.zarr"
    ds = fields(160)
    ds.to_zarr(path, consolidated=False, encoding={name: {"chunks": (16, 8, 8)} for name in "ab"})
    chunk = path / "b" / "c" / "5" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    return path


def opened_by(opener, path):
    if opener == "xtorch_data":
        return xtd.open_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False, chunks=None if opener == "xarray" else {})


@pytest.mark.parametrize("opener", ["xtorch_data", "xarray", "dask"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_broken_chunk_is_an_error_that_says_where(warm, no_new_threads, broken, opener, shuffle):
    ds = opened_by(opener, broken)
    dataset = xtd.IterableDataset(
        ds, WINDOW, {"time": 7}, batch_size=8, shuffle=shuffle, memory="100 KiB"
    )
    with pytest.raises(xtd.ReadError) as caught:
        list(dataset)
    message = str(caught.value)
    assert "'b'" in message
    assert "time" in message
    assert "slice" in message or ":" in message
    assert "broken.zarr" in message
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.__cause__ is not None
    del caught
    no_new_threads()


def test_batches_before_a_broken_chunk_are_still_given(broken):
    dataset = xtd.IterableDataset(
        opened_by("xtorch_data", broken), WINDOW, {"time": 7}, inputs=["a", "b"], batch_size=8,
        memory="60 KiB",
    )  # fmt: skip
    plain = fields(160)
    seen = []
    iterator = iter(dataset)
    with pytest.raises(xtd.ReadError):
        for batch in iterator:
            seen.append(batch)
    numbers = samples_of(seen)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 0
    assert max(numbers) + 8 <= 80
    for batch in seen:
        expected = [plain["b"].values[k : k + 8] for k in batch.index.tolist()]
        np.testing.assert_array_equal(batch.x[:, 1].numpy(), np.stack(expected))
    assert next(iterator, "over") == "over"


def test_after_a_failure_the_next_epoch_fails_again_and_never_skips(broken):
    dataset = xtd.IterableDataset(
        opened_by("xtorch_data", broken), WINDOW, {"time": 7}, batch_size=8
    )
    for _ in range(2):
        with pytest.raises(xtd.ReadError):
            list(dataset)


def test_a_read_error_survives_the_way_between_processes(broken):
    dataset = xtd.IterableDataset(opened_by("xtorch_data", broken), WINDOW)
    with pytest.raises(xtd.ReadError) as caught:
        list(dataset)
    error = caught.value
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, xtd.ReadError)
    assert str(copy) == str(error)
    # torch raises the error of a worker anew, from a text
    assert "told" in str(type(error)("told"))


def fail_at_42(sample):
    if (sample == 42).any():
        raise ZeroDivisionError("forty-two")
    return sample


@pytest.mark.parametrize("where", ["preprocess", "transform", "batch_transform"])
def test_an_error_in_a_transform_reaches_the_loop_and_leaves_no_thread(warm, no_new_threads, where):
    def function(data):
        values = data["a"] if isinstance(data, xr.Dataset) else data
        fail_at_42(values)
        return data

    dataset = xtd.IterableDataset(
        numbered(100), {"time": 2}, batch_size=3, memory="100 B", inputs="a", **{where: function}
    )
    with pytest.raises(Exception, match="forty-two") as caught:
        list(dataset)
    chain = [caught.value, caught.value.__cause__]
    assert any(isinstance(error, ZeroDivisionError) for error in chain)
    del caught, chain
    no_new_threads()


@pytest.mark.parametrize("through", ["dataset", "loader"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_breaking_off_in_the_middle_leaves_no_thread(
    warm, no_new_threads, tmp_path, through, shuffle
):
    fields(160).to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds = xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)
    dataset = xtd.IterableDataset(
        ds, WINDOW, {"time": 7}, batch_size=4, shuffle=shuffle, memory="60 KiB"
    )
    source = dataset if through == "dataset" else xtd.DataLoader(dataset)
    for stop in (1, 3, 20):
        for number, batch in enumerate(source, 1):
            assert len(batch) == 4
            if number == stop:
                break
        no_new_threads()
    iterator = iter(source)
    next(iterator)
    del iterator
    no_new_threads()
    assert_once(samples_of(source), 153)


def test_an_iterator_that_is_never_used_leaves_no_thread(warm, no_new_threads):
    dataset = xtd.IterableDataset(fields(60), WINDOW, shuffle=True)
    iterator = iter(dataset)
    del iterator
    no_new_threads()
    assert_once(samples_of(dataset), 7)


def test_threads_end_with_the_epoch(warm, no_new_threads):
    opened, _ = counted(fields(160), {"a": (16, 8, 8), "b": (16, 8, 8)})
    dataset = xtd.IterableDataset(opened, WINDOW, batch_size=4, memory="60 KiB")
    iterator = iter(dataset)
    assert_once(samples_of(iterator), 20)
    no_new_threads()  # although the iterator is still held
    assert next(iterator, None) is None


def test_an_interrupt_in_the_loop_leaves_no_thread(warm, no_new_threads):
    opened, _ = counted(fields(160), {"a": (16, 8, 8), "b": (16, 8, 8)})
    dataset = xtd.IterableDataset(opened, WINDOW, {"time": 7}, batch_size=4, memory="60 KiB")

    def loop():
        for number, _ in enumerate(dataset):
            if number == 5:
                raise KeyboardInterrupt

    try:
        loop()
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted
    no_new_threads()
    assert_once(samples_of(dataset), 153)


@pytest.mark.alone
def test_an_interrupt_while_waiting_for_a_slow_store_ends_the_wait(warm, no_new_threads):
    opened, _ = counted(fields(160), {"a": (16, 8, 8), "b": (16, 8, 8)}, delay=0.5)
    dataset = xtd.IterableDataset(opened, WINDOW, {"time": 7}, batch_size=4, memory="60 KiB")

    def loop():
        timer.start()
        for _ in dataset:
            pass

    timer = threading.Timer(0.8, _thread.interrupt_main)
    start = time.monotonic()
    interrupted = False
    try:
        loop()
    except KeyboardInterrupt:
        interrupted = True
    took = time.monotonic() - start
    timer.join()
    assert interrupted
    assert took < 2.5
    no_new_threads()


# ---------------------------------------------------------------------------------------------
# The plan says how many


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["30 KiB", "100 KiB", "1 GiB"])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_chunks_read_are_as_many_as_the_plan_predicts(shuffle, memory, start, rank, world_size):
    ds = fields(300).assign(static=(("y", "x"), np.ones((8, 8))))
    chunks = {"a": (16, 8, 8), "b": (10, 4, 8), "static": (4, 8)}
    opened, counts = counted(ds, chunks)
    dataset = xtd.IterableDataset(
        opened.isel(time=slice(start, None)), WINDOW, {"time": 7}, inputs=["a", "b", "static"],
        batch_size=16, shuffle=shuffle, memory=memory, rank=rank, world_size=world_size,
    )  # fmt: skip
    plan = dataset.plan
    predicted = chunk_reads(plan, 0, plan.intervals(0, rank, world_size))
    assert_each_of(dataset, rank, world_size)
    assert set(predicted) == {"a", "b", "static"}
    for name, expected in predicted.items():
        assert sum(reads(counts, [name]).values()) == expected


def assert_each_of(dataset, rank, world_size):
    """A rank yields its share, each sample once."""
    found = samples_of(dataset)
    assert (
        len(found) == len(set(found)) == share_of(len(dataset.windows), rank, world_size, dataset)
    )


def share_of(total, rank, world_size, dataset):
    if dataset.shuffle:  # what cannot be shared equally is left out
        return total // world_size
    return (rank + 1) * total // world_size - rank * total // world_size


@pytest.mark.parametrize("chunks_in_memory", [5, 6, 8, 10, 12, 16, 40])
def test_shuffled_reads_stay_below_a_quarter_more_if_the_memory_holds_a_block_of_four_chunks(
    chunks_in_memory,
):
    chunk = 16
    ds = fields(640, names=("a",))
    opened, counts = counted(ds, {"a": (chunk, 8, 8)})
    row = 8 * 8 * ds["a"].dtype.itemsize + 8  # and the number of a sample
    dataset = xtd.IterableDataset(
        opened, WINDOW, {"time": 7}, batch_size=16, shuffle=True,
        memory=chunks_in_memory * chunk * row,
    )  # fmt: skip
    assert_once(samples_of(dataset), 633)
    assert sum(reads(counts, "a").values()) <= 1.25 * 640 / chunk
