"""Failures in worker processes, and failures that could end a process."""

import subprocess
import sys

import torch.utils.data
from failures_data import X, fields, touches

import xtorch_data as xtd


def test_workers_tell_what_they_skipped(tmp_path):
    damaged = {(2, 0), (9, 2)}
    ds = fields(tmp_path / "d.zarr", damaged)
    dataset = xtd.IterableDataset(
        xtd.open_zarr(tmp_path / "d.zarr", consolidated=False),
        {"time": 3, "x": 4},
        {"time": 2},
        batch_size=16,
        shuffle=True,
        inputs=["a", "b"],
        on_error="skip",
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    batches = list(loader)
    bad = {n for n in range(len(dataset.windows)) if touches(dataset.windows[n], damaged)}
    assert sorted(number for batch in batches for number in batch.skipped) == sorted(bad)
    for batch in batches:
        assert batch.replace(x=batch.x + 1).skipped == batch.to("cpu").skipped == batch.skipped
        assert list(batch.to_xarray()["sample"].values) == batch.index.tolist()
    assert ds.sizes["x"] == X


CUT = """
import itertools, os, sys, time
import numpy as np, torch, xarray as xr, xtorch_data as xtd

values = np.arange(400_000, dtype="f4").reshape(400, 1000)
for kind, way in itertools.product(["npy", "pt", "nc", "memmap"], ["iterable", "map"]):
    print(kind, way, end=": ", flush=True)
    path = f"{sys.argv[1]}/{kind}-{way}.x"
    if kind == "pt":
        torch.save({"a": torch.from_numpy(values)}, path)
    elif kind == "nc":
        xr.Dataset({"a": (("t", "x"), values)}).to_netcdf(path, engine="scipy")
    else:
        np.save(open(path, "wb"), values)
    if kind == "memmap":
        ds = xr.Dataset({"a": (("t", "x"), np.load(path, mmap_mode="r")[3:])})
    else:
        ds = xr.open_dataset(path, engine="scipy" if kind == "nc" else kind)
    t, x = ds[list(ds.data_vars)[0]].dims
    if way == "map":
        dataset = xtd.MapDataset(ds, {t: 4, x: -1}, memory="200 kB", retries=0)
        batches = (dataset[number] for number in range(len(dataset)))
    else:
        dataset = xtd.IterableDataset(ds, {t: 4, x: -1}, batch_size=2, memory="200 kB", retries=0)
        batches = iter(dataset)
    next(batches)
    time.sleep(0.3)  # until what is read ahead is full: a copy that has begun cannot be helped
    os.truncate(path, 100_000)
    try:
        list(batches)
    except (xtd.ReadError, ValueError) as error:
        print(type(error).__name__, error, flush=True)
"""


def test_a_file_that_is_cut_while_it_is_mapped_is_an_error_that_names_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    for line in lines:
        kind, way = line.partition(":")[0].split()
        # The region and the cause both name the file.
        assert line.count(str(tmp_path / f"{kind}-{way}.x")) == 1 + (" from " in line)
        assert "ReadError" in line or (kind, way) == ("npy", "map")  # whose maps must not change
