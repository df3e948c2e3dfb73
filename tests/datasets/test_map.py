"""Samples by number: equal to plain slicing, each chunk read once, with any sampler."""

import inspect
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn.model_selection
import torch
import xarray as xr
from helpers import (
    Oracle,
    add_noise,
    anomaly,
    assert_once,
    counted,
    forecast,
    numbered,
    orders,
    reads,
    samples_of,
    tiny_memory_allowed,
    twice_plus_one,
)
from hypothesis import given
from hypothesis import strategies as st
from map_data import WINDOW, expected, make
from strategies import cases, examples
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    random_split,
)
from torch.utils.data.distributed import DistributedSampler

import xtorch_data as xtd


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "data.zarr"
    encoding = {"a": {"chunks": (16, 4, 5)}, "b": {"chunks": (10, 2, 5)}}
    forecast().to_zarr(path, consolidated=False, encoding=encoding)
    return path


# ---------------------------------------------------------------------------------------------
# Values


@examples(8, 400)
@given(cases(), st.data())
def test_samples_are_slices_of_the_data(case, data):
    """In any order, repeated, from any storage, whatever the memory."""
    with case.stored.open() as ds, tiny_memory_allowed():
        names = {"inputs": case.inputs, "targets": case.targets}
        windows = {"input_dims": case.input_dims, "input_overlap": case.input_overlap}
        dataset = xtd.MapDataset(ds, **windows, **names, breaks="ignore", memory=case.memory)
        oracle = Oracle(ds)
        numbers = st.lists(st.integers(-len(dataset), len(dataset) - 1), min_size=1, max_size=12)
        for _ in range(2):
            chosen = data.draw(numbers)
            samples = dataset.__getitems__(chosen)
            assert len(samples) == len(chosen)
            for number, sample in zip(chosen, samples, strict=True):
                window = dataset.windows[number]
                wanted = case.parts(ds).values()
                for tensor, part in zip(sample, wanted, strict=True):
                    values = oracle.part(part, window, tuple(case.input_dims))
                    np.testing.assert_array_equal(tensor.numpy(), values)


@pytest.mark.parametrize("source", ["memory", "zarr", "dask"])
@pytest.mark.parametrize(
    "functions",
    [
        {},
        {"preprocess": twice_plus_one},
        {"transform": anomaly, "target_transform": twice_plus_one},
        {"preprocess": twice_plus_one, "transform": anomaly},
        {"transform": add_noise},
        {"dtype": torch.float64},
        {"targets": None, "inputs": xtd.Select("a", time=slice(2, None, 3))},
    ],
)
def test_batches_are_those_of_the_stream_bit_by_bit(store, source, functions):
    """Values, dtypes and labels."""
    ds = forecast()
    if source != "memory":
        ds = xr.open_zarr(store, consolidated=False, chunks={} if source == "dask" else None)
    memory = "6 kB" if bool(functions) != (source == "dask") else "1 GiB"
    dataset = make(ds, memory=memory, **functions)
    arguments = {"input_overlap": {"time": 7}, "inputs": ["a", "b"], "targets": "b"} | functions
    stream = xtd.IterableDataset(ds, WINDOW, **arguments, batch_size=7, shuffle=True)
    for number, batch in enumerate(stream):
        found = dataset.fetch(batch.index.tolist())
        assert found.keys() == batch.keys()
        assert torch.equal(found.index, batch.index)
        for ours, theirs in zip(found, batch, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        if number < 2:
            xr.testing.assert_identical(found.to_xarray(), batch.to_xarray())


def test_an_index_may_be_negative_or_numpys_and_iteration_ends():
    dataset = make()
    assert len(dataset) == 53
    x, y = expected([52], dataset)
    for index in (52, -1, np.int64(52), np.int32(-1), torch.tensor(52)):
        sample = dataset[index]
        assert isinstance(sample, tuple)
        assert np.array_equal(sample[0], x[0]) and np.array_equal(sample[1], y[0])
    assert len(list(dataset)) == 53
    for index in (53, -54):
        with pytest.raises(IndexError, match=f"sample {index} is out of range for 53"):
            dataset[index]
        with pytest.raises(IndexError, match="out of range"):
            dataset.__getitems__([0, index])
    assert len(dataset.__getitems__([])) == 0
    with pytest.raises(ValueError, match="no index"):
        dataset.fetch([])


@pytest.mark.parametrize("index", [1.5, [1, 2], slice(3), np.array([1, 2]), None, "a"])
def test_a_sample_is_asked_for_by_an_integer(index):
    with pytest.raises(TypeError, match="__getitems__"):
        make()[index]


@pytest.mark.parametrize("indices", [[1.5], [[1, 2]], [True, False], np.ones(53, bool), ["a"]])
def test_several_samples_are_asked_for_by_integers(indices):
    """A mask is no list of indices."""
    with pytest.raises(TypeError, match="indices must be integers"):
        make().fetch(indices)
    with pytest.raises(TypeError, match="Subset: indices must be integers"):
        xtd.DataLoader(Subset(make(), indices))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, np.uint8])
def test_indices_may_be_any_sequence_of_integers(kind):
    numbers = [7, 0, 52, 7]
    dataset = make()
    assert dataset.fetch(kind(numbers)).index.tolist() == numbers
    np.testing.assert_array_equal(dataset.fetch(kind(numbers)).x, expected(numbers, dataset)[0])


def test_labels_that_are_not_numbers_or_not_there_come_with_batches():
    calendar = xr.date_range("2000-01-01", periods=60, calendar="noleap", use_cftime=True)
    x = [np.nan, 1.0, 2.0, np.nan, 4.0]
    ds = forecast().assign_coords(time=calendar, x=x)
    found = make(ds).fetch([52, 0, 52]).to_xarray()
    assert found["time"].values[:, 0].tolist() == [calendar[52], calendar[0], calendar[52]]
    np.testing.assert_array_equal(found["x"], x)


def test_memory_for_less_than_one_sample_is_exceeded_with_a_warning():
    with pytest.warns(UserWarning, match="memory is exceeded"):
        dataset = make(forecast().chunk(time=5), memory="100 B")
    batches = list(xtd.DataLoader(dataset, batch_size=20, shuffle=True))
    assert_once(samples_of(batches), 53)
    for batch in batches:
        np.testing.assert_array_equal(batch.x, expected(batch.index, dataset)[0])


def test_a_dataset_without_targets_gives_tuples_of_one():
    (x,) = make(targets=None)[3]
    assert x.shape == (2, 8, 4, 5)


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("weights", "DataLoader"),
        ("batch_size", "DataLoader"),
        ("shuffle", "DataLoader"),
        ("drop_last", "DataLoader"),
        ("seed", "DataLoader"),
        ("uneven", "DataLoader"),
        ("rank", "DataLoader"),
        ("world_size", "IterableDataset"),
        ("batch_transform", "DataLoader"),
        ("on_error", "DataLoader"),
    ],
)
def test_what_makes_batches_and_orders_is_not_taken_but_what_does_is_named(argument, instead):
    with pytest.raises(TypeError, match=f"MapDataset does not take {argument}, .*{instead}"):
        make(**{argument: 1})


def test_every_argument_of_the_stream_is_taken_or_has_its_place_named():
    for argument in inspect.signature(xtd.IterableDataset).parameters:
        if argument not in inspect.signature(xtd.MapDataset).parameters:
            with pytest.raises(TypeError, match=f"does not take {argument}, "):
                make(**{argument: 1})
    with pytest.raises(TypeError, match="'input': did you mean 'inputs'"):
        make(input="a")
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        make(no_such=1)


def test_samples_that_are_kept_do_not_change():
    dataset = make()
    kept = dataset[5]
    before = [tensor.clone() for tensor in kept]
    for index in range(53):
        dataset[index]
    assert all(map(torch.equal, kept, before))


# ---------------------------------------------------------------------------------------------
# Reads


@pytest.mark.parametrize("chunks", [(16, 4, 5), (10, 2, 5), (60, 4, 5), (7, 4, 2)])
def test_a_chunk_is_read_once_for_all_samples_of_a_batch(chunks):
    ds = forecast()
    opened, counts = counted(ds, {"a": chunks, "b": (16, 4, 5)})
    dataset = make(opened)
    numbers = np.random.default_rng(0).integers(0, 53, 40)
    dataset.__getitems__(numbers)
    steps = {int(step) for number in numbers for step in range(number, number + 8)}
    along = {step // chunks[0] for step in steps}
    rows, columns = -(-4 // chunks[1]), -(-5 // chunks[2])
    found = reads(counts, "a")
    assert set(found.values()) == {1}
    # Chunks of 64 KiB in all may be read together.
    assert len(found) >= len(along) * rows * columns
    counts.clear()
    dataset.__getitems__(numbers[::-1])  # and kept
    assert not reads(counts, ["a", "b"])


def large(steps=400):
    values = np.arange(steps * 100 * 100, dtype="float32").reshape(steps, 100, 100)
    return xr.Dataset({"a": (("time", "y", "x"), values)})


def test_a_sample_costs_the_chunks_that_it_lies_in():
    opened, counts = counted(large(), {"a": (10, 50, 100)})  # 200 kB
    dataset = xtd.MapDataset(opened, {"time": 4, "y": 20, "x": -1}, {"time": 3}, memory="2 MB")
    dataset[0]
    assert reads(counts, "a") == {"a/c/0/0/0": 1}
    counts.clear()
    dataset[5 * 8 + 2]  # steps 8 to 11, rows 40 to 59
    assert set(reads(counts, "a")) == {"a/c/0/1/0", "a/c/1/0/0", "a/c/1/1/0"}


def test_without_a_cache_chunks_serve_those_alone_that_are_asked_for_together():
    opened, counts = counted(large(), {"a": (10, 50, 100)})
    kept, dropped = (
        xtd.MapDataset(opened, {"time": 2, "y": -1, "x": -1}, inputs="a", cache=cache)
        for cache in (True, False)
    )
    expected = kept.fetch([0, 3, 5])
    counts.clear()
    for _ in range(3):
        assert torch.equal(kept.fetch([0, 3, 5]).x, expected.x)
    assert not reads(counts, "a")
    for _ in range(3):
        assert torch.equal(dropped.fetch([0, 3, 5]).x, expected.x)
    assert set(reads(counts, "a").values()) == {3}


def test_what_was_used_last_is_kept():
    opened, counts = counted(large(), {"a": (10, 100, 100)})  # 400 kB
    dataset = xtd.MapDataset(opened, {"time": 10, "y": -1, "x": -1}, memory="1.3 MB")  # three
    for index in (0, 1, 2, 0, 3, 0, 2, 1):
        dataset[index]
    counts = reads(counts, "a")
    assert [counts[f"a/c/{chunk}/0/0"] for chunk in range(4)] == [1, 2, 1, 1]


def test_a_batch_of_more_than_the_memory_holds_reads_each_chunk_once():
    opened, counts = counted(large(), {"a": (10, 100, 100)})
    dataset = xtd.MapDataset(opened, {"time": 10, "y": -1, "x": -1}, memory="1 MB")
    numbers = np.random.default_rng(1).permutation(40)
    batch = dataset.fetch(numbers)
    np.testing.assert_array_equal(batch.x[:, 0, 0, 0, 0], numbers * 100_000)
    assert set(reads(counts, "a").values()) == {1}
    assert len(reads(counts, "a")) == 40


def test_preprocess_runs_once_for_each_chunk_and_random_ones_depend_on_the_epoch():
    calls = []

    def noise(block, rng):
        calls.append(block.sizes["time"])
        return block + rng.normal()

    dataset = make(preprocess=noise)
    first = dataset[3][0]
    seen = len(calls)
    assert torch.equal(dataset[3][0], first)
    assert len(calls) == seen
    dataset.set_epoch(1)
    assert not torch.equal(dataset[3][0], first)
    dataset.set_epoch(0)
    assert torch.equal(dataset[3][0], first)


def test_a_failing_read_names_what_could_not_be_read_and_may_be_tried_again():
    dataset = make(failing := Failing.dataset())
    with pytest.raises(xtd.ReadError, match="could not read 'a' at isel"):
        dataset[3]
    Failing.fails = False
    assert np.array_equal(dataset[3][0], expected([3], dataset)[0][0])
    assert failing["a"].chunks is not None


class Failing:
    """Data that cannot be read while `fails`."""

    fails = True

    @classmethod
    def dataset(cls):
        def load(block):
            if cls.fails:
                raise OSError("the disk is gone")
            return block

        ds = forecast().chunk(time=20)
        return ds.assign(a=ds["a"].copy(data=ds["a"].data.map_blocks(load, dtype="float32")))


def test_a_mapped_file_that_changes_is_refused_instead_of_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(60_000.0))
    opened = xr.open_dataset(path, engine="npy", dims="time")
    for change in (
        lambda: np.save(path, np.arange(60_000.0)[::-1].copy()),  # of the same size
        lambda: os.truncate(path, 4000),  # what is beyond would end the process
        path.unlink,
    ):
        os.utime(path, (0, 0))  # long ago, however coarse the clock of the file system is
        dataset = xtd.MapDataset(opened, {"time": 100})
        assert dataset[2][0][0, 0] == 200
        change()
        with pytest.raises((ValueError, FileNotFoundError), match="a.npy"):
            dataset[500]
        np.save(path, np.arange(60_000.0))


# ---------------------------------------------------------------------------------------------
# Samplers


def weights(dataset):
    return (torch.arange(len(dataset)) % 7 + 1).double()


SAMPLERS = {
    "sequential": SequentialSampler,
    "random": lambda dataset: RandomSampler(dataset, generator=torch.Generator().manual_seed(1)),
    "replacement": lambda dataset: RandomSampler(dataset, replacement=True, num_samples=99),
    "weighted": lambda dataset: WeightedRandomSampler(weights(dataset), 60),
    "subset": lambda dataset: SubsetRandomSampler(range(5, 40, 3)),
    "distributed": lambda dataset: DistributedSampler(dataset, num_replicas=3, rank=1, seed=2),
    "chunks": lambda dataset: xtd.ChunkSampler(dataset, seed=3),
}


class Recorded(torch.utils.data.Sampler):
    """What another sampler draws."""

    def __init__(self, sampler):
        self.sampler, self.drawn = sampler, []

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        for index in self.sampler:
            self.drawn.append(int(index))
            yield index


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("batched", [False, True])
def test_any_sampler_decides_the_order_of_labeled_batches(name, batched):
    dataset = make()
    sampler = Recorded(SAMPLERS[name](dataset))
    how = {"batch_size": 8, "sampler": sampler}
    if batched:
        how = {"batch_sampler": BatchSampler(sampler, 8, drop_last=False)}
    loader = xtd.DataLoader(dataset, **how)
    batches = list(loader)
    assert len(loader) == len(batches) == -(-len(sampler) // 8)
    assert samples_of(batches) == sampler.drawn
    for batch in batches:
        assert isinstance(batch, xtd.Batch)
        x, y = batch
        for found, wanted in zip((x, y), expected(batch.index, dataset), strict=True):
            np.testing.assert_array_equal(found, wanted)
        times = batch.to_xarray()["time"].values
        window = dataset.windows[int(batch.index[0])]["time"]
        np.testing.assert_array_equal(times[0], forecast()["time"].values[window])


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_plain_loader_takes_any_sampler(name):
    dataset = make()
    sampler = Recorded(SAMPLERS[name](dataset))
    found = list(DataLoader(dataset, batch_size=8, sampler=sampler))
    wanted = expected(sampler.drawn, dataset)
    for part in range(2):
        values = torch.cat([batch[part] for batch in found]).numpy()
        np.testing.assert_array_equal(values, wanted[part])


def test_shuffle_of_a_subset_is_torchs_and_follows_the_generator():
    def order(generator=None):
        subset = Subset(make(), range(53))
        return orders(xtd.DataLoader(subset, batch_size=8, shuffle=True, generator=generator))

    assert_once([n for batch in order() for n in batch], 53)
    assert order() != order()
    torch.manual_seed(5)
    first = order()
    torch.manual_seed(5)
    assert order() == first
    same = [order(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert same[0] == same[1]


def test_subsets_keep_their_labels_and_other_combinations_go_to_the_plain_loader():
    dataset = make()
    subset = Subset(Subset(dataset, range(10, 40)), [3, 1, 20])
    [batch] = xtd.DataLoader(subset, batch_size=4)
    assert batch.index.tolist() == [13, 11, 30]
    train, val = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
    both = [samples_of(xtd.DataLoader(part, batch_size=8)) for part in (train, val)]
    assert_once(both[0] + both[1], 53)

    twice = ConcatDataset([dataset, dataset])
    with pytest.raises(TypeError, match="not ConcatDataset; torch.utils.data.DataLoader takes"):
        xtd.DataLoader(twice, batch_size=4)
    x = torch.cat([x for x, _ in DataLoader(twice, batch_size=10)])
    wanted = expected(range(53), dataset)[0]
    np.testing.assert_array_equal(x, np.concatenate([wanted, wanted]))


@pytest.mark.parametrize(
    "splitter", [sklearn.model_selection.KFold(4), sklearn.model_selection.TimeSeriesSplit(3)]
)
def test_splitters_of_scikit_learn_split_it(splitter):
    dataset = make()
    for train, test in splitter.split(dataset):
        [batch] = xtd.DataLoader(Subset(dataset, test), batch_size=100)
        np.testing.assert_array_equal(batch.x, expected(test, dataset)[0])
        sampler = SubsetRandomSampler(train)
        loaded = xtd.DataLoader(dataset, batch_size=10, sampler=sampler)
        assert sorted(samples_of(loaded)) == train.tolist()


def test_our_splits_split_it():
    dataset = make()
    train, val = xtd.split(dataset, "time", at=["2000-01-11"], gap="12h")
    assert type(train) is type(val) is xtd.MapDataset
    assert (len(train), len(val)) == (31, 13)
    ds = forecast()
    assert np.array_equal(val[0][1], ds["b"].values[40:48])
    for train, val in xtd.kfold(dataset, "time", 3):
        seen = [set(dataset_steps(part, ds)) for part in (train, val)]
        assert not seen[0] & seen[1]


def dataset_steps(dataset, ds):
    """Steps of time in a dataset, told by their values."""
    steps = {float(value): step for step, value in enumerate(ds["b"].values[:, 0, 0])}
    return [steps[float(value)] for _, y in dataset for value in y[:, 0, 0]]


# ---------------------------------------------------------------------------------------------
# ChunkSampler


@pytest.mark.parametrize("memory", ["6 kB", "1 GiB"])
def test_the_order_of_chunks_is_that_of_the_stream(memory):
    stream = xtd.IterableDataset(
        forecast().chunk(time=9), WINDOW, {"time": 7}, shuffle=True, seed=4, memory=memory
    )
    dataset = xtd.MapDataset(forecast().chunk(time=9), WINDOW, {"time": 7}, memory=memory)
    sampler = xtd.ChunkSampler(dataset, seed=4)
    for epoch in range(3):
        assert sampler.epoch == epoch
        assert list(sampler) == samples_of(stream)
    sampler.set_epoch(1)
    stream.set_epoch(1)
    assert list(sampler) == samples_of(stream)


def test_ranks_share_the_order_of_chunks():
    dataset = make()
    for uneven, each in (("drop", 13), ("pad", 14), ("keep", None)):
        shares = [
            xtd.ChunkSampler(dataset, rank=rank, world_size=4, uneven=uneven) for rank in range(4)
        ]
        numbers = [list(share) for share in shares]
        for share, found in zip(shares, numbers, strict=True):
            assert len(share) == len(found) == (each or len(found))
        counts = Counter(number for share in numbers for number in share)
        assert len(counts) == (52 if uneven == "drop" else 53)
    with pytest.raises(TypeError, match="MapDataset"):
        xtd.ChunkSampler([1, 2])
    with pytest.raises(ValueError, match="cannot be shared by 99 ranks"):
        xtd.ChunkSampler(dataset, rank=0, world_size=99)
    with pytest.raises(ValueError, match="negative"):
        xtd.ChunkSampler(dataset).set_epoch(-1)


def test_the_order_of_chunks_reads_as_little_as_the_stream():
    ds = numbered((2000, 40), ("time", "x")).astype("float32")
    opened, counts = counted(ds, {"a": (50, 40)})  # 40 chunks of 8 kB
    options = {"input_dims": {"time": 8, "x": -1}, "input_overlap": {"time": 7}, "memory": "100 kB"}

    def read_by(batches):
        counts.clear()
        assert_once(samples_of(batches), 1993)
        return sum(reads(counts, "a").values())

    stream = read_by(xtd.IterableDataset(opened, **options, shuffle=True, batch_size=32))
    dataset = xtd.MapDataset(opened, **options)
    ours = xtd.DataLoader(dataset, batch_size=32, sampler=xtd.ChunkSampler(dataset))
    assert read_by(ours) <= 1.1 * stream
    drawn = xtd.DataLoader(dataset, batch_size=32, sampler=RandomSampler(dataset))
    assert read_by(drawn) > 5 * stream
    assert read_by(xtd.DataLoader(dataset, batch_size=32, shuffle=True)) <= 1.1 * stream


# ---------------------------------------------------------------------------------------------
# Threads and processes


def test_threads_read_the_same_samples_at_the_same_time(store, no_new_threads):
    dataset = make(xtd.open_zarr(store, consolidated=False), memory="9 kB")
    rng = np.random.default_rng(0)
    asked = [rng.integers(0, 53, 9) for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(dataset.fetch, asked))
    for batch, numbers in zip(found, asked, strict=True):
        np.testing.assert_array_equal(batch.x, expected(numbers, dataset)[0])
    del dataset, found, batch


def test_a_copy_begins_anew():
    dataset = make()
    dataset.set_epoch(4)
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again.epoch == 4
    assert np.array_equal(again[7][0], dataset[7][0])
    assert repr(again) == repr(dataset)


def test_random_functions_draw_anew_in_every_epoch_of_our_loader():
    loader = xtd.DataLoader(
        make(transform=add_noise), batch_size=16,
    )  # fmt: skip
    epochs = [torch.cat([batch.x for batch in loader]) for _ in range(3)]
    stream = xtd.IterableDataset(
        forecast(), WINDOW, {"time": 7}, inputs=["a", "b"], transform=add_noise, batch_size=16
    )
    for epoch in epochs:
        assert torch.equal(epoch, torch.cat([batch.x for batch in stream]))
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "torch's"])
def test_an_epoch_that_is_set_comes_also_again(ours):
    dataset = make(transform=add_noise)
    expected = {}
    for epoch in range(3):
        dataset.set_epoch(epoch)
        expected[epoch] = torch.stack([x for x, *_ in dataset.__getitems__(range(len(dataset)))])
    assert not torch.equal(expected[0], expected[1])
    kind = xtd.DataLoader if ours else torch.utils.data.DataLoader
    dataset = make(transform=add_noise)
    loader = kind(dataset, batch_size=16)

    def a_pass():
        return torch.cat([batch[0] for batch in (tuple(batch) for batch in loader)])

    for epoch in (1, 1):
        dataset.set_epoch(epoch)
        assert torch.equal(a_pass(), expected[epoch])
    if ours:  # and later ones go on from there
        assert torch.equal(a_pass(), expected[2])


def test_the_epoch_that_was_set_last_counts():
    dataset = make(transform=add_noise)
    stream = xtd.IterableDataset(dataset, batch_size=2)
    dataset.set_epoch(1)
    stream.set_epoch(4)
    assert stream.epoch == 4
    dataset.set_epoch(2)
    assert stream.epoch == 2


def test_loaders_of_one_dataset_have_the_epoch_that_was_set_and_count_alike():
    dataset = make(transform=add_noise)
    train = xtd.DataLoader(torch.utils.data.Subset(dataset, [0, 1, 2]), batch_size=2, shuffle=True)
    test = xtd.DataLoader(torch.utils.data.Subset(dataset, [3, 4]), batch_size=2)

    def epoch_of(loader):
        [batch, *_] = loader
        for epoch in range(9):
            if torch.equal(dataset.fetch(batch.index.tolist(), epoch).x, batch.x):
                return epoch

    assert [epoch_of(each) for each in (train, test, train, test)] == [0, 0, 1, 1]
    found = []
    for epoch in (1, 1, 5):
        dataset.set_epoch(epoch)
        found += [epoch_of(train), epoch_of(test)]
    assert found == [1, 1, 1, 1, 5, 5]
    assert [epoch_of(each) for each in (train, test)] == [6, 6]


def test_states_and_epochs_that_are_set_go_together():
    def begun(**kwargs):
        dataset = make()
        return dataset, xtd.DataLoader(dataset, batch_size=8, **kwargs)

    _, loader = begun(shuffle=True)
    batches = iter(loader)
    first = next(batches).index.tolist()
    state = loader.state_dict()
    rest = [batch.index.tolist() for batch in batches]
    for again in (False, True):  # the epoch that is resumed, set again before it begins
        dataset, other = begun(shuffle=True)
        other.load_state_dict(state)
        if again:
            dataset.set_epoch(0)
        assert [batch.index.tolist() for batch in other] == rest
    dataset, other = begun(shuffle=True)
    other.load_state_dict(state)
    dataset.set_epoch(3)  # another is whole
    assert len(other) == len(rest) + 1
    assert sum(len(batch) for batch in other) == len(dataset)
    assert len(first) == 8

    dataset, loader = begun()
    next(iter(loader))
    dataset.set_epoch(4)
    assert (loader.state_dict()["epoch"], loader.state_dict()["walks"]) == (4, [])
    assert len(list(loader)) and loader.state_dict()["epoch"] == 5
    dataset.set_epoch(4)  # again, after it is over
    assert (loader.state_dict()["epoch"], loader.state_dict()["walks"]) == (4, [])

    # By number likewise, and a pass of the epoch that is set goes on.
    dataset, loader = begun(sampler=SequentialSampler(range(53)))
    next(iter(loader))
    dataset.set_epoch(0)
    assert loader.state_dict()["batches"] == 1
    dataset.set_epoch(4)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (4, 0)
    assert len(list(loader)) and loader.state_dict()["epoch"] == 5
    dataset.set_epoch(4)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (4, 0)


# ---------------------------------------------------------------------------------------------
# The loader says no


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"collate_fn": list}, TypeError, "does not take collate_fn"),
        ({"batch_size": None, "sampler": [1]}, TypeError, "batch_size must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ({"shuffle": True, "sampler": [1, 2]}, ValueError, "sampler"),
        ({"batch_sampler": [[1]], "drop_last": True}, ValueError, "batch_sampler"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        xtd.DataLoader(make(), **arguments)


def test_a_sampler_for_the_stream_is_refused():
    stream = xtd.IterableDataset(forecast(), WINDOW)
    with pytest.raises(TypeError, match="does not take sampler"):
        xtd.DataLoader(stream, sampler=[1, 2])
    for loader in (DataLoader, xtd.DataLoader):  # torch says it in words of its own
        for argument in ({"sampler": [1, 2]}, {"batch_sampler": [[1, 2]]}, {"shuffle": True}):
            with pytest.raises((TypeError, ValueError), match=next(iter(argument))):
                loader(stream, **argument)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ([52, 53], "sampler: sample 53 is out of range for 53"),
        (np.array([-54]), "sampler: sample -54 is out of range"),
        (SubsetRandomSampler([3, 99]), "SubsetRandomSampler: sample 99"),
        (WeightedRandomSampler(torch.ones(60), 5), r"draws from 60 samples \(its weights\)"),
        (RandomSampler(range(99)), r"draws from 99 samples \(its data_source\)"),
        (DistributedSampler(range(99), 2, 0), r"draws from 99 samples \(its dataset\)"),
    ],
)
def test_a_sampler_of_samples_that_are_not_there_is_refused(sampler, message):
    with pytest.raises(IndexError, match=message):
        xtd.DataLoader(make(), batch_size=4, sampler=sampler)
    with pytest.raises(IndexError, match=message.replace("sampler: ", "")):
        batch_sampler = BatchSampler(sampler, 4, drop_last=False)
        xtd.DataLoader(make(), batch_sampler=batch_sampler)


def test_subsets_and_batches_of_samples_that_are_not_there_are_refused():
    dataset = make()
    with pytest.raises(IndexError, match="batch_sampler: sample 53 is out of range for 53"):
        xtd.DataLoader(dataset, batch_sampler=[[1], [2, 53]])
    with pytest.raises(IndexError, match="Subset: sample 53 is out of range for 53"):
        xtd.DataLoader(Subset(dataset, [1, 53]), batch_size=4)
    with pytest.raises(IndexError, match="Subset: sample 2 is out of range for 2"):
        xtd.DataLoader(Subset(Subset(dataset, [1, 7]), [0, 2]), batch_size=4)
    with pytest.raises(IndexError, match="draws from 53 samples"):
        xtd.DataLoader(Subset(dataset, [1, 7]), sampler=xtd.ChunkSampler(dataset))


def test_a_subclass_that_makes_other_samples_is_not_passed_over():
    """Loaders fetch batches: what is overridden must be what they call."""
    with pytest.raises(TypeError, match="Half overrides __getitem__ alone"):

        class Half(xtd.MapDataset):
            def __getitem__(self, index):
                return 1

    class Doubled(xtd.MapDataset):
        def __getitems__(self, indices):
            return [(2 * x,) for x, *_ in super().__getitems__(indices)]

    class DoubledSubset(Subset):
        def __getitems__(self, indices):
            return [(2 * x,) for x, *_ in super().__getitems__(indices)]

    doubled = Doubled(forecast(), WINDOW, {"time": 7}, inputs=["a", "b"])
    for dataset in (doubled, DoubledSubset(make(), range(53))):
        [x] = next(iter(DataLoader(dataset, batch_size=4)))
        np.testing.assert_array_equal(x, 2 * expected(range(4), make())[0])
        with pytest.raises(TypeError, match="torch.utils.data.DataLoader takes others"):
            xtd.DataLoader(dataset, batch_size=4)


def test_an_index_that_turns_out_to_be_out_of_range_is_an_error():
    class Late(torch.utils.data.Sampler):
        def __iter__(self):
            return iter([52, 53])

    with pytest.raises(IndexError, match="sample 53 is out of range for 53"):
        list(xtd.DataLoader(make(), sampler=Late()))


def test_of_no_samples_there_are_no_batches():
    empty = xtd.DataLoader(make(), batch_size=4, sampler=[])
    assert len(empty) == len(list(empty)) == 0
    assert list(xtd.DataLoader(Subset(make(), []), batch_size=4)) == []
