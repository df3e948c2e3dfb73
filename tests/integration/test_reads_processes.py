"""Peak memory of a process, errors of workers, and interpreters that end early."""

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import (
    WINDOW,
    fields,
    in_a_process,
)

import xtorch_data as xtd

PEAK = """
import resource, sys, warnings
import numpy as np, torch, xarray as xr
import xtorch_data as xtd

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, batch_size, memory = sys.argv[1:]
ds = xtd.open_zarr(path, consolidated=False)
start = peak()
for shuffle in (False, True):
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "y": 128, "x": 256}, {"time": 4}, inputs="a",
        batch_size=int(batch_size), shuffle=shuffle, memory=int(memory),
    )
    samples = batch_bytes = 0
    for batch in dataset:
        for place, number in enumerate(batch.index.tolist()):
            assert batch.x[place, 0, 0, 0] == 4 * number, (number, batch.x[place, 0, 0, 0])
            assert batch.x[place, 7, -1, -1] == 4 * number + 7
        samples += len(batch)
        batch_bytes = max(batch_bytes, batch.x.nbytes)
    print(samples, peak() - start, batch_bytes)
    del batch
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """640 MiB of fields, each holding the number of its time step."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    steps = 5120
    group = zarr.create_group(path)
    array = group.create_array(
        "a", shape=(steps, 128, 256), chunks=(16, 128, 256), dtype="float32",
        dimension_names=("time", "y", "x"),
    )  # fmt: skip
    for start in range(0, steps, 256):
        numbers = np.arange(start, start + 256, dtype="float32")
        array[start : start + 256] = np.broadcast_to(numbers[:, None, None], (256, 128, 256))
    return path


def test_peak_memory_stays_within_the_budget_on_data_ten_times_larger(large):
    """In order, and then also shuffled."""
    memory, batch_size = 64 * 2**20, 16
    run = in_a_process(PEAK, large, batch_size, memory)
    assert run.returncode == 0, run.stderr
    epochs = run.stdout.splitlines()
    assert len(epochs) == 2
    for samples, used, batch in (map(int, epoch.split()) for epoch in epochs):
        assert samples == 1279
        assert batch == batch_size * 8 * 128 * 256 * 4
        assert used <= memory + 4 * batch + 200 * 10**6


@pytest.fixture
def broken(tmp_path):
    """A store of which one chunk is cut off."""
    path = tmp_path / "broken.zarr"
    ds = fields(160)
    ds.to_zarr(path, consolidated=False, encoding={name: {"chunks": (16, 8, 8)} for name in "ab"})
    chunk = path / "b" / "c" / "5" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    return path


def opened_by(opener, path):
    if opener == "xtorch_data":
        return xtd.open_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False, chunks=None if opener == "xarray" else {})


def test_a_read_error_in_a_worker_process_reaches_the_loop(broken):
    dataset = xtd.IterableDataset(opened_by("xtorch_data", broken), WINDOW)
    with pytest.raises(xtd.ReadError, match=r"broken\.zarr"):
        list(xtd.DataLoader(dataset, num_workers=1))


def test_the_interpreter_ends_while_iterations_are_open(tmp_path):
    """One of blocks, and one of samples by number whose transform is slow."""
    fields(160).to_zarr(tmp_path / "a.zarr", consolidated=False)
    script = """
        import sys, time
        import xtorch_data as xtd

        def slowly(sample):
            time.sleep(0.05)
            return sample

        ds = xtd.open_zarr(sys.argv[1], consolidated=False)
        dataset = xtd.IterableDataset(ds, {"time": 8}, batch_size=4, memory="60 KiB")
        iterator = iter(dataset)
        print(len(next(iterator)))
        samples = xtd.MapDataset(ds, {"time": 1}, transform=slowly)
        batches = iter(xtd.DataLoader(samples, batch_size=2))
        print(len(next(batches)))
    """
    run = in_a_process(script, tmp_path / "a.zarr", timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["4", "2"]
    assert not run.stderr
