"""A file that is cut right before its bytes are read is an error, and ends no process."""

import subprocess
import sys

CUT = """
import os, sys
import numpy as np, torch, xarray as xr, xtorch_data as xtd
from xtorch_data.reading import recycled
from xtorch_data.sources import npy_files, pt_files

values = np.arange(400_000, dtype="f4").reshape(400, 1000)
read, seen = npy_files.read_array, []

def cut(*args):  # all that is checked before has been
    if len(seen) == 5:
        os.truncate(path, 100_000)
    seen.append(args)
    return read(*args)

for module in (npy_files, pt_files, recycled):
    module.read_array = cut
for kind in ("npy", "pt", "nc", "records"):
    for how, selection in (
        ("whole", slice(None)), ("steps", slice(None, None, 3)), ("list", [900, *range(2, 800, 2)])
    ):
        print(kind, how, end=": ", flush=True)
        path = f"{sys.argv[1]}/{how}.{kind}"
        seen.clear()
        if kind == "npy":
            np.save(path, values)
        elif kind == "pt":
            torch.save({"a": torch.from_numpy(values)}, path)
        else:
            records = ["t"] if kind == "records" else []
            xr.Dataset({"a": (("t", "x"), values)}).to_netcdf(
                path, engine="scipy", unlimited_dims=records
            )
        ds = xr.open_dataset(path, engine=kind if kind in ("npy", "pt") else "scipy")
        t, x = ds[list(ds.data_vars)[0]].dims
        dataset = xtd.IterableDataset(
            ds.isel({x: selection}), {t: 4, x: -1}, batch_size=2, memory="100 kB", retries=0
        )
        try:
            for batch in dataset:
                first = values[4 * int(batch.index[0]), 900 * (how == "list")]
                assert float(batch.x[0, 0, 0, 0]) == first
        except xtd.ReadError as error:
            print(len(seen) > 5, error)
"""


def test_a_file_that_is_cut_after_it_was_looked_at_is_an_error_that_names_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-2000:])
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    for line in lines:
        kind, how = line.partition(":")[0].split()
        assert line.startswith(f"{kind} {how}: True could not read")
        # Another thread may have asked for the size after the cut: it says so, too.
        assert f"{tmp_path}/{how}.{kind} was cut off" in line or "not a whole file" in line
