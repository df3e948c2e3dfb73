import errno
import logging
import os
import pickle
import shutil
import threading
import time
from typing import ClassVar

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from disk_cache_data import Counting, entries, epoch_of, filled, kept, opened, values_of
from helpers import numbered
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data.reading import disk_cache
from xtorch_data.reading.disk_cache import DiskCache, entry_name
from xtorch_data.report.stats import stats_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "v.zarr"
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "x"), rng.normal(size=(120, 6)).astype("f4")),
            "b": (("time", "x"), rng.normal(size=(120, 6))),
            "static": ("x", rng.normal(size=6)),
        }
    )
    ds["a"][3, 2] = np.nan
    encoding = {"a": {"chunks": (10, 6)}, "b": {"chunks": (16, 3)}}
    ds.to_zarr(path, encoding=encoding, consolidated=False)
    return path, ds


def small_cells(monkeypatch, nbytes=1):
    """Let chunks be cells of their own."""
    monkeypatch.setattr("xtorch_data.reading.disk_cells.SMALL", nbytes)


@pytest.mark.parametrize("shuffle", [False, True])
def test_later_epochs_and_other_datasets_read_nothing(store, tmp_path, monkeypatch, shuffle):
    small_cells(monkeypatch)
    path, ds = store

    def make(window, **others):
        return xtd.IterableDataset(
            opened(path),
            {"time": window, "x": -1},
            {"time": window - 1},
            inputs=["a", "static"],
            targets="b",
            batch_size=5,
            cache=tmp_path / "cache",
            dtype="float64",
            **others,
        )

    dataset = make(8, shuffle=shuffle, memory="20 kB")
    assert len(dataset.plan.grid) > 1
    for reads in (True, False, False):
        samples = epoch_of(dataset)
        assert (Counting.reads > 0) is reads
        assert len(samples) == 113
        for number, (x, y) in samples.items():
            window = ds.isel(time=slice(number, number + 8))
            np.testing.assert_array_equal(x[0], window["a"].values.astype("f8"))
            np.testing.assert_array_equal(x[1], np.broadcast_to(window["static"], (8, 6)))
            np.testing.assert_array_equal(y, window["b"].values)
    stats = dataset.stats()
    assert (stats.blocks_read, stats.bytes_read) == (0, 0)
    assert stats.blocks_cached >= len(dataset.plan.grid)
    assert f"{stats.blocks_cached} from the cache" in str(stats)
    # Other windows, memory and order, ranks, and samples by number: all want the same chunks.
    others = [
        make(13, memory="1 MB", shuffle=not shuffle),
        make(8, memory="20 kB", shuffle=not shuffle, rank=1, world_size=2),
        make(5, where=lambda window: bool(window["a"][0, 0] > 0)),
        pickle.loads(pickle.dumps(dataset)),
    ]
    for other in others:
        epoch_of(other)
        assert Counting.reads == 0
    samples = xtd.MapDataset(
        opened(path), {"time": 7}, inputs="b", dtype="float64", cache=tmp_path / "cache"
    )
    np.testing.assert_array_equal(samples[2 * 17 + 10][0], ds["b"].isel(time=slice(70, 77), x=2))
    assert Counting.reads == 0
    assert stats_of(samples._inside.recorder).paths["taken from disk"] == 1


def test_what_differs_is_not_taken_for_it(tmp_path):
    """Other data at the same path, other variables, slices, decoding, graphs: each is read."""
    path, cache = tmp_path / "v.zarr", tmp_path / "cache"
    values = np.arange(40.0).reshape(20, 2)

    def written(values, **encoding):
        ds = xr.Dataset({name: (("time", "x"), values + add) for name, add in (("a", 0), ("b", 9))})
        ds.to_zarr(path, mode="w", consolidated=False, encoding={"a": encoding})

    def read(ds, **arguments):
        dataset = xtd.IterableDataset(
            ds, {"time": 4, "x": -1}, cache=cache, batch_size=9, **{"inputs": "a"} | arguments
        )
        x = epoch_of(dataset)
        return torch.cat([each for each, *_ in x.values()]).numpy(), dataset.stats().bytes_read > 0

    def check(found, expected, from_source):
        np.testing.assert_array_equal(found[0], expected.astype("f4"))
        assert found[1] is from_source

    written(values)
    ds = opened(path)
    check(read(ds), values, True)
    check(read(ds), values, False)
    check(read(ds, inputs="b"), values + 9, True)
    check(read(ds.isel(time=slice(4, 20))), values[4:], True)
    check(read(ds.isel(time=slice(None, None, -1))), values[::-1], True)
    check(read(ds, preprocess=lambda block: block * 2), values * 2, True)  # which gets float64
    check(read(ds, preprocess=lambda block: block * 3), values * 3, False)
    check(read(opened(path)), values, False)
    written(values + 1)
    check(read(opened(path)), values + 1, True)
    written(values, scale_factor=0.5, dtype="i2", _FillValue=-9)
    check(read(opened(path)), values, True)
    stored = xr.open_zarr(path, chunks=None, consolidated=False, mask_and_scale=False)
    check(read(stored), values * 2, True)
    lazy = xr.open_zarr(path, chunks={}, consolidated=False)
    for factor in (2, 3, 2):
        graph = lazy.map_blocks(lambda block, factor=factor: block * factor)
        check(read(graph)[:1] + (True,), values * factor, True)
    check(read(lazy * 5), values * 5, True)
    check(read(lazy * 5), values * 5, False)
    written(values + 2)  # dask's names do not tell, if the store is remote
    check(read(xr.open_zarr(path, chunks={}, consolidated=False) * 5), (values + 2) * 5, True)


def test_a_file_written_anew_is_read_anew(tmp_path):
    for engine in ("netcdf4", "h5netcdf", "scipy"):
        path = tmp_path / f"{engine}.nc"
        for offset in (0, 0, 1):
            ds = numbered(40) + offset
            if offset or not path.exists():
                ds.astype("f8").to_netcdf(path, engine=engine)
                new = True
            with xr.open_dataset(path, engine=engine) as lazy:
                dataset = xtd.IterableDataset(lazy, {"time": 10}, cache=tmp_path / "cache")
                found = epoch_of(dataset)
                assert [x.tolist() for (x,) in found.values()] == ds["a"].values.reshape(
                    4, 1, 10
                ).tolist()
                assert (dataset.stats().bytes_read > 0) is new
                new = False


def test_what_cannot_be_told_is_refused(tmp_path):
    class Unknown:
        shape, dtype, ndim = (4,), np.dtype("f4"), 1

        def __getitem__(self, key):
            return np.zeros(4, "f4")[key]

        def __reduce__(self):
            raise TypeError("not to be pickled")

    memory = zarr.storage.MemoryStore()
    numbered(8).to_zarr(memory, consolidated=False)
    lazy = xr.open_zarr(memory, chunks=None, consolidated=False)
    with pytest.raises(ValueError, match=r"'a' from .* in memory has nothing to gain"):
        xtd.IterableDataset(lazy, {"time": 2}, cache=tmp_path)
    array = dask.array.from_array(Unknown(), chunks=2, name="given", asarray=True)
    with pytest.raises(ValueError, match="Unknown cannot be told from others"):
        xtd.IterableDataset(xr.DataArray(array, dims="time"), {"time": 2}, cache=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cache": "s3://bucket/cache"}, ValueError, "local folder"),
        ({"cache": 3}, TypeError, "True, False or the path"),
        ({"cache": True, "cache_size": "1 GiB"}, ValueError, "cache_size bounds a folder"),
        ({"cache": "here", "cache_size": "much"}, ValueError, "cache_size must be a number"),
    ],
)
@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_arguments_are_checked(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(numbered(8), {"time": 2}, **arguments)


def test_a_file_is_no_folder_and_data_in_memory_is_not_kept(tmp_path, store):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        xtd.IterableDataset(opened(store[0]), {"time": 2}, cache=tmp_path / "file")
    with pytest.warns(UserWarning, match="all variables are in memory"):
        dataset = xtd.IterableDataset(numbered(8), {"time": 2}, cache=tmp_path / "new")
    assert len(list(dataset)) == 4
    assert not (tmp_path / "new").exists()


# The folder itself.


@given(
    damage=st.sampled_from(["flip", "cut", "append", "zero", "swap", "empty"]),
    at=st.integers(0, 10**6),
    dtype=st.sampled_from(["f4", "i8", "M8[ns]", "?", ">i2", "S3", "U2"]),
)
@examples(13)
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path_factory, damage, at, dtype):
    folder = tmp_path_factory.mktemp("damaged")
    cache = DiskCache(str(folder), 10**6, 10**6)
    values = np.random.default_rng(at).integers(1, 100, (3, 5)).astype(dtype)
    names = [entry_name(b"one"), entry_name(b"two")]
    for name, each in zip(names, (values, values[::-1]), strict=True):
        cache.offer(name, each)
        cache.wait()
    out = np.empty_like(values)
    assert cache.read(names[0], out)
    assert out.tobytes() == values.tobytes()
    (path,) = folder.glob(f"*/*/{names[0]}.cell")
    (other,) = folder.glob(f"*/*/{names[1]}.cell")
    content = bytearray(path.read_bytes())
    at %= len(content)
    while damage == "flip" and 40 <= at < 64:  # the header's end is not used
        at += 1
    if damage == "flip":
        content[at] ^= 1 << at % 8
    elif damage == "cut":
        content = content[:at]
    elif damage == "append":
        content += b"\0"
    elif damage == "zero":
        content[64:] = bytes(len(content) - 64)
    elif damage == "empty":
        content.clear()
    else:
        content = other.read_bytes()
    path.write_bytes(content)
    if damage == "zero" and not values.view("u1").any():
        return
    assert not cache.read(names[0], out)
    assert not path.exists()
    cache.offer(names[0], values)  # and is written again
    cache.wait()
    assert cache.read(names[0], out)
    assert not cache.read(names[1], np.empty(4, dtype))  # of another size


def test_the_folder_is_bounded_and_what_was_used_last_stays(tmp_path):
    filled(DiskCache(str(tmp_path), 10_000, 10**6), range(20))
    assert len(entries(tmp_path)) == 9  # with a header each; the first stay, none was older
    now = time.time()
    for path in entries(tmp_path):
        os.utime(path, (now - 1000, now - 1000))
    cache = DiskCache(str(tmp_path), 10_000, 10**6)
    assert all(kept(cache, number) for number in (3, 4))
    filled(cache, range(100, 105))
    assert all(kept(cache, number) for number in (3, 4, 100, 101, 102, 103, 104))
    assert len(entries(tmp_path)) in (8, 9)
    filled(cache, range(105, 130))
    assert all(kept(cache, number) for number in (3, 4, 100, 101, 102, 103, 104))
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 10_000
    # An order that comes round again finds as many as fit.
    assert sum(kept(cache, number) for number in [3, 4, *range(100, 130)]) == 9


def test_some_of_the_disk_stays_free(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "FREE_PART", 1.0)
    monkeypatch.setattr(disk_cache, "FREE_BYTES", 10**30)
    cache = filled(DiskCache(str(tmp_path), 10**6, 10**6), range(3))
    assert entries(tmp_path) == []
    assert not kept(cache, 0)


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    cache = filled(DiskCache(str(tmp_path), 5_000, 10**6), [1])
    (path,) = entries(tmp_path)
    old, new, foreign = (path.parent / name for name in ("x.1-0.tmp", "y.1-0.tmp", "mine.txt"))
    for each in (old, new, foreign):
        each.write_bytes(b"1" * 1500)
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    filled(cache, range(2, 9))
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)
    assert len(entries(tmp_path)) == 4  # as was reserved before the others were seen


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_where_nothing_can_be_written_it_is_said_once(tmp_path, monkeypatch, caplog, store, code):
    def refuse(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    small_cells(monkeypatch)
    path, ds = store
    dataset = xtd.IterableDataset(
        opened(path), {"time": 10, "x": -1}, inputs="a", cache=tmp_path, memory="20 kB"
    )
    with caplog.at_level(logging.WARNING, "xtorch_data"):
        for _ in range(2):
            found = epoch_of(dataset)
            assert Counting.reads > 0
    np.testing.assert_array_equal(found[11][0], ds["a"].isel(time=slice(110, 120)))
    (record,) = [each for each in caplog.records if "cannot be written" in each.message]
    assert os.strerror(code) in record.message
    assert not list(tmp_path.glob("*/*/*"))  # no temporary file is left
    monkeypatch.undo()
    small_cells(monkeypatch)
    dataset._inside.on_disk.cache._writes_from = 0.0  # as after a while
    epoch_of(dataset)
    epoch_of(dataset)
    assert Counting.reads == 0


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
@pytest.mark.parametrize("code", [None, errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch, store, code, kind):
    folder = tmp_path / "file" / "folder"
    (tmp_path / "file").write_text("")
    if code is not None:  # as for whom modes of folders count
        folder = tmp_path / "others"

        def refuse(*args, **kwargs):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "makedirs", refuse)
    reason = os.strerror(code or errno.ENOTDIR)
    with pytest.raises(ValueError, match=f"cache='{folder}' cannot be written to: {reason}"):
        kind(opened(store[0]), {"time": 10}, inputs="a", cache=folder)


def test_a_disk_that_is_full_at_first_is_said(tmp_path, monkeypatch, caplog, store):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "makedirs", refuse)
    with caplog.at_level(logging.WARNING, "xtorch_data"):
        dataset = xtd.IterableDataset(opened(store[0]), {"time": 10}, inputs="a", cache=tmp_path)
    assert (
        "cannot be written to, so that what is read is not kept until there is room" in caplog.text
    )
    assert len(epoch_of(dataset)) == 72


def test_nothing_outside_the_folder_is_touched(tmp_path, caplog, store):
    """Links in the folder: what they point to is neither written, removed nor believed."""
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    (outside / "x.tmp").write_text("mine")
    (outside / "count").write_text("mine")
    os.utime(outside / "x.tmp", (0, 0))
    cache = filled(DiskCache(str(folder), 10_000, 10**6), range(3))
    inside = folder / "xtorch_data-1"
    filled(DiskCache(str(tmp_path / "other"), 10**6, 10**6), [7])
    (foreign,) = entries(tmp_path / "other")
    link = inside / foreign.parent.name
    link.symlink_to(foreign.parent)
    (inside / "zz").symlink_to(outside)  # a folder as any other, at first sight
    (inside / "zy").symlink_to(tmp_path)
    assert not kept(cache, 7)
    filled(cache, range(10, 30))  # makes room
    foreign.write_bytes(b"damaged")
    assert not kept(cache, 7)
    assert foreign.read_bytes() == b"damaged"
    before = {each.name for each in foreign.parent.iterdir()}
    with caplog.at_level(logging.WARNING, "xtorch_data"):
        foreign.unlink()
        filled(cache, [7])
    assert not {each.name for each in foreign.parent.iterdir()} - before
    entry = entries(folder)[0]
    content = entry.read_bytes()
    (outside / "entry").write_bytes(content)
    entry.unlink()
    entry.symlink_to(outside / "entry")
    assert not any(cache.read(entry.stem, np.empty(1000, "u1")) for _ in range(2))
    other = inside / f"{entry_name(b'fifo')[:2]}" / f"{entry_name(b'fifo')}.cell"
    other.parent.mkdir(exist_ok=True)
    os.mkfifo(other)
    assert not cache.read(entry_name(b"fifo"), np.empty(9, "u1"))  # and nobody waits
    (inside / "count").unlink()
    (inside / "count").symlink_to(outside / "count")
    fresh = DiskCache(str(folder), 10_000, 10**6)
    with caplog.at_level(logging.WARNING, "xtorch_data"):
        filled(fresh, range(40, 43))
    assert len([each for each in caplog.records if str(folder) in each.message]) <= 2
    found = {each.name: each.read_bytes() for each in outside.iterdir()}
    assert found == {"x.tmp": b"mine", "count": b"mine", "entry": content}
    # The folder itself may be a link, but not the one in it.
    (tmp_path / "link").symlink_to(folder)
    DiskCache(str(tmp_path / "link"), 10_000, 10**6)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "xtorch_data-1").symlink_to(outside)
    with pytest.raises(ValueError, match="is a symbolic link"):
        xtd.IterableDataset(opened(store[0]), {"time": 2}, cache=tmp_path / "new")


def test_a_lock_that_is_never_given_back_is_not_waited_for(tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(disk_cache, "LOCK_SECONDS", 0.02)
    cache = filled(DiskCache(str(tmp_path), 10**6, 10**6), [1])
    with open(tmp_path / "xtorch_data-1" / "count", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with caplog.at_level(logging.WARNING, "xtorch_data"):
            filled(cache, [2, 3])
    assert len(caplog.records) == 1
    assert "has held its lock" in caplog.text
    assert [kept(cache, number) for number in (1, 2, 3)] == [True, False, False]


def test_a_folder_that_vanishes_stops_nobody(tmp_path, monkeypatch, store):
    small_cells(monkeypatch)
    path, ds = store
    for after in ("removed", "a file"):
        folder = tmp_path / after
        dataset = xtd.IterableDataset(
            opened(path), {"time": 10, "x": -1}, inputs="a", cache=folder, memory="20 kB"
        )
        found = {}
        for batch in dataset:
            found[int(batch.index[0])] = batch.x[0].numpy()
            if len(found) == 4:
                dataset._inside.on_disk.cache.wait()
                shutil.rmtree(folder)
                if after == "a file":
                    folder.write_text("")
        for number, x in found.items():
            window = ds["a"].isel(time=slice(number * 10, number * 10 + 10))
            np.testing.assert_array_equal(x, window)
        assert len(found) == 12
        assert len(epoch_of(dataset)) == 12


def test_a_copy_in_another_process_writes_by_itself(tmp_path):
    cache = filled(DiskCache(str(tmp_path), 10**6, 10**6), [1])
    copy = pickle.loads(pickle.dumps(cache))
    assert kept(copy, 1)
    filled(copy, [2])
    assert kept(cache, 2)


def test_what_waits_is_bounded_and_served(tmp_path, monkeypatch):
    cache = DiskCache(str(tmp_path), 10**6, 2_500)
    go = threading.Event()
    write = cache._write
    monkeypatch.setattr(cache, "_write", lambda *args: (go.wait(), write(*args)))
    for number in range(4):
        cache.offer(entry_name(b"%d" % number), values_of(number))
    assert [kept(cache, number) for number in range(4)] == [True, True, False, False]
    assert entries(tmp_path) == []
    go.set()
    cache.wait()
    assert len(entries(tmp_path)) == 2


def test_a_chunk_written_in_place_is_noticed_in_a_local_store(tmp_path):
    numbered(40).astype("f8").chunk(time=10).to_zarr(tmp_path / "v.zarr", consolidated=False)

    def first(**how):
        ds = xr.open_zarr(tmp_path / "v.zarr", consolidated=False, **how)
        dataset = xtd.IterableDataset(ds, {"time": 10}, inputs="a", cache=tmp_path / "cache")
        return epoch_of(dataset)[1][0].tolist(), dataset.stats().bytes_read > 0

    for how in ({"chunks": None}, {"chunks": {}}):
        xr.Dataset({"a": ("time", np.arange(10.0, 20))}).to_zarr(
            tmp_path / "v.zarr", region={"time": slice(10, 20)}, consolidated=False
        )
        assert first(**how) == (list(range(10, 20)), True)
        assert first(**how) == (list(range(10, 20)), False)
        xr.Dataset({"a": ("time", np.zeros(10))}).to_zarr(
            tmp_path / "v.zarr", region={"time": slice(10, 20)}, consolidated=False
        )
        assert first(**how) == ([0.0] * 10, True)


def in_place(path, start, values):
    """Write values as zarrs does, into the files that there are, which changes no folder."""
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        zarr.open_array(path / "a", mode="r+")[start : start + len(values)] = values


@pytest.mark.parametrize(
    ("format_", "encoding", "where"),
    [
        (3, {"chunks": (10,)}, "local"),
        (3, {"chunks": (5,), "shards": (10,)}, "local"),
        (2, {"chunks": (10,)}, "local"),
        (3, {"chunks": (10,)}, "fsspec"),
        (3, {"chunks": (10,)}, "obstore"),
        (3, {"chunks": (10,)}, "dask"),
    ],
)
def test_files_written_in_place_are_noticed(tmp_path, monkeypatch, format_, encoding, where):
    small_cells(monkeypatch)
    path, values = tmp_path / "v.zarr", np.arange(40.0)
    xr.Dataset({"a": ("time", values)}).to_zarr(
        path, encoding={"a": encoding}, consolidated=False, zarr_format=format_
    )

    def dataset(part):
        store = path
        if where == "fsspec":
            store = zarr.storage.FsspecStore.from_url(f"file://{path}")
        elif where == "obstore":
            obstore = pytest.importorskip("obstore")
            store = zarr.storage.ObjectStore(obstore.store.LocalStore(path))
        chunks = {} if where == "dask" else None
        ds = xr.open_zarr(store, chunks=chunks, consolidated=False).isel(time=part)
        return xtd.IterableDataset(ds, {"time": 4}, cache=tmp_path / "cache", dtype="float64")

    def check(part, nbytes, made=None):
        made = dataset(part) if made is None else made
        found = [x.tolist() for (x,) in epoch_of(made).values()]
        expected = values[part]
        assert found == expected[: len(expected) // 4 * 4].reshape(-1, 1, 4).tolist()
        assert nbytes is None or made.stats().bytes_read == nbytes
        return made

    whole = slice(None)
    check(whole, 320)
    same = check(whole, 0)
    for start in (12, 30):
        values[start : start + 3] += 100
        in_place(path, start, values[start : start + 3])
        if where != "dask":
            check(whole, 80, same)  # the epochs after notice it, too
        check(whole, 320 if where == "dask" else 0)
        part = slice(None, 6, -1)
        check(part, None)
        check(part, 0)
    samples = xtd.MapDataset(
        xr.open_zarr(path, chunks=None, consolidated=False),
        {"time": 4},
        cache=tmp_path / "cache",
        dtype="float64",
    )
    assert samples[3][0].tolist() == [values[12:16].tolist()]


class Disturbed(Counting):
    """Lets something happen once between a read and its answer."""

    between: ClassVar[list] = []

    async def get(self, key, *args, **kwargs):
        found = await super().get(key, *args, **kwargs)
        if "/c/" in key and self.between:
            self.between.pop()()
        return found


def test_what_is_written_while_it_is_read_is_not_kept(tmp_path):
    path = tmp_path / "v.zarr"
    xr.Dataset({"a": ("time", np.zeros(8))}).to_zarr(path, consolidated=False)
    for between, expected in ((lambda: in_place(path, 0, np.ones(8)), 0), (None, 1), (None, 1)):
        Disturbed.between[:] = [between] if between else []
        store = Disturbed(zarr.storage.LocalStore(path))
        ds = xr.open_zarr(store, chunks=None, consolidated=False)
        dataset = xtd.IterableDataset(ds, {"time": 8}, cache=tmp_path / "cache")
        assert epoch_of(dataset)[0][0].tolist() == [[expected] * 8] or between
    assert dataset.stats().bytes_read == 0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux shows what is open")
def test_a_file_that_was_replaced_while_it_was_open_is_refused(tmp_path):
    for value in (1.0, 2.0):
        xr.Dataset({"a": ("time", np.full(8, value))}).to_netcdf(tmp_path / f"{value}.nc")
    path = tmp_path / "1.0.nc"
    with xr.open_dataset(path) as before:
        assert before["a"][0] == 1
        os.replace(tmp_path / "2.0.nc", path)
        with pytest.raises(ValueError, match="'a' .* has taken the place of .* open it again"):
            xtd.IterableDataset(before, {"time": 8}, cache=tmp_path / "cache")
    with xr.open_dataset(path) as after:
        dataset = xtd.IterableDataset(after, {"time": 8}, cache=tmp_path / "cache")
        assert epoch_of(dataset)[0][0].tolist() == [[2] * 8]


def test_a_variable_without_dims_is_kept(tmp_path):
    ds = xr.Dataset({"a": ("time", np.arange(8.0)), "level": ((), 850.5)})
    ds.to_zarr(tmp_path / "v.zarr", consolidated=False)
    for _ in range(2):
        ds = xr.open_zarr(tmp_path / "v.zarr", chunks=None, consolidated=False)
        dataset = xtd.IterableDataset(
            ds, {"time": 4}, inputs=["a", "level"], cache=tmp_path / "cache"
        )
        found = epoch_of(dataset)
        assert [x.tolist() for (x,) in found.values()] == [
            [[0, 1, 2, 3], [850.5] * 4],
            [[4, 5, 6, 7], [850.5] * 4],
        ]
    assert dataset.stats().paths["taken from disk"] == 2


def test_explain_says_what_is_kept(tmp_path, store):
    ds = opened(store[0])
    for size, expected in ((None, "are read once and kept in"), (1000, "0.98 kiB of 2.81 kiB")):
        dataset = xtd.IterableDataset(
            ds, {"time": 8, "x": -1}, inputs="a", cache=tmp_path, cache_size=size
        )
        assert expected in dataset.explain().cache
        assert dataset.explain().cache in str(dataset.explain())


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("kind", ["zarr", "dask"])
def test_what_can_be_read_is_kept_beside_what_cannot(tmp_path, on_error, kind):
    values = np.arange(400.0).reshape(20, 20)
    ds = xr.Dataset({name: (("time", "x"), values) for name in "abc"})
    ds.to_zarr(
        tmp_path / "v.zarr",
        encoding={name: {"chunks": (5, 20)} for name in "abc"},
        consolidated=False,
    )
    (tmp_path / "v.zarr/b/c/1/0").write_bytes(b"not what it was")
    lazy = opened(tmp_path / "v.zarr")
    if kind == "dask":
        lazy["b"] = lazy["b"].chunk(time=5)
    for expected in ({"a": 1, "c": 1}, {}):
        dataset = xtd.IterableDataset(
            lazy,
            {"time": 5, "x": -1},
            inputs=list("abc"),
            batch_size=4,
            cache=tmp_path / "cache",
            on_error=on_error,
            retries=0,
        )
        Counting.keys = []
        if on_error == "raise":
            with pytest.raises(xtd.ReadError, match="'b' at isel"):
                next(iter(dataset))
        else:
            assert [list(batch.skipped) for batch in dataset] == [[1]]
        dataset._inside.on_disk.cache.wait()
        found = {name: Counting.keys.count(f"{name}/c/0/0") for name in "ac"}
        assert {name: count for name, count in found.items() if count} == expected


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_where_nothing_is_kept_is_said_of_the_line_of_the_user(kind, tmp_path):
    ds = xr.Dataset({"a": ("time", np.arange(20.0))})
    with pytest.warns(UserWarning, match="nothing is kept in cache") as caught:
        kind(ds, {"time": 4}, cache=tmp_path / "cache")
    assert [each.filename for each in caught] == [__file__]
