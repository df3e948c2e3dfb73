"""xbatcher's loaders, and ours in their place, with worker processes."""

import numpy as np
import pytest
import torch
import xbatcher
import xbatcher.loaders.torch
from helpers import first_and_sum, forecast
from strategies import MORE

import xtorch_data.xbatcher as ours


def twins(steps=40, **how):
    """Generators of inputs and targets with overlapping windows."""
    ds = forecast(time=steps)
    return [
        xbatcher.BatchGenerator(ds[name], {"time": 6, "y": 4, "x": 5}, {"time": 4}, **how)
        for name in "ab"
    ]


def rows(found):
    return sorted(tuple(np.ravel(each).tolist()) for each in found)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        (ours.MapDataset, "fork"),
        (ours.IterableDataset, "fork"),
        *[(ours.IterableDataset, "spawn")] * (MORE > 1),
    ],
)
def test_with_workers_every_item_comes_once(kind, context):
    X, y = twins()
    dataset = kind(X, y, first_and_sum, first_and_sum)
    expected = [
        torch.cat([first_and_sum(one), first_and_sum(two)]) for one, two in zip(X, y, strict=True)
    ]
    next(iter(dataset) if kind is ours.IterableDataset else iter([dataset[0]]))  # with threads
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context
    )
    for _ in range(2 if context == "fork" else 1):
        found = [torch.cat(item) for item in loader]
        assert rows(found) == rows(expected)
        if kind is ours.MapDataset:
            assert [row.tolist() for row in found] == [row.tolist() for row in expected]


def test_xbatchers_own_repeats_every_item_in_every_worker():
    X, y = twins()
    dataset = xbatcher.loaders.torch.IterableDataset(X, y)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    assert len(list(loader)) == 2 * len(X)
