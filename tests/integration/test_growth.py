"""Nothing piles up from epoch to epoch."""

import gc
import sys
from collections import Counter

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import in_a_process

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
    data = xr.Dataset({"a": (("time", "x"), np.ones((150, 500), "float32"))})
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere neither figure is known")
def test_private_memory_does_not_grow_over_epochs_of_millions_of_samples():
    """Nothing is held for a sample: neither objects, whose counts a fork would copy, nor numbers.

    A list of two million numbers takes 76 MiB, an array of them 15.
    """
    script = """
        import warnings
        import numpy as np, psutil, xarray as xr
        import xtorch_data as xtd

        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*will create 4 worker processes", UserWarning)
        ds = xr.Dataset({"a": ("time", np.zeros(2_000_007, "float32"))})
        dataset = xtd.MapDataset(ds, {"time": 8}, {"time": 7}, memory="4 MiB")
        loader = xtd.DataLoader(
            dataset, num_workers=4, batch_size=8192, sampler=xtd.ChunkSampler(dataset), timeout=60,
            multiprocessing_context="fork", persistent_workers=True,
        )

        def look():
            # What workers have copied of the parent is theirs alone; in the parent it was before.
            parent = psutil.Process().memory_info()
            workers = [psutil.Process(worker.pid) for worker in loader._iterator._workers]
            found = [each.memory_full_info().uss for each in workers]
            print(len(dataset), parent.rss - parent.shared, *found)

        for epoch in range(3):
            for place, _ in enumerate(loader):
                if epoch == 0 and place == 100 or epoch == 2 and place == 240:
                    look()
    """
    process = in_a_process(script, timeout=120)
    assert process.returncode == 0, process.stderr
    before, after = (np.array(line.split(), int) for line in process.stdout.splitlines())
    assert before[0] == 2_000_000
    assert len(before) == 6  # and the private bytes of the parent and four workers
    assert ((after - before)[1:] < 6 * 2**20).all(), (after - before) / 2**20
