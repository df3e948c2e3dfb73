"""Copies to a device run ahead, errors stay in their place, and memory is not reused too early."""

import random
import time

import numpy as np
import pytest
import torch
import xarray as xr
from devices import SlowStream

import xtorch_data as xtd
from xtorch_data.device.streams import on_device


def windows(**kwargs):
    data = xr.DataArray(
        np.arange(4000.0).reshape(400, 10), dims=("time", "x"), coords={"time": np.arange(400)}
    )
    return xtd.IterableDataset(data, {"time": 8, "x": -1}, {"time": 7}, batch_size=4, **kwargs)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_of_a_batch_is_not_gathered_into_again_while_a_copy_reads_it(prefetch):
    dataset, expected = windows(shuffle=True), [batch.x.clone() for batch in windows(shuffle=True)]
    stream, steps = SlowStream(prefetch), random.Random(1)
    kept = []

    for batch, values in zip(on_device(iter(dataset), stream, prefetch), expected, strict=True):
        assert torch.equal(batch.x, values)
        if steps.random() < 0.2:
            kept.append((batch, values))
        time.sleep(steps.choice([0, 0, 0.002]))

    assert len(kept) > 5
    assert all(torch.equal(batch.x, values) for batch, values in kept)
    assert stream.most_under_way <= prefetch + 3  # the host does not run away from the device


def test_memory_is_held_until_the_copy_is_over_if_the_loop_is_left():
    stream = SlowStream(0)
    batches = on_device(iter(windows()), stream, 2)
    next(batches)
    batches.close()
    assert stream.asked == stream.done == 3


def test_prefetch_is_checked():
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="prefetch"):
            xtd.DataLoader(windows(), device="cpu", prefetch=wrong)


def test_tensors_lie_on_the_device_as_asked():
    data = xr.DataArray(np.zeros((20, 3, 6, 6), "f4"), dims=("time", "level", "y", "x"))
    dataset = xtd.IterableDataset(
        data,
        {"level": -1, "y": 6, "x": 6},
        batch_size=4,
    )
    for gather in ("host", "device"):
        loader = xtd.DataLoader(
            dataset, device="cpu", gather=gather, memory_format=torch.channels_last
        )
        for batch in loader:
            assert batch.x.shape == (4, 3, 6, 6)
            assert batch.x.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="memory_format"):
        xtd.DataLoader(dataset, memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="such as torch.channels_last, not 'channels_last'"):
        xtd.DataLoader(dataset, device="cpu", memory_format="channels_last")


def test_static_tensors_of_a_graph_are_filled_from_batches():
    static = torch.zeros(4, 8, 10)
    address = static.data_ptr()
    for batch, values in zip(xtd.DataLoader(windows(), device="cpu"), windows(), strict=True):
        static[: len(batch)].copy_(batch.x, non_blocking=True)
        assert static.data_ptr() == address and torch.equal(static[: len(batch)], values.x)
