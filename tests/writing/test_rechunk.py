"""rechunk and the warning that suggests it, against the source itself and counted reads."""

import itertools
import pickle
import traceback
import tracemalloc
import warnings

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
from rechunk_data import SIZES, WINDOWS, dataset_over, fields
from xarray.backends import BackendArray
from xarray.core import indexing

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED
from xtorch_data.writing import rechunk as rechunking
from xtorch_data.writing.zarr_target import Target


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of a chunk for each step."""
    path = tmp_path_factory.mktemp("source") / "fields.zarr"
    ds = fields()
    chunks = {
        name: {**each.encoding, "chunks": (1, *each.shape[1:])}
        for name, each in ds.variables.items()
        if each.ndim == 3
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Zarr V3 specification")
        ds.to_zarr(path, encoding=chunks, consolidated=False, zarr_format=2)
    return path


@pytest.fixture(scope="module")
def source(path):
    return xr.open_zarr(path, chunks=None, consolidated=False)


# The copy.


@pytest.mark.parametrize("opened", ["lazily", "by dask", "in memory"])
def test_the_copy_is_the_source(source, opened, tmp_path):
    ds = {"lazily": source, "by dask": source.chunk(time=40), "in memory": source.compute()}[opened]
    copy = xtd.rechunk(ds, dataset_over(source), tmp_path / "copy.zarr", memory="4 MiB")
    xr.testing.assert_identical(copy.compute(), source.compute())
    for name, variable in source.variables.items():
        stored, before = copy.variables[name].encoding, variable.encoding
        for key in ("scale_factor", "add_offset", "_FillValue", "calendar"):
            np.testing.assert_equal(stored.get(key), before.get(key), f"{name} {key}")
        if name != "name":  # text, of any length
            one, other = (np.dtype(each["dtype"]) for each in (stored, before))
            assert one.newbyteorder("=") == other.newbyteorder("=")
    group = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert set(group) == set(source.variables)  # nothing is left of the record
    assert dict(group.attrs) == source.attrs


def odd(steps, folder):
    """Data of unusual byte orders, chunks, dtypes and encodings."""
    irregular = ((steps // 4, steps // 4 + 3, 1, steps - 2 * (steps // 4) - 4), 2)
    values = np.arange(2.0 * steps).reshape(steps, 2)
    dims = ("t", "x")

    def graph(dtype):
        return dims, dask.array.from_array(values.astype(dtype), chunks=irregular)

    packed = {"dtype": "int16", "_FillValue": -32768}
    half, tenth = np.float32(0.5), np.float32(0.1)
    nc = xr.Dataset({name: (dims, (100 + 0.5 * (values % 9)).astype("f4")) for name in "pqr"})
    nc["p"][2] = nc["q"][2] = np.nan
    encoding = {
        "p": packed | {"scale_factor": half, "add_offset": np.float32(1000)},
        "q": packed | {"scale_factor": tenth, "add_offset": np.float32(273.15)},
        "r": {"dtype": ">f4", "zlib": True, "chunksizes": (7, 1), "shuffle": True},
    }
    nc.to_netcdf(folder / f"{steps}.nc", encoding=encoding)
    nc = xr.open_dataset(folder / f"{steps}.nc")
    return xr.Dataset(
        {
            "big": graph(">f4"),
            "little": graph("<i4"),
            "whole": (dims, values.astype(">u4")),
            "fortran": (dims, np.asfortranarray(values)),
            "masked": (dims, values.astype("i4"), {}, {"_FillValue": -1}),
            "widened": (dims, values.astype("f4"), {}, {"dtype": "float64"}),
            "left": (dims, values, {}, {"chunks": (3, 1), "preferred_chunks": {"t": 3, "x": 1}}),
            "when": (dims, dask.array.from_array(values.astype("M8[ns]"), chunks=irregular)),
            "wait": (dims, values.astype("m8[ns]")),
            "bytes": ("t", dask.array.from_array(values[:, 0].astype("S9"), chunks=irregular[:1])),
            "none": (("t", "z"), np.empty((steps, 0))),
            "few": (("z2", "x"), np.ones((3, 2), ">f2")),
            **nc.chunk(t=irregular[0]),
            "lazy": nc["p"],
        },
        coords={
            "t": xr.date_range("2000", periods=steps, freq="h", calendar="noleap", use_cftime=True),
            "name": ("t", dask.array.from_array(values[:, 1].astype("U9"), chunks=irregular[:1])),
            "lat": graph(">f8"),
            "ref": np.datetime64("2000-01-01", "ns"),
            "on": ((), True),
        },
    )


@pytest.mark.parametrize("steps", [24, 9_000])  # written as a whole, and in regions
def test_odd_data_keeps_its_values(steps, tmp_path):
    ds = odd(steps, tmp_path)
    dataset = xtd.IterableDataset(ds, {"t": 3, "x": -1}, inputs=["big"])
    copy = xtd.rechunk(ds, dataset, tmp_path / "copy.zarr").compute()
    assert set(copy.coords) == set(ds.coords)
    for name, expected in ds.compute().variables.items():
        found = copy.variables[name]
        assert found.dims == expected.dims
        np.testing.assert_array_equal(found.values.tolist(), expected.values.tolist(), name)
    # Packed where the factors, of which Zarr makes float64, give the same values; else unpacked.
    stored = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    assert [stored[name].dtype for name in ("p", "lazy", "q")] == ["int16", "int16", "float32"]
    assert copy["q"].dtype == "float32"


def test_an_array_comes_back_as_an_array(source, tmp_path):
    array = source["t2m"].drop_vars("angle")
    dataset = xtd.MapDataset(array, **WINDOWS)
    copy = xtd.rechunk(array, dataset, tmp_path / "copy.zarr")
    assert isinstance(copy, xr.DataArray)
    xr.testing.assert_identical(copy.compute(), array.compute())


def test_chunks_shards_and_encoding_may_be_given(source, tmp_path):
    level = zarr.codecs.ZstdCodec(level=5)
    copy = xtd.rechunk(
        source,
        dataset_over(source),
        tmp_path / "copy.zarr",
        chunks={"time": 60, "y": 5},
        shards={"time": 120},
        encoding={"t2m": {"compressors": (level,)}},
    )
    for name in ("t2m", "packed", "angle"):
        assert copy[name].encoding["chunks"][:2] == (60, 5)
        assert copy[name].encoding["shards"][:2] == (120, 5)
    assert copy["t2m"].encoding["compressors"] == (level,)
    xr.testing.assert_identical(copy.compute(), source.compute())


def test_very_many_chunks_are_put_into_shards(source, tmp_path, monkeypatch):
    monkeypatch.setattr("xtorch_data.planning.chunk_fitting.MANY_FILES", 10)
    ds = source[["t2m"]]
    copy = xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr", memory="8 MiB")
    files = [each for each in (tmp_path / "copy.zarr" / "t2m").rglob("*") if each.is_file()]
    assert len(files) <= 10 + 1  # and their metadata
    xr.testing.assert_identical(copy.compute(), ds.compute())
    plain = xtd.rechunk(ds, dataset_over(ds), tmp_path / "plain.zarr", shards=False)
    assert plain["t2m"].encoding["shards"] is None


def test_it_goes_to_any_store_of_zarr(source, tmp_path):
    ds = source[["t2m", "orography"]]
    store = zarr.storage.MemoryStore()
    copy = xtd.rechunk(ds, dataset_over(ds), store)
    xr.testing.assert_identical(copy.compute(), ds.compute())
    url = "memory://rechunk/copy.zarr"
    copy = xtd.rechunk(ds, dataset_over(ds), url)
    xr.testing.assert_identical(copy.compute(), ds.compute())
    with pytest.raises(FileExistsError):
        xtd.rechunk(ds, dataset_over(ds), url)


def test_values_opened_without_decoding_stay_as_they_are(path, source, tmp_path):
    raw = xr.open_zarr(path, chunks=None, consolidated=False, mask_and_scale=False)
    xtd.rechunk(raw[["packed"]], dataset_over(source), tmp_path / "copy.zarr")
    again = xr.open_zarr(tmp_path / "copy.zarr", chunks=None, mask_and_scale=False)
    xr.testing.assert_identical(again.compute(), raw[["packed"]].compute())


class Secretive(zarr.storage.MemoryStore):
    """Fails with an error that has a secret in it, as its address has."""

    failing = False

    def __str__(self):
        return "memory://me:geheim@host/x.zarr?sig=geheim"

    async def get(self, key, *args, **kwargs):
        if self.failing and "/c/" in key:
            raise Composing(f"no answer from {self}")
        return await super().get(key, *args, **kwargs)


class Composing(Exception):
    """Makes its message of what it holds, so that it cannot be changed."""

    def __init__(self, url):
        self.url = url

    def __str__(self):
        return self.url


@pytest.mark.parametrize("steps", [4, 2000])  # written as a whole, and in regions
def test_errors_show_no_secrets(steps, monkeypatch):
    ds, store = xr.Dataset({"a": (("time", "x"), np.ones((steps, 8)))}), Secretive()
    ds.to_zarr(store, consolidated=False)
    dataset = xtd.IterableDataset(ds, input_dims={"time": 4})
    for failing, data, error in [(False, ds, FileExistsError), (True, None, Exception)]:
        monkeypatch.setattr(Secretive, "failing", failing)  # opened, it is another
        data = xr.open_zarr(store, chunks=None, consolidated=False) if data is None else data
        with pytest.raises(error) as caught:
            xtd.rechunk(data, dataset, {} if failing else store)
        printed = "".join(traceback.format_exception(caught.value))
        assert "geheim" not in printed and "***" in printed


# What is read, and how often.


class CountedArray(BackendArray):
    """An array in chunks, which counts how often each is read."""

    def __init__(self, values, chunks, reads):
        self.values, self.chunks, self.reads = values, chunks, reads
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self.read
        )

    def read(self, key):
        ranges = [range(length)[part] for length, part in zip(self.shape, key, strict=True)]
        touched = [
            range(each[0] // size, each[-1] // size + 1)
            for each, size in zip(ranges, self.chunks, strict=True)
        ]
        for chunk in itertools.product(*touched):
            self.reads[chunk] = self.reads.get(chunk, 0) + 1
        return self.values[key]


def counted(chunks, sizes=SIZES):
    values = np.random.default_rng(0).normal(size=tuple(sizes.values())).astype("float32")
    reads = {}
    lazy = indexing.LazilyIndexedArray(CountedArray(values, chunks, reads))
    variable = xr.Variable(tuple(sizes), lazy, encoding={"chunks": chunks})
    variable.encoding["preferred_chunks"] = dict(zip(sizes, chunks, strict=True))
    return xr.Dataset({"t2m": variable}), reads


def test_each_chunk_is_read_once_if_memory_allows(tmp_path):
    ds, reads = counted((1, 12, 20))
    xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr", memory="16 MiB")
    assert set(reads.values()) == {1}
    assert len(reads) == SIZES["time"]


def test_less_memory_reads_more_and_takes_no_more(tmp_path):
    sizes = {"time": 400, "y": 100, "x": 100}  # 16 MB
    ds, reads = counted((1, 100, 100), sizes)
    dataset = dataset_over(ds, memory="16 MiB")
    options = {"memory": "3 MiB", "chunks": {"time": 400}}
    xtd.rechunk(ds, dataset, tmp_path / "first.zarr", **options)  # what is imported on the way
    reads.clear()
    tracemalloc.start()
    xtd.rechunk(ds, dataset, tmp_path / "copy.zarr", **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20  # zarr copies what it writes; all of the data is 16 MB
    # A third of the memory is a region, which has all steps of some places.
    assert max(reads.values()) <= -(-16 * 10**6 // (3 * 2**20 // 6))


def test_an_epoch_of_the_copy_reads_what_was_promised(tmp_path):
    ds, before = counted((1, 12, 20))
    dataset = dataset_over(ds, memory="96 KiB")
    promised = next(each for each in dataset.explain().advice if "xtorch_data.rechunk" in each)
    for _ in dataset:
        pass
    assert sum(before.values()) / SIZES["time"] > 3  # times each chunk is read
    copy = xtd.rechunk(ds, dataset, tmp_path / "copy.zarr", memory="16 MiB")
    again, reads = counted(copy["t2m"].encoding["chunks"])
    for _ in dataset_over(again, memory="96 KiB"):
        pass
    decoded = sum(reads.values()) * np.prod(copy["t2m"].encoding["chunks"])
    used = np.prod(list(SIZES.values()))
    assert decoded / used <= 1.3
    times = float(promised.rsplit(", ", 1)[1].removesuffix(" times"))
    assert times <= 1.3


# Interrupted, and gone on with.


@pytest.mark.parametrize("kind", ["zarr", "dask", "by hand", "netcdf", "memory"])
def test_a_copy_goes_on_with_the_same_values_alone(kind, tmp_path, monkeypatch):
    arrays = {}

    def opened(value):
        """Data of the same shape, dtype, attributes and place."""
        ds = xr.Dataset({"t": (("time", "x"), np.full((400, 200), value, "f4"))})
        if kind == "netcdf":
            if value not in arrays:
                ds.to_netcdf(tmp_path / "a.nc")
            return xr.open_dataset(tmp_path / "a.nc")
        if kind in ("zarr", "dask"):
            if value not in arrays:
                encoding = {"t": {"chunks": (100, 200)}}
                ds.to_zarr(tmp_path / "a.zarr", mode="w", encoding=encoding, consolidated=False)
            chunks = {} if kind == "dask" else None
            return xr.open_zarr(tmp_path / "a.zarr", chunks=chunks, consolidated=False)
        if kind == "by hand":  # whose name tells nothing
            array = dask.array.from_array(ds["t"].values, chunks=(100, 200), name="mine")
            return xr.Dataset({"t": (("time", "x"), array)})
        return ds

    def copy(value):
        ds = opened(value)
        arrays[value] = ds
        dataset = xtd.IterableDataset(ds, {"time": 50}, {"time": 49}, memory="1 MiB")
        return xtd.rechunk(
            ds, dataset, tmp_path / "copy", memory="100 KiB", chunks={"x": 20}, verify=False
        )

    real, count = rechunking._copied, itertools.count()

    def interrupted(*arguments):
        if next(count) > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(rechunking, "_copied", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy(1)
    monkeypatch.undo()
    if kind != "netcdf":  # which is open
        kept = zarr.open_group(tmp_path / "copy", mode="r").attrs.asdict()
        with pytest.raises(FileExistsError, match="the data has changed since.*'t' at isel"):
            copy(2)
        assert zarr.open_group(tmp_path / "copy", mode="r").attrs.asdict() == kept
        arrays.clear()
    compared = []
    monkeypatch.setattr(
        rechunking, "_checksum_of", lambda task, part: compared.append(task) or real_sum(task, part)
    )
    np.testing.assert_array_equal(copy(1)["t"], np.ones((400, 200)))
    assert bool(compared) is (kind in ("zarr", "dask", "memory"))  # written anew, or in memory


real_sum = rechunking._checksum_of


def test_two_copies_into_one_path_do_not_mix(source, tmp_path, monkeypatch):
    ds, write, refused = source[["t2m"]], Target.write, []

    def write_beside_another(self, task, variable):
        if not refused:
            with pytest.raises(FileExistsError, match="another rechunk copies into") as error:
                xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")
            refused.append(error)
        write(self, task, variable)

    monkeypatch.setattr(Target, "write", write_beside_another)
    copy = xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")
    assert refused
    xr.testing.assert_identical(copy.compute(), ds.compute())


def test_verify_finds_what_has_changed_and_the_next_call_mends_it(source, tmp_path, monkeypatch):
    target, ds = tmp_path / "copy.zarr", source[["t2m"]]
    verify = rechunking._Copying.verify

    def change_and_verify(*arguments):
        zarr.open_group(target)["t2m"][100, 3, 5] = 0.25
        verify(*arguments)

    monkeypatch.setattr(rechunking._Copying, "verify", change_and_verify)
    with pytest.raises(RuntimeError, match=r"1 of \d+ regions .* 't2m' at isel\(time="):
        xtd.rechunk(ds, dataset_over(ds), target, memory="1 MiB")
    assert UNFINISHED in zarr.open_group(target).attrs

    def damage_and_verify(*arguments):
        file = next(each for each in (target / "t2m" / "c").rglob("*") if each.is_file())
        file.write_bytes(file.read_bytes()[:-9])
        verify(*arguments)

    monkeypatch.setattr(rechunking._Copying, "verify", damage_and_verify)
    with pytest.raises(RuntimeError, match="not what was written"):
        xtd.rechunk(ds, dataset_over(ds), target, memory="1 MiB")
    monkeypatch.undo()
    copy = xtd.rechunk(ds, dataset_over(ds), target, memory="1 MiB")
    xr.testing.assert_identical(copy.compute(), ds.compute())


def test_an_encoding_that_loses_values_is_refused_at_once(source, tmp_path):
    ds = source[["t2m"]].compute()
    ds["t2m"].encoding = {"dtype": "int8", "scale_factor": 1.0, "_FillValue": -128}
    with pytest.raises(ValueError, match="'t2m' .* does not keep the values"):
        xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")
    small = ds.isel(time=slice(50), y=slice(3))
    with pytest.raises(ValueError, match="'t2m' is not what it was"):
        xtd.rechunk(small, dataset_over(small), tmp_path / "small.zarr")


# What is refused.


def test_what_exists_is_left_alone(source, tmp_path):
    ds = source[["orography", "t2m"]]
    xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")
    with pytest.raises(FileExistsError, match="not a copy that was interrupted"):
        xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    file = tmp_path / "weather"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="weather is a file, and a copy is a folder"):
        xtd.rechunk(ds, dataset_over(ds), file)
    assert file.read_text() == "mine"
    with pytest.raises(FileExistsError, match="other files"):
        xtd.rechunk(ds, dataset_over(ds), tmp_path / "notes")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda ds: ds.rename(time="step"), {}, "have dim 'time', but ds has"),
        (lambda ds: ds.rename(t2m=7), {}, "by text, not 7"),
        (lambda ds: ds.stack(place=("y", "x")), {}, "have dim|MultiIndex"),
        (lambda ds: ds, {"chunks": {"height": 3}}, "chunks names dim 'height'"),
        (lambda ds: ds, {"chunks": {"time": 0}}, "positive integer, not 0"),
        (lambda ds: ds, {"chunks": {"y": 5}, "shards": {"y": 8}}, "no multiple of the chunks"),
        (lambda ds: ds, {"encoding": {"u10": {}}}, "encoding names 'u10'"),
        (lambda ds: ds, {"encoding": {"t2m": {"chunks": (1, 1, 1)}}}, "give chunks="),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    source, tmp_path, change, arguments, message
):
    ds = source[["t2m"]]
    with pytest.raises(ValueError, match=message):
        xtd.rechunk(change(ds), dataset_over(ds), tmp_path / "copy.zarr", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_multiindex_is_refused(source, tmp_path):
    ds = source[["t2m"]].drop_vars("name").assign_coords(x=range(SIZES["x"]))
    ds = ds.isel(time=slice(0, 60)).stack(place=("y", "x"))
    with pytest.raises(ValueError, match="'place' is a MultiIndex.*reset_index"):
        xtd.rechunk(ds, dataset_over(source), tmp_path / "copy.zarr")


# The warning.

LARGE = {"time": 4000, "y": 400, "x": 500}  # 3 GB of which nothing is written


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A store of a chunk for each step, of which chunks are many."""
    path = tmp_path_factory.mktemp("hostile") / "fields.zarr"
    group = zarr.create_group(path)
    for name, chunks in {"t2m": (1, 400, 500), "good": (250, 20, 25)}.items():
        group.create_array(
            name,
            shape=tuple(LARGE.values()),
            chunks=chunks,
            dtype="float32",
            dimension_names=list(LARGE),
        )
    return xtd.open_zarr(path, consolidated=False)


def warned(make):
    """What is said when a dataset is made."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make()
    return made, [str(each.message) for each in caught]


SERIES = {"input_dims": {"time": 365}, "input_overlap": {"time": 364}}


@pytest.mark.parametrize("order", ["shuffled", "in order", "map"])
def test_chunks_that_do_not_fit_are_said_once_with_the_figure(hostile, order):
    ds = hostile[["t2m"]]
    make = {
        "shuffled": lambda: xtd.IterableDataset(ds, **SERIES, shuffle=True, memory="256 MiB"),
        "in order": lambda: xtd.IterableDataset(ds, **SERIES, memory="64 MiB"),
        "map": lambda: xtd.MapDataset(ds, **SERIES, memory="256 MiB"),
    }[order]
    dataset, said = warned(make)
    assert len(said) == 1
    times = float(said[0].split(" times as much")[0].rsplit(" ", 1)[1])
    assert times > 4
    if order != "map":
        assert times == pytest.approx(dataset.explain().amplification, rel=0.05)
    assert "xtorch_data.rechunk" in said[0] and "time 1 × y 400 × x 500" in said[0]
    parts, said = warned(lambda: list(xtd.split(dataset, "time", fractions=(0.5, 0.5))))
    assert len(parts) == 2
    assert not said
    _, said = warned(lambda: pickle.loads(pickle.dumps(dataset)))
    assert not said


def test_the_line_that_made_the_dataset_is_to_blame(hostile):
    with pytest.warns(UserWarning, match="an epoch decodes") as caught:
        xtd.MapDataset(hostile[["t2m"]], **SERIES, memory="256 MiB")
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "make",
    [
        lambda ds: xtd.IterableDataset(ds[["good"]], **SERIES, memory="256 MiB", shuffle=True),
        lambda ds: xtd.IterableDataset(ds[["t2m"]], {"time": 8, "y": -1, "x": -1}),
        # In memory, or so little that nobody waits for it.
        lambda ds: xtd.IterableDataset(xr.zeros_like(ds[["t2m"]].isel(x=0)).load(), **SERIES),
        lambda ds: xtd.IterableDataset(
            ds[["t2m"]].isel(time=slice(99), y=slice(9)), {"time": 50}, {"time": 49}, memory="4 MiB"
        ),
    ],
)
def test_nothing_is_said_of_chunks_that_do(hostile, make):
    _, said = warned(lambda: make(hostile))
    assert not [each for each in said if "decodes" in each]


def test_one_of_a_loaders_workers_speaks_for_all(hostile, as_worker):
    def make():
        return xtd.IterableDataset(hostile[["t2m"]], **SERIES, memory="256 MiB", shuffle=True)

    for worker, count in [(0, 1), (1, 0), (2, 0)]:
        as_worker(worker, 3)
        assert len(warned(make)[1]) == count
