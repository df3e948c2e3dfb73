"""The forecast workload in every format that xarray opens, beside a bare read of the same files."""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .child import Answer, Child
from .report import MIB, Target, rounds, rows
from .stores import OPEN, Store, bench_dir, written
from .workloads import Workload, make_workload

STEPS = {True: 128, False: 256}  # quick or not; the workload itself has 2048, too many for some
CHUNK = 16  # steps
FILES = 8
DIMS = ("time", "latitude", "longitude")
GRIB_NAMES = ("t", "u", "v", "r")  # what four fields of one level are called


def workload(quick: bool) -> Workload:
    """The forecast workload, its memory cut as its data is."""
    full, steps = make_workload("forecast-16", quick), STEPS[quick]
    store = replace(full.store, sizes={**full.store.sizes, "time": steps})
    return replace(full, store=store, memory=full.memory * steps // 2048)


def table_formats(quick: bool) -> tuple[str, list[Target]]:
    """Read amplification and throughput of each format; it has no targets."""
    work, count = workload(quick), rounds(quick, 3)
    work.store.make()
    body = []
    for kind in FORMATS:
        print(f"formats: {kind}", file=sys.stderr, flush=True)
        with Child("formats:Measured", kind, quick) as child:
            facts = child.call("facts").value
            child.call("epoch")  # memory that nobody has used yet
            # They open the data anew each time: libraries keep chunks that they have decoded.
            pairs = [(child.call("bare"), child.call("epoch")) for _ in range(count)]
        bare, epoch = (statistics.median(each.value for each in way) for way in zip(*pairs))  # noqa: B905
        read = [each.read for each in pairs[-1]]
        mapped = read[0] < work.store.nbytes / 10
        decoded = work.store.nbytes * facts["amplification"]
        body.append(
            [
                kind,
                facts["path"],
                f"{facts['amplification']:.2f}",
                "" if mapped else f"{read[1] / read[0]:.2f}",
                f"{work.store.nbytes / bare / 1e6:,.0f}",
                f"{work.samples / epoch:,.0f}",
                f"{decoded / epoch / 1e6:,.0f}",
                _ratio(pairs, lambda answer: answer.value),
                _ratio(pairs, lambda answer: answer.user + answer.system),
            ]
        )
    text = (
        f"\n### formats\n\nThe forecast workload with {STEPS[quick]} steps: "
        f"{work.samples:,} samples from {work.store.nbytes / MIB:,.0f} MiB, shuffled, with "
        f"`memory` of {work.memory / MIB:.0f} MiB. A bare read loads {CHUNK} steps at a time "
        f"through xarray. Medians of {count} rounds, bare reads and epochs in turns in a process "
        "for each format.\n\n"
    )
    head = ["format", "read", "decoded / used, planned", "bytes read / by the bare read",
            "bare read, MB/s", "epoch, samples/s", "epoch, MB/s decoded",
            "time of an epoch / of a bare read", "CPU time of these"]  # fmt: skip
    return text + rows(head, body), []


def _ratio(pairs: list[tuple[Answer, Answer]], of: Callable[[Answer], float]) -> str:
    """How many times as much an epoch takes, the median over rounds."""
    return f"{statistics.median(of(epoch) / max(of(bare), 0.01) for bare, epoch in pairs):.2f}"


class Measured:
    """A format, written if it is not there, opened and checked."""

    def __init__(self, kind: str, quick: bool) -> None:
        warnings.simplefilter("ignore")
        self.work = workload(quick)
        write, opener = FORMATS[kind]
        self.data = opener(_written(write, self.work.store))
        how = {"inputs": list(self.data.data_vars), "memory": self.work.memory}
        self.dataset = self.work.dataset(self.data, shuffle=True, **how)
        batch = next(iter(self.dataset))
        for number, values in zip(batch.index.tolist()[:4], batch.x.numpy(), strict=False):
            cut = self.data.isel(self.work.indexers(number)).to_array()
            expected = cut.transpose("variable", *DIMS).to_numpy().astype("f4")
            np.testing.assert_array_equal(values, expected)

    def facts(self) -> dict[str, Any]:
        """How it is read."""
        told = self.dataset.explain()
        return {"path": told.variables[0].path, "amplification": told.amplification}

    def bare(self) -> float:
        """Seconds to read all of it through xarray."""
        return self._timed(self._read)

    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self._timed(lambda: sum(map(len, self.dataset)))

    def _timed(self, what: Callable[[], Any]) -> float:
        self.data.close()
        begin = time.perf_counter()
        samples = what()
        assert samples in (None, self.work.samples), samples
        return time.perf_counter() - begin

    def _read(self) -> None:
        for start in range(0, self.work.store.sizes["time"], CHUNK):
            part = self.data.isel(time=slice(start, start + CHUNK))
            for name in part.data_vars:
                np.asarray(part[name])  # `load` leaves dask arrays that kerchunk's engine makes


# ---------------------------------------------------------------------------------------------
# Writing


def _written(write: Callable[[Any, Path], None], store: Store) -> Path:
    """The folder of a format, written unless it is there."""
    size = "x".join(map(str, store.shape))
    path = bench_dir() / f"format-{write.__name__.removeprefix('_')}-{size}"
    if not path.exists():
        with written(path) as folder:
            write(xr.open_zarr(store.path, **OPEN).load().drop_encoding(), folder)
    return path


def _to_zarr(ds: Any, target: Any, zarr_format: int = 3, **encoding: Any) -> None:
    encoding = {"chunks": (CHUNK, *(ds.sizes[dim] for dim in DIMS[1:])), **encoding}
    how = {"zarr_format": zarr_format, "consolidated": False}
    ds.to_zarr(target, encoding=dict.fromkeys(ds.data_vars, encoding), **how)


def _zarr_v2(ds: Any, path: Path) -> None:
    _to_zarr(ds, path / "data.zarr", 2)


def _zarr_v3(ds: Any, path: Path) -> None:
    _to_zarr(ds, path / "data.zarr")


def _shards(ds: Any, path: Path) -> None:
    inner = (ds.sizes[dim] for dim in DIMS[1:])
    _to_zarr(ds, path / "data.zarr", shards=(4 * CHUNK, *inner))


def _icechunk(ds: Any, path: Path) -> None:
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path / "data")))
    session = repository.writable_session("main")
    _to_zarr(ds, session.store)
    session.commit("data")


def _to_netcdf(ds: Any, path: Path) -> None:
    chunks = (CHUNK, *(ds.sizes[dim] for dim in DIMS[1:]))
    encoding = {"zlib": True, "complevel": 4, "shuffle": True, "chunksizes": chunks}
    ds.to_netcdf(path, engine="h5netcdf", encoding=dict.fromkeys(ds.data_vars, encoding))


def _netcdf4(ds: Any, path: Path) -> None:
    _to_netcdf(ds, path / "data.nc")


def _many_files(ds: Any, path: Path) -> None:
    steps = ds.sizes["time"] // FILES
    for number in range(FILES):
        cut = slice(number * steps, (number + 1) * steps)
        _to_netcdf(ds.isel(time=cut), path / f"{number:02d}.nc")


def _contiguous(ds: Any, path: Path) -> None:
    ds.to_netcdf(path / "data.nc", engine="h5netcdf")


def _netcdf3(ds: Any, path: Path) -> None:
    ds.to_netcdf(path / "data.nc", engine="scipy", format="NETCDF3_64BIT")


def _references(ds: Any, path: Path) -> None:
    """References beside the file they point to, by a path that outlives the writing."""
    from kerchunk.hdf import SingleHdf5ToZarr

    _netcdf4(ds, path)
    found = SingleHdf5ToZarr(str(path / "data.nc")).translate()
    (path / "data.json").write_text(json.dumps(found).replace(str(path), "{{folder}}"))


def _grib(ds: Any, path: Path) -> None:
    import eccodes

    lat, lon = ds["latitude"].values, np.arange(ds.sizes["longitude"]) * 1.0
    keys = {
        "Ni": len(lon), "Nj": len(lat), "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": -60.0, "latitudeOfLastGridPointInDegrees": 60.0,
        "longitudeOfFirstGridPointInDegrees": 0.0, "longitudeOfLastGridPointInDegrees": lon[-1],
        "iDirectionIncrementInDegrees": 1.0, "jDirectionIncrementInDegrees": 120 / (len(lat) - 1),
        "level": 500, "bitsPerValue": 16,
    }  # fmt: skip
    times = ds["time"].dt
    days, hours = times.strftime("%Y%m%d").values, times.hour.values
    with open(path / "data.grib", "wb") as file:
        for step in range(ds.sizes["time"]):
            for name, short in zip(ds.data_vars, GRIB_NAMES, strict=True):
                message = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                when = {"dataDate": int(days[step]), "dataTime": int(hours[step]) * 100}
                for key, value in {**keys, **when, "shortName": short}.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set_values(message, ds[name].values[step].astype(float).ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)


def _npy(ds: Any, path: Path) -> None:
    for name in ds.data_vars:
        np.save(path / f"{name}.npy", ds[name].values)


# ---------------------------------------------------------------------------------------------
# Opening


def _open_zarr(path: Any, **options: Any) -> Any:
    import xtorch_data as xtd

    return xtd.open_zarr(path, consolidated=False, **options)


def _open_icechunk(path: Path) -> Any:
    import icechunk

    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path / "data")))
    return _open_zarr(repository.readonly_session("main").store)


def _read_references(path: Path) -> Any:
    return json.loads((path / "data.json").read_text().replace("{{folder}}", str(path)))


def _open_npy(path: Path) -> Any:
    files = sorted(path.glob("*.npy"))
    return xr.merge([xr.open_dataset(file, engine="npy", dims=DIMS) for file in files])


def _by(engine: str, name: str = "data.nc") -> Callable[[Path], Any]:
    return lambda path: xr.open_dataset(path / name, engine=engine)


FORMATS: dict[str, tuple[Callable[[Any, Path], None], Callable[[Path], Any]]] = {
    "Zarr v2": (_zarr_v2, lambda path: _open_zarr(path / "data.zarr")),
    "Zarr v3": (_zarr_v3, lambda path: _open_zarr(path / "data.zarr")),
    "Zarr v3 with shards": (_shards, lambda path: _open_zarr(path / "data.zarr")),
    "Zarr v3 through dask": (_zarr_v3, lambda path: _open_zarr(path / "data.zarr", chunks={})),
    "Icechunk": (_icechunk, _open_icechunk),
    "NetCDF-4 by h5netcdf": (_netcdf4, _by("h5netcdf")),
    "NetCDF-4 by netCDF4": (_netcdf4, _by("netcdf4")),
    "the same by references": (
        _references,
        lambda path: _open_zarr("reference://", storage_options={"fo": _read_references(path)}),
    ),
    'the same by engine="kerchunk"': (
        _references,
        lambda path: xr.open_dataset(_read_references(path), engine="kerchunk"),
    ),
    "NetCDF-4 in 8 files, open_mfdataset": (
        _many_files,
        lambda path: xr.open_mfdataset(sorted(path.glob("*.nc")), engine="h5netcdf"),
    ),
    "NetCDF-4, not chunked": (_contiguous, _by("h5netcdf")),
    "NetCDF-3": (_netcdf3, _by("scipy")),
    "GRIB": (_grib, _by("cfgrib", "data.grib")),
    "`.npy`": (_npy, _open_npy),
    "in memory": (_npy, lambda path: _open_npy(path).load()),
}
