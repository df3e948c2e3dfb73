"""The forecast workload in every format that xarray opens, beside a bare read of the same files."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .stores import Store, bench_dir
from .targets import Target
from .workloads import Workload, make_workload

STEPS = {True: 128, False: 256}  # quick or not; the workload itself has 2048, too many for some
CHUNK = 16  # steps
FILES = 8
DIMS = ("time", "latitude", "longitude")
GRIB_NAMES = ("t", "u", "v", "r")  # what four fields of one level are called
ROUNDS = 3
MIB = 2**20
LAZY = {"chunks": None, "consolidated": False}


def workload(quick: bool) -> Workload:
    """The forecast workload, its memory cut as its data is."""
    from dataclasses import replace

    full = make_workload("forecast-16", quick)
    steps = STEPS[quick]
    store = replace(full.store, sizes={**full.store.sizes, "time": steps})
    return replace(full, store=store, memory=full.memory * steps // 2048)


def table(quick: bool) -> tuple[str, list[Target]]:
    """Read amplification and throughput of each format; it has no targets."""
    from . import report

    work = workload(quick)
    rounds = int(os.environ.get("ROUNDS") or ROUNDS)
    work.store.make()
    text = (
        f"\n### formats\n\nThe forecast workload with {STEPS[quick]} steps: "
        f"{work.samples:,} samples from {work.store.nbytes / MIB:,.0f} MiB, shuffled, with "
        f"`memory` of {work.memory / MIB:.0f} MiB. A bare read loads {CHUNK} steps at a time "
        f"through xarray. Medians of {rounds} rounds, bare reads and epochs in turns in a process "
        "for each format.\n\n"
    )
    head = ["format", "read", "decoded / used, planned", "bytes read / by the bare read",
            "bare read, MB/s", "epoch, samples/s", "epoch, MB/s decoded",
            "time of an epoch / of a bare read", "CPU time of these"]  # fmt: skip
    body = []
    for kind in FORMATS:
        print(f"formats: {kind}", file=sys.stderr, flush=True)
        found = _measured(kind, quick, rounds)
        bare, epoch = (statistics.median(found[name]) for name in ("bare", "epoch"))
        mapped = found["bare bytes"] < work.store.nbytes / 10
        body.append(
            [
                kind,
                found["path"],
                f"{found['amplification']:.2f}",
                "" if mapped else f"{found['epoch bytes'] / found['bare bytes']:.2f}",
                f"{work.store.nbytes / bare / 1e6:,.0f}",
                f"{work.samples / epoch:,.0f}",
                f"{work.store.nbytes * found['amplification'] / epoch / 1e6:,.0f}",
                _ratio(found, ""),
                _ratio(found, " CPU"),
            ]
        )
    return text + report.rows(head, body), []


def _ratio(found: dict[str, Any], what: str) -> str:
    """How many times as much an epoch takes, the median over rounds."""
    pairs = zip(found[f"epoch{what}"], found[f"bare{what}"], strict=True)
    return f"{statistics.median(epoch / max(bare, 0.01) for epoch, bare in pairs):.2f}"


def _measured(kind: str, quick: bool, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.formats", kind, str(int(quick)), str(rounds)]
    folder = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, env=environment, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# In a process for each format: writing it, if it is not there, and measuring.


def _measure(kind: str, quick: bool, rounds: int) -> dict[str, Any]:
    import numpy as np
    import psutil

    import xtorch_data as xtd

    work = workload(quick)
    write, open_written = FORMATS[kind]
    path, process = _written(write, work.store), psutil.Process()
    found: dict[str, Any] = {
        f"{name}{what}": [] for name in ("bare", "epoch") for what in ("", " CPU")
    }

    def timed(name: str, what: Callable[[], None]) -> None:
        before, cpu, begin = process.io_counters(), process.cpu_times(), time.perf_counter()
        what()
        found[name].append(time.perf_counter() - begin)
        used = process.cpu_times()
        found[f"{name} CPU"].append(used.user + used.system - cpu.user - cpu.system)
        found[f"{name} bytes"] = process.io_counters().read_chars - before.read_chars

    data = open_written(path)
    dataset = xtd.IterableDataset(
        data,
        work.input_dims,
        work.input_overlap,
        inputs=list(data.data_vars),
        batch_size=work.batch_size,
        shuffle=True,
        memory=work.memory,
    )
    explanation = dataset.explain()

    def bare() -> None:
        for start in range(0, work.store.sizes["time"], CHUNK):
            part = data.isel(time=slice(start, start + CHUNK))
            for name in part.data_vars:
                np.asarray(part[name])  # `load` leaves dask arrays that kerchunk's engine makes

    def epoch() -> None:
        samples = sum(len(batch) for batch in dataset)
        if samples != work.samples:
            raise AssertionError(f"{samples} samples instead of {work.samples}")

    _check(dataset, data, work)
    epoch()  # not timed, as everywhere else: memory that nobody has used yet
    for _ in range(rounds):
        for name, what in (("bare", bare), ("epoch", epoch)):
            data.close()  # it is opened again: libraries keep chunks that they have decoded
            timed(name, what)
    return {
        **found,
        "path": explanation.variables[0].path,
        "amplification": explanation.amplification,
    }


def _check(dataset: Any, data: Any, work: Workload) -> None:
    """Compare a batch with plain `isel`."""
    import numpy as np

    batch = next(iter(dataset))
    for number, values in zip(batch.index.tolist()[:4], batch.x.numpy(), strict=False):
        cut = data.isel(work.indexers(number)).to_array().transpose("variable", *DIMS)
        np.testing.assert_array_equal(values, cut.to_numpy().astype("f4"))


def _written(write: Callable[[Any, Path], None], store: Store) -> Path:
    """The folder of a format, written unless it is there."""
    import xarray as xr

    name = write.func.__name__ if isinstance(write, partial) else write.__name__
    size = "x".join(map(str, store.shape))
    path = bench_dir() / f"format-{name.removeprefix('_')}-{size}"
    if not path.exists():
        unfinished = Path(tempfile.mkdtemp(dir=bench_dir()))
        try:
            write(xr.open_zarr(store.path, **LAZY).load().drop_encoding(), unfinished)
            unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _zarr_encoding(ds: Any) -> dict[str, Any]:
    return {name: {"chunks": (CHUNK, *ds[name].shape[1:])} for name in ds.data_vars}


def _zarr_v2(ds: Any, path: Path) -> None:
    ds.to_zarr(path / "data.zarr", zarr_format=2, encoding=_zarr_encoding(ds))


def _zarr_v3(ds: Any, path: Path) -> None:
    ds.to_zarr(path / "data.zarr", zarr_format=3, consolidated=False, encoding=_zarr_encoding(ds))


def _shards(ds: Any, path: Path) -> None:
    inner = ds.sizes["latitude"], ds.sizes["longitude"]
    encoding = {"chunks": (CHUNK, *inner), "shards": (4 * CHUNK, *inner)}
    ds.to_zarr(
        path / "data.zarr", zarr_format=3, consolidated=False,
        encoding=dict.fromkeys(ds.data_vars, encoding),
    )  # fmt: skip


def _netcdf4(ds: Any, path: Path) -> None:
    ds.to_netcdf(path / "data.nc", engine="h5netcdf", encoding=_netcdf_encoding(ds))


def _netcdf_encoding(ds: Any) -> dict[str, Any]:
    compressed = {"zlib": True, "complevel": 4, "shuffle": True}
    return {
        name: {"chunksizes": (CHUNK, *ds[name].shape[1:]), **compressed} for name in ds.data_vars
    }


def _contiguous(ds: Any, path: Path) -> None:
    ds.to_netcdf(path / "data.nc", engine="h5netcdf")


def _netcdf3(ds: Any, path: Path) -> None:
    ds.to_netcdf(path / "data.nc", engine="scipy", format="NETCDF3_64BIT")


def _many_files(ds: Any, path: Path) -> None:
    steps = ds.sizes["time"] // FILES
    for number in range(FILES):
        part = ds.isel(time=slice(number * steps, (number + 1) * steps))
        name = path / f"{number:02d}.nc"
        part.to_netcdf(name, engine="h5netcdf", encoding=_netcdf_encoding(ds))


def _icechunk(ds: Any, path: Path) -> None:
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path / "data")))
    session = repository.writable_session("main")
    ds.to_zarr(session.store, zarr_format=3, consolidated=False, encoding=_zarr_encoding(ds))
    session.commit("data")


def _references(ds: Any, path: Path) -> None:
    """References beside the file they point to, by a path that outlives the writing."""
    from kerchunk.hdf import SingleHdf5ToZarr

    _netcdf4(ds, path)
    found = SingleHdf5ToZarr(str(path / "data.nc")).translate()
    (path / "data.json").write_text(json.dumps(found).replace(str(path), "{{folder}}"))


def _grib(ds: Any, path: Path) -> None:
    import eccodes
    import numpy as np

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
                for key, value in keys.items():
                    eccodes.codes_set(message, key, value)
                eccodes.codes_set(message, "dataDate", int(days[step]))
                eccodes.codes_set(message, "dataTime", int(hours[step]) * 100)
                eccodes.codes_set(message, "shortName", short)
                eccodes.codes_set_values(message, ds[name].values[step].astype(float).ravel())
                eccodes.codes_write(message, file)
                eccodes.codes_release(message)


def _npy(ds: Any, path: Path) -> None:
    import numpy as np

    for name in ds.data_vars:
        np.save(path / f"{name}.npy", ds[name].values)


# How each is opened.


def _open_zarr(path: Path, **options: Any) -> Any:
    import xtorch_data as xtd

    return xtd.open_zarr(path / "data.zarr", consolidated=False, **options)


def _open_icechunk(path: Path) -> Any:
    import icechunk

    import xtorch_data as xtd

    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path / "data")))
    return xtd.open_zarr(repository.readonly_session("main").store, consolidated=False)


def _open_references(path: Path, through_dask: bool = False) -> Any:
    import xarray as xr

    import xtorch_data as xtd

    text = (path / "data.json").read_text()
    references = json.loads(text.replace("{{folder}}", str(path)))
    if through_dask:
        return xr.open_dataset(references, engine="kerchunk")
    options = {"storage_options": {"fo": references}, "consolidated": False}
    return xtd.open_zarr("reference://", **options)


def _open_netcdf(path: Path, engine: str) -> Any:
    import xarray as xr

    return xr.open_dataset(path / "data.nc", engine=engine)


def _open_many_files(path: Path) -> Any:
    import xarray as xr

    return xr.open_mfdataset(sorted(path.glob("*.nc")), engine="h5netcdf")


def _open_grib(path: Path) -> Any:
    import xarray as xr

    return xr.open_dataset(path / "data.grib", engine="cfgrib")


def _open_npy(path: Path) -> Any:
    import xarray as xr

    files = sorted(path.glob("*.npy"))
    return xr.merge([xr.open_dataset(file, engine="npy", dims=DIMS) for file in files])


def _open_memory(path: Path) -> Any:
    return _open_npy(path).load()


FORMATS: dict[str, tuple[Callable[[Any, Path], None], Callable[[Path], Any]]] = {
    "Zarr v2": (_zarr_v2, _open_zarr),
    "Zarr v3": (_zarr_v3, _open_zarr),
    "Zarr v3 with shards": (_shards, _open_zarr),
    "Zarr v3 through dask": (_zarr_v3, partial(_open_zarr, chunks={})),
    "Icechunk": (_icechunk, _open_icechunk),
    "NetCDF-4 by h5netcdf": (_netcdf4, partial(_open_netcdf, engine="h5netcdf")),
    "NetCDF-4 by netCDF4": (_netcdf4, partial(_open_netcdf, engine="netcdf4")),
    "the same by references": (_references, _open_references),
    'the same by engine="kerchunk"': (_references, partial(_open_references, through_dask=True)),
    "NetCDF-4 in 8 files, open_mfdataset": (_many_files, _open_many_files),
    "NetCDF-4, not chunked": (_contiguous, partial(_open_netcdf, engine="h5netcdf")),
    "NetCDF-3": (_netcdf3, partial(_open_netcdf, engine="scipy")),
    "GRIB": (_grib, _open_grib),
    "`.npy`": (_npy, _open_npy),
    "in memory": (_npy, _open_memory),
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(_measure(sys.argv[1], sys.argv[2] == "1", int(sys.argv[3]))))
