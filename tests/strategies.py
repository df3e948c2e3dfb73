"""Hypothesis strategies: random labeled datasets, where they are stored, and what to cut."""

import contextlib
import math
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import xarray as xr
import zarr
import zarr.codecs
from helpers import CountingStore, used_dims
from hypothesis import settings
from hypothesis import strategies as st

import xtorch_data as xtd

# Many times as many examples of everything, for who has the time: make test THOROUGH=1
MORE = 20 if os.environ.get("THOROUGH") else 1
EXAMPLES = 9 * MORE


def examples(number, thorough=None):
    """So many examples of a property whose examples take longer, or need fewer."""
    return settings(max_examples=number if MORE == 1 else thorough or number * MORE)


DIMS = ("time", "y", "x", "member")
NAMES = ("a", "b", "c")
DTYPES = ("float32", "float64", "int16", "int64", "bool", ">f4", ">f8", ">i2")
STORAGES = ("memory", "dask", "zarr", "zarr", "zarr", "zarr+dask", "netcdf")
MEMORIES = (1, "1 B", 64, 700, "4 kB", "20 KiB", "1 MiB", "1 GiB")
MAX_POINTS = 800
# With less memory each sample is read by itself, which is slow where there are many.
MAX_SAMPLES_ALONE = 60


@dataclass
class Stored:
    """A dataset, and how it is kept before it is handed to the package."""

    ds: xr.Dataset
    storage: str
    chunks: dict[str, tuple[tuple[int, ...], ...]]
    packed: tuple[str, ...]
    lazy: dict[str, Any]

    @contextlib.contextmanager
    def open(self):
        """The dataset as a user has it: opened lazily, then perhaps sliced lazily."""
        with tempfile.TemporaryDirectory() as folder:
            ds = self._stored(Path(folder))
            try:
                yield ds.isel(self.lazy)
            finally:
                ds.close()

    def _stored(self, folder):
        if self.storage == "memory":
            return self.ds
        if self.storage == "dask":
            return self._in_dask()
        encoding = {
            name: {"dtype": "int16", "scale_factor": 0.25, "add_offset": 3.0, "_FillValue": -9999}
            for name in self.packed
        }
        if self.storage == "netcdf":
            native = self.ds.assign(
                {n: v.astype(v.dtype.newbyteorder("=")) for n, v in self.ds.data_vars.items()}
            )
            native.to_netcdf(folder / "data.nc", engine="netcdf4", encoding=encoding)
            return xr.open_dataset(folder / "data.nc", engine="netcdf4")
        for name, chunks in self.chunks.items():
            encoding.setdefault(name, {})["chunks"] = tuple(sizes[0] for sizes in chunks)
        path = folder / "data.zarr"
        self.ds.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
        chunks = {} if self.storage == "zarr+dask" else None
        return xr.open_zarr(path, consolidated=False, chunks=chunks)

    def _in_dask(self):
        ds = self.ds.copy()
        for name, chunks in self.chunks.items():
            ds[name] = ds[name].chunk(dict(zip(ds[name].dims, chunks, strict=True)))
        return ds


@dataclass
class Case:
    """A dataset and all that makes an epoch of it."""

    stored: Stored
    inputs: Any
    targets: Any
    input_dims: dict[str, int]
    input_overlap: dict[str, int]
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    memory: Any

    def parts(self, ds):
        """Names of each part, as they are asked for. A store may list variables in any order."""
        inputs = list(ds.data_vars) if self.inputs is None else self.inputs
        return {"x": inputs} if self.targets is None else {"x": inputs, "y": self.targets}

    def names(self, ds):
        """Variables that are used."""
        names = []
        for part in self.parts(ds).values():
            names += [part] if isinstance(part, str) else part
        return list(dict.fromkeys(names))

    @property
    def arguments(self):
        """Keyword arguments of the dataset class."""
        return {
            "input_dims": self.input_dims,
            "input_overlap": self.input_overlap,
            "breaks": "ignore",  # windows are compared with those of xbatcher
            "inputs": self.inputs,
            "targets": self.targets,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "seed": self.seed,
            "memory": self.memory,
        }


def _values(draw, rng, dtype, shape):
    kind = np.dtype(dtype).kind
    if kind == "b":
        values = rng.random(shape) < 0.5
    elif kind == "i":
        values = rng.integers(-1000, 1000, shape)
    else:
        # Quarters survive packing into integers, and every value is another one.
        values = rng.permutation(np.arange(np.prod(shape, dtype=int)) / 4).reshape(shape)
        if draw(st.booleans()):
            values = np.where(rng.random(shape) < 0.3, np.nan, values)
    return values.astype(dtype)


def _index(draw, dim, size, storage):
    kinds = ["none", "integers", "descending", "datetime", "cftime"]
    if not storage.startswith("zarr"):  # Zarr v3 has no specification for fixed-length strings
        kinds.append("strings")
    kind = draw(st.sampled_from(kinds))
    if kind == "integers":
        return np.arange(size) * 3 + 5
    if kind == "descending":
        return np.linspace(60.0, -60.0, size)
    if kind == "datetime":
        return np.datetime64("1999-12-30", "ns") + np.arange(size) * np.timedelta64(24, "h")
    if kind == "cftime":
        return xr.date_range(
            "2000-02-28", periods=size, freq="D", calendar="360_day", use_cftime=True
        )
    if kind == "strings":
        return np.array([f"{dim}{number:02d}" for number in range(size)])
    return None


def _irregular(draw, size):
    """Chunk sizes along a dim that add up to its size."""
    cuts = draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=3)) if size > 1 else set()
    edges = [0, *sorted(cuts), size]
    return tuple(np.diff(edges).tolist())


def _regular(draw, shape):
    """The size of chunks along each dim, of which there are not too many to write."""
    chunks = [draw(st.integers(1, size)) for size in shape]
    while math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True)) > 50:
        most = max(range(len(shape)), key=lambda place: shape[place] / chunks[place])
        chunks[most] += 1
    return tuple((chunk,) for chunk in chunks)


def _lazy(draw, size):
    """What a user may cut lazily along a dim: an offset, a stride, the other way round, a list."""
    kind = draw(st.sampled_from(["offset", "offset", "offset", "stride", "reverse", "list"]))
    start = draw(st.integers(0, size - 1))
    stop = draw(st.integers(start + 1, size))
    if kind == "offset":
        return slice(start, stop)
    if kind == "stride":
        return slice(start, stop, 2)
    if kind == "reverse":
        return slice(None, None, -1)
    return sorted(draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=6)))


@st.composite
def stored_datasets(draw, storage=None):
    """Random datasets of 1 to 4 dims and 1 to 3 variables in memory, dask, Zarr or netCDF."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    storage = draw(st.sampled_from(STORAGES)) if storage is None else storage
    dims = draw(st.permutations(DIMS))[: draw(st.integers(1, 4))]
    sizes = {dim: draw(st.integers(1, 40)) for dim in dims}
    while np.prod(list(sizes.values())) > MAX_POINTS:
        largest = max(sizes, key=sizes.get)
        sizes[largest] = (sizes[largest] + 1) // 2

    variables, chunks, packed = {}, {}, []
    for number in range(draw(st.integers(1, 3))):
        name = NAMES[number]
        few = 1 if number == 0 else 0  # a later variable may be a scalar
        own = draw(st.permutations(dims))[: draw(st.integers(few, len(dims)))]
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(sizes[dim] for dim in own)
        variables[name] = (own, _values(draw, rng, dtype, shape))
        if storage == "dask":
            chunks[name] = tuple(_irregular(draw, size) for size in shape)
        elif storage.startswith("zarr"):
            chunks[name] = _regular(draw, shape)
            if np.dtype(dtype).kind == "f" and draw(st.integers(0, 3)) == 0:
                packed.append(name)

    coords = {}
    for dim, size in sizes.items():
        values = _index(draw, dim, size, storage)
        if values is not None:
            coords[dim] = (dim, values)
        if draw(st.integers(0, 3)) == 0:
            coords[f"{dim}_label"] = (dim, rng.normal(size=size))
    if len(dims) > 1 and draw(st.booleans()):
        pair = draw(st.permutations(dims))[:2]
        coords["area"] = (pair, rng.normal(size=[sizes[dim] for dim in pair]))
    if draw(st.booleans()):
        coords["height"] = ((), 2.0)

    ds = xr.Dataset(variables, coords)
    lazy = {}
    for dim, size in ds.sizes.items():
        if draw(st.integers(0, 2)) == 0:
            lazy[dim] = _lazy(draw, size)
    return Stored(ds, storage, chunks, tuple(packed), lazy)


# Whatever a file format, or those who wrote the file, can make of an array.

COMPRESSORS = {
    "zarr 3": [
        "auto",
        None,
        [zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")],
        [zarr.codecs.BloscCodec(cname="zstd", clevel=1)],
        [zarr.codecs.ZstdCodec(level=1, checksum=True)],
        [zarr.codecs.GzipCodec(level=1)],
        [zarr.codecs.Crc32cCodec()],
        [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
    ],
    "zarr 2": [
        "auto",
        None,
        [numcodecs.Blosc()],
        [numcodecs.Blosc("zstd", shuffle=numcodecs.Blosc.BITSHUFFLE)],
        [numcodecs.Zstd()],
        [numcodecs.GZip()],
        [numcodecs.Zlib()],
        [numcodecs.LZ4()],
        [numcodecs.BZ2()],
        [numcodecs.LZMA()],
    ],
}
FORMATS = ("zarr 3", "zarr 3", "zarr 3", "zarr 2", "zarr 2", "netcdf4", "h5netcdf", "netcdf3")
ANY_DTYPES = (
    "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16",
    ">f4", ">f8", ">i2", ">i4", ">u2",
)  # fmt: skip
LACKING = {
    "netcdf4": {"f2", "c8", "c16"},
    "h5netcdf": {"f2", "c8", "c16"},
    "netcdf3": {"f2", "c8", "c16", "i8", "u1", "u2", "u4", "u8", ">u2"},
}
PACKINGS = (
    {"dtype": "int16", "scale_factor": 0.25, "add_offset": 3.0, "_FillValue": -9999},
    {"dtype": "int32", "scale_factor": 0.25, "_FillValue": -1},
    {"dtype": "int16", "scale_factor": 0.25, "_Unsigned": "true", "_FillValue": -1},
    {"_FillValue": -999.0},
    {"missing_value": 1e20},
)


@dataclass
class AnyStore(Stored):
    """A dataset in any format, and what is known of the reads of its chunks."""

    encoding: dict[str, dict[str, Any]]
    opener: str
    gone: int
    counts: Counter = field(default_factory=Counter)

    def _stored(self, folder):
        path, kind = folder / "data", self.storage
        chunks = {"dask": {}, "other chunks": "auto"}.get(self.opener)
        if not kind.startswith("zarr"):
            engine = "scipy" if kind == "netcdf3" else kind
            self.ds.to_netcdf(path, engine=engine, encoding=self.encoding)
            return xr.open_dataset(path, engine=engine, chunks=chunks)
        self.ds.to_zarr(path, zarr_format=int(kind[-1]), consolidated=False, encoding=self.encoding)
        rng = np.random.default_rng(self.gone)
        for name in self.ds.data_vars:
            for chunk in sorted(each for each in (path / name).rglob("*") if each.is_file()):
                if not chunk.name.startswith((".", "zarr")) and rng.random() < 0.2 * (
                    self.gone % 3
                ):
                    chunk.unlink()
        if self.opener == "xtorch_data":
            return xtd.open_zarr(path, consolidated=False)
        store = path
        if self.opener == "counted":
            store = CountingStore(zarr.storage.LocalStore(path, read_only=True), self.counts)
        return xr.open_zarr(store, consolidated=False, chunks=chunks)


def _any_values(draw, rng, dtype, shape):
    kind = np.dtype(dtype).kind
    if kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(max(limits.min, -1000), min(limits.max, 1000), shape).astype(dtype)
    if kind == "c":
        return (rng.integers(-99, 99, shape) + 1j * rng.integers(-99, 99, shape)).astype(dtype)
    return _values(draw, rng, dtype, shape)


def _zarr_encoding(draw, kind, dtype, shape):
    chunks = tuple(size for (size,) in _regular(draw, shape))
    found = {"chunks": chunks} if shape else {}
    compressors = draw(st.sampled_from(COMPRESSORS[kind]))
    if compressors != "auto":
        found["compressors"] = compressors
    if kind == "zarr 2":
        if np.dtype(dtype).kind in "iu" and draw(st.integers(0, 3)) == 0:
            found["filters"] = [numcodecs.Delta(dtype)]
        return found
    if shape and draw(st.integers(0, 2)) == 0:
        found["shards"] = tuple(size * draw(st.integers(1, 3)) for size in chunks)
    if np.dtype(dtype).itemsize > 1 and draw(st.integers(0, 4)) == 0:
        found["serializer"] = zarr.codecs.BytesCodec(endian="big")
    if len(shape) > 1 and "shards" not in found and draw(st.integers(0, 4)) == 0:
        order = tuple(draw(st.permutations(range(len(shape)))))
        found["filters"] = [zarr.codecs.TransposeCodec(order=order)]
    return found


def _hdf5_encoding(draw, shape):
    if not shape or draw(st.integers(0, 3)) == 0:
        return {}
    chunks = tuple(size for (size,) in _regular(draw, shape))
    flags = {flag: draw(st.booleans()) for flag in ("zlib", "shuffle", "fletcher32")}
    return {"chunksizes": chunks, **flags}


@st.composite
def any_stores(draw):
    """Random datasets in a random format, opened in a random way and perhaps sliced lazily."""
    kind = draw(st.sampled_from(FORMATS))
    made = draw(stored_datasets(storage="zarr" if kind.startswith("zarr") else "netcdf"))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dtypes = [dtype for dtype in ANY_DTYPES if dtype not in LACKING.get(kind, ())]
    ds, encoding = made.ds.copy(), {}
    for name, variable in made.ds.data_vars.items():
        dtype = draw(st.sampled_from(dtypes))
        if kind in ("netcdf4", "h5netcdf") and dtype.startswith(">"):
            dtype = dtype[1:]
        values = _any_values(draw, rng, dtype, variable.shape)
        ds[name] = (variable.dims, values, {"units": "m"})
        packing = {}
        if dtype in ("f4", "f8") and draw(st.integers(0, 2)) == 0:
            packing = dict(draw(st.sampled_from(PACKINGS)))
        stored = packing.get("dtype", dtype)
        if kind.startswith("zarr"):
            packing |= _zarr_encoding(draw, kind, stored, variable.shape)
        elif kind != "netcdf3":
            packing |= _hdf5_encoding(draw, variable.shape)
        encoding[name] = packing
    openers = ["xarray", "dask", "other chunks"]
    if kind.startswith("zarr"):
        openers += ["xtorch_data", "xtorch_data", "counted", "counted"]
    opener = draw(st.sampled_from(openers))
    return AnyStore(ds, kind, {}, (), made.lazy, encoding, opener, draw(st.integers(0, 99)))


@st.composite
def window_arguments(draw, sizes):
    """Random ``input_dims`` and ``input_overlap`` over dims of the given sizes."""
    some = draw(st.permutations(list(sizes)))[: draw(st.integers(1, len(sizes)))]
    input_dims, input_overlap = {}, {}
    for dim in some:
        size = draw(st.integers(1, sizes[dim]))
        if draw(st.booleans()):
            input_overlap[dim] = draw(st.integers(0, size - 1))
        input_dims[dim] = size
        if size == sizes[dim] and draw(st.booleans()):
            input_dims[dim] = -1
    return input_dims, input_overlap


@st.composite
def cases(draw, stored=None):
    """Random datasets with random windows, batches, order and memory."""
    stored = draw(stored_datasets() if stored is None else stored)
    ds = stored.ds.isel(stored.lazy)
    names = list(ds.data_vars)
    with_dims = [name for name in names if ds[name].ndim]

    inputs = targets = None
    if draw(st.booleans()):
        inputs = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        if not set(inputs) & set(with_dims):
            inputs = [*inputs, with_dims[0]]
        if len(inputs) == 1 and draw(st.booleans()):
            inputs = inputs[0]
        others = [name for name in names if name not in inputs]
        if others and draw(st.booleans()):
            targets = draw(st.sampled_from(others))
            if draw(st.booleans()):
                targets = [targets]

    case = Case(
        stored=stored,
        inputs=inputs,
        targets=targets,
        input_dims={},
        input_overlap={},
        batch_size=1,
        shuffle=draw(st.booleans()),
        drop_last=draw(st.integers(0, 4)) == 0,
        seed=draw(st.integers(0, 2**31)),
        memory=None,
    )
    sizes = {dim: ds.sizes[dim] for dim in used_dims(ds, case.names(ds))}
    case.input_dims, case.input_overlap = draw(window_arguments(sizes))

    total = 1
    for dim, size in sizes.items():
        window = case.input_dims.get(dim, 1)
        window = size if window == -1 else window
        total *= (size - window) // (window - case.input_overlap.get(dim, 0)) + 1
    case.memory = draw(st.sampled_from(MEMORIES[0 if total <= MAX_SAMPLES_ALONE else 3 :]))
    # At most 12 batches an epoch, so that an example stays quick.
    case.batch_size = max(draw(st.integers(1, total + 2)), -(-total // 12), 1)
    return case
