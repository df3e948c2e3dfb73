"""Predictions laid into one field: next to a loop over NumPy arrays, xrpatcher and `to_zarr`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .contenders import Ours
from .race import race, rounds
from .report import MIB, Table, costs
from .stores import Store
from .workloads import Workload

CHUNK = 16  # steps of a chunk that is written
BLEND = "mean"  # which xrpatcher can, too
SHARE = 10  # the result in sizes of `memory`
OTHERS = 64 * MIB  # for copies of chunks, codecs, threads, and what is kept of memory let go


def make_workloads(quick: bool) -> dict[str, Workload]:
    """Patches of a field, fields of several steps, and series of stations; all overlap."""
    degrees = {"latitude": 121, "longitude": 240}
    globe = {"latitude": 181, "longitude": 360}
    patch = {"latitude": 32, "longitude": 32}
    half = {"latitude": 16, "longitude": 16}
    steps, long = (40, 64) if quick else (128, 512)
    stores = {
        "patches": ({"time": 1, "latitude": 800, "longitude": 800}, {"time": 1, **patch}, half, 64),
        "fields": ({"time": steps, **degrees}, {"time": 8, **degrees}, {"time": 7}, 16),
        "series": ({"time": 400 if quick else 2_000, "station": 100},
                   {"time": 30}, {"time": 29}, 1024),
        "written": ({"time": long, **globe}, {"time": 8, **globe}, {"time": 4}, 2),
    }  # fmt: skip
    return {
        name: Workload(
            f"predictions-{name}",
            Store(f"predictions-{name}", sizes, tuple(sizes.values()), variables=1),
            windows,
            overlap,
            batch,
        )
        for name, (sizes, windows, overlap, batch) in stores.items()
    }


def overlap_add(work: Workload, predicted: Iterator[tuple[Any, Any]]) -> np.ndarray:
    """The mean of predictions at each place, from samples' numbers and values: a plain loop."""
    sums = np.zeros(work.store.shape, np.float32)
    weights = np.zeros(work.store.shape, np.float32)
    for numbers, values in predicted:
        for number, value in zip(numbers, values, strict=True):
            key = tuple(work.indexers(int(number))[dim] for dim in work.store.sizes)
            sums[key] += value
            weights[key] += 1
    with np.errstate(invalid="ignore"):  # what no window covers
        return sums / weights


@dataclass
class Laying(Ours):
    """Predictions of all samples, ready in memory; an epoch lays them."""

    def ready(self, work: Workload) -> None:
        import xtorch_data as xtd

        super().ready(work)
        self.work, self.data = work, work.opened().load()
        (name,) = work.store.names
        self.dataset = xtd.MapDataset(
            self.data, work.input_dims, work.input_overlap, inputs=name, targets=name,
            memory=work.memory,
        )  # fmt: skip
        self.made = self._made(xtd)
        if self.made:
            self.truth_ = overlap_add(work, ((b.index.tolist(), y.numpy()) for b, y in self.made))
            np.testing.assert_allclose(np.asarray(self.lay()), self.truth_, rtol=1e-5)

    def _made(self, xtd: Any) -> list[Any]:
        batches = xtd.DataLoader(self.dataset, batch_size=self.work.batch_size)
        return [(batch, predicted(batch)) for batch in batches]

    def open(self, work: Workload) -> None:
        """Nothing: it is open."""

    def expected(self) -> None:
        return None

    def epoch(self) -> Iterator[Any]:
        self.lay()
        return iter(())

    def details(self) -> dict[str, Any]:
        return {}

    def lay(self) -> Any:
        """The field."""
        import xtorch_data as xtd

        with xtd.Mosaic(self.dataset, blend=BLEND) as mosaic:
            for batch, y in self.made:
                mosaic.add(batch, y)
        return mosaic.to_xarray()[self.work.store.names[0]]


def predicted(batch: Any) -> Any:
    """What a model might make of a batch: another value in each window of a place."""
    return batch.y + (batch.index % 7).reshape(-1, *[1] * (batch.y.ndim - 1))


@dataclass
class Looping(Laying):
    """The loop over NumPy arrays."""

    def lay(self) -> Any:
        return overlap_add(self.work, ((b.index.tolist(), y.numpy()) for b, y in self.made))


@dataclass
class Patching(Laying):
    """xrpatcher, which takes the patches as a list."""

    def lay(self) -> Any:
        from xrpatcher import XRDAPatcher

        work = self.work
        data = self.data[work.store.names[0]]
        strides = {dim: work.stride(dim) for dim in work.input_dims}
        patcher = XRDAPatcher(data, patches=work.input_dims, strides=strides)
        patches = [each for _, y in self.made for each in y.numpy()]
        return patcher.reconstruct(patches, dims_labels=list(data.dims))


@dataclass
class Writing(Laying):
    """Predictions made batch by batch, laid and written chunk by chunk."""

    shuffled: bool = False

    def _made(self, xtd: Any) -> list[Any]:
        import torch

        self.truth_ = overlap_add(self.work, self._predicted(self._loader_of(xtd, False)))
        torch.manual_seed(0)
        self.loader = self._loader_of(xtd, self.shuffled)
        with self._folder() as path:  # what is imported late
            self._write(path, few=True)
        return []

    def _loader_of(self, xtd: Any, shuffled: bool) -> Any:
        import torch.utils.data

        kind = torch.utils.data.RandomSampler if shuffled else torch.utils.data.SequentialSampler
        return xtd.DataLoader(
            self.dataset, batch_size=self.work.batch_size, sampler=kind(self.dataset)
        )

    def _predicted(self, batches: Any) -> Iterator[tuple[Any, Any]]:
        return ((batch.index.tolist(), predicted(batch).numpy()) for batch in batches)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield os.path.join(folder, "field.zarr")

    @property
    def encoding(self) -> dict[str, Any]:
        """Chunks of some steps."""
        (name,) = self.work.store.names
        return {name: {"chunks": (CHUNK, *self.work.store.shape[1:])}}

    def epoch(self) -> Iterator[Any]:
        self.kept = tempfile.TemporaryDirectory()
        self._write(os.path.join(self.kept.name, "field.zarr"))
        return iter(())

    def _write(self, path: str, few: bool = False) -> None:
        import xtorch_data as xtd

        mosaic = xtd.Mosaic(self.dataset, path, blend=BLEND, encoding=self.encoding)
        with mosaic:
            for batch in self.loader:
                mosaic.add(batch, predicted(batch))
                if few:
                    break
        told = mosaic.explain()
        self.told = {"sums at most, MiB": told.peak / MIB, "put aside": told.set_aside}

    def details(self) -> dict[str, Any]:
        """Compare what is written, chunk by chunk, which takes no memory that would count."""
        import zarr

        (name,) = self.work.store.names
        path = Path(self.kept.name) / "field.zarr"
        array = zarr.open_group(path, mode="r")[name]
        for start in range(0, array.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            np.testing.assert_allclose(array[part], self.truth_[part], rtol=1e-5)
        self.kept.cleanup()
        return self.told


@dataclass
class AtOnce(Writing):
    """The loop over NumPy arrays, and `to_zarr` of what it makes; or that alone."""

    alone: bool = False

    def _write(self, path: str, few: bool = False) -> None:
        from zarr.codecs import BloscCodec

        (name,) = self.work.store.names
        field = self.truth_
        if not self.alone and not few:
            field = overlap_add(self.work, self._predicted(self.loader))
        # As a mosaic compresses.
        codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
        encoding = {name: {**self.encoding[name], "compressors": (codec,)}}
        result = self.data[[name]].isel(time=slice(0, len(field))).copy(data={name: field})
        result.to_zarr(path, encoding=encoding, consolidated=False, zarr_format=3)
        self.told = {}


def table_predictions(quick: bool) -> Table:
    """Seconds to lay predictions in memory, and seconds and memory to write them."""
    works = make_workloads(quick)
    frames, samples = [], []
    for name, title in (("patches", "patches"), ("fields", "fields"), ("series", "series")):
        work = works[name]
        racing = {"mosaic": Laying(f"{title}: Mosaic"), "loop": Looping(f"{title}: NumPy, a loop")}
        if name == "patches":
            racing["xrpatcher"] = Patching(f"{title}: xrpatcher")
        frame = race(racing, work, rounds(quick), check=False)
        frame["of the loop's seconds"] = frame["seconds"] / frame["seconds"]["loop"]
        frame["samples/s"] = work.samples / frame["seconds"]
        frames.append(frame)
        shape = " × ".join(str(work.size(dim)) for dim in work.store.sizes)
        samples.append(f"{work.samples:,} {title} of {shape}")
    laid = pd.concat(frames)
    text = (
        f"{', '.join(samples)}, batches as they come from a loader and what is predicted of them "
        "in memory; from the first batch to the field. Samples overlap, and their mean is taken. "
        "The fields are compared before anything is timed."
    )
    names = ["seconds", "of the loop's seconds", "samples/s"]
    first, _ = costs("predictions, in memory", text, laid, names)
    work = works["written"]
    memory = work.store.nbytes // SHARE
    work = Workload(
        work.name, work.store, work.input_dims, work.input_overlap, work.batch_size, memory
    )
    racing = {
        "in order": Writing("Mosaic, in order"),
        "shuffled": Writing("Mosaic, shuffled", shuffled=True),
        "at once": AtOnce("NumPy, a loop, and `to_zarr`"),
        "alone": AtOnce("`to_zarr` alone", alone=True),
    }
    frame = race(racing, work, rounds(quick), check=False)
    frame["of the loop's seconds"] = frame["seconds"] / frame["seconds"]["at once"]
    text = (
        f"A field of {work.store.nbytes / MIB:.0f} MiB in chunks of {CHUNK} steps, `memory` of "
        f"{memory / MIB:.1f} MiB, {work.samples:,} samples of {work.sample_nbytes / MIB:.1f} MiB "
        f"in batches of {work.batch_size}, predicted in the loop. Data is in memory and counts as "
        "imports do. What is written is compared after each round, which counts as well. Allowed "
        "above imports: twice `memory`, for what is read ahead and for sums, 4 batches, and "
        f"{OTHERS / MIB:.0f} MiB."
    )
    allowed = pd.Series((2 * memory + 4 * work.batch_nbytes + OTHERS) / MIB, frame.index)
    allowed[["at once", "alone"]] = np.nan
    names = ["seconds", "of the loop's seconds", "sums at most, MiB", "put aside", "peak, MiB"]
    second, targets = costs("predictions, written", text, frame, names, {"peak, MiB": allowed})
    return first + second, targets
