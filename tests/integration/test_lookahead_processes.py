"""Interpreters that end while samples are read ahead."""

from helpers import in_a_process


def test_an_iteration_that_is_open_does_not_keep_the_process():
    script = """
        import numpy as np, time, xarray as xr
        import xtorch_data as xtd

        def slowly(sample):
            time.sleep(0.05)
            return sample

        ds = xr.Dataset({"a": ("time", np.zeros(10_000))})
        dataset = xtd.MapDataset(ds, {"time": 1}, transform=slowly)
        batches = iter(xtd.DataLoader(dataset, batch_size=2))
        next(batches)
        print("done")
    """
    process = in_a_process(script, timeout=60)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "done\n"
