"""Data of dask: graphs computed on the cluster of the active client."""

import asyncio
import gc
import logging
import os
import runpy
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import dask
import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
from dask_data import CLUSTER, GRAPHS, HERE, WINDOW, assert_windows_of, dataset_of, fields
from helpers import assert_once, in_a_process, samples_of

import xtorch_data as xtd
from xtorch_data.reading import dask_graphs as graphs
from xtorch_data.report.stats import stats_of

# ---------------------------------------------------------------------------------------------
# On a cluster, here one of threads of this process


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    from distributed import Client

    with Client(cluster) as client:
        yield client


def slow(time_steps=60):
    """Data of which each chunk takes a while."""

    def slowly(values):  # not sent by name: workers need not import this module
        time.sleep(0.02)
        return values

    ds = fields(time_steps).chunk(time=6)
    for name in ds.data_vars:
        ds[name].data = ds[name].data.map_blocks(slowly, dtype="f4", meta=np.empty((0, 0), "f4"))
    return ds


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        gc.collect()  # an error may hold, by its frames, what is given up
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["arithmetic", "anomalies"])
def test_a_cluster_gives_the_batches_of_threads(kind, client):
    dataset = dataset_of(GRAPHS[kind](fields().chunk(time=20)), memory="1 kB")
    found = list(dataset)
    paths = dataset.stats().paths
    assert paths[CLUSTER] and HERE not in paths
    with dask.config.set(scheduler="threads"):
        dataset.set_epoch(0)
        expected = list(dataset)
    assert HERE in dataset.stats().paths
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.x, other.x)
    until(lambda: not client.futures)


def wanted(window):
    return bool(window["a"].sum() > 0)


def test_a_cluster_serves_samples_by_number_statistics_and_where(client):
    ds = fields().chunk(time=10)
    samples = xtd.MapDataset(ds, WINDOW, {"time": 5})
    assert_windows_of(
        fields(), list(xtd.DataLoader(samples, batch_size=9, sampler=range(len(samples)))), "ab"
    )
    assert set(stats_of(samples._inside.recorder).paths) == {CLUSTER}
    train, _ = xtd.split(dataset_of(ds, where=wanted), "time", at=["2000-02-10"])
    assert train.where.sum() == sum(
        wanted(fields().isel(time=slice(k, k + 6))) for k in range(len(train.where))
    )
    found = xtd.Normalize.fit(train)
    with dask.config.set(scheduler="threads"):
        xr.testing.assert_allclose(found.std, xtd.Normalize.fit(train).std)
    until(lambda: not client.futures)


def test_statistics_send_the_mask_once(client, monkeypatch):
    from distributed import Client

    sizes = []
    persist = Client.persist

    def noted(self, collections, **options):
        graph = {key: task for each in collections for key, task in each.dask.items()}
        sizes.append(sum(len(cloudpickle.dumps(task)) for task in graph.values()))
        return persist(self, collections, **options)

    dataset = xtd.IterableDataset(
        xr.Dataset({"a": ("time", np.zeros(100_000))}).chunk(time=5_000),
        {"time": 2},
        {"time": 1},
        where=np.arange(99_999) % 3 == 0,
    )
    monkeypatch.setattr(Client, "persist", noted)
    assert float(xtd.Normalize.fit(dataset).mean["a"]) == 0
    (size,) = sizes
    assert size < 2_500_000  # data twice, the mask of 100 kB and 20 tasks; not 20 masks


def test_breaking_off_gives_up_what_is_under_way_but_nothing_of_the_user(client):
    ds = slow()
    kept = ds.isel(time=slice(0, 6)).persist()  # has keys of the dataset's
    for _ in dataset_of(ds, shuffle=False, memory="1 kB"):
        break
    other = iter(dataset_of(ds, memory="1 kB"))  # gets blocks of the other's
    next(other)
    iterator = iter(dataset_of(ds, memory="1 kB"))
    next(iterator)
    del iterator
    assert len(samples_of(other)) == 50
    assert kept["a"].shape == kept["a"].compute().shape
    del kept
    until(lambda: not client.futures)


@pytest.fixture
def requests(monkeypatch):
    """Requests of a client for values, as the keys they ask for; they are sent when told to."""
    from distributed import Client

    bring, send, asked = Client._gather_remote, threading.Event(), []

    async def later(self, *args, **options):
        asked.append(self._gather_keys)  # others may add theirs until it is sent
        try:
            while not send.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:  # it is forgotten, as one that was sent
            self._gather_keys = self._gather_future = None
            raise
        return await bring(self, *args, **options)

    monkeypatch.setattr(Client, "_gather_remote", later)
    yield SimpleNamespace(asked=asked, send=send.set)
    send.set()


@pytest.mark.parametrize("given_up", ["ours", "the user's"])
def test_who_gives_up_takes_nothing_from_others_in_the_same_request(
    client, requests, caplog, given_up
):
    from distributed import futures_of

    def asked_by_the_user(persisted):
        gathered = client.gather(futures_of(persisted), asynchronous=True)
        return asyncio.run_coroutine_threadsafe(gathered, client.loop.asyncio_loop)

    ds = slow()
    users = ds["a"].isel(time=slice(0, 6)).persist()
    sent = graphs._Sent(client, [ds["b"].data[:6]], print)
    ours = sent.begin()
    until(lambda: requests.asked)
    theirs = asked_by_the_user(users)
    until(lambda: len(requests.asked[0]) == 2)
    if given_up == "ours":
        sent.release()
        assert ours.cancelled()
    else:
        theirs.cancel()
        until(lambda: len(requests.asked) == 2)  # again, for ours
    requests.send()
    if given_up == "ours":
        [values] = theirs.result(60)
        np.testing.assert_array_equal(values, fields()["a"].values[:6])
        assert len(requests.asked) == 1
    else:
        ours.result(60)
        np.testing.assert_array_equal(sent.results()[0], fields()["b"].values[:6])
        sent.release()
    assert not caplog.records
    del users, theirs
    until(lambda: not client.futures)


def test_a_closed_client_is_replaced_by_threads(cluster, caplog):
    from distributed import Client

    client = Client(cluster)  # closed once: a second time leaves dask without a scheduler
    dataset = dataset_of(slow(), shuffle=False, memory="1 kB")
    batches = []
    for batch in dataset:
        batches.append(batch)
        if len(batches) == 2:
            client.close()
    assert_windows_of(fields(), batches, "ab")
    paths = dataset.stats().paths
    assert paths[CLUSTER] and paths[HERE]
    assert caplog.text.count("goes on in this process") == 1


def test_what_a_restarted_cluster_has_lost_is_computed_here(client):
    from distributed import Future

    dataset = dataset_of(slow(), shuffle=False, memory="1 kB")
    batches = []
    for batch in dataset:
        batches.append(batch)
        if len(batches) == 2:
            for future in list(client.futures):
                client.cancel([Future(future, client)], force=True)
    assert_windows_of(fields(), batches, "ab")


def test_tasks_that_take_all_threads_of_the_cluster_compute_on_their_own(client):
    def train(number):
        stream = dataset_of(slow(), memory="1 kB")
        samples = xtd.MapDataset(slow(), WINDOW)
        count = len(samples_of(stream)) + len(
            samples_of(xtd.DataLoader(samples, batch_size=5, sampler=range(len(samples))))
        )
        return count, set(stream.stats().paths), set(stats_of(samples._inside.recorder).paths)

    for count, stream, samples in client.gather(client.map(train, range(4)), asynchronous=False):
        assert count == 55 + 10
        assert HERE in stream and CLUSTER not in stream and samples == {HERE}


def test_a_task_that_gives_its_thread_back_uses_the_cluster(client):
    from distributed import worker_client

    def train():
        with worker_client() as client, client.as_current():
            stream = dataset_of(slow(12))
            return len(samples_of(stream)), set(stream.stats().paths)

    count, paths = client.submit(train).result(60)
    assert count == 7 and CLUSTER in paths and HERE not in paths


def test_a_cluster_without_workers_is_waited_for_and_that_is_said(monkeypatch, caplog):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(graphs, "PATIENCE_SECONDS", 0.05)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        timer = threading.Timer(0.5, cluster.scale, [1])
        timer.start()
        assert_windows_of(fields(), list(dataset_of(fields().chunk(time=10))), "ab")
        timer.join()
    assert caplog.text.count("no worker") == 1


def test_the_error_of_a_task_names_the_variable(client):
    def broken(values):
        raise ZeroDivisionError("of a task")

    ds = fields().chunk(time=10)
    ds["b"].data = ds["b"].data.map_blocks(broken, dtype="f4", meta=np.empty((0, 0), "f4"))
    with pytest.raises(xtd.ReadError, match="'b'.*of a task"):
        list(dataset_of(ds))


def test_a_client_on_the_loop_of_the_user_is_left_alone():
    distributed = pytest.importorskip("distributed")

    async def main():
        async with distributed.Client(processes=False, asynchronous=True, dashboard_address=":0"):
            dataset = dataset_of(fields().chunk(time=10))
            return len(samples_of(dataset)), dataset.stats().paths

    count, paths = asyncio.run(main())
    assert count == 55 and CLUSTER not in paths


def test_the_example_trains_on_what_a_cluster_computes(client):
    main = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "train_dask.py"))["main"]
    seen, paths = main(epochs=1)
    assert_once([number for batch in seen for number in batch], 240 - 8)
    assert paths[CLUSTER] and HERE not in paths


def test_the_interpreter_ends_while_blocks_are_on_a_cluster(tmp_path):
    pytest.importorskip("distributed")
    script = """
        import dask.array, time, xarray as xr, xtorch_data as xtd
        from distributed import Client

        def slowly(values):
            time.sleep(0.1)
            return values

        if __name__ == "__main__":
            client = Client(processes=False, n_workers=1, dashboard_address=":0")
            values = dask.array.zeros(600, chunks=6).map_blocks(slowly, dtype="f8")
            ds = xr.Dataset({"a": ("time", values)})
            iterator = iter(xtd.IterableDataset(ds, {"time": 6}, batch_size=2, memory="1 kB"))
            print(len(next(iterator)))
    """
    run = in_a_process(script, timeout=60, warnings_as_errors=False)
    assert run.returncode == 0 and run.stdout.strip() == "2", run.stderr


# ---------------------------------------------------------------------------------------------
# Worker processes


def in_forks(ds):
    return torch.utils.data.DataLoader(
        dataset_of(ds), batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )


def test_forked_workers_compute_on_threads(client):
    dataset = dataset_of(fields().chunk(time=10))
    next(iter(dataset))
    assert_windows_of(fields(), list(in_forks(fields().chunk(time=10))), "ab")


def test_persisted_data_trains_and_says_where_it_cannot(client):
    ds = fields().chunk(time=10).persist()
    assert_windows_of(fields(), list(dataset_of(ds)), "ab")
    with pytest.raises(xtd.ReadError, match="persisted on a cluster"):
        list(in_forks(ds))


# ---------------------------------------------------------------------------------------------
# A cluster of processes


@pytest.fixture(scope="module")
def processes():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(**options, silence_logs=logging.ERROR) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_worker_of_the_cluster_that_is_killed_costs_no_batch(processes):
    from distributed import Client

    with Client(processes) as client:
        dataset = dataset_of(slow(), shuffle=False, memory="1 kB")
        batches = []
        for batch in dataset:
            batches.append(batch)
            if len(batches) == 2:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    assert HERE not in dataset.stats().paths
    assert_windows_of(fields(), batches, "ab")
