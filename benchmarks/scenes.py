"""Patches of a stack of GeoTIFFs: next to a Dataset that reads a window of a file for each."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import Contender, Ours, PerSample
from .race import race, rounds, say
from .report import MIB, Table, costs
from .stores import Store, bench_dir, packed, written
from .workloads import Workload

PATCH, TILE = 256, 512


def make_scenes(quick: bool) -> Workload:
    """Scenes of one place, a date each, with four bands of 16-bit integers."""
    sizes = {"time": 4 if quick else 16, "y": 2048, "x": 2048}
    store = Store("scenes", sizes, (1, TILE, TILE), variables=4)
    windows, overlap = {"y": PATCH, "x": PATCH}, {"y": PATCH // 2, "x": PATCH // 2}
    return Workload("scenes", store, windows, overlap, 32, memory=2**28, slow_samples=512)


def files(work: Workload) -> list[Path]:
    """The files, one for each date; written if they are not there."""
    import rasterio

    folder = bench_dir() / f"scenes-{work.store.sizes['time']}"
    if not folder.exists():
        with written(folder) as unfinished:
            for step in range(work.store.sizes["time"]):
                bands = [work.store.values(n, step, step + 1)[0] for n in range(4)]
                with rasterio.open(
                    unfinished / f"{step:03}.tif", "w", driver="GTiff", count=4, dtype="int16",
                    height=work.store.sizes["y"], width=work.store.sizes["x"], nodata=-32768,
                    crs="EPSG:32632", transform=rasterio.transform.from_origin(5e5, 5e6, 10, 10),
                    tiled=True, blockxsize=TILE, blockysize=TILE, interleave="band",
                    compress="deflate", predictor=2,
                ) as file:  # fmt: skip
                    file.write(packed(np.stack(bands)))
    return sorted(folder.iterdir())


def opened(work: Workload) -> Any:
    """The stack, as xarray and rioxarray open it: a variable for each band."""
    import xarray as xr

    data = xr.open_mfdataset(
        files(work), engine="rasterio", band_as_variable=True, combine="nested",
        concat_dim="time", lock=False,
    )  # fmt: skip
    names = dict(zip(sorted(data.data_vars), work.store.names, strict=True))
    return data.rename(names).drop_vars("spatial_ref").drop_attrs()


@dataclass
class Scenes(Ours):
    """The stack through dask."""

    def _opened(self) -> Any:
        return opened(self.work)

    def truth(self, data: Any) -> Any:
        return self.data


@dataclass
class Windows(PerSample):
    """A Dataset that reads the window of each sample, from files that stay open."""

    def _dataset(self) -> Any:
        return _Windows(self.work)

    def truth(self, data: Any) -> Any:
        return opened(self.work)


class _Windows:
    def __init__(self, work: Workload) -> None:
        self.work, self.files = work, files(work)
        self.opened: dict[int, Any] = {}  # by each process

    def __len__(self) -> int:
        return self.work.samples

    def __getitem__(self, number: int) -> Any:
        import rasterio
        import torch

        cut = self.work.indexers(number)
        if cut["time"] not in self.opened:
            self.opened[cut["time"]] = rasterio.open(self.files[cut["time"]])
        window = rasterio.windows.Window.from_slices(cut["y"], cut["x"])
        return torch.from_numpy(self.opened[cut["time"]].read(window=window).astype("float32"))


@dataclass
class Everything(Contender):
    """Each file read whole, one after the other."""

    checked = False

    def epoch(self) -> Any:
        import rasterio

        for path in files(self.work):
            with rasterio.open(path) as file:
                file.read()
        return iter(())

    def expected(self) -> None:
        return None


def table_scenes(quick: bool) -> Table:
    """Samples a second, and what of it a loop over the files takes."""
    work = make_scenes(quick)
    try:
        say("scenes: writing")
        stored = sum(len(path.read_bytes()) for path in files(work))
    except ImportError:
        return "\n### scenes\n\nNot measured: rasterio is not installed.\n", []
    warnings.simplefilter("ignore")
    # GDAL keeps decoded tiles itself, 5% of all memory: of small stacks everything, for everybody.
    kept = os.environ.setdefault("GDAL_CACHEMAX", "64")
    frame = race(
        {
            "shuffled": Scenes("xtorch_data, shuffled"),
            "in order": Scenes("xtorch_data, in order", how={"shuffle": False}),
            "windows": Windows("Dataset that reads windows by rasterio"),
            "workers": Windows("the same, 2 workers", workers=2),
            "whole": Everything("each file read whole by rasterio"),
        },
        work,
        rounds(quick, 3),
    )
    per_sample = frame["slow"].astype(bool)
    read = frame["fetched"] / np.where(per_sample, work.slow_samples, work.samples)
    shown = {
        "samples/s": frame["rate"].where(frame["rate"] > 0),
        "of the Dataset": (frame["rate"] / frame["rate"]["windows"]).where(frame["rate"] > 0),
        "seconds": frame["seconds"].where(~per_sample),
        "bytes read / stored": read * work.samples / stored,
        "peak above imports, MiB": frame["peak, MiB"],
    }
    dates = work.store.sizes["time"]
    text = (
        f"{dates} scenes of 4 bands of 2048 × 2048 int16, tiles of {TILE} × {TILE}, deflate with a "
        f"predictor: {dates * 4 * 2048**2 * 2 / MIB:.0f} MiB in {stored / MIB:.0f} MiB of files. "
        f"{work.samples:,} patches of 4 × {PATCH} × {PATCH}, stride {PATCH // 2}, `memory` 256 MiB"
        f", `GDAL_CACHEMAX={kept}`."
    )
    return costs("scenes", text, frame.assign(**shown), list(shown))
