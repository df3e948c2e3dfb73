"""The forecast workload in every format that xarray opens, beside a bare read of the same files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .contenders import Ours
from .race import race, rounds
from .report import MIB, Table, costs
from .stores import OPEN, bench_dir, written
from .workloads import Workload, make_workload

CHUNK = 16  # steps
FILES = 8
DIMS = ("time", "latitude", "longitude")
GRIB_NAMES = ("t", "u", "v", "r")  # what four fields of one level are called


@dataclass
class Format(Ours):
    """A format, written if it is not there. Samples are compared with its own: GRIB rounds."""

    def _opened(self) -> Any:
        warnings.simplefilter("ignore")
        name, write, opener = FORMATS[self.title]
        folder = bench_dir() / f"{name}-{'x'.join(map(str, self.work.store.shape))}"
        if not folder.exists():
            with written(folder) as unfinished:
                data = xr.open_zarr(self.work.store.path, **OPEN).load().drop_encoding()
                write(data, unfinished / "data")
        return opener(folder / "data")

    def truth(self, data: Any) -> Any:
        return self.data

    def epoch(self) -> Iterator[Any]:
        self.data.close()  # libraries keep chunks that they have decoded
        return super().epoch()

    def details(self) -> dict[str, Any]:
        return {**super().details(), "path": self.dataset.explain().variables[0].path}


@dataclass
class Bare(Format):
    """All of it read by xarray."""

    checked = False

    def expected(self) -> None:
        return None

    def epoch(self) -> Iterator[Any]:
        self.data.close()
        for start in range(0, self.work.store.sizes["time"], CHUNK):
            part = self.data.isel(time=slice(start, start + CHUNK))
            for name in part.data_vars:
                np.asarray(part[name])  # `load` leaves dask arrays that kerchunk's engine makes
        return iter(())

    def details(self) -> dict[str, Any]:
        return {}


def workload(quick: bool) -> Workload:
    """The forecast workload, with so few steps that all formats bear it, and as little memory."""
    full, steps = make_workload("forecast-16", quick), 128 if quick else 256
    store = replace(full.store, sizes={**full.store.sizes, "time": steps})
    return replace(full, name="formats", store=store, memory=full.memory * steps // 2048)


def table_formats(quick: bool) -> Table:
    """Read amplification and throughput of each format; it has no targets."""
    work, count, epochs, bare = workload(quick), rounds(quick, 3), [], []
    for kind in FORMATS:
        frame = race({"bare": Bare(kind), "epoch": Format(kind)}, work, count)
        bare.append(frame.loc[["bare"]])
        epochs.append(frame.loc[["epoch"]])
    frame, bare = (pd.concat(each).set_index("title", drop=False) for each in (epochs, bare))
    mapped = bare["fetched"] < work.store.nbytes / 10
    cpu, bare_cpu = (each["user"] + each["system"] for each in (frame, bare))
    decoded = work.store.nbytes / 1e6 * frame["amplification"]
    shown = {
        "read": frame["path"],
        "decoded / used, planned": frame["amplification"],
        "bytes read / by the bare read": (frame["fetched"] / bare["fetched"]).mask(mapped),
        "bare read, MB/s": work.store.nbytes / bare["seconds"] / 1e6,
        "epoch, samples/s": frame["rate"],
        "epoch, MB/s decoded": decoded / frame["seconds"],
        "time of an epoch / of a bare read": frame["seconds"] / bare["seconds"],
        "CPU time of these": cpu / bare_cpu.clip(0.01),
    }
    text = (
        f"The forecast workload with {work.store.sizes['time']} steps: {work.samples:,} samples "
        f"from {work.store.nbytes / MIB:,.0f} MiB, shuffled, with `memory` of "
        f"{work.memory / MIB:.0f} MiB. A bare read loads {CHUNK} steps at a time through xarray."
    )
    return costs("formats", text, frame.assign(**shown), shown)


# ---------------------------------------------------------------------------------------------
# Writing: a dataset in memory to a path that ends with "data".


def _encoding(ds: Any, **each: Any) -> dict[Any, Any]:
    return {name: each for name in ds.data_vars}


def _to_zarr(ds: Any, target: Any, zarr_format: int = 3, **encoding: Any) -> None:
    encoding = _encoding(ds, **{"chunks": (CHUNK, *ds["v00"].shape[1:]), **encoding})
    ds.to_zarr(target, encoding=encoding, zarr_format=zarr_format, consolidated=False)


def _shards(ds: Any, path: Path) -> None:
    _to_zarr(ds, path, shards=(4 * CHUNK, *ds["v00"].shape[1:]))


def _icechunk(ds: Any, path: Path) -> None:
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    _to_zarr(ds, session.store)
    session.commit("data")


def _netcdf4(ds: Any, path: Path) -> None:
    chunks = (CHUNK, *ds["v00"].shape[1:])
    encoding = _encoding(ds, zlib=True, complevel=4, shuffle=True, chunksizes=chunks)
    ds.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _many_files(ds: Any, path: Path) -> None:
    steps = ds.sizes["time"] // FILES
    for number in range(FILES):
        cut = slice(number * steps, (number + 1) * steps)
        _netcdf4(ds.isel(time=cut), path.with_suffix(f".{number:02d}"))


def _references(ds: Any, path: Path) -> None:
    """References beside the file they point to, by a path that outlives the writing."""
    from kerchunk.hdf import SingleHdf5ToZarr

    _netcdf4(ds, path)
    found = json.dumps(SingleHdf5ToZarr(str(path)).translate())
    path.with_suffix(".json").write_text(found.replace(str(path), "{{path}}"))


def _grib(ds: Any, path: Path) -> None:
    import eccodes

    latitudes, longitudes = ds.sizes["latitude"], ds.sizes["longitude"]
    keys = {
        "Ni": longitudes, "Nj": latitudes, "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": -60.0, "latitudeOfLastGridPointInDegrees": 60.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": longitudes - 1.0,
        "iDirectionIncrementInDegrees": 1.0, "jDirectionIncrementInDegrees": 120 / (latitudes - 1),
        "level": 500, "bitsPerValue": 16,
    }  # fmt: skip
    times = ds["time"].dt
    days, hours = times.strftime("%Y%m%d").values, times.hour.values
    with open(path, "wb") as file:
        for step in range(ds.sizes["time"]):
            when = {"dataDate": int(days[step]), "dataTime": int(hours[step]) * 100}
            for name, short in zip(ds.data_vars, GRIB_NAMES, strict=True):
                message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                for key, value in {**keys, **when, "shortName": short}.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set_values(message, ds[name].values[step].astype(float).ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)


def _npy(ds: Any, path: Path) -> None:
    for name in ds.data_vars:
        np.save(path.with_suffix(f".{name}.npy"), ds[name].values)


# ---------------------------------------------------------------------------------------------
# Opening


def _open_zarr(source: Any, **options: Any) -> Any:
    import xtorch_data as xtd

    return xtd.open_zarr(source, consolidated=False, **options)


def _open_icechunk(path: Path) -> Any:
    import icechunk

    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    return _open_zarr(repository.readonly_session("main").store)


def _read_references(path: Path) -> Any:
    return json.loads(path.with_suffix(".json").read_text().replace("{{path}}", str(path)))


def _open_npy(path: Path) -> Any:
    files = sorted(path.parent.glob("*.npy"))
    return xr.merge([xr.open_dataset(file, engine="npy", dims=DIMS) for file in files])


def _by(engine: str) -> Callable[[Path], Any]:
    return lambda path: xr.open_dataset(path, engine=engine)


FORMATS: dict[str, tuple[str, Callable[[Any, Path], Any], Callable[[Path], Any]]] = {
    "Zarr v2": ("zarr2", lambda ds, path: _to_zarr(ds, path, 2), _open_zarr),
    "Zarr v3": ("zarr3", _to_zarr, _open_zarr),
    "Zarr v3 with shards": ("shards", _shards, _open_zarr),
    "Zarr v3 through dask": ("zarr3", _to_zarr, lambda path: _open_zarr(path, chunks={})),
    "Icechunk": ("icechunk", _icechunk, _open_icechunk),
    "NetCDF-4 by h5netcdf": ("netcdf4", _netcdf4, _by("h5netcdf")),
    "NetCDF-4 by netCDF4": ("netcdf4", _netcdf4, _by("netcdf4")),
    "the same by references": (
        "references",
        _references,
        lambda path: _open_zarr("reference://", storage_options={"fo": _read_references(path)}),
    ),
    'the same by engine="kerchunk"': (
        "references",
        _references,
        lambda path: xr.open_dataset(_read_references(path), engine="kerchunk"),
    ),
    "NetCDF-4 in 8 files, open_mfdataset": (
        "files",
        _many_files,
        lambda path: xr.open_mfdataset(sorted(path.parent.iterdir()), engine="h5netcdf"),
    ),
    "NetCDF-4, not chunked": (
        "contiguous",
        lambda ds, path: ds.to_netcdf(path, engine="h5netcdf"),
        _by("h5netcdf"),
    ),
    "NetCDF-3": (
        "netcdf3",
        lambda ds, path: ds.to_netcdf(path, engine="scipy", format="NETCDF3_64BIT"),
        _by("scipy"),
    ),
    "GRIB": ("grib", _grib, _by("cfgrib")),
    "`.npy`": ("npy", _npy, _open_npy),
    "in memory": ("npy", _npy, lambda path: _open_npy(path).load()),
}
