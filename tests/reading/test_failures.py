"""Chunks that cannot be read: an error, or samples that are left out and counted."""

import collections
import gc
import logging
import threading
import time
import weakref

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.codecs
from failures_data import CHUNK, TIME, X, fields, touches
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data.common import buffers, retry
from xtorch_data.common.buffers import Buffers
from xtorch_data.device.gather import DeviceGather
from xtorch_data.gathering.stage import StageInMemory
from xtorch_data.iteration import stage_reader, substitutes
from xtorch_data.sources.source import as_source
from xtorch_data.sources.zarr_grids import StoredChunks


def checked(dataset, ds, damaged):
    """Batches of an epoch, each compared with `isel`; and what was skipped."""
    batches = list(dataset)
    bad = {n for n in range(len(dataset.windows)) if touches(dataset.windows[n], damaged)}
    values = {name: ds[name].values for name in ("a", "b")}
    skipped, seen = [], []
    for batch in batches:
        assert len(batch) > 0
        for place, number in enumerate(batch.index.tolist()):
            window = dataset.windows[number]
            for part, name in zip(batch.x[place].numpy(), ("a", "b"), strict=True):
                assert np.array_equal(part, values[name][window["time"], window["x"]])
        skipped += batch.skipped
        seen += batch.index.tolist()
    assert sorted(skipped) == sorted(bad)
    assert not bad & set(seen)
    assert bad | set(seen) == set(range(len(dataset.windows)))
    return batches, seen, bad


DAMAGED = st.sets(
    st.tuples(st.integers(0, TIME // CHUNK[0] - 1), st.integers(0, X // CHUNK[1] - 1)),
    min_size=1,
    max_size=4,
)


@examples(4, 150)
@given(
    damaged=DAMAGED,
    shuffle=st.booleans(),
    width=st.sampled_from([3, X]),
    memory=st.sampled_from([600, 3000, 10**6]),
    cache=st.booleans(),
    size=st.integers(8, 20),
)
def test_samples_that_touch_damage_are_left_out_and_no_others(
    tmp_path_factory, damaged, shuffle, width, memory, cache, size
):
    path = tmp_path_factory.mktemp("damaged") / "d.zarr"
    ds = fields(path, damaged)
    dataset = xtd.IterableDataset(
        xtd.open_zarr(path, consolidated=False),
        {"time": 3, "x": width},
        {"time": 2, "x": width - 1},
        batch_size=size,
        shuffle=shuffle,
        memory=memory,
        cache=cache,
        inputs=["a", "b"],
        on_error="skip",
    )
    try:
        for _ in range(2):
            batches, seen, bad = checked(dataset, ds, damaged)
            stats = dataset.stats()
            assert stats.skipped == len(bad)
            # Repeated are the samples that stand in, one for each batch that would be empty.
            assert stats.repeated == len(seen) - len(set(seen))
            assert len(batches) == len(dataset)
            if bad:
                assert {failure.variable for failure in stats.failures} == {"a"}
    except xtd.ReadError as error:
        assert "no sample of a whole batch" in str(error)  # before there was any


@pytest.mark.parametrize("kind", ["zarr", "zarr's pipeline", "dask", "netcdf"])
def test_any_backend(tmp_path, kind, caplog):
    damaged = {(2, 0)}
    ds = fields(tmp_path / "d.zarr", damaged)
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    if kind == "zarr's pipeline":
        store = xr.open_zarr(tmp_path / "d.zarr", consolidated=False, chunks=None)
        lazy = store.isel(time=list(range(TIME)))  # an indexer that is not read directly
    elif kind == "dask":
        lazy = xr.open_zarr(tmp_path / "d.zarr", consolidated=False)
    elif kind == "netcdf":

        def block(values, block_info=None):
            if block_info[0]["chunk-location"] in damaged:
                raise OSError("a bad sector")
            return values

        lazy = ds.chunk(time=CHUNK[0], x=CHUNK[1])
        lazy["a"] = lazy["a"].copy(data=dask.array.map_blocks(block, lazy["a"].data, dtype="f4"))
    dataset = xtd.IterableDataset(
        lazy, {"time": 3, "x": 4}, {"time": 2}, batch_size=16, inputs=["a", "b"], on_error="skip"
    )
    with caplog.at_level(logging.WARNING, "xtorch_data"):
        _, _, bad = checked(dataset, ds, damaged)
    assert bad
    [failure] = [f for f in dataset.stats().failures if f.region["time"] == (10, 15)]
    assert "'a' at isel(time=10:15, x=0:4)" in str(failure)
    assert failure.chunk == ("a/c/2/0" if kind.startswith("zarr") else None)
    if "dask" not in kind and kind != "netcdf":
        assert failure.source == f"file://{tmp_path / 'd.zarr'}"
    assert "skipping samples that need 'a'" in caplog.text


def test_by_default_it_is_an_error(tmp_path):
    fields(tmp_path / "d.zarr", {(2, 0)})
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    with pytest.raises(xtd.ReadError, match="could not read 'a'"):
        list(xtd.IterableDataset(lazy, {"time": 3, "x": 4}))
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', not 'ignore'"):
        xtd.IterableDataset(lazy, {"time": 3}, on_error="ignore")


def test_an_epoch_of_nothing_is_an_error(tmp_path):
    everywhere = {(t, x) for t in range(TIME // CHUNK[0]) for x in range(X // CHUNK[1])}
    fields(tmp_path / "d.zarr", everywhere)
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    with pytest.raises(xtd.ReadError, match="no sample of a whole batch could be read"):
        list(xtd.IterableDataset(lazy, {"time": 3, "x": 4}, inputs=["a", "b"], on_error="skip"))


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_have_as_many_batches_and_a_state_goes_on(tmp_path, world_size):
    damaged = {(2, 0), (2, 1), (2, 2), (7, 1)}
    ds = fields(tmp_path / "d.zarr", damaged)

    def dataset(rank):
        return xtd.IterableDataset(
            xtd.open_zarr(tmp_path / "d.zarr", consolidated=False),
            {"time": 3, "x": X},
            {"time": 2},
            batch_size=2,
            drop_last=True,
            shuffle=True,
            seed=3,
            inputs=["a", "b"],
            on_error="skip",
            rank=rank,
            world_size=world_size,
        )

    whole = [list(dataset(rank)) for rank in range(world_size)]
    assert len({len(batches) for batches in whole}) == 1
    batches = whole[0]
    for taken in (1, len(batches) // 2):
        first = dataset(0)
        stream = iter(first)
        for _ in range(taken):
            next(stream)
        again = dataset(0)
        again.load_state_dict(first.state_dict())
        rest = list(again)
        assert [b.skipped for b in rest] == [b.skipped for b in batches[taken:]]
        there = [b for b in zip(rest, batches[taken:], strict=True) if len(b[0].skipped) < 2]
        for found, expected in there:
            assert found.index.tolist() == expected.index.tolist()
    assert ds.sizes["time"] == TIME


def test_dims_outside_the_sample_space_are_whole(tmp_path):
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "x"), rng.normal(size=(TIME, X)).astype("f4")),
            "edges": (("time", "side"), rng.normal(size=(TIME, 2)).astype("f4")),
        }
    )
    ds.to_zarr(tmp_path / "d.zarr", consolidated=False, encoding={"edges": {"chunks": (5, 2)}})
    (tmp_path / "d.zarr" / "edges" / "c" / "3" / "0").write_bytes(b"not what it was")
    dataset = xtd.IterableDataset(
        xtd.open_zarr(tmp_path / "d.zarr", consolidated=False),
        {"time": 3, "x": -1},
        inputs="a",
        preprocess=lambda block: block.assign(a=block["a"] - block["edges"].mean("side")),
        batch_size=4,
        on_error="skip",
    )
    skipped = [number for batch in dataset for number in batch.skipped]
    assert skipped == [5, 6]  # steps 15 to 20


# What the error says, for each way in which a chunk can be bad


def flipped(path, place=None):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 16
    path.write_bytes(content)


CHECKED = {
    "crc32c": {"compressors": [zarr.codecs.Crc32cCodec()]},
    "blosc and crc32c": {"compressors": [zarr.codecs.BloscCodec(), zarr.codecs.Crc32cCodec()]},
    "zstd with a checksum": {"compressors": [zarr.codecs.ZstdCodec(level=1, checksum=True)]},
    "gzip": {"compressors": [zarr.codecs.GzipCodec()]},
    "crc32c in shards": {"shards": (20, 12), "compressors": [zarr.codecs.Crc32cCodec()]},
}


@pytest.mark.parametrize("opener", ["xtorch_data", "xarray", "dask"])
@pytest.mark.parametrize("codecs", CHECKED)
def test_checksums_tell_flipped_bits(tmp_path, codecs, opener):
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(TIME, X)).astype("f4"))})
    sharded = "shards" in codecs
    path = tmp_path / "d.zarr"
    ds.to_zarr(path, consolidated=False, encoding={"a": {"chunks": (5, X), **CHECKED[codecs]}})
    # Values of steps 15 to 20, which are the last chunk of the first shard.
    flipped(path / "a" / "c" / ("0" if sharded else "3") / "0", 800 if sharded else None)
    if opener == "xtorch_data":
        lazy = xtd.open_zarr(path, consolidated=False)
    else:
        lazy = xr.open_zarr(path, consolidated=False, chunks={} if opener == "dask" else None)
    for memory in ("1 GiB", "2 kB"):  # all at once, and parts of a shard
        with pytest.raises(xtd.ReadError) as caught:
            list(xtd.IterableDataset(lazy, {"time": 3, "x": X}, memory=memory))
        message = str(caught.value)
        assert "could not read 'a' at isel(" in message
        assert "d.zarr: " in message
        assert caught.value.__cause__ is not None
        if opener != "dask":
            assert f" in chunk a/c/{0 if sharded else 3}/0 of file://" in message
    bad = xtd.IterableDataset(lazy, {"time": 5, "x": X}, on_error="skip", batch_size=4)
    assert [number for batch in bad for number in batch.skipped] == [3]


class Denying(zarr.storage.WrapperStore):
    """Gives no chunk with a certain key: root may read any file."""

    async def get(self, key, *args, **kwargs):
        if key == "a/c/2/1":
            raise PermissionError(13, "Permission denied")
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("how", ["in order", "stride", "dask"])
def test_a_chunk_that_may_not_be_read_is_named_and_is_not_tried_again(tmp_path, how):
    ds = fields(tmp_path / "d.zarr")
    store = Denying(zarr.storage.LocalStore(tmp_path / "d.zarr", read_only=True))
    lazy = xr.open_zarr(store, consolidated=False, chunks={} if how == "dask" else None)
    if how == "stride":
        lazy = lazy.isel(time=slice(None, None, 2))
    with pytest.raises(xtd.ReadError) as caught:
        list(xtd.IterableDataset(lazy, {"time": 3, "x": X}, inputs=["b", "a"], memory="2 kB"))
    assert isinstance(caught.value.__cause__, PermissionError)
    assert "Permission denied" in str(caught.value)
    assert ("in chunk a/c/2/1 of " in str(caught.value)) == (how != "dask")
    assert "'a' at isel(" in str(caught.value)
    if how == "in order":
        dataset = xtd.IterableDataset(
            lazy, {"time": 3, "x": 4}, inputs=["a", "b"], batch_size=9, on_error="skip"
        )
        checked(dataset, ds, {(2, 1)})
        assert {each.chunk for each in dataset.stats().failures} == {"a/c/2/1"}
        for preprocess in (None, xtd.Compose([])):
            samples = xtd.MapDataset(lazy, {"time": 5, "x": 4}, inputs="a", preprocess=preprocess)
            with pytest.raises(xtd.ReadError, match="in chunk a/c/2/1 of "):
                samples[7]
            # though all chunks are so small that they are read together
            np.testing.assert_array_equal(samples[8][0].numpy(), ds["a"].values[10:15, 8:])


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_a_damaged_chunk_of_hdf5_is_told_by_its_region(tmp_path, engine):
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(TIME, X)).astype("f4"))})
    path = tmp_path / "d.nc"
    encoding = {"a": {"chunksizes": (5, X), "fletcher32": True}}
    ds.to_netcdf(path, engine=engine, encoding=encoding)
    where = path.read_bytes().index(ds["a"].values[15:20].tobytes())
    flipped(path, where + 50)
    with xr.open_dataset(path, engine=engine) as lazy:
        with pytest.raises(xtd.ReadError, match=r"'a' at isel\(time=15:20, x=0:12\) from .*d.nc: "):
            list(xtd.IterableDataset(lazy, {"time": 3, "x": X}))
        dataset = xtd.IterableDataset(lazy, {"time": 5, "x": X}, on_error="skip", batch_size=4)
        assert [number for batch in dataset for number in batch.skipped] == [3]
        [failure] = dataset.stats().failures
        assert (failure.region["time"], failure.source) == ((15, 20), str(path))


# Missing chunks, and stores that are missing


@pytest.mark.parametrize("endian", ["little", "big"])  # read directly, and by zarr
@pytest.mark.parametrize(("at", "wrong"), [(0, 2**64 - 1), (8, 2**40)], ids=["place", "length"])
def test_a_wrong_index_without_a_checksum_is_an_error_and_does_not_end_the_process(
    tmp_path, endian, at, wrong
):
    serializer = zarr.codecs.ShardingCodec(
        chunk_shape=(1, 4),
        codecs=[zarr.codecs.BytesCodec(endian=endian), zarr.codecs.BloscCodec()],
        index_codecs=[zarr.codecs.BytesCodec()],
    )
    array = zarr.create_group(tmp_path).create_array(
        "v", shape=(12, 4), chunks=(4, 4), dtype="f4", dimension_names=["time", "y"],
        serializer=serializer, compressors=None, filters=None,
    )  # fmt: skip
    array[...] = values = np.arange(48, dtype="f4").reshape(12, 4)
    shard = tmp_path / "v" / "c" / "1" / "0"
    encoded = bytearray(shard.read_bytes())
    entry = len(encoded) - 4 * 16 + 2 * 16 + at  # of the chunk at step 6
    encoded[entry : entry + 8] = wrong.to_bytes(8, "little")
    shard.write_bytes(encoded)

    opened = xtd.open_zarr(tmp_path, consolidated=False)
    dataset = xtd.IterableDataset(opened, {"time": 2, "y": -1}, batch_size=6, on_error="skip")
    [batch] = dataset
    np.testing.assert_array_equal(batch.x[:, 0], values.reshape(6, 2, 4)[batch.index])
    if endian == "big" and at == 8:  # zarr reads to the end of the file, and blosc what is its own
        assert batch.skipped in ((), (3,))
        return
    assert batch.skipped == (3,)
    with pytest.raises(xtd.ReadError):
        list(xtd.IterableDataset(opened, {"time": 2, "y": -1}))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("opener", [xr.open_zarr, xtd.open_zarr])
def test_missing_chunks_are_the_fill_value_and_no_failure(tmp_path, opener, sharded):
    path = tmp_path / "d.zarr"
    group = zarr.create_group(path)
    array = group.create_array(
        "a", shape=(TIME, X), chunks=(5, X), shards=(10, X) if sharded else None, dtype="f4",
        fill_value=7, dimension_names=("time", "x"),
    )  # fmt: skip
    array[20:30] = 1
    lazy = opener(path, consolidated=False, chunks=None, mask_and_scale=False)
    dataset = xtd.IterableDataset(lazy, {"time": 5, "x": X}, inputs="a", on_error="skip")
    found = np.concatenate([batch.x.numpy() for batch in dataset])[:, 0, 0]
    np.testing.assert_array_equal(found, [7, 7, 7, 7, 1, 1, 7, 7, 7, 7, 7, 7])
    assert dataset.stats().failures == ()
    assert dataset.stats().chunks_missing == 10
    assert "10 chunks not there" in str(dataset.stats())
    assert any("chunks_missing" in note for note in dataset.explain().notes)


# Files that are cut while they are mapped into memory: without care the process would end


@pytest.mark.parametrize("way", ["directly", "in shards", "by key"])
def test_a_store_that_goes_in_the_middle_of_an_epoch_is_an_error_and_no_fill_value(tmp_path, way):
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(400, X)).astype("f4"))})
    path = tmp_path / "d.zarr"
    chunks = {"chunks": (5, X)} | ({"shards": (10, X)} if way == "in shards" else {})
    ds.to_zarr(path, consolidated=False, encoding={"a": chunks})
    opened = zarr.storage.LocalStore(path, read_only=True)
    if way == "by key":
        opened = zarr.storage.WrapperStore(opened)
    lazy = xr.open_zarr(opened, consolidated=False, chunks=None)
    dataset = xtd.IterableDataset(lazy, {"time": 5, "x": X}, batch_size=2, memory="4 kB")
    samples = xtd.MapDataset(lazy, {"time": 5, "x": X}, inputs="a", memory="4 kB")
    samples[0]
    batches = iter(dataset)
    seen = [next(batches)]
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(xtd.ReadError, match="the store is not there any more") as caught:
        seen += list(batches)
    assert "'a' at isel(" in str(caught.value)
    for batch in seen:  # all that was handed out is sound
        for number, found in zip(batch.index.tolist(), batch.x[:, 0].numpy(), strict=True):
            np.testing.assert_array_equal(found, ds["a"].values[5 * number : 5 * number + 5])
    with pytest.raises(xtd.ReadError, match="the store is not there any more"):
        samples[70]
    (tmp_path / "elsewhere").rename(path)
    np.testing.assert_array_equal(samples[70][0].numpy(), ds["a"].values[350:355])
    assert len(list(dataset)) == 40


# What fails in passing beside damage, and how soon damage is told


class Unsteady(Denying):
    """Fails each second time that it is asked for a chunk, in passing."""

    def __init__(self, store):
        super().__init__(store)
        self.asked = collections.Counter()

    async def get(self, key, *args, **kwargs):
        self.asked[key] += "/c/" in key
        if self.asked[key] and self.asked[key] % 2 == 0:
            raise TimeoutError("for now")
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("how", ["directly", "dask"])
def test_what_fails_in_passing_beside_damage_is_not_skipped(tmp_path, how, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 1e-3)
    ds = fields(tmp_path / "d.zarr")
    store = Unsteady(zarr.storage.LocalStore(tmp_path / "d.zarr", read_only=True))
    lazy = xr.open_zarr(store, consolidated=False, chunks={} if how == "dask" else None)
    dataset = xtd.IterableDataset(
        lazy, {"time": 3, "x": 4}, inputs=["a", "b"], batch_size=9, on_error="skip"
    )
    checked(dataset, ds, {(2, 1)})
    assert len(dataset.stats().failures) == 1


@pytest.mark.parametrize("bad", [0, 37, 63])
def test_a_damaged_chunk_of_a_graph_is_found_by_halves(bad):
    computed = []

    def block(values, block_info=None):
        (number,) = block_info[0]["chunk-location"]
        computed.append(number)
        if number == bad:
            raise OSError("a bad sector")
        return values

    data = dask.array.map_blocks(block, dask.array.zeros(256, chunks=4), dtype="f8")
    dataset = xtd.IterableDataset(xr.Dataset({"a": ("time", data)}), {"time": 4}, retries=0)
    computed.clear()
    with pytest.raises(xtd.ReadError, match=rf"'a' at isel\(time={4 * bad}:{4 * bad + 4}\)"):
        list(dataset)
    # All of it, and then halves of halves.
    assert len(computed) <= 2 * 64 + 1
    assert dataset.stats().paths.get("computed by dask", 0) <= 6


class Gone(zarr.storage.WrapperStore):
    """Is not there any more; `errors` come before it says so."""

    def __init__(self, store):
        super().__init__(store)
        self.gone, self.errors = False, []

    async def get(self, key, *args, **kwargs):
        if not self.gone:
            return await super().get(key, *args, **kwargs)
        if "/c/" not in key and self.errors:
            raise self.errors.pop()
        return None


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([TimeoutError("slow down")] * 2, "the store is not there any more"),
        ([TimeoutError("slow down")] * 99, "slow down"),
        ([OSError("broken")], "broken"),
        ([PermissionError("no")], None),
        ([NotImplementedError()], None),
    ],
)
@pytest.mark.parametrize("way", ["directly", "by zarr"])
def test_only_a_store_that_may_not_be_asked_is_believed(tmp_path, monkeypatch, errors, told, way):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 1e-3)
    fields(tmp_path / "d.zarr", names=["a"])
    store = Gone(zarr.storage.LocalStore(tmp_path / "d.zarr", read_only=True))
    lazy = xr.open_zarr(store, consolidated=False, chunks=None)
    if way == "by zarr":
        lazy = lazy.isel(time=list(range(TIME)))
    dataset = xtd.IterableDataset(lazy, {"time": TIME, "x": X})
    store.gone, store.errors = True, list(errors)
    if told is None:
        fill = zarr.open_array(tmp_path / "d.zarr" / "a", mode="r").fill_value
        np.testing.assert_array_equal(next(iter(dataset)).x, np.full((1, 1, TIME, X), fill))
    else:
        with pytest.raises(xtd.ReadError, match=told):
            next(iter(dataset))


def test_what_stands_in_is_the_last_sample_before_however_long_that_takes(tmp_path):
    rng = np.random.default_rng(0)
    path, bad = tmp_path / "d.zarr", [3, 4, 5, 9, 20, 21]
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(250, X)).astype("f4"))})
    ds.to_zarr(path, consolidated=False, encoding={"a": {"chunks": (10, X)}})
    for place in bad:
        (path / "a" / "c" / str(place) / "0").write_bytes(b"not what it was")

    def slow(sample):
        if int(sample["time"][0]) // 10 + 1 in bad:
            time.sleep(0.03)  # so that the batch after it is gathered before it
        return sample

    dataset = xtd.IterableDataset(
        xtd.open_zarr(path, consolidated=False).assign_coords(time=np.arange(250)),
        {"time": 5, "x": X},
        batch_size=2,
        memory="2 kB",
        on_error="skip",
        transform=slow,
    )
    expected, last = [], None
    for chunk in range(25):
        if chunk in bad:
            expected.append([last])
        else:
            last = 2 * chunk
            expected.append([last, last + 1])
    assert [batch.index.tolist() for batch in dataset] == expected


def doubled(sample):
    return 2 * sample


@pytest.mark.parametrize("how", ["plain", "transformed", "on a device"])
def test_what_stands_in_holds_on_to_no_stage(tmp_path, monkeypatch, how):
    ds = fields(tmp_path / "d.zarr", {(last, x) for last in (10, 11) for x in range(3)})
    stages = weakref.WeakSet()

    def tracked(make):
        def made(*args):
            loaded = make(*args)
            stages.add(loaded)
            return loaded

        return made

    monkeypatch.setattr(stage_reader, "StageInMemory", tracked(StageInMemory))
    monkeypatch.setattr(DeviceGather, "send", tracked(DeviceGather.send))
    dataset = xtd.IterableDataset(
        xtd.open_zarr(tmp_path / "d.zarr", consolidated=False),
        {"time": 5, "x": X},
        batch_size=1,
        memory="1 kB",
        on_error="skip",
        transform=doubled if how == "transformed" else None,
    )
    device = {"device": "cpu", "gather": "device"} if how == "on a device" else {}
    batches = iter(xtd.DataLoader(dataset, **device))
    whole = [next(batches) for _ in range(12)]  # it has not ended
    expected = np.stack([ds[name].values[45:50] for name in ("a", "b")])
    for batch in whole[9:]:
        assert batch.index.tolist() == [9]
        np.testing.assert_array_equal(batch.x[0], expected * (2 if how == "transformed" else 1))
    blocks = dataset._inside.reader._block_buffers._lent
    until = time.monotonic() + 5  # threads may still be about to let go
    while (stages or blocks) and time.monotonic() < until:
        time.sleep(0.001)
    assert not stages and not blocks
    batches.close()


@pytest.mark.parametrize("how", ["plain", "shuffled", "transformed", "preprocessed", "on a device"])
def test_a_later_sample_stands_in_where_there_is_none_before(tmp_path, how):
    # All of the first rank's share, and the beginning of the second's.
    damaged = {(time, x) for time in range(7) for x in range(3)}
    ds = fields(tmp_path / "d.zarr", damaged)
    options = {
        "plain": {},
        "shuffled": {"shuffle": True, "seed": 5},
        "transformed": {"transform": doubled},
        "preprocessed": {"preprocess": doubled},
        "on a device": {},
    }[how]
    device = {"device": "cpu", "gather": "device"} if how == "on a device" else {}
    factor = 2 if how in ("transformed", "preprocessed") else 1

    def dataset(rank):
        return xtd.IterableDataset(
            xtd.open_zarr(tmp_path / "d.zarr", consolidated=False),
            {"time": 5, "x": X},
            inputs=["a", "b"],
            batch_size=2,
            memory="1 kB",
            on_error="skip",
            retries=0,
            rank=rank,
            world_size=2,
            **options,
        )

    values = np.stack([ds[name].values for name in ("a", "b")])
    seen, counts, own = set(), [], []
    for rank in range(2):
        epochs = []
        for _ in range(2):
            batches = list(xtd.DataLoader(dataset(rank), **device))
            counts.append(len(batches))
            epochs.append([batch.index.tolist() for batch in batches])
            for batch in batches:
                own += batch.index[~batch.repeated].tolist() if not epochs[1:] else []
                for number, part in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
                    seen.add(number)
                    window = slice(5 * number, 5 * number + 5)
                    np.testing.assert_array_equal(part, factor * values[:, window])
        assert epochs[0] == epochs[1]  # what stands in depends on the data alone
    assert seen == set(range(7, 12))
    assert sorted(own) == sorted(seen)  # in its own place, each is not marked as repeated
    assert len(set(counts)) == 1
    if how != "shuffled":
        first = dataset(1)
        stream = iter(first)
        assert next(stream).index.tolist() == [7]  # for the sample 6
        state = first.state_dict()
        stream.close()
        again = dataset(1)
        again.load_state_dict(state)
        assert [batch.index.tolist() for batch in again] == [[8, 9], [10, 11]]


def test_of_a_chunk_that_cannot_be_read_one_sample_is_tried_to_stand_in(tmp_path):
    reads = collections.Counter()

    def block(values, block_info=None):
        (place,) = block_info[0]["chunk-location"]
        reads[place] += 1
        if place < 3:
            raise OSError("a bad sector")
        return values

    data = dask.array.map_blocks(block, dask.array.arange(400, chunks=100), dtype="i8")
    dataset = xtd.IterableDataset(
        xr.Dataset({"a": ("time", data)}),
        {"time": 1},
        batch_size=10,
        memory="1 kB",
        on_error="skip",
        retries=0,
    )
    assert next(iter(dataset)).index.tolist() == [300]
    assert all(reads[place] < 10 for place in range(3))


def test_nothing_is_kept_to_stand_in_where_damage_is_an_error(tmp_path, monkeypatch):
    fields(tmp_path / "d.zarr")
    monkeypatch.setattr(substitutes, "Substitute", None)
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    assert len(list(xtd.IterableDataset(lazy, {"time": 5, "x": X}, memory="1 kB"))) == 12


def test_a_stage_of_which_nothing_could_be_read_is_searched_once(monkeypatch):
    def block(values, block_info=None):
        if block_info[0]["chunk-location"] == (1,):
            raise OSError("a bad sector")
        return values

    data = dask.array.map_blocks(block, dask.array.zeros(10_000, chunks=5_000), dtype="f8")
    dataset = xtd.IterableDataset(
        xr.Dataset({"a": ("time", data)}),
        {"time": 1},
        batch_size=50,
        memory="200 kB",
        on_error="skip",
        retries=0,
    )
    located, locate = [], StageInMemory.locate
    monkeypatch.setattr(
        StageInMemory, "locate", lambda *args: located.append(args[1:]) or locate(*args)
    )
    assert [batch.index.tolist() for batch in dataset][-100:] == 100 * [[0]]
    assert sum(stop - start for start, stop in located) < 3 * 10_000


def test_chunks_read_one_by_one_count_as_others_do(tmp_path, monkeypatch):
    monkeypatch.setattr(buffers, "LEAST_BYTES", 1)
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(200, X)).astype("f4"))})
    ds.to_zarr(tmp_path / "d.zarr", consolidated=False, encoding={"a": {"chunks": (1, X)}})
    bad = [1, 30, 31, 32, 70, 197]
    for place in bad:
        (tmp_path / "d.zarr" / "a" / "c" / str(place) / "0").write_bytes(b"not what it was")
    memory = 6_397  # of which a few are for several chunks of 48 bytes that are read together
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    dataset = xtd.MapDataset(lazy, {"time": 1, "x": X}, inputs="a", memory=memory)
    before = set(threading.enumerate())
    for number in range(len(dataset)):
        if number in bad:
            with pytest.raises(xtd.ReadError, match=f"in chunk a/c/{number}/0 of "):
                dataset[number]
        else:
            [found] = dataset[number]
            np.testing.assert_array_equal(found[0], ds["a"].values[number])
    every = [each for each in gc.get_objects() if issubclass(type(each), Buffers)]
    every = [each for each in every if each._total == memory]

    def held():
        idle = sum(size * len(free) for each in every for size, free in each._free.items())
        return idle + sum(size for each in every for size in each._lent.values())

    until = time.monotonic() + 5  # threads may still be about to let go
    while held() > memory and time.monotonic() < until:
        time.sleep(0.001)
    assert 0 < held() <= memory
    loops = [each for each in set(threading.enumerate()) - before if "reader" in each.name]
    assert len(loops) == 1


def test_naming_the_chunks_of_a_region_does_not_list_them(monkeypatch):
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=(60, 12), chunks=(5, 4), dtype="f4",
        dimension_names=("time", "x"), name="a",
    )  # fmt: skip
    named = []
    encode = type(array.metadata).encode_chunk_key
    monkeypatch.setattr(
        type(array.metadata),
        "encode_chunk_key",
        lambda self, place: named.append(place) or encode(self, place),
    )
    variable = as_source(array).dataset["a"].variable
    for part, expected in [
        (variable, ["a/c/0/0", "a/c/11/2"]),
        (variable[::-2, 3], ["a/c/0/0", "a/c/11/0"]),
        (variable[[40, 2, 17], 4:8], ["a/c/0/1", "a/c/8/1"]),
        (variable[7:9, 5], ["a/c/1/1"]),
        (variable[4:4], []),
    ]:
        named.clear()
        assert StoredChunks.of(part).ends() == expected
        assert len(named) <= 2
