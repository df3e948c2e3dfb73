"""Devices for tests: GPUs where there are any, and one whose copies are late."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr

from xtorch_data.device.streams import Streams

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


def on_cuda(test):
    """Run a test where there is CUDA."""
    for mark in NEEDS_CUDA:
        test = mark(test)
    return test


DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]


def bits_of(tensor):
    """The bytes of a tensor, to be compared."""
    tensor = tensor.cpu().contiguous().flatten()
    if torch.cuda.is_available() and tensor.is_floating_point():  # a cast makes another NaN there
        tensor = tensor.masked_fill(tensor.isnan(), torch.nan)
    return tensor.view(torch.uint8)


def assert_same(ours, theirs):
    """Two epochs hold the same bits, numbers and labels."""
    ours, theirs = list(ours), list(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.repeated, other.repeated)
        assert one.keys() == other.keys() and one.skipped == other.skipped
        for left, right in zip(one, other, strict=True):
            assert left.dtype == right.dtype and left.shape == right.shape
            assert torch.equal(bits_of(left), bits_of(right))
    xr.testing.assert_identical(ours[-1].to_xarray(), theirs[-1].to_xarray())


class SlowStream(Streams):
    """A device whose copies take place some time after they were asked for, as those of a GPU do.

    Its event is the future of a copy, and a consumer on the device waits for it before it looks.
    """

    def __init__(self, seed):
        super().__init__(torch.device("cpu"))
        self.random = random.Random(seed)
        self.stream = ThreadPoolExecutor(1)
        self.most_under_way = 0
        self.asked = self.done = 0
        self.lock = threading.Lock()

    def copied(self, batch, then=None):
        moved = batch.replace(**{name: torch.empty_like(batch[name]) for name in batch.keys()})
        addresses = [(name, batch[name].data_ptr(), batch[name].nbytes) for name in batch.keys()]
        delay = self.random.choice([0, 0, 0.001, 0.004])

        def copy():  # reads what is at the address by then, and keeps no tensor of it alive
            time.sleep(delay)
            for name, address, nbytes in addresses:
                source = (np.ctypeslib.ctypes.c_byte * nbytes).from_address(address)
                moved[name].view(torch.uint8).numpy().reshape(-1)[:] = np.frombuffer(source, "u1")
            with self.lock:
                self.done += 1

        with self.lock:
            self.asked += 1
            self.most_under_way = max(self.most_under_way, self.asked - self.done)
        event = self.stream.submit(copy)
        event.query, event.synchronize = event.done, event.result
        if then is not None:  # which comes after the copy, as on a stream
            event.result()
            moved = then(moved)
        return moved, event

    def hand_over(self, batch, reached):
        reached.result()
