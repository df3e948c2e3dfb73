"""Several sources for the tests of what is told of them: small, and in memory."""

import numpy as np
import xarray as xr

import xtorch_data as xtd

HOURS = np.datetime64("2000-01-01", "ns") + np.arange(120) * np.timedelta64(6, "h")
DAYS = np.datetime64("1999-12-20", "ns") + np.arange(45) * np.timedelta64(1, "D")


def series(name, labels, dims=("time",), sizes=()):
    """A variable whose values are places, along labels and dims without."""
    shape = (len(labels), *sizes)
    values = np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)
    return xr.Dataset({name: (dims, values)}, {dims[0]: labels})


def era5(labels=HOURS):
    return series("t2m", labels)


def sst(labels=DAYS):
    return series("tos", labels)


def gfs():
    inits = np.datetime64("1999-12-28", "ns") + np.arange(80) * np.timedelta64(12, "h")
    leads = np.arange(0, 48, 3) * np.timedelta64(1, "h").astype("m8[ns]")
    values = np.arange(80 * 16.0).reshape(80, 16)
    return xr.Dataset(
        {"f": (("init_time", "lead_time"), values)}, {"init_time": inits, "lead_time": leads}
    )


DAILY = xtd.AsOf(5, latency="1D", label="left")


def samples(kind=xtd.MapDataset, first=None, others=None, **arguments):
    """Windows of eight 6-hourly steps, of which six are inputs, and five days of another source."""
    if others is None:
        others = {"sst": xtd.Source(sst(), time=DAILY)}
    options = {
        "inputs": xtd.Select("t2m", time=slice(0, 6)),
        "targets": xtd.Select("t2m", time=slice(6, 8)),
        **arguments,
    }
    return kind({"era5": era5() if first is None else first, **others}, {"time": 8}, {"time": 7},
                **options)  # fmt: skip
