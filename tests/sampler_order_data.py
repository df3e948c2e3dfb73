"""What tests of orders of loaders share, in one process and in several."""

import torch
from helpers import add_noise, forecast

import xtorch_data as xtd

WINDOW = {"time": 8, "y": -1, "x": -1}


def make():
    return xtd.MapDataset(forecast(), WINDOW, {"time": 7}, inputs="a", transform=add_noise)


def epochs(loader, count):
    """Sample numbers and values of some epochs."""
    return [[(batch.index.tolist(), batch.x) for batch in loader] for _ in range(count)]


def assert_same(found, wanted):
    assert [numbers for numbers, _ in found] == [numbers for numbers, _ in wanted]
    for (_, ours), (_, theirs) in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)
