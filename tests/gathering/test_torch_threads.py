"""Torch starts no threads where batches are gathered, and as many as it was given elsewhere."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.gathering import torch_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_a_thread(begin, function):
    with ThreadPoolExecutor(1, initializer=begin) as pool:
        return pool.submit(function).result()


def test_a_thread_that_gathers_has_one_but_for_functions_of_the_user():
    def counts():
        yield torch.get_num_threads()
        with torch_threads.all_threads():
            yield torch.get_num_threads()
            with torch_threads.one_thread():
                yield torch.get_num_threads()
            yield torch.get_num_threads()
        yield torch.get_num_threads()
        with torch_threads.one_thread():
            yield torch.get_num_threads()
        yield torch.get_num_threads()

    found = in_a_thread(torch_threads.limit_to_one_thread, lambda: [*counts()])
    assert found == [1, 3, 1, 3, 1, 1, 1]
    assert torch.get_num_threads() == 3


def test_a_function_that_fails_leaves_one_behind():
    def counts():
        with pytest.raises(KeyError), torch_threads.all_threads():
            raise KeyError
        yield torch.get_num_threads()

    assert in_a_thread(torch_threads.limit_to_one_thread, lambda: [*counts()]) == [1]


def test_other_threads_have_one_in_between():
    def counts():
        yield torch.get_num_threads()
        with torch_threads.one_thread(), torch_threads.all_threads():
            yield torch.get_num_threads()
        with pytest.raises(KeyError), torch_threads.one_thread():
            raise KeyError
        yield torch.get_num_threads()

    assert in_a_thread(None, lambda: [*counts()]) == [3, 1, 3]


@pytest.fixture
def selecting(monkeypatch):
    """Numbers of threads with which windows are selected."""
    counts, select = [], torch.index_select

    def counted(*args, **kwargs):
        counts.append(torch.get_num_threads())
        return select(*args, **kwargs)

    monkeypatch.setattr(torch, "index_select", counted)
    return counts


@pytest.mark.parametrize("samples", [2, 2_000])  # of which torch alone would make one job, and more
def test_batches_are_gathered_on_one_and_transformed_on_all(selecting, samples):
    ds = xr.Dataset({"v": ("time", np.arange(3_000.0))})
    transforming = []

    def transform(batch):
        transforming.append(torch.get_num_threads())
        return batch

    dataset = xtd.IterableDataset(
        ds, {"time": 30}, {"time": 29}, inputs="v", batch_size=samples, batch_transform=transform
    )
    selecting.clear(), transforming.clear()  # it was tried when the object was made
    for batch in dataset:
        np.testing.assert_array_equal(batch.x[:, 0], batch.index)
    assert {*selecting} == {1} and {*transforming} == {3}


def test_samples_by_number_are_gathered_on_one(selecting):
    ds = xr.Dataset({"v": (("time", "x"), np.arange(80_000.0).reshape(80, 1_000))})
    dataset = xtd.MapDataset(ds, {"time": 4, "x": 500}, {"time": 3}, inputs="v")
    batch = dataset.__getitems__([*range(0, 154, 3)]).batch
    at = [(number // 2, number % 2 * 500) for number in range(0, 154, 3)]
    expected = [ds["v"][time : time + 4, x : x + 500] for time, x in at]
    np.testing.assert_array_equal(batch.x, expected)
    assert {*selecting} == {1}
    assert torch.get_num_threads() == 3
