"""Data of dask, and how its samples are checked."""

import numpy as np
import xarray as xr
from helpers import assert_once, samples_of

import xtorch_data as xtd

WINDOW = {"time": 6, "x": -1}
HERE, CLUSTER = "computed by dask", "computed on a dask cluster"


def fields(time=60):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(time, 4)).astype("f4")
    return xr.Dataset(
        {"a": (("time", "x"), values), "b": (("time", "x"), values[::-1] ** 2)},
        {"time": xr.date_range("2000-01-01", periods=time)},
    )


def anomalies(ds):
    return ds.groupby("time.month").map(lambda month: month - month.mean("time"))


# What a user writes before training.
GRAPHS = {
    "arithmetic": lambda ds: ds.assign(c=ds["a"] * ds["b"] - ds["a"].mean("x")),
    "resample": lambda ds: ds.resample(time="2D").mean(),
    "rechunk": lambda ds: ds.chunk(time=7) if ds.chunks else ds,
    "map_blocks": lambda ds: ds.map_blocks(np.tanh) if ds.chunks else np.tanh(ds),
    "anomalies": anomalies,
    "rolling": lambda ds: ds.rolling(time=5, min_periods=1).mean(),
}


def dataset_of(ds, **options):
    return xtd.IterableDataset(
        ds, WINDOW, {"time": 5}, **{"batch_size": 5, "shuffle": True, **options}
    )


def assert_windows_of(plain, batches, names):
    """Each sample is there once, and is what plain isel gives."""
    assert_once(samples_of(batches), plain.sizes["time"] - 5)
    for batch in batches:
        for number, sample in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
            for name, found in zip(names, sample, strict=True):
                expected = plain[name].transpose("time", "x").values[number : number + 6]
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
