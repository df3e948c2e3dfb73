"""Orders of samplers where workers are processes."""

import itertools

import pytest
import torch
from sampler_order_data import assert_same, epochs, make
from torch.utils.data import SequentialSampler

import xtorch_data as xtd
from xtorch_data.loading.sampler_order import Shuffled

ORDERS = {
    "in order": lambda dataset: {"sampler": SequentialSampler(dataset)},
    "shuffled": lambda dataset: {"sampler": Shuffled(dataset, None)},
    "chunks": lambda dataset: {"sampler": xtd.ChunkSampler(dataset, seed=3)},
}


def loader_of(name, workers=0):
    dataset = make()
    return xtd.DataLoader(dataset, num_workers=workers, batch_size=8, **ORDERS[name](dataset))


def test_workers_that_live_on_go_on_too():
    dataset = make()
    how = {"sampler": xtd.ChunkSampler(dataset, seed=3), "batch_size": 8}
    loader = xtd.DataLoader(dataset, num_workers=1, persistent_workers=True, **how)
    wanted = epochs(loader_of("chunks"), 2)
    assert_same(epochs(loader, 1)[0], wanted[0])
    other = loader_of("chunks")
    for _ in itertools.islice(other, 3):
        pass
    loader.load_state_dict(other.state_dict())
    assert_same(epochs(loader, 1)[0], wanted[0][3:])
    assert_same(epochs(loader, 1)[0], wanted[1])


@pytest.mark.parametrize(
    ("name", "workers"), [("shuffled", (0, 1)), ("chunks", (2, 0)), ("in order", (2, 1))]
)
def test_workers_do_not_matter(name, workers):
    torch.manual_seed(1)
    wanted = epochs(loader_of(name), 1)[0][3:]
    torch.manual_seed(1)
    loader = loader_of(name, workers[0])
    for _ in itertools.islice(loader, 3):
        pass
    again = loader_of(name, workers[1])
    again.load_state_dict(loader.state_dict())
    assert_same(epochs(again, 1)[0], wanted)
