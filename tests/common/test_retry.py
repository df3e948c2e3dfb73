import asyncio
import errno
import http.client
import time

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import assert_once, samples_of
from hypothesis import given
from hypothesis import strategies as st

import xtorch_data as xtd
from xtorch_data.common import retry
from xtorch_data.common.retry import is_transient, pause_before


def caused_by(cause):
    error = RuntimeError("of a package in between")
    error.__cause__ = cause
    return error


class SlowDown(Exception):
    """As clients of object stores raise it."""

    def __init__(self, status):
        self.status = status


SlowDownOfAiohttp = type("ClientPayloadError", (Exception,), {"__module__": "aiohttp.client"})
Unrelated = type("ClientPayloadError", (Exception,), {"__module__": "elsewhere"})


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError("reset by peer"),
        BrokenPipeError(),
        OSError(errno.ETIMEDOUT, "timed out"),
        OSError(errno.ESTALE, "stale file handle"),
        http.client.IncompleteRead(b""),
        asyncio.IncompleteReadError(b"", 8),
        SlowDown(503),
        SlowDownOfAiohttp(),
        caused_by(caused_by(ConnectionResetError())),
    ],
)
def test_timeouts_and_connections_cut_off_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "denied"),
        OSError(errno.EIO, "damaged"),
        ValueError("checksum"),
        SlowDown(404),
        SlowDown(403),
        Unrelated(),
        caused_by(KeyError("a")),
    ],
)
def test_what_will_not_pass_is_not_tried_again(error):
    assert not is_transient(error)


def test_errors_of_an_http_client_are_known():
    aiohttp = pytest.importorskip("aiohttp")
    assert is_transient(aiohttp.ServerDisconnectedError())
    assert is_transient(aiohttp.ClientPayloadError())
    assert not is_transient(aiohttp.InvalidURL("x"))


@given(st.integers(1, 60))
def test_pauses_grow_and_are_bounded(attempt):
    longest = min(30, 0.5 * 2 ** (attempt - 1))
    assert longest / 2 <= pause_before(attempt) <= longest


class Silent(zarr.storage.WrapperStore):
    """A store that does not answer the first requests for a chunk."""

    def __init__(self, store, silent, asked=None):
        super().__init__(store)
        self.silent, self.asked = silent, {} if asked is None else asked

    def _with_store(self, store):
        return type(self)(store, self.silent, self.asked)

    async def get(self, key, *args, **kwargs):
        if not key.rpartition("/")[2].startswith((".", "zarr.json")):
            self.asked[key] = self.asked.get(key, 0) + 1
            if self.asked[key] <= self.silent:
                await asyncio.Event().wait()
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("dtype", ["f8", ">f8"])  # read directly, and by zarr
@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_a_request_that_is_never_answered_fails_in_passing(monkeypatch, kind, dtype):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    memory = zarr.storage.MemoryStore()
    values = np.arange(40.0)
    xr.Dataset({"a": ("time", values.astype(dtype))}).to_zarr(
        memory, consolidated=False, zarr_format=2, encoding={"a": {"chunks": (10,)}}
    )

    def dataset(silent, timeout):
        with xtd.set_options(read_timeout=timeout):
            lazy = xr.open_zarr(Silent(memory, silent), chunks=None, consolidated=False)
            return kind(lazy, {"time": 10}, inputs="a", retries=1)

    def epoch(data):
        if kind is xtd.IterableDataset:
            return np.concatenate([batch.x.numpy().ravel() for batch in data])
        return np.concatenate([data[number][0].numpy().ravel() for number in range(4)])

    np.testing.assert_array_equal(epoch(dataset(1, 0.05)), values)
    with pytest.raises(
        xtd.ReadError, match=r"no whole answer within 0.05 s.*tried 2 times"
    ) as told:
        epoch(dataset(2, 0.05))
    assert "could not read 'a' at isel(time=" in str(told.value)
    assert "in chunk a/0" in str(told.value)
    np.testing.assert_array_equal(epoch(dataset(0, None)), values)
    for bad in (0, -1, True, "30"):
        with pytest.raises(ValueError, match="read_timeout must be a number of seconds above 0"):
            xtd.set_options(read_timeout=bad)


class Failing(zarr.storage.WrapperStore):
    """A store that fails to give a chunk, as often as it is told to."""

    def __init__(self, store, failures=0, error=None, spared=(), asked=None):
        super().__init__(store)
        self.failures, self.error, self.spared = failures, error, spared
        self.asked = {} if asked is None else asked

    def _with_store(self, store):
        return type(self)(store, self.failures, self.error, self.spared, self.asked)

    async def get(self, key, *args, **kwargs):
        if "/c/" in key and key not in self.spared:
            self.asked[key] = self.asked.get(key, 0) + 1
            if self.asked[key] <= self.failures:
                raise self.error
        return await super().get(key, *args, **kwargs)


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    data = xr.Dataset({"a": ("time", np.arange(40.0))})
    memory = zarr.storage.MemoryStore()
    data.to_zarr(memory, consolidated=False, zarr_format=3, encoding={"a": {"chunks": (10,)}})

    def made(failures, error, dask=False, spared=(), **options):
        store = Failing(memory, failures, error, spared)
        ds = xr.open_zarr(store, consolidated=False, chunks={} if dask else None)
        return store, xtd.IterableDataset(ds, {"time": 1}, inputs="a", batch_size=8, **options)

    return made


@pytest.mark.parametrize("dask", [False, True])
def test_an_epoch_is_whole_though_every_chunk_fails_twice(make, dask, caplog):
    # A dask graph ends at the first chunk that fails, and there are four.
    retries = 8 if dask else 2
    store, dataset = make(2, ConnectionResetError("reset by peer"), dask, retries=retries)
    batches = list(dataset)
    assert_once(samples_of(batches), 40)
    for batch in batches:
        np.testing.assert_array_equal(batch.x.numpy().ravel(), batch.index.numpy())
    assert dask or set(store.asked.values()) == {3}
    stats = dataset.stats()
    assert stats.retries >= 2
    assert f"{stats.retries} reads tried again" in str(stats)
    assert len(caplog.records) == stats.retries
    assert "'a' at isel(time=" in caplog.records[0].message
    assert "reset by peer" in caplog.records[0].message


def test_a_map_dataset_reads_again_as_well(make):
    store, dataset = make(2, ConnectionResetError("reset by peer"))
    opened = xr.open_zarr(store, consolidated=False, chunks=None)
    impatient = xtd.MapDataset(opened, {"time": 1}, retries=0)
    with pytest.raises(xtd.ReadError):
        impatient[3]
    store.asked.clear()
    samples = xtd.MapDataset(opened, {"time": 1})
    assert samples[3][0].item() == 3
    assert set(store.asked.values()) == {3}
    for retries, error in [(-1, ValueError), ("a few", TypeError)]:
        with pytest.raises(error, match="retries"):
            xtd.MapDataset(opened, {"time": 1}, retries=retries)


def test_what_does_not_pass_is_an_error_that_says_how_often_it_was_tried(make):
    store, dataset = make(99, TimeoutError("no answer"), retries=2)
    with pytest.raises(xtd.ReadError, match=r"'a' at isel\(time=.*no answer \(tried 3 times\)"):
        list(dataset)
    assert max(store.asked.values()) == 3


@pytest.mark.parametrize(
    ("error", "retries"), [(PermissionError("denied"), 3), (TimeoutError("no answer"), 0)]
)
def test_one_attempt_where_no_other_is_wanted(make, error, retries):
    store, dataset = make(1, error, retries=retries)
    with pytest.raises(xtd.ReadError):
        list(dataset)
    assert set(store.asked.values()) == {1}
    assert dataset.stats().retries == 0


def test_an_iteration_that_is_closed_does_not_wait_for_the_next_attempt(make, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 3600)
    store, dataset = make(1, TimeoutError("no answer"), spared=["a/c/0"], memory="300 B")
    batches = iter(dataset)
    assert len(next(batches)) == 8
    while not store.asked:  # reading ahead has failed
        time.sleep(0.001)
    batches.close()


@pytest.mark.parametrize(("retries", "error"), [(-1, ValueError), ("a few", TypeError)])
def test_retries_that_are_no_count_are_refused(make, retries, error):
    with pytest.raises(error, match="retries"):
        make(0, None, retries=retries)
