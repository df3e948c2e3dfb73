"""What a process pays before its first batch."""

import numpy as np
import xarray as xr
from helpers import in_a_process


def test_an_epoch_without_dask_does_not_import_its_arrays(tmp_path):
    """`dask.array` alone, which brings SciPy, takes longer than all modules of this package.

    xarray imports it as well where arrays in memory become variables.
    """
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"t2m": ("time", np.arange(64.0))}, {"time": np.arange(64)})
    data.to_zarr(path, consolidated=False)
    done = in_a_process(
        """
        import sys
        import xtorch_data as xtd

        data = xtd.open_zarr(sys.argv[1], consolidated=False, chunks=None)
        dataset = xtd.IterableDataset(data, {"time": 4}, inputs="t2m", shuffle=True, batch_size=4)
        loader = xtd.DataLoader(dataset)
        print(sum(len(batch.x) for batch in loader), dataset.explain().samples)
        loader.load_state_dict(loader.state_dict())
        print({"dask.array", "distributed", "scipy", "matplotlib"} & set(sys.modules))
        """,
        path,
    )
    assert done.stdout.splitlines() == ["16 16", "set()"], done.stderr
