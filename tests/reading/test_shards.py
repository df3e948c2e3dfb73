import asyncio
import itertools
import os
import tracemalloc
import weakref

import google_crc32c
import numpy as np
import pytest
import zarr
import zarr.codecs
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.common.buffers import Buffers
from xtorch_data.common.retry import retried
from xtorch_data.reading import shards as module
from xtorch_data.reading import zarr_chunks as direct
from xtorch_data.reading.zarr_chunks import ChunkError, DirectReader
from xtorch_data.sources.file_stamps import look_at


class Counting(zarr.storage.WrapperStore):
    """Notes what is asked for."""

    def __init__(self, store, asked=None):
        super().__init__(store)
        self.asked = [] if asked is None else asked

    def _with_store(self, store):
        return type(self)(store, self.asked)

    async def get(self, key, prototype, byte_range=None):
        self.asked.append((key, byte_range))
        return await super().get(key, prototype, byte_range)


def sharded(shape=(40, 6), chunks=(2, 3), shards=(8, 6), store=None, **options):
    store = Counting(zarr.storage.MemoryStore()) if store is None else store
    options = {"dtype": "i4", "fill_value": -1, **options}
    array = zarr.create_array(store, shape=shape, chunks=chunks, shards=shards, **options)
    array[...] = np.arange(np.prod(shape)).reshape(shape)
    getattr(store, "asked", []).clear()
    return array


def read(reader, *key):
    return asyncio.run(reader.read_async(key, Buffers(10**6)))


@given(st.data())
def test_any_region_of_any_shards_is_that_of_zarr(data):
    few = st.integers(1, 4)
    ndim = data.draw(st.integers(1, 3))
    chunks = [data.draw(few) for _ in range(ndim)]
    per_shard = [data.draw(few) for _ in range(ndim)]
    shape = [data.draw(st.integers(1, 12)) for _ in range(ndim)]
    location = data.draw(st.sampled_from(["start", "end"]))
    index_codecs = [zarr.codecs.BytesCodec()]
    if data.draw(st.booleans()):
        index_codecs.append(zarr.codecs.Crc32cCodec())
    inner = [zarr.codecs.BytesCodec()]
    inner += data.draw(st.sampled_from([[], [zarr.codecs.ZstdCodec()], [zarr.codecs.BloscCodec()]]))
    codec = zarr.codecs.ShardingCodec(
        chunk_shape=tuple(chunks),
        codecs=inner,
        index_codecs=index_codecs,
        index_location=location,
    )
    array = zarr.create(
        store=zarr.storage.MemoryStore(),
        shape=shape,
        chunks=[a * b for a, b in zip(chunks, per_shard, strict=True)],
        dtype="i4",
        fill_value=-1,
        codecs=[codec],
        zarr_format=3,
    )
    part = tuple(slice(0, data.draw(st.integers(0, size))) for size in shape)
    array[part] = np.arange(np.prod(shape), dtype="i4").reshape(shape)[part]
    reader = DirectReader.of(array)
    assert reader is not None
    for _ in range(3):
        key = tuple(
            slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
            for n in shape
        )
        np.testing.assert_array_equal(read(reader, *key), array[key])


def test_each_index_is_asked_for_once_and_neighbors_together():
    array = sharded()
    reader = DirectReader.of(array)

    async def several():
        keys = [(slice(start, start + 4), slice(None)) for start in range(0, 40, 4)]
        return await asyncio.gather(*(reader.read_async(key, Buffers(10**6)) for key in keys))

    found = np.concatenate(asyncio.run(several()))
    asked = array.store.asked
    indexes = [key for key, wanted in asked if isinstance(wanted, zarr.abc.store.SuffixByteRequest)]
    assert sorted(indexes) == [f"c/{shard}/0" for shard in range(5)]
    assert len(asked) == 5 + 10  # and one request for the chunks of each region, side by side
    np.testing.assert_array_equal(found, array[...])


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(("gap", "most", "requests"), [(0, 10**9, 3), (10**9, 10**9, 1), (0, 0, 4)])
def test_what_lies_far_apart_or_is_much_is_fetched_by_itself(
    monkeypatch, gap, most, requests, in_file
):
    names = ("FILE_GAP_BYTES", "MOST_FILE_BYTES") if in_file else ("GAP_BYTES", "MOST_BYTES")
    for name, value in zip(names, (gap, most), strict=True):
        monkeypatch.setattr(module, name, value)
    found = module.Shards((), (6,), True, True)
    index = np.array([[0, 5], [5, 5], [20, 5], [2**64 - 1] * 2, [40, 5], [60, 5]], np.uint64)
    extents, missing = found.extents(index, [(4,), (3,), (1,), (0,), (2,)], in_file)
    assert missing == [(3,)]
    assert len(extents) == requests
    where = sorted((p, e.start + a, e.start + b) for e in extents for p, a, b in e.chunks)
    assert where == [((0,), 0, 5), ((1,), 5, 10), ((2,), 20, 25), ((4,), 40, 45)]


def test_chunks_and_shards_that_are_missing_are_the_fill_value():
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(16,), chunks=(2,), shards=(8,), dtype="f4", fill_value=3
    )
    array[2:4] = 1
    expected = np.full(16, 3.0)
    expected[2:4] = 1
    np.testing.assert_array_equal(read(DirectReader.of(array), slice(None)), expected)


@pytest.mark.parametrize("damage", ["index", "chunk", "cut"])
def test_damage_is_an_error_that_names_the_shard(damage):
    array = sharded(compressors=zarr.codecs.BloscCodec())
    inner = array.store._store
    key = "c/1/0"
    data = bytearray(inner._store_dict[key].to_bytes())
    if damage == "cut":
        data = data[:20]
    else:
        data[-9 if damage == "index" else 3] ^= 0xFF
        data[4 if damage == "chunk" else -9] ^= damage == "chunk"
    inner._store_dict[key] = type(inner._store_dict[key]).from_bytes(bytes(data))
    with pytest.raises(ChunkError) as caught:
        read(DirectReader.of(array), slice(None), slice(None))
    assert caught.value.chunk == key
    if damage == "chunk":
        assert "chunk (" in str(caught.value)


def with_index(array, place, offset, length):
    """The shard of an array, with another entry in its index and the checksum of that."""
    data = bytearray(array.store._store_dict["c/1/0"].to_bytes())
    index = np.frombuffer(data[-132:-4], "<u8").reshape(4, 2, 2).copy()
    index[place] = offset, length
    return (
        bytes(data[:-132])
        + index.tobytes()
        + google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    )


HOSTILE = {
    "behind the end": (10**6, 50),
    "far behind the end": (2**62, 50),
    "nowhere": (2**64 - 1, 50),
    "without an end": (50, 2**64 - 1),
    "too long": (0, 2**40),
    "empty": (0, 0),
}


@pytest.mark.parametrize("how", ["local", "local async", "remote"])
@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
def test_an_index_that_lies_is_an_error_that_names_the_shard(tmp_path, entry, how):
    array = sharded(compressors=zarr.codecs.BloscCodec(), store=zarr.storage.MemoryStore())
    data = with_index(array, (1, 1), *entry)
    store = array.store
    if how == "remote":
        kind = type(store._store_dict["c/1/0"])
        store._store_dict["c/1/0"] = kind.from_bytes(data)
    else:
        for key, value in store._store_dict.items():
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(data if key == "c/1/0" else value.to_bytes())
        array = zarr.open_array(tmp_path)
    reader, everything = DirectReader.of(array), (slice(None), slice(None))
    tracemalloc.start()
    try:
        with pytest.raises(ChunkError) as caught:
            if how == "local":
                reader.read(everything, Buffers(10**6))
            else:
                read(reader, *everything)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert caught.value.chunk == "c/1/0"
    assert "(5, 1)" in str(caught.value)  # the chunk inside


def test_shards_of_a_folder_are_read_as_they_are_now(tmp_path, monkeypatch):
    monkeypatch.delattr("os.pread", raising=False)  # as on Windows
    array = zarr.create_array(
        tmp_path, shape=(40, 6), chunks=(2, 3), shards=(8, 6), dtype="f4", fill_value=3
    )
    array[:20] = np.random.default_rng(0).normal(size=(20, 6)).astype("f4")
    reader = DirectReader.of(array)
    for factor in (1, 2):  # the second time, written anew in place
        array[:20] = factor * array[:20]
        for key in [(slice(None), slice(None)), (slice(3, 23), slice(1, 5)), (7, slice(2, 4))]:
            np.testing.assert_array_equal(reader.read(key, Buffers(10**6)), array[key])
            np.testing.assert_array_equal(read(reader, *key), array[key])
    path = tmp_path / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[-40:])
    with pytest.raises(ChunkError, match="index of a shard has 0 bytes"):
        read(reader, slice(None), slice(None))


def test_a_shard_that_is_written_in_place_and_keeps_its_time_is_read_anew(tmp_path):
    options = {"shards": (4,), "chunks": (2,), "dtype": "f4", "compressors": None}
    array = zarr.create_array(tmp_path, shape=(4,), **options)
    array[:] = [1, 2, 3, 4]
    reader, path = DirectReader.of(array), tmp_path / "c" / "0"
    assert reader.read((slice(None),), Buffers(10**6)).tolist() == [1, 2, 3, 4]
    look_at(str(path))  # waits until the next change has another time
    before, content = path.stat(), path.read_bytes()
    index = content[-20:-4] + content[-36:-20]  # the chunks the other way round
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    with path.open("r+b") as file:
        file.write(content[:-36] + index + checksum)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader.read((slice(None),), Buffers(10**6)).tolist() == [3, 4, 1, 2]


@pytest.mark.parametrize("codec", ["blosc", "zstd", "gzip", None])
def test_shards_of_a_folder_are_the_same_read_in_however_many_steps(tmp_path, monkeypatch, codec):
    codecs = {
        "blosc": zarr.codecs.BloscCodec(),
        "zstd": zarr.codecs.ZstdCodec(checksum=True),
        "gzip": zarr.codecs.GzipCodec(),
    }
    array = zarr.create_array(
        tmp_path,
        shape=(37, 23),
        chunks=(2, 3),
        shards=(8, 9),
        dtype="f4",
        fill_value=3,
        compressors=codecs.get(codec),
    )
    values = np.full(array.shape, 3, "f4")
    values[:20, :20] = np.random.default_rng(0).normal(size=(20, 20))
    values[4:8, 3:6] = 3  # two chunks that are missing, and a shard below
    array[:20, :20] = values[:20, :20]
    (tmp_path / "c" / "2" / "0").unlink()
    values[16:24, :9] = 3
    settings = [
        {},
        {"SMALL_BYTES": 0},
        {"TOGETHER_BYTES": 0},
        {"TOGETHER_BYTES": 60, "TASK_BYTES": 0, "MOST_TASK_BYTES": 170},
    ]
    for options, most in itertools.product(settings, [0, 100, 2**17]):
        with monkeypatch.context() as patch:
            patch.setattr(module, "MOST_FILE_BYTES", most)
            for name, value in options.items():
                patch.setattr(direct, name, value)
            reader = DirectReader.of(array)
            for key in [np.s_[:, :], np.s_[3:23, 1:11], np.s_[16:18, 9:12], np.s_[7, 2:4]]:
                np.testing.assert_array_equal(reader.read(key, Buffers(10**6)), values[key])
                np.testing.assert_array_equal(read(reader, *key), values[key])


@pytest.mark.parametrize("codec", [zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec(), None])
def test_the_damaged_one_of_small_chunks_that_are_decoded_together_is_named(tmp_path, codec):
    array = zarr.create_array(
        tmp_path, shape=(64, 8), chunks=(2, 8), shards=(64, 8), dtype="f4", compressors=codec
    )
    array[...] = np.random.default_rng(0).normal(size=(64, 8))
    path = tmp_path / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    index = np.frombuffer(data[-516:-4], "<u8").reshape(32, 2).copy()
    index[21, 1] -= 5  # its end is cut
    data[-516:-4] = index.tobytes()
    data[-4:] = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    path.write_bytes(data)
    for how in (lambda *key: DirectReader.of(array).read(key, Buffers(10**6)),
                lambda *key: read(DirectReader.of(array), *key)):  # fmt: skip
        with pytest.raises(ChunkError, match=r"c/0/0.*\n?.*chunk \(21, 0\) of the shard"):
            how(slice(None), slice(None))


def test_few_indexes_are_kept_of_all_arrays_together_if_they_are_large(monkeypatch):
    array = sharded()
    monkeypatch.setattr(module, "KEPT_BYTES", 3 * 132)
    for arrays, kept in [(1, 3), (2, 1), (9, 1)]:
        monkeypatch.setattr(module, "_alive", weakref.WeakSet())  # none of other tests
        readers = [DirectReader.of(array) for _ in range(arrays)]
        for reader in readers:
            np.testing.assert_array_equal(read(reader, slice(None), slice(None)), array[...])
            assert len(reader.shards._known) == kept


def test_other_shards_are_left_to_zarr():
    assert DirectReader.of(sharded(filters=[zarr.codecs.TransposeCodec(order=(1, 0))])) is None


def test_a_read_that_is_not_tried_again_joins_one_that_is_and_fails_with_the_error_itself():
    array = sharded()
    reader = DirectReader.of(array)

    async def denied(*_):
        await asyncio.sleep(0.01)
        raise PermissionError("no")

    array.store.get = denied

    async def both():
        reads = [reader.read_async((slice(8), slice(6)), Buffers(10**6)) for _ in range(2)]
        tried_again = retried(lambda: reads[0], 1, lambda: None, "a shard")
        return await asyncio.gather(tried_again, reads[1], return_exceptions=True)

    for error in asyncio.run(both()):
        assert isinstance(error, ChunkError)
        assert isinstance(error.__cause__, PermissionError)


def test_many_chunks_side_by_side_are_one_extent_found_in_a_walk(monkeypatch):
    looked = []

    def counting(*values):
        values = list(values[0]) if len(values) == 1 else values
        looked.append(len(values))
        return max(values)

    monkeypatch.setattr(module, "max", counting, raising=False)
    count = 500
    found = module.Shards((), (count,), True, True)
    index = np.stack([np.arange(count) * 9, np.full(count, 9)], axis=1).astype(np.uint64)
    [extent], _ = found.extents(index, [(place,) for place in range(count)])
    assert (extent.start, extent.stop, len(extent.chunks)) == (0, 9 * count, count)
    assert sum(looked) <= 5 * count  # not a look at all before it for every chunk
