"""The drop-in replacements for xbatcher's torch datasets, beside xbatcher's own."""

import pickle

import numpy as np
import pytest
import torch
import xarray as xr
import xbatcher
import xbatcher.loaders.torch
from helpers import counted, first_and_sum, forecast, numbered, reads, tiny_memory_allowed
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples
from xbatcher_cases import assert_same_item, generators, grouped, labelled_items

import xtorch_data as xtd
import xtorch_data.xbatcher as ours

CLASSES = [ours.MapDataset, ours.IterableDataset]


def items_of(dataset):
    """The items of either class, in order."""
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return list(dataset)
    return [dataset[number] for number in range(len(dataset))]


def assert_equal_tensors(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


@examples(8, 500)
@given(generators() | grouped(), st.sampled_from([*CLASSES, xtd.MapDataset]))
def test_a_transform_gets_the_very_items_that_the_generator_yields(generator, kind):
    try:
        expected = labelled_items(generator)
    except ValueError:  # items without a window, a dim "sample" that is stacked
        assume(False)
    seen = []

    def transform(item):
        seen.append(item)
        return item if kind is xtd.MapDataset else torch.zeros(())

    with tiny_memory_allowed():
        dataset = kind(generator, transform=transform, memory="2 kB")
        seen.clear()  # of trials
        items_of(dataset)
    for found, item in zip(seen, expected, strict=True):
        assert_same_item(found, item, generator.concat_input_dims)


@pytest.mark.parametrize("kind", CLASSES)
def test_items_are_counted_by_position_whatever_their_labels(kind):
    labels = np.delete(np.arange(40.0), [7, 8, 9, 21])  # no stretch is as long as a window
    array = xr.DataArray(np.arange(36.0), {"time": labels}, name="a")
    generator = xbatcher.BatchGenerator(array, {"time": 18})
    dataset = kind(generator, transform=lambda item: torch.as_tensor(item.values))
    expected = [item.values for item in generator]
    assert len(expected) == 2
    for found, item in zip(items_of(dataset), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found).ravel(), item)


@examples(6, 300)
@given(generators() | grouped(), st.sampled_from(CLASSES), st.data())
def test_tensors_are_those_of_xbatchers_own_classes(generator, kind, draw):
    ds = generator.ds
    if isinstance(ds, xr.Dataset):  # xbatcher takes a single variable
        name = draw.draw(st.sampled_from([n for n in ds if set(ds[n].dims) == set(ds.dims)]))
        ds = ds[[name]] if draw.draw(st.booleans()) else ds[name]
    generator.ds = ds.drop_vars(list(ds.coords))  # windows of arrays are aligned along them
    try:
        theirs = xbatcher.loaders.torch.MapDataset(generator)
        expected = [theirs[number] for number in range(len(generator))]
    except ValueError:
        assume(False)
    with tiny_memory_allowed():
        dataset = kind(generator, memory="2 kB")
        assert len(dataset) == len(expected)
        found = items_of(dataset)
    for tensor, other in zip(found, expected, strict=True):
        assert_equal_tensors(tensor, other)


def twins(steps=40, **how):
    """Generators of inputs and targets with overlapping windows."""
    ds = forecast(time=steps)
    return [
        xbatcher.BatchGenerator(ds[name], {"time": 6, "y": 4, "x": 5}, {"time": 4}, **how)
        for name in "ab"
    ]


@pytest.mark.parametrize("kind", CLASSES)
def test_inputs_and_targets_come_together(kind):
    X, y = twins()
    found = items_of(kind(X, y, first_and_sum))
    assert len(found) == len(X)
    for (inputs, targets), one, other in zip(found, X, y, strict=True):
        assert_equal_tensors(inputs, first_and_sum(one))
        assert_equal_tensors(targets, torch.tensor(other.values))


@pytest.mark.parametrize("kind", CLASSES)
def test_several_variables_are_stacked_as_xarray_does(kind):
    ds = xr.Dataset({"a": ("x", np.arange(4, dtype="float32")), "b": ("x", np.arange(4) + 2**30)})
    (found,) = items_of(kind(xbatcher.BatchGenerator(ds, {"x": 4})))
    assert_equal_tensors(found, torch.tensor(ds.to_array().values))


def test_the_items_of_a_batch_are_asked_for_together():
    X, y = twins()
    dataset = ours.MapDataset(X, y, first_and_sum)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, sampler=[3, 0, 2, 2, 17])
    found = [tensor for batch, _ in loader for tensor in batch]
    for tensor, number in zip(found, [3, 0, 2, 2, 17], strict=True):
        assert_equal_tensors(tensor, first_and_sum(X[number]))


@pytest.mark.parametrize("index", [2, -1, np.int64(3), torch.tensor(4), torch.tensor([5])])
def test_items_by_number(index):
    (X, _) = twins()
    assert_equal_tensors(ours.MapDataset(X)[index], torch.tensor(X[int(index)].values))


@pytest.mark.parametrize("index", [slice(2), [1, 2], torch.tensor([1, 2]), 1.0, "a"])
def test_several_items_at_once_are_not_implemented(index):
    with pytest.raises(NotImplementedError, match="one item"):
        ours.MapDataset(twins()[0])[index]


@pytest.mark.parametrize("index", [18, -19])
def test_there_is_no_item_beyond_the_last(index):
    with pytest.raises(IndexError, match="18"):
        ours.MapDataset(twins()[0])[index]


# ---------------------------------------------------------------------------------------------
# Workers and ranks


@pytest.mark.parametrize("uneven", ["keep", "drop", None])
def test_ranks_share_the_items(uneven):
    X = xbatcher.BatchGenerator(numbered(22)["a"], {"time": 2})
    how = {} if uneven is None else {"uneven": uneven}
    ranks = [ours.IterableDataset(X, **how, rank=r, world_size=3) for r in range(3)]
    shares = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(share) for share in shares]
    counts = {"keep": [3, 4, 4], "drop": [3, 3, 3], None: [4, 4, 4]}[uneven]
    assert sorted(map(len, shares)) == counts
    found = [int(tensor[0]) for share in shares for tensor in share]
    assert len(found) == sum(counts)
    assert len(set(found)) == min(11, len(found))


def test_ranks_are_those_of_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    dataset = ours.IterableDataset(xbatcher.BatchGenerator(numbered(20)["a"], {"time": 2}))
    assert [int(tensor[0]) for tensor in dataset] == [10, 12, 14, 16, 18]


# ---------------------------------------------------------------------------------------------
# Reading


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("transform", [None, first_and_sum])
def test_each_chunk_is_read_once_however_much_windows_overlap(kind, transform):
    opened, counts = counted(forecast(time=64), {name: (16, 4, 5) for name in "ab"})
    X, y = (
        xbatcher.BatchGenerator(opened[name], {"time": 8, "y": 4, "x": 5}, {"time": 7})
        for name in "ab"
    )
    assert len(items_of(kind(X, y, transform, transform))) == len(X)
    assert reads(counts, "ab") == {f"{name}/c/{n}/0/0": 1 for name in "ab" for n in range(4)}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_transform_may_work_in_place_and_its_items_may_be_kept(kind):
    (X, _) = twins()
    kept = []

    def transform(item):
        item[:] = item + 1
        kept.append(item)
        return ours.to_tensor(item)

    found = items_of(kind(X, transform=transform))
    for tensor, item, expected in zip(found, kept, X, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), expected.values + 1)
        np.testing.assert_array_equal(item.values, expected.values + 1)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_transform_may_write_into_coordinates(kind):
    ds = xr.Dataset({"a": ("x", np.zeros(8))}, {"k": ("x", np.arange(8)), "x": np.arange(8)})
    seen = []

    def transform(item):
        seen.append(item["k"].values.tolist())
        item["k"][:] = -1
        return ours.to_tensor(item)

    items_of(kind(xbatcher.BatchGenerator(ds, {"x": 3}, {"x": 2}), transform=transform))
    assert seen == [[start, start + 1, start + 2] for start in range(6)]
    assert ds["k"].values.tolist() == list(range(8))


def fails_in_july(item):
    if item["time"].dt.month[0] == 7:
        raise RuntimeError("no July")
    return ours.to_tensor(item)


def test_no_thread_goes_on_when_an_iteration_ends_early(no_new_threads):
    X, y = twins(steps=1000)
    for _ in ours.IterableDataset(X, y):
        break
    with pytest.raises(RuntimeError, match="no July"):
        list(ours.IterableDataset(X, y, target_transform=fails_in_july))
    no_new_threads()


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dataset_survives_pickling(kind):
    dataset = kind(*twins(), first_and_sum)
    before = items_of(dataset)
    after = items_of(pickle.loads(pickle.dumps(dataset)))
    for found, expected in zip(after, before, strict=True):
        for tensor, other in zip(found, expected, strict=True):
            assert_equal_tensors(tensor, other)


# ---------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize("kind", CLASSES)
class TestErrorsWhenItIsMade:
    def test_a_generator_is_none(self, kind):
        (X, _) = twins()
        with pytest.raises(TypeError, match="X_generator.*DataArray"):
            kind(X.ds)
        with pytest.raises(TypeError, match="y_generator.*ndarray"):
            kind(X, X.ds.values)

    def test_lengths_differ(self, kind):
        with pytest.raises(ValueError, match="18 items and y_generator 13"):
            kind(twins()[0], twins(steps=30)[1])

    @pytest.mark.parametrize("argument", ["transform", "target_transform"])
    def test_a_transform_cannot_be_called(self, kind, argument):
        with pytest.raises(TypeError, match=f"{argument}.*'mean'"):
            kind(*twins(), **{argument: "mean"})

    def test_a_variable_is_not_numeric(self, kind):
        ds = xr.Dataset({"a": ("x", np.arange(4.0)), "name": ("x", list("abcd"))})
        with pytest.raises(TypeError, match="'name'"):
            kind(xbatcher.BatchGenerator(ds, {"x": 2}), transform=len)

    def test_memory_is_not_bytes(self, kind):
        with pytest.raises(ValueError, match="memory"):
            kind(twins()[0], memory="much")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_transform_that_makes_no_tensor_is_named(kind):
    with pytest.raises(TypeError, match="target_transform must return a torch.Tensor, not float"):
        items_of(kind(*twins(), target_transform=lambda item: 1.0))
