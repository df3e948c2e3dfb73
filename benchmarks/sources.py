"""Several sources in a sample: next to the first one alone, to `sel` by hand and to one table."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .contenders import Contender, Ours, PerSample
from .race import race, rounds, say
from .report import MIB, Table, costs
from .stores import OPEN, Store, bench_dir, written
from .workloads import Workload

BEGIN, HISTORY = pd.Timestamp("2000-01-01"), pd.Timedelta("10D")
DAYS, HOURS, LEADS = 8, 24, 4  # that a sample has of the other sources
PARTS = ("daily", "hourly", "archive", "static")


def make_sources(quick: bool) -> Workload:
    """Windows over six-hourly fields; the other sources are made by `others`."""
    sizes = {"time": 512 if quick else 2048, "latitude": 121, "longitude": 240}
    store = Store("sources", sizes, (16, 121, 240), variables=4)
    return Workload("sources", store, {**sizes, "time": 8}, {"time": 7}, 32)


def folder(work: Workload) -> Path:
    return bench_dir() / f"sources-others-{work.store.sizes['time']}"


def first(work: Workload) -> xr.Dataset:
    """The first source, with six-hourly times."""
    steps = work.store.sizes["time"]
    return work.opened().assign_coords(time=pd.date_range(BEGIN, periods=steps, freq="6h"))


def make_others(work: Workload) -> None:
    """Write what is a tenth of the first source together, with ten days of history before it."""
    if folder(work).exists():
        return
    rng = np.random.default_rng(0)
    begin, end = BEGIN - HISTORY, BEGIN + pd.Timedelta("6h") * work.store.sizes["time"]

    def made(dims: tuple[str, ...], coords: dict[str, Any], chunk: int, **sizes: int) -> xr.Dataset:
        shape = [len(coords[dim]) if dim in coords else sizes[dim] for dim in dims]
        values = np.rint(rng.normal(size=shape) * 256).astype("f4") / 256
        data = xr.Dataset({"v": (dims, values)}, coords)
        data["v"].encoding["chunks"] = (min(chunk, shape[0]), *shape[1:])
        return data

    days, hours, inits = (pd.date_range(begin, end, freq=each) for each in ("D", "h", "12h"))
    leads = pd.to_timedelta(np.arange(0, 96, 6), "h")
    archive = {"init_time": inits, "lead_time": leads}
    with written(folder(work)) as path:
        for name, data in {
            "daily": made(("time", "y", "x"), {"time": days}, 32, y=60, x=120),
            "hourly": made(("time", "station"), {"time": hours}, 512, station=500),
            "archive": made(("init_time", "lead_time", "cell"), archive, 32, cell=400),
            "static": made(("row", "column"), {}, 484, row=484, column=960),
        }.items():
            data.to_zarr(path / f"{name}.zarr", consolidated=False, zarr_format=3)


def others(work: Workload) -> dict[str, xr.Dataset]:
    """The other sources as `xtorch_data.open_zarr` opens them."""
    import xtorch_data as xtd

    return {name: xtd.open_zarr(folder(work) / f"{name}.zarr", **OPEN) for name in PARTS}


def stored(work: Workload) -> int:
    """Bytes of the files of all sources."""
    every = (path for path in folder(work).rglob("*") if path.is_file())
    return work.store.warm() + sum(len(path.read_bytes()) for path in every)


def one_table(work: Workload) -> tuple[Path, float]:
    """All sources at the first one's times in one store, and the seconds that took."""
    path = bench_dir() / "sources-one.zarr"
    shutil.rmtree(path, ignore_errors=True)
    begin = time.perf_counter()
    data, beside = first(work).load(), {name: each.load() for name, each in others(work).items()}
    times = data["time"]
    known = beside["daily"].assign_coords(time=beside["daily"]["time"] + np.timedelta64(1, "D"))
    data["daily"] = known["v"].reindex(time=times, method="ffill")
    back = np.arange(HOURS) - (HOURS - 1)
    labels = xr.DataArray(
        times.values[:, None] + back * np.timedelta64(1, "h"), dims=("time", "hour")
    )
    hourly = beside["hourly"]["v"].rename(time="known")
    data["hourly"] = hourly.sel(known=labels).drop_vars("known")
    archive = beside["archive"]["v"].isel(lead_time=slice(0, LEADS))
    known = archive.assign_coords(init_time=archive["init_time"] + np.timedelta64(5, "h"))
    known = known.reindex(init_time=times.values, method="ffill").drop_vars("lead_time")
    data["archive"] = known.rename(init_time="time")
    data["static"] = beside["static"]["v"]
    for variable in data.variables.values():
        variable.encoding = {}
    for name in data.data_vars:
        sizes = data[name].sizes
        data[name].encoding["chunks"] = tuple(16 if d == "time" else n for d, n in sizes.items())
    data.to_zarr(path, consolidated=False, zarr_format=3)
    return path, time.perf_counter() - begin


@dataclass
class Sources(Ours):
    """All sources as they are stored."""

    def _loader(self, how: dict[str, Any]) -> Any:
        import xtorch_data as xtd

        work, beside = self.work, others(self.work)
        ds = {
            "first": first(work),
            "daily": xtd.Source(
                beside["daily"], time=xtd.AsOf(DAYS, latency="0h", label="left", of="time")
            ),
            "hourly": xtd.Source(beside["hourly"], time=xtd.AsOf(HOURS, latency="0h")),
            "archive": xtd.Source(
                beside["archive"],
                init_time=xtd.AsOf(1, latency="5h"),
                lead_time=xtd.ValidTime("0h", f"{6 * LEADS}h"),
            ),
            "static": beside["static"],
        }
        self.dataset = xtd.IterableDataset(
            ds,
            work.input_dims,
            work.input_overlap,
            inputs=work.store.names,
            batch_size=work.batch_size,
            **how,
        )
        return self.dataset


@dataclass
class ByHand(PerSample):
    """A Dataset that selects each sample from each source by its labels, or slices one table."""

    modules = ("torch", "xarray", "xtorch_data")

    one: bool = False

    def _dataset(self) -> Any:
        return _Sliced(self.work) if self.one else _Selected(self.work)

    def parts(self, batch: Any) -> tuple[Any, Any]:
        numbers, _ = super().parts(batch[0])
        return numbers, batch[0]

    def count(self, batch: Any) -> int:
        return len(batch[0])


class _Selected:
    def __init__(self, work: Workload) -> None:
        self.work, self.data, self.beside = work, first(work), others(work)

    def __len__(self) -> int:
        return self.work.samples

    def __getitem__(self, number: int) -> Any:
        window = self.data.isel(self.work.indexers(number))
        anchor = window["time"].values[-1]
        day, hour = np.timedelta64(1, "D"), np.timedelta64(1, "h")
        daily = self.beside["daily"]["v"].sel(time=slice(None, anchor - day))
        hourly = self.beside["hourly"]["v"].sel(time=slice(None, anchor))
        archive = self.beside["archive"]["v"].sel(init_time=slice(None, anchor - 5 * hour))
        archive = archive.isel(init_time=-1)
        lead = anchor - archive["init_time"].values
        archive = archive.sel(lead_time=slice(lead, lead + 6 * LEADS * hour - hour))
        cut = (
            daily.isel(time=slice(-DAYS, None)),
            hourly.isel(time=slice(-HOURS, None)),
            archive,
            self.beside["static"]["v"],
        )
        return window.to_array().values, *(each.values for each in cut)


class _Sliced:
    """Of the store of `one_table`; of days, it has what was held at eight six-hourly steps."""

    def __init__(self, work: Workload) -> None:
        self.work, self.data = work, xr.open_zarr(bench_dir() / "sources-one.zarr", **OPEN)

    def __len__(self) -> int:
        return self.work.samples

    def __getitem__(self, number: int) -> Any:
        window = self.data.isel(time=self.work.indexers(number)["time"])
        x = window[self.work.store.names].to_array().values
        last = (window[name].isel(time=-1).values for name in ("hourly", "archive"))
        return x, window["daily"].values, *last, window["static"].values


def compare(work: Workload) -> None:
    """Raise if samples of several sources differ from those by hand."""
    ours, by_hand = Sources("ours", how={}), _Selected(work)
    ours.open(work)
    batch = next(iter(ours.epoch()))
    for row, number in enumerate(batch.index[:4].tolist()):
        for part, expected in zip(("x", *PARTS), by_hand[number], strict=True):
            np.testing.assert_array_equal(
                batch[part][row].numpy().reshape(expected.shape), expected
            )


def table_sources(quick: bool) -> Table:
    """Samples a second, bytes read for each that is stored, and memory."""
    work = make_sources(quick)
    work.store.make()
    say("sources: making the other stores")
    make_others(work)
    compare(work)
    _, seconds = one_table(work)
    racing: dict[str, Contender] = {
        "all": Sources("all sources, shuffled"),
        "ordered": Sources("all sources, in order", how={"shuffle": False}),
        "alone": Ours("the first source alone, shuffled"),
        "one": ByHand("Dataset that slices one table, reindexed beforehand", one=True),
        "by hand": ByHand("Dataset with sel for each source"),
    }
    frame = race(racing, work, rounds(quick))
    whole = stored(work)
    size = pd.Series(float(whole), frame.index)
    size["alone"] = work.store.warm()
    table = (path for path in (bench_dir() / "sources-one.zarr").rglob("*") if path.is_file())
    size["one"] = sum(path.stat().st_size for path in table)
    samples = pd.Series(frame["samples"], frame.index)
    included = 1 / (frame["seconds"] / samples + seconds / work.samples)
    frame = frame.assign(
        **{
            "samples/s": frame["rate"],
            "reindexing included, over an epoch": included.where(frame.index == "one"),
            "of the first source alone": frame["rate"] / frame["rate"]["alone"],
            "bytes read / stored": (frame["fetched"] / size).where(~frame["slow"].astype(bool)),
            "peak above imports, MiB": frame["peak, MiB"],
        }
    )
    text = (
        f"{work.samples:,} windows of 8 six-hourly fields; beside each {DAYS} days, {HOURS} hours, "
        f"{LEADS} leads of the newest forecast and a static field, "
        f"{(whole - work.store.warm()) / work.store.warm():.0%} of the first source's bytes. "
        f"Reindexing everything to one table takes {seconds:.1f} s and "
        f"{size['one'] / MIB:.0f} MiB, where {whole / MIB:.0f} MiB were stored."
    )
    names = [
        "samples/s",
        "reindexing included, over an epoch",
        "of the first source alone",
        "bytes read / stored",
    ]
    return costs("sources", text, frame, [*names, "peak above imports, MiB"])
