"""What tests of rechunk share, in one process and in several."""

import numpy as np
import xarray as xr

import xtorch_data as xtd

SIZES = {"time": 160, "y": 12, "x": 20}


WINDOWS = {"input_dims": {"time": 48}, "input_overlap": {"time": 47}}


def fields():
    """A field a step; packed, with holes, and with all that is beside them."""
    rng = np.random.default_rng(3)
    shape = tuple(SIZES.values())
    ds = xr.Dataset(
        {
            "t2m": (tuple(SIZES), rng.normal(size=shape).astype("float32"), {"units": "K"}),
            "packed": (tuple(SIZES), rng.integers(-99, 99, shape) * 0.5),
            "big": (tuple(SIZES), rng.integers(0, 99, shape).astype(">i4")),
            "when": (tuple(SIZES), np.datetime64("2000", "ns") + rng.integers(0, 9**17, shape)),
            "on": (tuple(SIZES), rng.random(shape) > 0.5),
            "orography": (("y", "x"), rng.normal(size=shape[1:])),
            "kind": ((), 3),
        },
        coords={
            "time": xr.date_range(
                "2000-01-01", periods=SIZES["time"], calendar="360_day", use_cftime=True
            ),
            "y": np.linspace(50.0, 40.0, SIZES["y"]),
            "name": ("x", [f"station {number}" for number in range(SIZES["x"])]),
            "angle": (tuple(SIZES), rng.normal(size=shape), {"units": "degree"}),
        },
        attrs={"title": "fields", "version": 3},
    )
    ds["packed"][5:9] = np.nan
    ds["t2m"][7, 3] = np.nan
    ds["packed"].encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}
    return ds


def dataset_over(ds, memory="256 KiB", **arguments):
    arguments = {"inputs": ["t2m"], "shuffle": True, "batch_size": 4096} | WINDOWS | arguments
    return xtd.IterableDataset(ds, memory=memory, **arguments)
