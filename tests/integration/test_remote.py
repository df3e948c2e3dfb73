"""Stores behind S3, through s3fs and through obstore, with faults on the way."""

import contextlib
import datetime
import itertools
import json
import logging
import pickle
import traceback
import urllib.request
import warnings

import numpy as np
import pytest
import torch.utils.data
import xarray as xr
import zarr
from click.testing import CliRunner
from helpers import assert_once, samples_of
from s3_server import Faults

import xtorch_data as xtd
from xtorch_data.cli import main
from xtorch_data.common import retry
from xtorch_data.common.buffers import Buffers
from xtorch_data.reading.recycled import is_fetched, with_recycled_memory

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
        with warnings.catch_warnings():  # not in the specification yet, but HTTP cannot list
            warnings.filterwarnings("ignore", "Consolidated metadata")
            ds.to_zarr(memory, encoding=encoding, consolidated=True, zarr_format=3)
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


def test_only_what_is_fetched_is_read_many_blocks_at_a_time(bucket, tmp_path):
    remote = opened(bucket, "obstore")
    remote.compute().to_zarr(tmp_path / "v.zarr", consolidated=False)
    local = xtd.open_zarr(tmp_path / "v.zarr", consolidated=False)
    for ds, expected in ((remote, True), (local, False)):
        read = with_recycled_memory(ds, Buffers(1000), {})
        assert is_fetched(read["v"].variable) == expected
    assert not is_fetched(remote.compute()["v"].variable)


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
        dataset = windows(ds, retries=5)  # a busy client may give up what was answered in time
        assert_an_epoch(dataset)
        # aiohttp tries again itself, once, where a connection that it has used before is reset.
        assert CHUNKS <= dataset.stats().retries
        assert 3 * CHUNKS <= len(chunks_asked(bucket)) <= 6 * CHUNKS


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_with_some_requests_failing_and_some_slow_is_whole(bucket, kind, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    ds = opened(bucket, kind, patient=False)
    bucket.spoil(Faults(failing=0.3, slow=0.3, seconds=0.1, seed=3))
    dataset = windows(ds, memory="2 kB", retries=5)
    assert_an_epoch(dataset)
    counts = bucket.counts()
    assert counts.failed and counts.slowed


def with_password(s3):
    """The store over HTTP, with a password in its address, and signed as far as we are told."""
    host = s3.endpoint.partition("//")[2]
    address = f"http://me:{SECRET}@{host}/data/plain.zarr"
    ds = xtd.open_zarr(address)
    ds.encoding["source"] = f"{address}?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}"
    return address, ds


class Telling(zarr.storage.WrapperStore):
    """A store whose errors tell everything."""

    async def get(self, key, *args, **kwargs):
        if "v/c/" in key:
            raise OSError(f"403: https://me:{SECRET}@host/{key}?sig={SECRET} with secret={SECRET}")
        return await super().get(key, *args, **kwargs)


def test_no_secret_is_shown_by_anything(bucket, caplog, capsys, tmp_path, monkeypatch):
    """All that prints, logs or raises, asked of stores that were opened with secrets."""
    caplog.set_level(logging.DEBUG, "xtorch_data")
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    address, over_http = with_password(bucket)
    said = []
    for ds in (opened(bucket, "s3fs"), opened(bucket, "obstore", patient=False), over_http):
        dataset = windows(ds)
        *_, batch = dataset
        for each in (dataset, xtd.MapDataset(ds, {"time": 3}), dataset.explain(), dataset.stats()):
            said += [repr(each), str(each), getattr(each, "_repr_html_", str)()]
        said += [repr(batch), repr(batch.to_xarray()), repr(dataset.plan)]
        said += [repr(xtd.split(dataset, "time", at=[20])), repr(xtd.verify(dataset, world_size=2))]
        said += [json.dumps(each.state_dict()) for each in (dataset, xtd.DataLoader(dataset))]
        xtd.Normalize.fit(dataset).save(tmp_path / "normalize.json")
        said.append((tmp_path / "normalize.json").read_text())
    assert all("plain.zarr" in said[start] for start in (0, len(said) // 3, len(said) * 2 // 3))

    bucket.spoil(Faults(failing=1.0, kinds=("500",), times=99, keys="/v/c/"))
    telling = xr.open_zarr(Telling(store_of(ds)), chunks=None)
    for broken in (ds, telling):
        for options in ({"retries": 1}, {"retries": 0, "on_error": "skip"}):
            with pytest.raises(xtd.ReadError) as caught:
                list(windows(broken, **options))
            said += traceback.format_exception(caught.value)
    bucket.spoil()
    for given in (address, f"{address}-missing", f"{address}.nc"):
        done = CliRunner().invoke(main, ["explain", given, "--input-dims", "time=3"])
        said += [done.output, *traceback.format_exception(done.exception)]
        for make in (xtd.open_zarr, lambda given: xtd.IterableDataset(given, {"time": 3})):
            with contextlib.suppress(Exception):
                make(given)
    said += [caplog.text, *capsys.readouterr()]
    assert len(said) > 60 and "trying again" in caplog.text
    for text in said:
        assert SECRET not in text, text


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_hold_what_the_store_holds_and_nothing_from_the_environment(
    bucket, kind, s3_environment, monkeypatch
):
    told = pickle.dumps(windows(opened(bucket, kind)))
    assert told.count(SECRET.encode()) == pickle.dumps(opened(bucket, kind)).count(SECRET.encode())

    for name, value in (s3_environment | {"AWS_SECRET_ACCESS_KEY": SECRET}).items():
        monkeypatch.setenv(name, value)
    if kind == "s3fs":
        ds = xtd.open_zarr("s3://data/plain.zarr", consolidated=False)
    else:
        store = obstore.store.S3Store("data", prefix="plain.zarr")
        ds = xtd.open_zarr(zarr.storage.ObjectStore(store, read_only=True), consolidated=False)
    dataset = windows(ds)
    assert SECRET.encode() not in pickle.dumps(dataset)
    assert_an_epoch(pickle.loads(pickle.dumps(dataset)))


# Worker processes.


@pytest.mark.parametrize("kind", KINDS)
def test_workers_open_connections_of_their_own(bucket, kind):
    dataset = windows(opened(bucket, kind))
    list(dataset)  # this process has connections and threads already
    assert_an_epoch(xtd.DataLoader(dataset, num_workers=1))


@pytest.mark.parametrize("kind", KINDS)
def test_forked_workers_say_that_they_would_hang(bucket, kind):
    dataset = windows(opened(bucket, kind))
    list(dataset)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    with pytest.raises(RuntimeError, match="multiprocessing_context='forkserver'"):
        list(loader)


# Shards.


@pytest.mark.parametrize("kind", KINDS)
def test_each_shard_index_is_read_once_and_each_chunk_once(bucket, kind):
    ds = opened(bucket, kind, "sharded")
    bucket.log()
    dataset = windows(ds, shuffle=False, memory="400 B")  # blocks of less than a shard
    assert_an_epoch(dataset)
    asked = chunks_asked(bucket)
    index_nbytes = 4 * 16 + 4
    indexes = [key for _, key, wanted, _ in asked if wanted == f"bytes=-{index_nbytes}"]
    assert sorted(indexes) == sorted({key for _, key, _, _ in asked})
    assert len(indexes) == CHUNKS // 4
    ranges = [(key, wanted) for _, key, wanted, _ in asked if "=-" not in wanted]
    assert len(ranges) == len(set(ranges))
    for key in set(indexes):  # no byte is asked for twice
        bounds = sorted(
            tuple(map(int, wanted.removeprefix("bytes=").split("-")))
            for shard, wanted in ranges
            if shard == key
        )
        assert all(before[1] < after[0] for before, after in itertools.pairwise(bounds))
    assert dataset.stats().paths["read directly"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_side_by_side_in_a_shard_is_one_request(bucket, kind):
    ds = opened(bucket, kind, "sharded")
    bucket.log()
    assert_an_epoch(windows(ds))
    assert len(chunks_asked(bucket)) == 2 * CHUNKS // 4
