"""What tests of normalization share, in one process and in several."""

import numpy as np
import xarray as xr

import xtorch_data as xtd

WINDOW = {"time": 4, "y": -1, "x": -1}


SIZES = {"time": 23, "level": 3, "y": 4, "x": 5}


def fields(nan=0.2, seed=0, offset=280.0):
    """Two variables on levels, one on the surface and one that does not vary in time."""
    rng = np.random.default_rng(seed)

    def values(*dims):
        array = offset + 20 * rng.normal(size=[SIZES[dim] for dim in dims])
        array[rng.random(array.shape) < nan] = np.nan
        return dims, array.astype("f4"), {"units": "K"}

    return xr.Dataset(
        {
            "u": values("time", "level", "y", "x"),
            "v": values("time", "level", "y", "x"),
            "surface": values("time", "y", "x"),
            "height": values("y", "x"),
            "kind": (("y", "x"), rng.integers(0, 4, (4, 5))),
        },
        coords={
            "time": xr.date_range("2001-01-01", periods=SIZES["time"]),
            "level": [850, 500, 250],
            "y": np.linspace(60.0, 30.0, 4, dtype="f4"),
            "x": np.arange(5) * 0.1,
        },
    )


def known(per=(), **dtypes):
    """Statistics of `fields`, all of it, and the fields."""
    ds = fields().astype(dtypes) if dtypes else fields()
    return xtd.Normalize.fit(ds, per=per), ds
