"""A file that is cut right before its bytes are read is an error, and ends no process."""

import subprocess
import sys

import pytest

CUT = """
import os, sys
import numpy as np, torch, xarray as xr, xtorch_data as xtd
from xtorch_data.reading import recycled
from xtorch_data.sources import npy_files, pt_files

kind, how, path = sys.argv[1:]
values = np.arange(400_000, dtype="f4").reshape(400, 1000)
if kind == "npy":
    np.save(path, values)
elif kind == "pt":
    torch.save({"a": torch.from_numpy(values)}, path)
else:
    records = ["t"] if kind == "records" else []
    xr.Dataset({"a": (("t", "x"), values)}).to_netcdf(path, engine="scipy", unlimited_dims=records)
ds = xr.open_dataset(path, engine=kind if kind in ("npy", "pt") else "scipy")
t, x = ds[list(ds.data_vars)[0]].dims
if how == "steps":
    ds = ds.isel({x: slice(None, None, 3)})
if how == "list":
    ds = ds.isel({x: [900, *range(2, 800, 2)]})

read, seen = npy_files.read_array, []

def cut(*args):  # all that is checked before has been
    if len(seen) == 5:
        os.truncate(path, 100_000)
    seen.append(args)
    return read(*args)

for module in (npy_files, pt_files, recycled):
    module.read_array = cut
dataset = xtd.IterableDataset(ds, {t: 4, x: -1}, batch_size=2, memory="100 kB", retries=0)
try:
    for batch in dataset:
        assert float(batch.x[0, 0, 0, 0]) == values[4 * int(batch.index[0]), 900 * (how == "list")]
except xtd.ReadError as error:
    print(error)
print(len(seen))
"""


@pytest.mark.parametrize("how", ["whole", "steps", "list"])
@pytest.mark.parametrize("kind", ["npy", "pt", "nc", "records"])
def test_a_file_that_is_cut_after_it_was_looked_at_is_an_error_that_names_it(tmp_path, kind, how):
    path = str(tmp_path / f"a.{kind}")
    done = subprocess.run(
        [sys.executable, "-c", CUT, kind, how, path],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])
    assert "could not read" in done.stdout and f"{path} was cut off" in done.stdout, done.stdout
    assert int(done.stdout.splitlines()[-1]) >= 6
