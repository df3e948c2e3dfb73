import asyncio
import dataclasses
import itertools
import pickle
import shutil
import time

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.codecs
import zarr.storage
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.sync import _get_loop

import xtorch_data as xtd
from xtorch_data.common.buffers import Buffers
from xtorch_data.reading import concurrency as awaiting
from xtorch_data.reading import shards
from xtorch_data.reading import zarr_chunks as direct
from xtorch_data.reading.zarr_chunks import ChunkError, DirectReader
from xtorch_data.sources.zarr_stores import on_loop_of

SHAPE, CHUNKS = (11, 6, 9), (4, 6, 5)

V3 = {
    "as it is": None,
    "blosc": zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    "blosc lz4 bitshuffle": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle"),
    "zstd": zarr.codecs.ZstdCodec(level=3),
    "gzip": zarr.codecs.GzipCodec(),
}
V2 = {
    "as it is": None,
    "blosc": numcodecs.Blosc(),
    "zstd": numcodecs.Zstd(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "lz4": numcodecs.LZ4(),
}
ALL = [(3, name) for name in V3] + [(2, name) for name in V2]


def made(store, zarr_format=3, codec="blosc", dtype="f4", **options):
    options = {"shape": SHAPE, "chunks": CHUNKS, "fill_value": 7, **options}
    compressor = (V3 if zarr_format == 3 else V2)[codec]
    if zarr_format == 2 and options.get("filters") is None:
        options["filters"] = None
    array = zarr.create_array(
        store, dtype=dtype, zarr_format=zarr_format, compressors=compressor, **options
    )
    rng = np.random.default_rng(0)
    array[...] = (rng.normal(size=array.shape) * 100).astype(dtype)
    return array


def read(reader, key, how):
    if how == "async":
        return asyncio.run(reader.read_async(key, Buffers(10**6)))
    return reader.read(key, Buffers(10**6))


@pytest.mark.parametrize(("zarr_format", "codec"), ALL)
@pytest.mark.parametrize("dtype", ["f4", "i2", "?", "c16", "u1"])
def test_regions_are_those_of_zarr(tmp_path, zarr_format, codec, dtype):
    array = made(tmp_path / "a.zarr", zarr_format, codec, dtype)
    reader = DirectReader.of(array)
    keys = [
        (slice(None),) * 3,
        (slice(4, 8), slice(0, 6), slice(0, 5)),  # one chunk
        (slice(3, 11), slice(2, 3), slice(4, 9)),
        (2, slice(None), 8),
        (slice(5, 5), slice(None), slice(None)),
        (-1, 0, 0),
    ]
    for key, how in itertools.product(keys, ["async", "sync"]):
        found = read(reader, key, how)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array[key])


@pytest.mark.parametrize("compressor", [numcodecs.Zlib(), numcodecs.Zstd()])
@pytest.mark.parametrize("dtype", ["f4", "i2", "f8"])
def test_chunks_that_are_shuffled_first_as_those_of_hdf5(tmp_path, compressor, dtype):
    def written(elementsize, name):
        array = zarr.create_array(
            tmp_path / name,
            shape=SHAPE,
            chunks=CHUNKS,
            dtype=dtype,
            zarr_format=2,
            filters=[numcodecs.Shuffle(elementsize)],
            compressors=compressor,
        )
        array[...] = (np.random.default_rng(0).normal(size=SHAPE) * 100).astype(dtype)
        return array

    array = written(np.dtype(dtype).itemsize, "own")
    reader = pickle.loads(pickle.dumps(DirectReader.of(array)))
    for key in [(slice(None),) * 3, (slice(3, 11), slice(2, 3), slice(4, 9)), (2, slice(None), 8)]:
        for how in ("async", "sync"):
            np.testing.assert_array_equal(read(reader, key, how), array[key])
    assert DirectReader.of(written(16, "another")) is None


@pytest.mark.parametrize(("zarr_format", "codec"), [(3, "gzip"), (2, "zlib"), (3, "blosc")])
def test_readers_go_to_other_processes(tmp_path, zarr_format, codec):
    array = made(tmp_path / "a.zarr", zarr_format, codec)
    reader = pickle.loads(pickle.dumps(DirectReader.of(array)))
    np.testing.assert_array_equal(read(reader, (slice(None),) * 3, "sync"), array[...])


@pytest.mark.parametrize("codec", V3)
def test_arrays_without_dims(tmp_path, codec):
    array = made(tmp_path / "a.zarr", codec=codec, shape=(), chunks=())
    for how in ("async", "sync"):
        found = read(DirectReader.of(array), (), how)
        assert found.shape == ()
        assert found == array[()] != 7


@given(st.data())
def test_any_region_of_any_grid(data):
    sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)
    shape = data.draw(sizes)
    chunks = [data.draw(st.integers(1, size)) for size in shape]
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=shape, chunks=chunks, dtype="i4")
    array[...] = np.arange(np.prod(shape)).reshape(shape)
    key = tuple(
        slice(*sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))))
        for size in shape
    )
    reader = DirectReader.of(array)
    np.testing.assert_array_equal(read(reader, key, "async"), array[key])


@pytest.mark.parametrize("cores", [1, 2, 5])
@pytest.mark.parametrize(("least", "most"), [(0, 0), (0, 10**9), (1_500, 2_500), (10**9, 10**9)])
def test_regions_are_the_same_in_however_many_tasks(tmp_path, monkeypatch, least, most, cores):
    monkeypatch.setattr(direct, "TASK_BYTES", least)
    monkeypatch.setattr(direct, "MOST_TASK_BYTES", most)
    monkeypatch.setattr(direct.dask.system, "CPU_COUNT", cores)
    array = made(tmp_path / "a.zarr")
    reader, expected = DirectReader.of(array), array[...]
    for key in [(slice(None),) * 3, (slice(1, 9), slice(2, 5), slice(4, 9)), (slice(3, 3),) * 3]:
        np.testing.assert_array_equal(read(reader, key, "async"), expected[key])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [7, np.nan])
def test_missing_chunks_are_the_fill_value(tmp_path, zarr_format, fill):
    array = made(tmp_path / "a.zarr", zarr_format, fill_value=fill)
    chunk = (tmp_path / "a.zarr").glob("1.0.1" if zarr_format == 2 else "c/1/0/1")
    next(iter(chunk)).unlink()
    whole = (slice(None),) * 3
    expected = array[...]
    np.testing.assert_array_equal(expected[4:8, :, 5:], np.full((4, 6, 4), fill))
    for how in ("async", "sync"):
        np.testing.assert_array_equal(read(DirectReader.of(array), whole, how), expected)


def test_without_a_fill_value_missing_chunks_are_zero(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=4, dtype="f4", zarr_format=2, fill_value=None
    )
    np.testing.assert_array_equal(read(DirectReader.of(array), (slice(None),), "sync"), np.zeros(4))


@pytest.mark.parametrize("name", [None, "group/array"])
@pytest.mark.parametrize("store", [zarr.storage.MemoryStore, "memory://direct"])
def test_other_stores_are_asked_for_many_chunks_at_once(store, name):
    if isinstance(store, str):  # fsspec's, which answers in zarr's event loop only
        store = zarr.storage.FsspecStore.from_url(f"{store}/{name}.zarr")
    else:
        store = store()
    array = made(store, name=name)
    found = read(DirectReader.of(array), (slice(1, 10), slice(None), slice(None)), "async")
    np.testing.assert_array_equal(found, array[1:10])


def test_arrays_that_are_not_so_simple_are_left_to_zarr(tmp_path):
    count = itertools.count()

    def reader(**options):
        return DirectReader.of(made(tmp_path / f"{next(count)}.zarr", **options))

    assert reader() is not None
    assert reader(dtype=">f4") is None
    assert reader(filters=[zarr.codecs.TransposeCodec(order=(2, 1, 0))]) is None
    assert reader(zarr_format=2, filters=[numcodecs.Delta("f4")]) is None
    assert reader(zarr_format=2, order="F") is None
    text = zarr.create_array({}, shape=3, dtype="str")
    assert DirectReader.of(text) is None
    assert not DirectReader.of(made({})).supports((slice(0, 9, 2), slice(None), slice(None)))


@pytest.mark.parametrize(("zarr_format", "codec"), ALL)
@pytest.mark.parametrize("damage", ["cut", "empty", "another"])
def test_damaged_chunks_are_errors_that_name_them(tmp_path, zarr_format, codec, damage):
    array = made(tmp_path / "a.zarr", zarr_format, codec)
    other = made(tmp_path / "b.zarr", zarr_format, codec, chunks=(2, 6, 5))
    name = "1.0.0" if zarr_format == 2 else "c/1/0/0"
    path = tmp_path / "a.zarr" / name
    if damage == "another":  # sound, but with fewer values
        shutil.copy(tmp_path / "b.zarr" / name, path)
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"")
    assert other.chunks != array.chunks
    for how in ("async", "sync"):
        with pytest.raises(
            ChunkError, match=f"^chunk {name} of file://.*a.zarr: .*rror: "
        ) as caught:
            read(DirectReader.of(array), (slice(None),) * 3, how)
        assert caught.value.chunk == name
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("opened", [xr.open_zarr, xtd.open_zarr])
def test_datasets_read_directly_and_give_what_isel_gives(tmp_path, opened):
    values = np.random.default_rng(0).normal(size=(40, 5, 6)).astype("f4")
    ds = xr.Dataset({"t": (("time", "y", "x"), values)})
    path = tmp_path / "t.zarr"
    ds.to_zarr(path, consolidated=False, encoding={"t": {"chunks": (7, 5, 4)}})
    lazy = opened(path, chunks=None, consolidated=False).isel(time=slice(3, None), x=slice(1, 6))
    dataset = xtd.IterableDataset(
        lazy, {"time": 4, "y": -1, "x": -1}, {"time": 3}, inputs="t", batch_size=5, shuffle=True
    )
    seen = []
    for batch in dataset:
        for number, window in zip(batch.index.tolist(), batch.x, strict=True):
            np.testing.assert_array_equal(window, values[3 + number : 7 + number, :, 1:6])
            seen.append(number)
    assert sorted(seen) == list(range(34))
    assert dataset.stats().paths["read directly"] > 0


def test_a_store_of_fsspec_is_read_in_its_loop_also_inside_other_stores():
    async def where():
        return asyncio.get_running_loop()

    inner = zarr.storage.FsspecStore.from_url("memory://in-its-loop.zarr")
    store = zarr.storage.LoggingStore(zarr.storage.WrapperStore(inner))
    array = zarr.create_array(store, shape=(2,), dtype="f4", overwrite=True)

    async def loops():
        return asyncio.get_running_loop(), await on_loop_of(array, where())

    ours, found = asyncio.run(loops())
    assert found is not ours
    assert found is _get_loop()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(("nbytes", "fewest", "most"), [(256, 1, 4), (10, 3, 3), (10**6, 1, 32)])
def test_what_is_fetched_waits_for_memory_until_it_is_decoded(
    monkeypatch, sharded, nbytes, fewest, most
):
    monkeypatch.setattr(awaiting, "FETCHED_BYTES", nbytes)
    monkeypatch.setattr(awaiting, "FEWEST_FETCHED", fewest)
    monkeypatch.setattr(shards, "MOST_BYTES", 0)  # each chunk by itself
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(32, 16), chunks=(1, 16), dtype="f4", compressors=None,
        shards=(32, 16) if sharded else None,
    )  # fmt: skip
    array[...] = expected = np.arange(512, dtype="f4").reshape(32, 16)
    there, peaks = [], []

    class Noting(zarr.storage.WrapperStore):
        async def get(self, key, prototype, byte_range=None):
            found = await super().get(key, prototype, byte_range)
            if "c/" in key and len(found) == 64:  # not the index of a shard
                there.append(1)
                peaks.append(len(there))
            return found

    def decode(encoded, out):
        time.sleep(1e-3)
        out.reshape(-1)[...] = np.frombuffer(encoded, "f4")
        there.pop()

    reader = DirectReader.of(zarr.open_array(Noting(array.store), mode="r"))
    reader = dataclasses.replace(reader, decode=decode)
    for _ in range(2):
        found = asyncio.run(reader.read_async((slice(32), slice(16)), Buffers(10**6)))
        np.testing.assert_array_equal(found, expected)
    assert 1 < max(peaks) <= most


def test_who_is_given_up_as_it_waits_for_memory_takes_none(monkeypatch):
    monkeypatch.setattr(awaiting, "FETCHED_BYTES", 8)
    monkeypatch.setattr(awaiting, "FEWEST_FETCHED", 1)
    held = []

    async def hold(nbytes):
        async with awaiting.room_for(nbytes):
            held.append(nbytes)
            assert sum(held) <= 8
            try:
                await asyncio.sleep(1e-3)
            finally:
                held.remove(nbytes)

    async def many():
        for _ in range(3):
            tasks = [asyncio.ensure_future(hold(1 + n % 8)) for n in range(24)]
            await asyncio.sleep(0)
            for task in tasks[1::3]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            failed = [each for each in found if each is not None]
            assert all(isinstance(each, asyncio.CancelledError) for each in failed)
        await asyncio.wait_for(hold(8), 5)  # all is free again

    asyncio.run(many())
