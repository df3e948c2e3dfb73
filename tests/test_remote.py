"""Stores behind S3, through s3fs and through obstore, with faults on the way."""

import datetime
import urllib.request

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import assert_once, samples_of

import xtorch_data as xtd
from benchmarks.faults import Faults
from xtorch_data import retry

obstore = pytest.importorskip("obstore")
pytest.importorskip("s3fs")

SECRET = "GeHeImGeHeIm"
CHUNKS = 20
STEPS = 2 * CHUNKS
WINDOW = 3
KINDS = ["s3fs", "obstore"]
KINDS_OF_FAULTS = ("500", "503", "reset", "cut")
SOON = datetime.timedelta(milliseconds=10)


def values():
    return np.arange(STEPS * 6.0, dtype="f4").reshape(STEPS, 6)


@pytest.fixture(scope="module")
def bucket(s3):
    """A bucket with a store of 20 chunks, and one of 20 chunks in 5 shards."""
    ds = xr.Dataset({"v": (("time", "x"), values())}, coords={"time": np.arange(STEPS)})
    made = obstore.store.S3Store("data", **credentials(s3))
    urllib.request.urlopen(urllib.request.Request(f"{s3.endpoint}/data", method="PUT")).close()
    for name, shards in (("plain", None), ("sharded", (8, 6))):
        memory = zarr.storage.MemoryStore()
        encoding = {"v": {"chunks": (2, 6), "shards": shards}}
        ds.to_zarr(memory, encoding=encoding, consolidated=False, zarr_format=3)
        for key, buffer in memory._store_dict.items():
            obstore.put(made, f"{name}.zarr/{key}", buffer.to_bytes())
    return s3


@pytest.fixture(autouse=True)
def quiet(bucket):
    """A server without faults, that has forgotten what it was asked before."""
    bucket.spoil()
    bucket.log()
    yield
    bucket.spoil()


def credentials(s3):
    return {
        "endpoint": s3.endpoint,
        "region": "us-east-1",
        "access_key_id": "someone",
        "secret_access_key": SECRET,
        "client_options": {"allow_http": True, "timeout": "5s"},
        "retry_config": {
            "max_retries": 2,
            "backoff": {"init_backoff": SOON, "max_backoff": SOON, "base": 2},
            "retry_timeout": datetime.timedelta(seconds=5),
        },
    }


def storage_options(s3):
    return {"key": "someone", "secret": SECRET, "endpoint_url": s3.endpoint}


def opened(s3, kind, name="plain", patient=True):
    """The store, as a user opens it; with a client that tries again by itself, or that does not."""
    if kind == "s3fs":
        address, options = f"s3://data/{name}.zarr", storage_options(s3)
        if not patient:
            options["config_kwargs"] = {"retries": {"max_attempts": 0}}
        ds = xtd.open_zarr(address, storage_options=options, consolidated=False)
        if not patient:
            store_of(ds).fs.retries = 1
        return ds
    options = credentials(s3)
    if not patient:
        options["retry_config"]["max_retries"] = 0
    store = obstore.store.S3Store("data", prefix=f"{name}.zarr", **options)
    return xtd.open_zarr(zarr.storage.ObjectStore(store, read_only=True), consolidated=False)


def store_of(ds):
    """The store under a variable."""
    lazy = ds["v"].variable._data
    while hasattr(lazy, "array"):
        lazy = lazy.array
    return lazy.get_array().store


def windows(ds, **options):
    options = {"inputs": "v", "batch_size": 7, "shuffle": True, **options}
    return xtd.IterableDataset(ds, {"time": WINDOW, "x": -1}, {"time": WINDOW - 1}, **options)


def assert_an_epoch(batches):
    """Every window once, each as plain slicing has it."""
    batches, expected = list(batches), values()
    assert_once(samples_of(batches), STEPS - WINDOW + 1)
    for batch in batches:
        for number, x in zip(batch.index.tolist(), batch.x, strict=True):
            np.testing.assert_array_equal(x, expected[number : number + WINDOW])


def chunks_asked(s3):
    return [each for each in s3.log() if "/v/c/" in each[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_plain_isel_and_each_chunk_is_one_request(bucket, kind):
    assert_an_epoch(windows(opened(bucket, kind)))
    asked = chunks_asked(bucket)
    assert len(asked) == len({key for _, key, _, _ in asked}) == CHUNKS
    assert {method for method, *_ in asked} == {"GET"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_chunks_of_a_block_are_asked_for_at_once(bucket, kind):
    ds = opened(bucket, kind)
    # Longer than it takes to send all requests, however busy the machine.
    bucket.spoil(Faults(slow=1.0, seconds=0.5, keys="/v/c/"))
    bucket.counts()
    assert_an_epoch(windows(ds))
    assert bucket.counts().most >= CHUNKS - 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_client_mends_itself_does_not_reach_us(bucket, kind):
    ds = opened(bucket, kind)
    for fault in KINDS_OF_FAULTS:
        bucket.spoil(Faults(failing=1.0, kinds=(fault,), keys="/v/c/1"))
        dataset = windows(ds)
        assert_an_epoch(dataset)
        assert dataset.stats().retries == 0
        assert bucket.counts().failed


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_client_gives_up_is_tried_again_by_itself(bucket, kind, monkeypatch):
    """Each request fails twice, so that a read of all of them at once would never succeed."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    ds = opened(bucket, kind, patient=False)
    for fault in KINDS_OF_FAULTS:
        bucket.spoil(Faults(failing=1.0, kinds=(fault,), times=2, keys="/v/c/"))
        bucket.log()
        dataset = windows(ds, retries=2)
        assert_an_epoch(dataset)
        # aiohttp tries again itself, once, where a connection that it has used before is reset.
        assert dataset.stats().retries in {CHUNKS, 2 * CHUNKS}
        assert len(chunks_asked(bucket)) == 3 * CHUNKS


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_with_some_requests_failing_and_some_slow_is_whole(bucket, kind, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    ds = opened(bucket, kind, patient=False)
    bucket.spoil(Faults(failing=0.3, slow=0.3, seconds=0.1, seed=3))
    dataset = windows(ds, memory="2 kB", retries=5)
    assert_an_epoch(dataset)
    counts = bucket.counts()
    assert counts.failed and counts.slowed
