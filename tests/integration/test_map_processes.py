"""Samples by number in worker processes."""

import itertools
import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import add_noise, forecast
from map_data import WINDOW, expected, make
from torch.utils.data import DataLoader

import xtorch_data as xtd


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "data.zarr"
    encoding = {"a": {"chunks": (16, 4, 5)}, "b": {"chunks": (10, 2, 5)}}
    forecast().to_zarr(path, consolidated=False, encoding=encoding)
    return path


# What is sent to a spawned worker is sent to one of the fork server as well, which starts faster.
@pytest.mark.parametrize(
    ("method", "used", "loader"),
    [
        *itertools.product(["fork", "forkserver"], [False, True], [DataLoader, xtd.DataLoader]),
        ("spawn", True, DataLoader),
    ],
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_read_for_themselves(store, method, used, loader):
    dataset = make(xr.open_zarr(store, consolidated=False, chunks=None))
    if used:
        dataset[0]
    batches = list(
        loader(
            dataset,
            batch_size=8,
            sampler=range(53),
            num_workers=1 if method == "spawn" else 2,  # each takes seconds to begin
            multiprocessing_context=method,
            timeout=60,
        )
    )
    x = torch.cat([batch[0] if isinstance(batch, list) else batch.x for batch in batches])
    np.testing.assert_array_equal(x, expected(range(53), dataset)[0])


def test_a_fork_does_not_wait_for_threads_of_its_parent(store):
    dataset = make(xr.open_zarr(store, consolidated=False, chunks=None))
    dataset[0]
    stop = threading.Event()

    def busily():
        while not stop.is_set():
            dataset[int(np.random.default_rng().integers(53))]

    reader = threading.Thread(target=busily)
    reader.start()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_all, args=(dataset,)) for _ in range(5)]
    try:
        for process in processes:
            process.start()
            process.join(60)
            assert process.exitcode == 0, "the child hangs" if process.is_alive() else "it failed"
    finally:
        stop.set()
        reader.join()
        for process in processes:  # not those of other tests, whose loaders would miss them
            if process.pid is not None:
                process.kill()


def read_all(dataset):
    found = np.stack([x.numpy() for x, _ in dataset])
    os._exit(0 if np.array_equal(found, expected(range(53), dataset)[0]) else 3)


@pytest.mark.parametrize("persistent", [False, True])
def test_random_functions_draw_anew_in_every_epoch_of_our_loader(persistent):
    loader = xtd.DataLoader(
        make(transform=add_noise), batch_size=16, num_workers=2,
        persistent_workers=persistent, sampler=range(53),
    )  # fmt: skip
    epochs = [torch.cat([batch.x for batch in loader]) for _ in range(3)]
    stream = xtd.IterableDataset(
        forecast(), WINDOW, {"time": 7}, inputs=["a", "b"], transform=add_noise, batch_size=16
    )
    for epoch in epochs:
        assert torch.equal(epoch, torch.cat([batch.x for batch in stream]))
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize("persistent", [False, True], ids=["anew", "lasting"])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "torch's"])
def test_an_epoch_that_is_set_comes_also_again(persistent, ours):
    dataset = make(transform=add_noise)
    expected = {}
    for epoch in range(3):
        dataset.set_epoch(epoch)
        expected[epoch] = torch.stack([x for x, *_ in dataset.__getitems__(range(len(dataset)))])
    assert not torch.equal(expected[0], expected[1])
    kind = xtd.DataLoader if ours else torch.utils.data.DataLoader
    dataset = make(transform=add_noise)
    how = {"batch_size": 16, "num_workers": 2, "persistent_workers": persistent}
    loader = kind(dataset, sampler=range(53), **how)

    def a_pass():
        return torch.cat([batch[0] for batch in (tuple(batch) for batch in loader)])

    for epoch in (1, 1):
        dataset.set_epoch(epoch)
        assert torch.equal(a_pass(), expected[epoch])
    if ours:  # and later ones go on from there
        assert torch.equal(a_pass(), expected[2])
        assert dataset.epoch == 2
