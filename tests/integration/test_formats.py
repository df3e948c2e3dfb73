"""Every format that xarray opens: the same batches, no chunk read for nothing, the way it is told.

A piece of a real climate model run is written in each of them, by the tools of the field. How each
is read must be what docs/how-to/formats.md says.
"""

import contextlib
import functools
import itertools
import json
import math
import pickle
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import fsspec.implementations.reference
import iris_sample_data
import numpy as np
import pytest
import torch.utils.data
import xarray as xr
import zarr
from helpers import assert_once
from xarray.backends import h5netcdf_, netCDF4_

import xtorch_data as xtd
from xtorch_data.reading import recycled
from xtorch_data.sources import engines

cfgrib_plugin = pytest.importorskip("cfgrib.xarray_plugin")
eccodes = pytest.importorskip("eccodes")
icechunk = pytest.importorskip("icechunk")
kerchunk_combine = pytest.importorskip("kerchunk.combine")
kerchunk_hdf = pytest.importorskip("kerchunk.hdf")
obspec_registry = pytest.importorskip("obspec_utils.registry")
obstore_store = pytest.importorskip("obstore.store")
virtualizarr = pytest.importorskip("virtualizarr")
parsers = pytest.importorskip("virtualizarr.parsers")

REAL = Path(iris_sample_data.path)
TABLE = Path(__file__).parents[2] / "docs" / "how-to" / "formats.md"
STEPS, Y, X = 60, 6, 8
CHUNK = 8  # steps; the last chunk holds 4
WINDOW = {"time": 6, "latitude": -1, "longitude": -1}
OVERLAP = {"time": 5}
DIMS = ("time", "latitude", "longitude")
WHOLE = (CHUNK, Y, X)  # a chunk
V3 = {"zarr_format": 3, "consolidated": False}
LAZY = {"chunks": None, "consolidated": False}
# What of the table each way of `stats().paths` is.
WAYS = {
    "directly": "read directly",
    "by zarr": "read by zarr",
    "by its backend": "read by its backend",
    "by dask": "computed by dask",
}


@functools.cache
def real():
    """A piece of the run, in memory, with its 360-day calendar."""
    with xr.open_dataset(REAL / "A1B_north_america.nc") as ds:
        piece = ds[["air_temperature"]].isel(
            time=slice(STEPS), latitude=slice(Y), longitude=slice(X)
        )
        piece = piece.reset_coords(drop=True).rename(air_temperature="t").load()
    piece = piece.drop_encoding()
    piece["time"].encoding = {"units": "days since 1850-01-01", "dtype": "int32"}
    return piece


def write_parts(folder, **encoding):
    """Two files, as files of years are, each of which ends inside a chunk."""
    paths = []
    for number, part in enumerate((slice(0, 28), slice(28, STEPS))):
        paths.append(folder / f"part{number}.nc")
        real().isel(time=part).to_netcdf(paths[-1], encoding={"t": encoding})
    return paths


def write_grib(path, ds):
    """A message for every step, as a weather service has them; packed to 16 bits."""
    lat, lon = ds["latitude"].values.astype(float), ds["longitude"].values.astype(float)
    keys = {
        "Ni": len(lon),
        "Nj": len(lat),
        "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": lat[0],
        "latitudeOfLastGridPointInDegrees": lat[-1],
        "longitudeOfFirstGridPointInDegrees": lon[0],
        "longitudeOfLastGridPointInDegrees": lon[-1],
        "iDirectionIncrementInDegrees": lon[1] - lon[0],
        "jDirectionIncrementInDegrees": lat[1] - lat[0],
        "shortName": "2t",
        "bitsPerValue": 16,
    }
    with open(path, "wb") as file:
        for step in range(ds.sizes["time"]):
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            for key, value in keys.items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set(message, "dataDate", 20200101 + step // 4)
            eccodes.codes_set(message, "dataTime", step % 4 * 600)
            eccodes.codes_set_values(message, ds["t"].values[step].astype(float).ravel())
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)


def virtual(path):
    """The chunks of a NetCDF-4 file, as VirtualiZarr refers to them."""
    registry = obspec_registry.ObjectStoreRegistry({"file://": obstore_store.LocalStore()})
    parser = parsers.HDFParser()
    return virtualizarr.open_virtual_dataset(
        f"file://{path}", registry=registry, parser=parser, loadable_variables=list(DIMS)
    )


def icechunk_session(folder, config=None, **access):
    repository = icechunk.Repository.open_or_create(
        icechunk.local_filesystem_storage(str(folder)),
        config=config,
        authorize_virtual_chunk_access=icechunk.containers_credentials(access) if access else None,
    )
    return repository


def written(kind, folder):
    """Write the data in a format; gives what opens it."""
    ds, path = real(), folder / kind
    zarr_encoding = {"t": {"chunks": WHOLE}}
    netcdf_encoding = {"chunksizes": WHOLE, "zlib": True, "shuffle": True}
    if kind == "zarr 2":
        ds.to_zarr(path, zarr_format=2, encoding=zarr_encoding)
        return lambda: xtd.open_zarr(path)
    if kind == "zarr 3":
        ds.to_zarr(path, encoding=zarr_encoding, **V3)
        return lambda: xtd.open_zarr(path, consolidated=False)
    if kind == "shards":
        ds.to_zarr(path, encoding={"t": {"chunks": (4, Y, X), "shards": (12, Y, X)}}, **V3)
        return lambda: xtd.open_zarr(path, consolidated=False)
    if kind == "shards by xarray":
        ds.to_zarr(path, encoding={"t": {"chunks": (4, Y, X), "shards": (12, Y, X)}}, **V3)
        return lambda: xr.open_zarr(path, **LAZY)
    if kind == "far shards":
        ds.to_zarr(path, encoding={"t": {"chunks": (4, Y, X), "shards": (12, Y, X)}}, **V3)
        store = zarr.storage.ObjectStore(obstore_store.LocalStore(path))
        return lambda: xtd.open_zarr(store, consolidated=False)
    if kind == "group":
        ds.to_zarr(path, group="runs/first", encoding=zarr_encoding, **V3)
        return lambda: xtd.open_zarr(path, group="runs/first", consolidated=False)
    if kind == "tree":
        ds.to_zarr(path, group="runs/first", encoding=zarr_encoding, **V3)
        return lambda: xr.open_datatree(path, engine="zarr", **LAZY)["runs/first"]
    if kind == "zarr.Group":
        ds.to_zarr(path, group="runs/first", encoding=zarr_encoding, **V3)
        return lambda: zarr.open_group(path, mode="r")["runs/first"]
    if kind == "zarr.Array":
        ds.to_zarr(path, encoding=zarr_encoding, **V3)
        return lambda: zarr.open_group(path, mode="r")["t"]
    if kind == "zarr by dask":
        ds.to_zarr(path, encoding=zarr_encoding, **V3)
        return lambda: xr.open_zarr(path, consolidated=False)
    if kind == "icechunk":
        repository = icechunk_session(path)
        session = repository.writable_session("main")
        ds.to_zarr(session.store, encoding=zarr_encoding, **V3)
        session.commit("the run")
        return lambda: xtd.open_zarr(repository.readonly_session("main").store, consolidated=False)
    if kind == "virtual icechunk":
        url = f"file://{folder}/"
        config = icechunk.RepositoryConfig.default()
        config.set_virtual_chunk_container(
            icechunk.VirtualChunkContainer(url, icechunk.local_filesystem_store(str(folder)))
        )
        repository = icechunk_session(path, config, **{url: None})
        session = repository.writable_session("main")
        ds.to_netcdf(folder / "one.nc", encoding={"t": netcdf_encoding})
        virtual(folder / "one.nc").vz.to_icechunk(session.store)
        session.commit("references")
        return lambda: xtd.open_zarr(repository.readonly_session("main").store, consolidated=False)
    if kind.startswith("netcdf4"):
        ds.to_netcdf(path, encoding={"t": netcdf_encoding})
        return lambda: xr.open_dataset(path, engine=kind.split()[-1])
    if kind == "contiguous":
        ds.to_netcdf(path, encoding={"t": {"contiguous": True}})
        return lambda: xr.open_dataset(path, engine="h5netcdf")
    if kind == "netcdf3":
        ds.to_netcdf(path, engine="scipy", unlimited_dims="time")
        return lambda: xr.open_dataset(path, engine="scipy")
    if kind == "many files":
        paths = write_parts(folder, **netcdf_encoding)
        return lambda: xr.open_mfdataset(paths, engine="h5netcdf")
    if kind in ("references", "references by dask"):
        # One file of references for both; what is combined must have whole chunks.
        parts = [folder / "whole0.nc", folder / "whole1.nc"]
        for part, steps in zip(parts, (slice(0, 32), slice(32, STEPS)), strict=True):
            ds.isel(time=steps).to_netcdf(part, encoding={"t": netcdf_encoding})
        found = [kerchunk_hdf.SingleHdf5ToZarr(str(part)).translate() for part in parts]
        combined = kerchunk_combine.MultiZarrToZarr(
            found, concat_dims=["time"], identical_dims=["latitude", "longitude"]
        )
        path.with_suffix(".json").write_text(json.dumps(combined.translate()))
        source = str(path.with_suffix(".json"))
        if kind == "references":
            options = {"storage_options": {"fo": source}, "consolidated": False}
            return lambda: xtd.open_zarr("reference://", **options)
        return lambda: xr.open_dataset(source, engine="kerchunk")
    if kind == "virtualizarr":
        ds.to_netcdf(folder / "two.nc", encoding={"t": netcdf_encoding})
        source = str(path.with_suffix(".json"))
        virtual(folder / "two.nc").vz.to_kerchunk(source, format="json")
        options = {"storage_options": {"fo": source}, "consolidated": False}
        return lambda: xtd.open_zarr("reference://", **options)
    if kind == "grib":
        write_grib(path, ds)
        return lambda: xr.open_dataset(path, engine="cfgrib").rename(t2m="t")
    if kind == "npy":
        np.save(path.with_suffix(".npy"), ds["t"].values)
        options = {"engine": "npy", "dims": DIMS, "name": "t"}
        return lambda: xr.open_dataset(path.with_suffix(".npy"), **options)
    if kind == "memmap":
        np.save(path.with_suffix(".npy"), ds["t"].values)
        mapped = np.load(path.with_suffix(".npy"), mmap_mode="r")
        return lambda: xr.Dataset({"t": (DIMS, mapped)})
    assert kind == "memory"
    return lambda: ds


@dataclass(frozen=True)
class Format:
    """A format, and what is told of it.

    `row` is its row in the table of the docs; `chunk` the chunk that the planner must find.
    """

    row: str
    way: str
    chunk: tuple[int, int, int] = WHOLE


SLICES = (1, 1, 1)  # any slice for its own cost
FORMATS = {
    "zarr 2": Format("Zarr v2", "directly"),
    "zarr 3": Format("Zarr v3", "directly"),
    "shards": Format("Zarr v3 with shards, in a local folder", "directly", (4, Y, X)),
    "shards by xarray": Format("Zarr v3 with shards, in a local folder", "directly", (4, Y, X)),
    "far shards": Format("Zarr v3 with shards, in an object store", "directly", (4, Y, X)),
    "group": Format("a group of a Zarr store", "directly"),
    "tree": Format("a node of a `DataTree`", "directly"),
    "zarr.Group": Format("`zarr.Array`, `zarr.Group`", "directly"),
    "zarr.Array": Format("`zarr.Array`, `zarr.Group`", "directly"),
    "zarr by dask": Format("Zarr through dask", "by dask"),
    "icechunk": Format("Icechunk", "directly"),
    "virtual icechunk": Format("Icechunk with virtual chunks", "directly"),
    "netcdf4 by h5netcdf": Format("NetCDF-4, HDF5", "by its backend"),
    "netcdf4 by netcdf4": Format("NetCDF-4, HDF5", "by its backend"),
    "contiguous": Format("NetCDF-4, HDF5, not chunked", "by its backend", SLICES),
    "netcdf3": Format("NetCDF-3", "by its backend", SLICES),
    "many files": Format("many files", "by dask"),
    "references": Format("references of kerchunk or VirtualiZarr", "directly"),
    "virtualizarr": Format("references of kerchunk or VirtualiZarr", "directly"),
    "references by dask": Format('references by `engine="kerchunk"`', "by dask"),
    "grib": Format("GRIB", "by its backend", (1, Y, X)),
    "npy": Format("`.npy`", "by its backend", SLICES),
    "memmap": Format("a memory map, in memory", "from memory", SLICES),
    "memory": Format("a memory map, in memory", "from memory", SLICES),
}
# tests/test_remote.py counts ranges; memory is not read.
UNCOUNTED = {"far shards", "memmap", "memory"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Open the data in a format, written once."""
    openers = {}

    def open_format(kind):
        if kind not in openers:
            with warnings.catch_warnings():
                # That codecs of numcodecs are not in the specification of Zarr v3.
                warnings.simplefilter("ignore")
                openers[kind] = written(kind, tmp_path_factory.mktemp("format"))
        with quiet():
            return openers[kind]()

    yield open_format
    openers.clear()


@contextlib.contextmanager
def quiet():
    """What zarr says of HDF5's codecs each time it reads their metadata."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        yield


def plain(data):
    """All values, as xarray decodes them."""
    if isinstance(data, zarr.Array):
        return xr.DataArray(data[...], dims=DIMS)
    if isinstance(data, zarr.Group):
        data = xr.open_zarr(data.store, group=data.path, **LAZY)
    return xr.DataArray(data["t"].values, dims=DIMS)


def dataset_of(data, **options):
    inputs = {} if isinstance(data, zarr.Array) else {"inputs": "t"}
    return xtd.IterableDataset(data, WINDOW, OVERLAP, batch_size=7, **inputs, **options)


def assert_equal_to_isel(dataset, expected):
    """Each sample once, with the values that plain `isel` has."""
    numbers = []
    for batch in dataset:
        for number, values in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
            wanted = expected.isel(dataset.windows[number]).values.astype("f4")
            np.testing.assert_array_equal(values, wanted)
            numbers.append(number)
    assert_once(numbers, STEPS - WINDOW["time"] + 1)


# Counting what is asked of files, below all that is ours.


class Reads:
    """How often each chunk is read."""

    def __init__(self, chunk):
        self.chunk = chunk
        self.counts = Counter()

    def key(self, file, key, shape):
        """Note what a backend is asked for; an array of a backend is read by chunks of its own."""
        touched = [
            np.unique(np.arange(size)[place] // step).tolist()
            for place, size, step in zip(key, shape, self.chunk, strict=True)
        ]
        self.counts.update((file, *numbers) for numbers in itertools.product(*touched))

    def path(self, path):
        """Note that a store is asked for a key, if it is that of a chunk."""
        if found := re.search(r"(?:^|/)t/(c/[\d/]+|[\d.]+)$", path):
            self.counts[found[1]] += 1


@pytest.fixture
def counted(monkeypatch):
    """Count reads of an array called ``t``."""

    def of_keys(reads, kind, name, file):
        before = getattr(kind, name)

        def after(self, key):
            if len(self.shape) == len(DIMS):
                reads.key(file(self), getattr(key, "tuple", key), self.shape)
            return before(self, key)

        monkeypatch.setattr(kind, name, after)

    def of_paths(reads, kind, name):
        before = getattr(kind, name)

        async def after(self, path, *args, **kwargs):
            reads.path(path)
            return await before(self, path, *args, **kwargs)

        monkeypatch.setattr(kind, name, after)

    def of_shards(reads):
        from xtorch_data.reading import zarr_chunks as direct

        class FileIO(direct.io.FileIO):
            def readinto(self, memory):
                begin, read = self.tell(), super().readinto(memory)
                if "/t/c/" in str(self.name):
                    index = np.frombuffer(Path(self.name).read_bytes()[-4 - 3 * 16 : -4], "<u8")
                    starts = [int(start) for start in index[::2] if begin <= start < begin + read]
                    reads.counts.update((self.name, start) for start in starts)
                return read

        monkeypatch.setattr(direct.io, "FileIO", FileIO)

    def of_files(reads):
        from xtorch_data.reading import zarr_chunks as direct

        class FileIO(direct.io.FileIO):
            def __init__(self, path, *args):
                reads.path(str(path))
                super().__init__(path, *args)

        monkeypatch.setattr(direct.io, "FileIO", FileIO)

    def start(kind):
        reads = Reads(FORMATS[kind].chunk)
        of_keys(reads, h5netcdf_.H5NetCDFArrayWrapper, "_getitem", lambda a: a.datastore._filename)
        of_keys(reads, netCDF4_.NetCDF4ArrayWrapper, "_getitem", lambda a: a.datastore._filename)
        of_keys(reads, recycled._NetCDF3Array, "read", lambda a: "")
        of_keys(reads, cfgrib_plugin.CfGribArrayWrapper, "_getitem", lambda a: "")
        of_keys(reads, engines._NpyArray, "read", lambda a: "")
        references = fsspec.implementations.reference.ReferenceFileSystem
        of_paths(reads, references, "_cat_file")
        of_paths(reads, icechunk.IcechunkStore, "get")
        if kind in ("shards", "shards by xarray"):
            of_shards(reads)
        elif FORMATS[kind].way == "by dask":
            of_paths(reads, zarr.storage.LocalStore, "get")
        else:
            of_files(reads)
        return reads

    return start


# The promises.


@pytest.mark.parametrize("kind", FORMATS)
def test_batches_are_those_of_isel_and_chunks_are_read_as_planned(opened, kind, counted):
    form, data = FORMATS[kind], opened(kind)
    expected, reads = plain(opened(kind)), counted(kind)
    # Little memory, so that blocks end inside the data and chunks at their ends are read again.
    dataset = dataset_of(data, shuffle=True, seed=1, memory="20 kB")
    explanation = dataset.explain()
    reads.counts.clear()
    assert_equal_to_isel(dataset, expected)
    assert len(dataset.plan.grid) > 1
    if kind not in UNCOUNTED:
        if explanation.variables[0].chunks:
            assert reads.counts.total() == explanation.chunk_reads
        else:  # nothing is in chunks: what is read is counted value by value
            assert explanation.chunk_reads == 0
            assert reads.counts.total() * data["t"].dtype.itemsize == explanation.nbytes
        assert 1 <= max(reads.counts.values()) <= 2
    assert_as_documented(dataset, form, data)

    dataset = dataset_of(data)
    reads.counts.clear()
    for _ in dataset:
        pass
    if kind not in UNCOUNTED | {"many files"}:  # where a file ends, so does a chunk
        assert set(reads.counts.values()) == {1}
        sizes = zip((STEPS, Y, X), form.chunk, strict=True)
        assert len(reads.counts) == math.prod(-(-size // step) for size, step in sizes)


def rows():
    """The first table of the docs, of five columns: the cells of each row by its first."""
    lines = re.findall(r"^\| (.+) \|$", TABLE.read_text(), re.MULTILINE)
    found = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return {first: others for first, *others in found if len(others) == 4}


def assert_as_documented(dataset, form, data):
    """How it was read, and by what chunks, is what the docs say."""
    _, read, _, source = rows()[form.row]
    [variable] = dataset.explain().variables
    ways = [way for way in dataset.stats().paths if way.split()[0] in ("read", "computed")]
    assert read.split(",")[0] == variable.path == form.way
    assert ways == ([WAYS[form.way]] if form.way in WAYS else [])
    if form.way != "from memory":
        assert tuple(variable.chunks.values()) == (() if form.chunk == SLICES else form.chunk)
    if isinstance(data, (zarr.Array, zarr.Group)):
        return
    found = {
        "dask": dataset._inside.definition.data["t"].chunks is not None,
        "`chunks`": bool(data["t"].encoding.get("chunks")),
        "`chunksizes`": bool(data["t"].encoding.get("chunksizes")),
    }
    assert source == next((each for each in found if found[each]), source)
    assert source in found or source in ("none", "messages") and not any(found.values())


@pytest.mark.parametrize("kind", FORMATS)
def test_it_goes_to_another_process(opened, kind):
    with quiet():
        dataset = pickle.loads(pickle.dumps(dataset_of(opened(kind), shuffle=True, memory="20 kB")))
        assert_equal_to_isel(dataset, plain(opened(kind)))


@pytest.mark.parametrize(
    "kind",
    [
        "shards",
        "far shards",
        "references",
        "references by dask",
        "many files",
        "grib",
        "icechunk",
    ],
)
def test_a_forked_worker_reads_it_or_says_why_not(opened, kind):
    """After this process has read it: the threads of every library run."""
    _, _, forked, *_ = rows()[FORMATS[kind].row]
    dataset = dataset_of(opened(kind), shuffle=True, memory="20 kB")
    next(iter(dataset))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    if forked.startswith("no"):
        with pytest.raises(RuntimeError, match="forkserver"):
            list(loader)
    else:
        assert forked.startswith("yes")
        loader.windows = dataset.windows
        assert_equal_to_isel(loader, plain(opened(kind)))


@pytest.mark.slow
def test_a_worker_of_ours_reads_icechunk(opened):
    dataset = dataset_of(opened("icechunk"), shuffle=True)
    loader = xtd.DataLoader(dataset, num_workers=1)
    loader.windows = dataset.windows
    assert_equal_to_isel(loader, plain(opened("icechunk")))


# Single formats.


def test_a_node_of_a_tree_is_data_with_the_coordinates_it_inherits():
    ds = real()
    alone = ds.drop_vars(ds.coords)
    twice = alone.assign(t=(DIMS, 2 * ds["t"].values))
    tree = xr.DataTree.from_dict(
        {"/": ds.coords.to_dataset(), "/runs/first": alone, "/runs/second": twice}
    )
    for node, factor in (("first", 1), ("second", 2)):
        dataset = xtd.IterableDataset(tree["runs"][node], WINDOW, OVERLAP, inputs="t")
        [values] = next(iter(dataset)).x[:1].numpy()
        np.testing.assert_array_equal(values, factor * ds["t"].values[:6])
        assert list(dataset.windows.coords(0)["time"].values) == list(ds["time"].values[:6])


def test_a_node_without_data_names_those_that_have_it():
    ds = real()
    tree = xr.DataTree.from_dict({"/runs/first": ds, "/runs/second": ds})
    nodes = r"tree\['/runs/first'\]: \['/runs/first', '/runs/second'\]"
    for node in (tree, tree["runs"]):
        with pytest.raises(ValueError, match=rf"no data variables; .*{nodes}"):
            xtd.IterableDataset(node, {"time": 3})
    with pytest.raises(ValueError, match="no data variables; nor has any"):
        xtd.IterableDataset(xr.DataTree(), {"time": 3})


@pytest.mark.parametrize("name", ["polar_stereo.grib2", "space_weather.nc"])
def test_real_files_of_other_formats(name):
    """A GRIB message on a polar grid, and NetCDF-3."""
    options = {"backend_kwargs": {"indexpath": ""}} if name.endswith("grib2") else {}
    ds = xr.open_dataset(REAL / name, **options)
    name, dims = next((n, v.dims) for n, v in ds.data_vars.items() if v.dtype.kind == "f")
    sizes = {dim: max(1, ds.sizes[dim] // 3) for dim in dims}
    # Where the steps between heights become longer, there is a break.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "labels along 'height' are mostly")
        dataset = xtd.IterableDataset(ds, sizes, inputs=name, batch_size=2, shuffle=True)
    read = ds[name].compute()
    numbers = []
    for batch in dataset:
        for number, values in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
            wanted = read.isel(dataset.windows[number]).values.astype("f4")
            np.testing.assert_array_equal(values, wanted)
            numbers.append(number)
    assert_once(numbers, len(dataset.windows))
    ds.close()


def test_patches_of_grib_decode_each_message_once(opened, counted):
    """A part of a field takes the whole message: patches of a step are read together."""
    data, reads = opened("grib"), counted("grib")
    patch = {"latitude": 2, "longitude": 2}
    dataset = xtd.IterableDataset(data, patch, inputs="t", batch_size=16, shuffle=True)
    for _ in dataset:
        pass
    assert reads.counts.total() == STEPS
