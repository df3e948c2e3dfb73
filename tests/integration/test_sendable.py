"""Workers that cannot start are refused when the loader is made."""

import multiprocessing
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from helpers import numbered

import xtorch_data as xtd
from xtorch_data.loading import sendable


def load(ds, **options):
    return xtd.DataLoader(xtd.IterableDataset(ds, {"time": 1}), num_workers=1, **options)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_data_from_an_open_file_names_the_variable_and_the_remedy(tmp_path, method):
    numbered(8).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with open(tmp_path / "a.nc", "rb") as file, xr.open_dataset(file, engine="h5netcdf") as ds:
        with pytest.raises(TypeError, match=r"variable 'a' .* path or URL.* num_workers=0"):
            load(ds, multiprocessing_context=method)
        load(ds, multiprocessing_context="fork")  # which sends nothing
        assert len(list(xtd.DataLoader(xtd.IterableDataset(ds, {"time": 1})))) == 8


class Locked:
    """A function that cannot be sent."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, anything):
        return anything


def test_functions_that_hold_a_lock_are_named():
    with pytest.raises(TypeError, match="worker_init_fn cannot be sent .*lock"):
        load(numbered(8), worker_init_fn=Locked())
    ds = numbered(8)
    with pytest.raises(TypeError, match="transform cannot be sent .*lock"):
        xtd.DataLoader(xtd.MapDataset(ds, {"time": 1}, transform=Locked()), num_workers=1)


class Counting:
    """A function that holds something of several processes."""

    def __init__(self, shared):
        self.shared = shared

    def __call__(self, worker):
        if hasattr(self.shared, "value"):
            with self.shared.get_lock():
                self.shared.value += 1


def test_functions_may_hold_what_only_a_process_that_starts_is_given():
    ours, ds = multiprocessing.get_context("forkserver"), numbered(8)
    held = [ours.Lock(), ours.Queue(), ours.Event(), ours.Pipe(), ours.Array("i", 3)]
    for shared in held:
        load(ds, worker_init_fn=Counting(shared))
        xtd.DataLoader(xtd.MapDataset(ds, {"time": 1}, transform=Counting(shared)), num_workers=1)
    counter = ours.Value("i")
    assert len(list(load(ds, worker_init_fn=Counting(counter)))) == 8
    assert counter.value == 1
    other = multiprocessing.get_context("fork").Lock()
    with pytest.raises(TypeError, match=r"worker_init_fn .*get_context\('forkserver'\)"):
        load(ds, worker_init_fn=Counting(other))


def test_data_in_memory_are_not_copied_to_find_that_out(monkeypatch):
    written = []
    monkeypatch.setattr(sendable._Nowhere, "write", lambda _, data: written.append(len(data)))
    ds = xr.Dataset({"a": ("time", np.zeros(10**6))})
    load(ds)
    load(ds.chunk(time=10**5))
    assert 0 < sum(written) < 10**6


@pytest.mark.parametrize("name", ["<stdin>", "/nowhere/script.py"])
def test_a_script_that_is_in_no_file_is_refused(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=name, __spec__=None))
    with pytest.raises(RuntimeError, match=r"standard input.*save it in a file.*num_workers=0"):
        load(numbered(8))
    load(numbered(8), multiprocessing_context="fork")


@pytest.mark.parametrize(
    "main",
    [
        SimpleNamespace(__spec__=None),  # a prompt, a notebook, python -c
        SimpleNamespace(__file__="/nowhere/ipython", __spec__=None),
        SimpleNamespace(__file__="app.zip/__main__.py", __spec__=SimpleNamespace(name="__main__")),
        SimpleNamespace(__file__=__file__, __spec__=None),
    ],
)
def test_other_main_modules_are_not(monkeypatch, main):
    monkeypatch.setitem(sys.modules, "__main__", main)
    load(numbered(8))


FULL = """
import errno, sys
from helpers import numbered
import xtorch_data as xtd

d = xtd.IterableDataset(numbered(8), {"time": 1})
print(len(list(d)))
m = xtd.MapDataset(numbered(8), {"time": 1})
print(len(list(xtd.DataLoader(m))))
large = numbered((8, 10**5), ("time", "x"))
loader = xtd.DataLoader(
    xtd.IterableDataset(large, {"time": 1, "x": -1}), num_workers=1, multiprocessing_context="fork"
)
print(sum(int(batch.x.sum()) for batch in loader) == int(large["a"].sum()))
held = open("/dev/shm/held", "wb", buffering=0)
try:
    while True:
        held.write(bytes(4096))
except OSError:
    pass
try:
    print(len(list(xtd.DataLoader(d, num_workers=1, multiprocessing_context="fork"))))
except OSError as error:
    print(error.errno == errno.ENOSPC, error)
"""


@pytest.mark.slow
def test_without_room_in_shared_memory_there_are_batches_or_a_remedy():
    """A dataset needs none; the queues of workers do, and what they send does not."""
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    isolated = ["unshare", "-m", "sh", "-c"]
    try:
        subprocess.run([*isolated, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a mount of its own")
    run = subprocess.run(
        [*isolated, f'{mount} && exec "$0" -c "$1"', sys.executable, FULL],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    without, mapped, sent, error = run.stdout.splitlines()
    assert without == mapped == "8"
    assert sent == "True"
    assert error.startswith("True")
    # What a loader before held may be let go meanwhile.
    assert re.search(r"/dev/shm, which has 65,536 bytes, [\d,]+ of them free", error)
    assert "--shm-size" in error
    assert "num_workers=0" in error
