import threading

import fsspec.asyn
import numpy as np
import pytest
import xarray as xr
import zarr
from forks_data import fields, openers
from xarray.backends.file_manager import FILE_CACHE

from xtorch_data.reading import forks as forked


def test_remote_file_systems_have_sessions_that_a_fork_loses():
    class Remote(fsspec.asyn.AsyncFileSystem):
        """Asynchronous by itself, like those of object stores."""

    assert forked._has_sessions(zarr.storage.FsspecStore(Remote(asynchronous=True)))
    assert not forked._has_sessions(zarr.storage.FsspecStore.from_url("memory://forked"))
    assert not forked._has_sessions(zarr.storage.MemoryStore())


def test_references_need_sessions_if_what_they_point_to_does():
    class Remote(fsspec.asyn.AsyncFileSystem):
        """Asynchronous by itself, like those of object stores."""

    options = {"fo": {"v/0": ["memory://a", 0, 1]}, "asynchronous": True}
    targets = (fsspec.filesystem("memory"), False), (Remote(asynchronous=True), True)
    for target, sessions in targets:
        fs = fsspec.filesystem("reference", fs=target, skip_instance_cache=True, **options)
        assert forked._has_sessions(zarr.storage.FsspecStore(fs)) == sessions


def test_zarr_arrays_in_a_dask_graph_are_made_safe(tmp_path):
    ds = openers(tmp_path)["dask over zarrs"]()
    forked.make_safe(ds)
    arrays = [each for each in forked._backend_arrays(ds["v"].variable) if hasattr(each, "_array")]
    assert arrays
    for array in arrays:
        assert "zarrs" not in type(array._array.async_array.codec_pipeline).__module__
    np.testing.assert_array_equal(ds["v"], fields()["v"])


def test_a_fork_that_cannot_wait_any_longer_says_so(monkeypatch, caplog):
    free, taken = threading.Lock(), threading.Lock()
    monkeypatch.setattr(forked, "LIBRARY_LOCKS", (free, taken))
    monkeypatch.setattr(forked, "_PATIENCE_SECONDS", 0.05)
    forked._wait_for_reads()
    forked._release()
    assert not caplog.records
    with taken:
        forked._wait_for_reads()
    assert "may hang in the child" in caplog.text
    assert not free.locked() and not taken.locked()


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf", "scipy"])
def test_what_a_fork_inherits_open_is_closed_at_once_and_opened_again(engine, tmp_path):
    """Left to the garbage collector, HDF5 would be entered while another thread reads."""
    fields().to_netcdf(tmp_path / "v.nc", engine=engine)
    ds = xr.open_dataset(tmp_path / "v.nc", engine=engine)
    ds["v"][0].load()
    inherited = [file for file in FILE_CACHE.values() if str(tmp_path) in str(name_of(file))]
    assert len(inherited) == 1
    forked.make_safe(ds)
    assert not FILE_CACHE
    if engine != "scipy":  # mapped, and closed with the last array over it
        # What each library, old or new, says of a closed file.
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            inherited[0].variables["v"][0]
    np.testing.assert_array_equal(ds["v"].values, fields()["v"].values)
    ds.close()


def name_of(file):
    return file.filepath() if hasattr(file, "filepath") else file.filename
