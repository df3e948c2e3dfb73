"""What `explain` predicts, compared with what is counted in an epoch of twenty datasets."""

import gc
import math
import sys
import threading
import tracemalloc
import warnings
from collections import Counter
from concurrent.futures import wait
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import xarray as xr
import zarr.storage
from strategies import MORE

import xtorch_data as xtd
from xtorch_data.iteration import pipeline
from xtorch_data.reading import decoders
from xtorch_data.reading.disk_cache import DiskCache

STEPS, Y, X = 120, 96, 96  # 36 kiB a step of float32
WINDOW = {"time": 8, "y": -1, "x": -1}
OVERLAP = {"time": 7}
TILES, PATCH, HALF = {"a": (4, 16, 16)}, {"time": 2, "y": 16, "x": 16}, {"y": 8, "x": 8}
SERIES = {"a": (60, 16, 16)}
TWO = {"a": (8, Y, X), "b": (12, 32, 32)}


@dataclass(frozen=True)
class Case:
    """A store, and a dataset over it."""

    chunks: dict = field(default_factory=lambda: {"a": (8, Y, X)})
    input_dims: dict = field(default_factory=lambda: WINDOW)
    input_overlap: dict = field(default_factory=lambda: OVERLAP)
    kind: str = "zarr"  # or "sharded", "fetched", "netcdf", "dask", "memory"
    dtype: str = "float32"
    packed: bool = False
    compressed: bool = False
    lacks_time: str = ""  # a variable
    arguments: dict = field(default_factory=dict)
    epochs: int = 1


SHUFFLED = {"shuffle": True}
CASES = {
    "shuffled": Case(arguments=SHUFFLED),
    "in order": Case(),
    "compressed": Case(compressed=True, arguments=SHUFFLED),
    "a step a chunk": Case({"a": (1, Y, X)}, arguments=SHUFFLED),
    "patches": Case(TILES, PATCH, HALF, arguments={"batch_size": 256, **SHUFFLED}),
    "patches in order": Case(TILES, PATCH, HALF, compressed=True, arguments={"batch_size": 512}),
    "patches with gaps": Case({"a": (8, 48, 48)}, {"time": 4, "y": 32, "x": 32}, {"time": -4},
                              arguments=SHUFFLED),
    "series": Case(SERIES, {"time": 30}, {"time": 29},
                   arguments={"batch_size": 16384, **SHUFFLED}),
    "series in order": Case(SERIES, {"time": 30}, {"time": 29}, arguments={"batch_size": 16384}),
    "chunked differently": Case(TWO, arguments=SHUFFLED),
    "chunked differently, in order": Case(TWO),
    "without time": Case({"a": (8, Y, X), "b": (32, 32)}, lacks_time="b", arguments=SHUFFLED),
    "packed": Case(packed=True, arguments=SHUFFLED),
    "float64": Case(dtype="float64", arguments=SHUFFLED),
    "float64 kept": Case(dtype="float64", arguments={"dtype": np.dtype("float64")}),
    "integers": Case(dtype="int16", arguments=SHUFFLED),
    "larger than memory": Case(input_dims={"time": 60, "y": -1, "x": -1}, input_overlap={},
                               arguments={"memory": "1 MB", "batch_size": 1}),
    "shards": Case({"a": (1, Y, X)}, kind="sharded", arguments=SHUFFLED),
    "shards, in order": Case({"a": (8, 24, 24)}, kind="sharded", compressed=True),
    "windows of many blocks": Case({"a": (1, Y, X)}, {"time": 30, "y": -1, "x": -1}, {"time": 29},
                                   arguments={"memory": "3 MB", "batch_size": 1}),
    "windows of many blocks, cached in part": Case(
        {"a": (1, Y, X)}, {"time": 30, "y": -1, "x": -1}, {"time": 29},
        arguments={"memory": "5 MB", "batch_size": 1, "cache": True}, epochs=2),
    "cached": Case(arguments={"cache": True, "memory": "40 MB", **SHUFFLED}, epochs=2),
    "cached in part": Case(arguments={"cache": True, **SHUFFLED}, epochs=2),
    "where": Case(arguments={"where": np.arange(STEPS - 7) % 60 < 40, **SHUFFLED}),
    "weights": Case(arguments={"weights": np.arange(STEPS - 7.0), **SHUFFLED}),
    "steps of a list": Case(arguments={"inputs": xtd.Select(["a"], time=[0, 1, 4, 7])}),
    "series of listed steps": Case(
        SERIES, {"time": 30}, {"time": 29},
        arguments={"batch_size": 16384, "inputs": xtd.Select("a", time=[0, 5, 6, 29]), **SHUFFLED}),
    "single samples": Case(input_overlap={}, arguments={"batch_size": None}),
    "netcdf": Case(kind="netcdf", arguments=SHUFFLED),
    "netcdf in order": Case(kind="netcdf"),
    "dask": Case(kind="dask", arguments=SHUFFLED),
    "fetched": Case(kind="fetched", arguments={"memory": "3 MB", **SHUFFLED}),
    "memory": Case(kind="memory", arguments=SHUFFLED),
    "memory, float64": Case(kind="memory", dtype="float64", arguments=SHUFFLED),
}  # fmt: skip


# These are much like others, and are left to whoever has the time.
ALSO = {"a step a chunk", "patches in order", "series in order", "float64 kept", "cached in part",
        "netcdf in order", "memory"}  # fmt: skip

opened: Counter[str] = Counter()
counting = False


def _note(event, arguments):
    if counting and event == "open" and isinstance(arguments[0], str):
        opened[arguments[0]] += 1


sys.addaudithook(_note)  # tells of every file that is opened, by whomever


def make(case, folder):
    rng = np.random.default_rng(0)
    sizes = {"time": STEPS, "y": Y, "x": X}
    ds, encoding = xr.Dataset(), {}
    for name, chunks in case.chunks.items():
        dims = [dim for dim in sizes if dim != "time" or name != case.lacks_time]
        values = rng.integers(-9999, 9999, [sizes[dim] for dim in dims]) / 8
        ds[name] = dims, values.astype(case.dtype)
        packing = {"dtype": "int16", "scale_factor": 0.125, "_FillValue": -32768}
        encoding[name] = packing if case.packed else {}
        encoding[name]["chunksizes" if case.kind == "netcdf" else "chunks"] = chunks
        if case.kind == "sharded":
            encoding[name]["shards"] = (8 * chunks[0], *chunks[1:])
        if case.kind != "netcdf" and not case.compressed:
            encoding[name]["compressors"] = None
    if case.kind == "memory":
        return ds
    if case.kind == "netcdf":
        ds.to_netcdf(folder / "data.nc", encoding=encoding)
        return xr.open_dataset(folder / "data.nc")
    ds.to_zarr(folder / "data.zarr", encoding=encoding, consolidated=False, zarr_format=3)
    if case.kind == "fetched":
        store = zarr.storage.LocalStore(folder / "data.zarr", read_only=True)
        return xtd.open_zarr(zarr.storage.WrapperStore(store), consolidated=False)
    opened = xr.open_zarr if case.kind == "dask" else xtd.open_zarr
    return opened(folder / "data.zarr", consolidated=False)


def dataset_of(case, ds):
    arguments = {"batch_size": 8, "memory": "8 MB", **case.arguments}
    return xtd.IterableDataset(ds, case.input_dims, case.input_overlap, **arguments)


class Noted(pipeline.ReadAhead):
    """The latest read-ahead, in the worst order of things.

    Each job gathers at once, while the consumer holds the batch before, and the consumer goes on
    when all is read that may be.
    """

    def __init__(self, *args):
        super().__init__(*args)
        gather = self._threads.gather
        self._submit, gather.submit = gather.submit, self._gather
        Noted.latest = self

    def _gather(self, *job):
        future = self._submit(*job)
        wait([future])
        return future

    def wait(self):
        with self._lock:
            begun = [each.loaded for each in self._live if each not in self._unread]
        wait(begun)


def counted(dataset, epochs):
    """Most bytes that Python and numpy have allotted at a time, and files opened in an epoch.

    The consumer is slow, so that all is there that may be read ahead, and holds one batch.
    """
    global counting
    gc.collect()
    decoders._idle.clear()
    opened.clear()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for epoch in range(epochs):
            counting = epoch == 0
            for _batch in dataset:
                Noted.latest.wait()
        return tracemalloc.get_traced_memory()[1] - before, dict(opened)
    finally:
        counting = False
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    monkeypatch.setattr(pipeline, "ReadAhead", Noted)
    yield
    Noted.latest = None


@pytest.mark.alone  # what threads hold at the same time is counted
@pytest.mark.parametrize(
    "name", CASES if MORE > 1 else [name for name in CASES if name not in ALSO]
)
def test_what_is_predicted_is_what_is_counted(name, tmp_path):
    case = CASES[name]
    check(case, tmp_path)


@pytest.mark.alone
def test_what_waits_to_be_written_to_a_cache_on_disk_is_counted(tmp_path, monkeypatch):
    """Of a disk that is slow, as much as may wait: here as much as the memory.

    Not counted is what is read of whole cells, and for a moment lies beside the block made of it.
    """
    monkeypatch.setattr("xtorch_data.reading.disk_cells.WAITING_PART", 1)
    written = threading.Event()
    write = DiskCache._write_all
    monkeypatch.setattr(DiskCache, "_write_all", lambda cache: written.wait() and write(cache))
    try:
        check(Case(arguments={"cache": tmp_path / "cache", **SHUFFLED}), tmp_path, within=0.2)
    finally:
        written.set()


SOURCES = {
    "a series passes, a map is kept": {"memory": "8 MB", "shuffle": True},
    "a series is kept": {"memory": "64 MB", "shuffle": True},
    "in order": {"memory": "32 MB"},
}


@pytest.mark.alone
@pytest.mark.parametrize("arguments", SOURCES.values(), ids=SOURCES)
def test_what_other_sources_take_is_counted(arguments, tmp_path):
    """Daily maps as of the anchor, and one map for all samples, beside blocks of the first."""
    time = np.datetime64("2000-01-01", "ns") + np.arange(400) * np.timedelta64(6, "h")
    days = np.datetime64("1999-12-01", "ns") + np.arange(140) * np.timedelta64(1, "D")
    rng = np.random.default_rng(0)

    def stored(name, dims, shape, chunks, labels):
        ds = xr.Dataset({name: (dims, rng.random(shape, dtype="float32"))}, labels)
        encoding = {name: {"chunks": chunks, "compressors": None}}
        path = tmp_path / f"{name}.zarr"
        ds.to_zarr(path, encoding=encoding, consolidated=False, zarr_format=3)
        return xtd.open_zarr(path, consolidated=False)

    first = stored("a", ("time", "y", "x"), (400, 48, 48), (16, 48, 48), {"time": time})
    daily = stored("tos", ("time", "j"), (140, 20_000), (10, 20_000), {"time": days})
    topography = stored("z", ("k", "l"), (500, 500), (500, 500), {})

    def made():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return xtd.IterableDataset(
                {
                    "era5": first,
                    "sst": xtd.Source(daily, time=xtd.AsOf(5, latency="1D")),
                    "topo": topography,
                },
                {"time": 8, "y": -1, "x": -1},
                {"time": 7},
                batch_size=4,
                **arguments,
            )

    next(iter(made()))  # imports what is imported late
    dataset = made()
    explained = dataset.explain()
    peak, files = counted(dataset, 1)
    found = explained.peak_memory.nbytes
    for variable in explained.variables:
        name = str(variable.name).rpartition("/")[2]
        assert variable.chunk_reads == sum(n for p, n in files.items() if f"/{name}/c/" in p)
    assert peak * 0.9 <= found <= peak * 1.15


def check(case, tmp_path, within=0.1):
    with make(case, tmp_path) as ds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one window that is larger than the memory
            dataset = dataset_of(case, ds)
            if not isinstance(case.arguments.get("cache", True), bool):  # a folder of its own
                case = replace(case, arguments={**case.arguments, "cache": tmp_path / "first"})
            first = dataset_of(case, ds)
        next(iter(first))  # imports what is imported late
        explained = dataset.explain()
        peak, files = counted(dataset, case.epochs)
    found = explained.peak_memory
    assert found.nbytes == found.blocks + found.batches + found.passing
    # It is the worst moment: threads do not always all hold a chunk at the same time.
    assert peak * (1 - within) <= found.nbytes <= peak * (1 + max(within, 0.15))
    if case.kind in ("zarr", "dask"):
        nbytes = 0
        for variable in explained.variables:
            chunks = sum(n for path, n in files.items() if f"/{variable.name}/c/" in path)
            assert variable.chunk_reads == chunks
            stored = np.dtype("int16" if case.packed else case.dtype)
            itemsize = max(np.dtype(variable.dtype).itemsize, stored.itemsize)
            nbytes += chunks * math.prod(case.chunks[variable.name]) * itemsize
        assert explained.nbytes == nbytes
        assert explained.amplification == nbytes / explained.nbytes_used
