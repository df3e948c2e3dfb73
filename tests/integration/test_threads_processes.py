"""Forks while an iteration is open."""

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd


@pytest.fixture
def dataset(tmp_path):
    gc.collect()  # threads of what other tests have left
    ds = xr.Dataset({"v": ("time", np.arange(4000.0))})
    ds.to_zarr(tmp_path / "v.zarr", encoding={"v": {"chunks": (10,)}}, consolidated=False)
    opened = xtd.open_zarr(tmp_path / "v.zarr", consolidated=False)
    return xtd.IterableDataset(opened, {"time": 10}, inputs="v", batch_size=3, memory="2 kB")


def ours():
    return [each.name for each in threading.enumerate() if each.name.startswith("xtorch_data-")]


def ended(seconds=10):
    end = time.monotonic() + seconds
    for each in threading.enumerate():
        if each.name.startswith("xtorch_data-"):
            each.join(max(0, end - time.monotonic()))
    return not ours()


def test_a_fork_with_an_open_iteration_ends(dataset):
    batches = iter(dataset)
    next(batches)
    child = os.fork()
    if child == 0:
        batches.close()
        os._exit(0)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
    assert len(list(batches)) > 100  # the parent goes on
    assert ended()
