"""Presence, and conditions of it, in worker processes."""

import pickle

import numpy as np
import pytest
import torch
from helpers import forecast

import xtorch_data as xtd

WINDOWS, OVERLAP = {"time": 6, "y": 4, "x": 5}, {"time": 4}


def holey():
    ds, rng = forecast(time=60), np.random.default_rng(3)
    return ds.map(lambda each: each.where(rng.random(each.shape) > 0.3))


def filled(block):
    return block.fillna(0.0)


def made(kind=xtd.MapDataset):
    parts = {"x": ["a"], "mask": xtd.NotNull(["a", "b"])}
    return kind(
        holey(), WINDOWS, OVERLAP, parts=parts, preprocess=filled, where=xtd.NotNull("a", min=0.7)
    )


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_have_presence_and_the_answers(context):
    ds, samples = holey(), made()
    loader = xtd.DataLoader(
        samples, batch_size=4, shuffle=True, num_workers=2, multiprocessing_context=context
    )
    seen = []
    for batch in loader:
        assert batch.to_xarray("mask").a.dtype == bool
        for place, number in enumerate(batch.index.tolist()):
            window = ds.isel(samples.windows[number])
            expected = window[["a", "b"]].notnull().to_dataarray()
            np.testing.assert_array_equal(batch["mask"][place], expected)
            assert float(window.a.notnull().mean()) >= 0.7
            seen.append(number)
    assert sorted(seen) == samples.fetch(range(len(samples))).index.tolist()
    assert 0 < len(seen) < len(samples.windows)


def test_torchs_own_loader_and_pickles_have_them_too():
    samples = made()
    loader = torch.utils.data.DataLoader(samples, batch_size=5, num_workers=2)
    masks = torch.cat([mask for _, mask in loader])
    assert torch.equal(masks, samples.fetch(range(len(samples)))["mask"])
    stream = made(xtd.IterableDataset)
    again = pickle.loads(pickle.dumps(stream))
    for one, other in zip(stream, again, strict=True):
        assert torch.equal(one["mask"], other["mask"]) and torch.equal(one.index, other.index)
