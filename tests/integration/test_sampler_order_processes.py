"""Orders of samplers where workers live on."""

import itertools

import torch
from helpers import add_noise, forecast
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
)

import xtorch_data as xtd

WINDOW = {"time": 8, "y": -1, "x": -1}


def make():
    return xtd.MapDataset(forecast(), WINDOW, {"time": 7}, inputs="a", transform=add_noise)


def distributed(dataset, epoch=0):
    sampler = DistributedSampler(dataset, num_replicas=2, rank=1, seed=2)
    sampler.set_epoch(epoch)
    return sampler


ORDERS = {
    "in order": lambda dataset: {},
    "shuffled": lambda dataset: {"shuffle": True},
    "chunks": lambda dataset: {"sampler": xtd.ChunkSampler(dataset, seed=3)},
    "a rank's": lambda dataset: {"sampler": distributed(dataset)},
    "batches": lambda dataset: {
        "batch_sampler": BatchSampler(xtd.ChunkSampler(dataset, seed=3), 8, drop_last=True)
    },
}


def loader_of(name, workers=0):
    dataset = make()
    how = ORDERS[name](dataset)
    if "batch_sampler" not in how:
        how["batch_size"] = 8
    return xtd.DataLoader(dataset, workers, **how)


def epochs(loader, count):
    """Sample numbers and values of some epochs."""
    return [[(batch.index.tolist(), batch.x) for batch in loader] for _ in range(count)]


def assert_same(found, wanted):
    assert [numbers for numbers, _ in found] == [numbers for numbers, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_workers_that_live_on_go_on_too():
    dataset = make()
    how = {"sampler": xtd.ChunkSampler(dataset, seed=3), "batch_size": 8}
    loader = xtd.DataLoader(dataset, 1, persistent_workers=True, **how)
    wanted = epochs(loader_of("chunks"), 2)
    assert_same(epochs(loader, 1)[0], wanted[0])
    other = loader_of("chunks")
    for _ in itertools.islice(other, 3):
        pass
    loader.load_state_dict(other.state_dict())
    assert_same(epochs(loader, 1)[0], wanted[0][3:])
    assert_same(epochs(loader, 1)[0], wanted[1])
