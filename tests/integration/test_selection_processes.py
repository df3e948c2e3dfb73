"""Filters in worker processes."""

import pickle

import numpy as np
import torch
from helpers import forecast, numbered, orders, samples_of

import xtorch_data as xtd


def test_workers_and_pickles_have_the_filter():
    ds = forecast(time=30)
    where = np.random.default_rng(6).random(27 * 20) < 0.3
    dataset = xtd.IterableDataset(ds, {"time": 4}, {"time": 3}, where=where, batch_size=16)
    copy = pickle.loads(pickle.dumps(dataset))
    assert orders(copy) == orders(dataset)
    loader = xtd.DataLoader(dataset, num_workers=2, multiprocessing_context="fork")
    assert sorted(samples_of(loader)) == np.flatnonzero(where).tolist()


def even(window):
    return bool(window.a % 2 == 0)


class MadeInWorkers(torch.utils.data.IterableDataset):
    def __iter__(self):
        dataset = xtd.IterableDataset(numbered(20), {"time": 1}, where=even, batch_size=3)
        assert dataset.plan.samples == 10
        epochs = [[batch.index for batch in dataset] for _ in range(2)]
        assert [len(epoch) for epoch in epochs] == [2, 2]  # batches are cut by workers, not samples
        return iter(epochs[1])


def test_a_dataset_that_a_worker_makes_has_the_same_filter():
    loader = torch.utils.data.DataLoader(
        MadeInWorkers(), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert sorted(int(n) for index in loader for n in index) == list(range(0, 20, 2))
