"""What tests of failures share, in one process and in several."""

import numpy as np
import xarray as xr

TIME, X, CHUNK = 60, 12, (5, 4)


def fields(path, damaged=(), names=("a", "b")):
    """Data in chunks of 5 × 4, and a store of it in which some chunks of `a` are damaged."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {name: (("time", "x"), rng.normal(size=(TIME, X)).astype("f4")) for name in names}
    )
    ds.to_zarr(path, consolidated=False, encoding={name: {"chunks": CHUNK} for name in names})
    for place in damaged:
        path.joinpath("a", "c", *map(str, place)).write_bytes(b"not what it was")
    return ds


def touches(window, damaged):
    """Whether a window lies on a damaged chunk, worked out from positions alone."""
    cells = {
        (time // CHUNK[0], x // CHUNK[1])
        for time in range(window["time"].start, window["time"].stop)
        for x in range(window["x"].start, window["x"].stop)
    }
    return not cells.isdisjoint(damaged)
