"""Reading in forked processes."""

import multiprocessing
import os
import threading
import time

import h5py
import numpy as np
import pytest
import torch.utils.data
import xarray as xr
import zarr
from forks_data import fields, openers
from xarray.backends import locks

import xtorch_data as xtd

pytestmark = pytest.mark.compat


@pytest.mark.parametrize(
    "kind", ["memory", "zarr", "zarrs", "dask", "dask over zarrs", "netcdf4", "h5netcdf"]
)
def test_forked_workers_read_though_their_parent_has_read_before(kind, tmp_path):
    ds = openers(tmp_path)[kind]()
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "x": -1}, {"time": 7}, inputs="v", batch_size=10, memory="3 kB"
    )
    list(dataset)  # threads of every library run in this process
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    expected = fields()["v"].values
    seen = []
    for batch in loader:
        for place, number in enumerate(batch.index.tolist()):
            seen.append(number)
            np.testing.assert_array_equal(batch.x[place].numpy(), expected[number : number + 8])
    assert sorted(seen) == list(range(93))
    ds.close()


def test_a_store_that_cannot_be_forked_is_refused_in_a_forked_worker():
    class ObjectStore(zarr.storage.MemoryStore):
        """Named like the store whose threads a fork loses."""

    array = zarr.create_array(
        ObjectStore(), shape=(20,), dtype="f4", chunks=(4,), dimension_names=("time",), name="v"
    )
    dataset = xtd.IterableDataset(array, {"time": 4})
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    with pytest.raises(RuntimeError, match="forkserver"):
        list(loader)


def exit_with_whether_locked(lock):
    os._exit(0 if lock.acquire(timeout=5) else 1)


@pytest.mark.parametrize("lock", [locks.HDF5_LOCK, locks.NETCDFC_LOCK], ids=["hdf5", "netcdf-c"])
@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_a_fork_waits_for_a_thread_that_reads_hdf5(engine, lock, tmp_path):
    """Else the child, where that thread is not, would find the lock taken and wait forever."""
    fields().to_netcdf(tmp_path / "v.nc")
    with xr.open_dataset(tmp_path / "v.nc", engine=engine) as ds:
        list(xtd.IterableDataset(ds, {"time": 8, "x": -1}, inputs="v"))
    reading, process = (
        threading.Event(),
        multiprocessing.get_context("fork").Process(target=exit_with_whether_locked, args=(lock,)),
    )

    def read():
        with lock, h5py._objects.phil:  # in the order of xarray's backends
            reading.set()
            time.sleep(0.2)

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    process.start()
    process.join()
    thread.join()
    assert process.exitcode == 0
