"""Nothing piles up from epoch to epoch."""

import gc
from collections import Counter

import numpy as np
import pytest
import xarray as xr
import zarr

import xtorch_data as xtd

# Other packages fill caches of their own, which are bounded.
OURS = ("xtorch_data", "asyncio", "concurrent", "threading", "numpy", "xarray")


def alive():
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    return Counter(kind for kind in kinds if str(kind.__module__).partition(".")[0] in OURS)


@pytest.mark.parametrize("chunks", [None, {}])
def test_no_objects_are_left_of_an_epoch(chunks):
    """Event loops, semaphores, buffers: what one epoch makes is gone after the next."""
    data = xr.Dataset({"a": (("time", "x"), np.ones((400, 500), "float32"))})
    store = zarr.storage.MemoryStore()
    data.chunk(time=5).to_zarr(store, consolidated=False)
    ds = xr.open_zarr(store, consolidated=False, chunks=chunks)
    dataset = xtd.IterableDataset(ds, {"time": 4, "x": -1}, inputs="a", batch_size=8, shuffle=True)
    for _ in range(3):
        list(dataset)
    before = alive()
    for _ in range(12):
        list(dataset)
    assert {kind: more for kind, more in (alive() - before).items() if more >= 6} == {}
