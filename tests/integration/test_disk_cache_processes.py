"""The cache on disk, shared by processes and users."""

import os
import pathlib
import shutil
import tempfile
import textwrap
import time

import numpy as np
import pytest
import xarray as xr
from disk_cache_data import entries, epoch_of, filled, kept, opened
from helpers import Script

import xtorch_data as xtd
from xtorch_data.reading.disk_cache import DiskCache


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "v.zarr"
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "x"), rng.normal(size=(120, 6)).astype("f4")),
            "b": (("time", "x"), rng.normal(size=(120, 6))),
            "static": ("x", rng.normal(size=6)),
        }
    )
    ds["a"][3, 2] = np.nan
    encoding = {"a": {"chunks": (10, 6)}, "b": {"chunks": (16, 3)}}
    ds.to_zarr(path, encoding=encoding, consolidated=False)
    return path, ds


def test_a_process_later_reads_nothing(store, tmp_path):
    path, ds = store
    arguments = {"input_dims": {"time": 8, "x": -1}, "inputs": "a", "cache": str(tmp_path / "c")}
    epoch_of(xtd.IterableDataset(opened(path), **arguments))
    script = """
        import sys
        import numpy as np, xarray as xr, xtorch_data as xtd

        ds = xr.open_zarr(sys.argv[1], chunks=None, consolidated=False)
        dataset = xtd.IterableDataset(
            ds, {"time": 8, "x": -1}, inputs="a", cache=sys.argv[2], batch_size=15
        )
        (batch,) = dataset
        assert dataset.stats().bytes_read == 0, dataset.stats()
        assert np.array_equal(batch.x[14], ds["a"].isel(time=slice(112, 120)), equal_nan=True)
    """
    # The store is told by what it is, not by the object that reads it: without one around it.
    plain = xr.open_zarr(path, chunks=None, consolidated=False)
    epoch_of(xtd.IterableDataset(plain, **arguments))
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    result = Script(tmp_path / "script.py", path, tmp_path / "c", folder=tmp_path).wait()
    assert result.returncode == 0, result.stderr


AS_NOBODY = """
    import logging, os, sys
    import numpy as np, xarray as xr, xtorch_data as xtd

    path, folder = sys.argv[1:]
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("xtorch_data").addHandler(handler)
    logging.getLogger("xtorch_data").propagate = False

    def epoch(name, cache):
        ds = xr.open_zarr(path, chunks=None, consolidated=False)
        dataset = xtd.IterableDataset(ds, {"time": 120, "x": -1}, inputs=name, cache=cache)
        (batch,) = dataset
        assert np.array_equal(batch.x[0], ds[name].astype("f4"), equal_nan=True)
        if dataset._inside.on_disk is not None:
            dataset._inside.on_disk.cache.wait()
        return dataset.stats().bytes_read

    epoch("a", False)
    os.setgid(65534)
    os.setuid(65534)
    assert epoch("a", f"{folder}/full") == 0
    assert not messages
    assert epoch("b", f"{folder}/full") > 0
    assert len(messages) == 1 and "Permission denied" in messages[0], messages
    assert epoch("a", f"{folder}/unreadable") > 0
    for name in ("closed", "foreign"):
        try:
            epoch("a", f"{folder}/{name}/cache")
        except ValueError as error:
            assert "cannot be written to: Permission denied" in str(error), error
        else:
            raise AssertionError(name)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs other users")
def test_folders_and_entries_of_others(store):
    """For a user whom modes of folders count: what can be read serves, the rest is said."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(store[0], folder / "v.zarr")
        for name in ("full", "unreadable"):
            ds = xr.open_zarr(folder / "v.zarr", chunks=None, consolidated=False)
            dataset = xtd.IterableDataset(
                ds, {"time": 120, "x": -1}, inputs="a", cache=folder / name
            )
            epoch_of(dataset)
        for name, mode in (("closed", 0o700), ("foreign", 0o755)):
            (folder / name).mkdir(mode)
        for each in entries(folder / "unreadable"):
            each.chmod(0o600)
        folder.chmod(0o755)
        (folder / "script.py").write_text(textwrap.dedent(AS_NOBODY))
        result = Script(folder / "script.py", folder / "v.zarr", folder, folder=folder).wait()
        assert result.returncode == 0, result.stderr


WRITER = """
    import sys, time
    import numpy as np
    from xtorch_data.reading.disk_cache import DiskCache, entry_name

    folder, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    cache = DiskCache(folder, 3_000_000, 10**7)
    rng = np.random.default_rng(seed)
    print("begun", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number = int(rng.integers(0, 200))
        name, values = entry_name(b"%d" % number), np.full(50_000, number, "u1")
        out = np.empty_like(values)
        if cache.read(name, out):
            assert (out == number).all()
        cache.offer(name, values)
"""


def test_killed_writers_leave_nothing_wrong(tmp_path):
    """Several processes on one folder at once, killed at any moment: all that is there is right."""
    rng = np.random.default_rng()
    folder, script = tmp_path / "cache", tmp_path / "script.py"
    script.write_text(textwrap.dedent(WRITER))
    running = []
    for seed in range(3):
        own = tmp_path / str(seed)
        own.mkdir()
        running.append(Script(script, folder, seed, 20, folder=own))
    end = time.monotonic() + 30
    while len(entries(folder)) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    for process in running:
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
    for process in running:
        assert process.wait().stderr == ""
    cache = DiskCache(str(folder), 3_000_000, 10**7)
    there = sum(kept(cache, number, 50_000) for number in range(200))
    assert 3 <= there == len(entries(folder))
    assert sum(path.stat().st_size for path in entries(folder)) <= 3_000_000 + 3 * 50_064
    filled(cache, [255], 50_000)
    assert kept(cache, 255, 50_000) or there >= 59
