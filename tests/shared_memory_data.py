"""What tests of shared memory share, in one process and in several."""

from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.processes.shared_memory import shareable

F4 = np.dtype("f4")


LARGE = (3, 2**18)  # a slot by itself


def filled(buffers, shape, value):
    array = buffers.take(shape, F4)
    array.fill(value)
    return torch.from_numpy(array)


def send(tensor):
    return bytes(ForkingPickler.dumps(shareable(tensor)))


def sent(tensor):
    return ForkingPickler.loads(send(tensor))


STEPS = 240


def series():
    values = np.random.default_rng(0).normal(size=(STEPS, 3, 5)).astype("f4")
    return xr.Dataset({"t": (("time", "y", "x"), values)})


def stream(ds, **options):
    return xtd.IterableDataset(
        ds, {"time": 4, "y": -1, "x": -1}, {"time": 3}, inputs="t", shuffle=True, **options
    )
