import concurrent.futures
import gc
import os
import signal
import threading
import time

import dask.system
import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd
from xtorch_data.iteration import threads as open_threads
from xtorch_data.reading.concurrency import on_thread, together


@pytest.fixture
def dataset(tmp_path):
    gc.collect()  # threads of what other tests have left
    ds = xr.Dataset({"v": ("time", np.arange(4000.0))})
    ds.to_zarr(tmp_path / "v.zarr", encoding={"v": {"chunks": (10,)}}, consolidated=False)
    opened = xtd.open_zarr(tmp_path / "v.zarr", consolidated=False)
    return xtd.IterableDataset(opened, {"time": 10}, inputs="v", batch_size=3, memory="2 kB")


def ours():
    return [each.name for each in threading.enumerate() if each.name.startswith("xtorch_data-")]


def ended(seconds=10):
    # Not by `join`: Python 3.11 takes a thread for ended whose `join` was interrupted before.
    end = time.monotonic() + seconds
    while ours() and time.monotonic() < end:
        time.sleep(0.01)
    return not ours()


@pytest.mark.parametrize("pool", ["gather", "work", "loop"])
def test_an_iteration_may_be_closed_on_one_of_its_own_threads(dataset, pool):
    """As the garbage collector does when it finds it in a cycle there."""
    gc.collect()  # what other tests have left open
    before = set(open_threads._open)
    batches = iter(dataset)
    next(batches)
    [threads] = set(open_threads._open) - before
    if pool == "loop":
        threads.loop.call_soon_threadsafe(threads.close)
    else:
        getattr(threads, pool).submit(threads.close).result(10)
    assert ended()
    del batches, threads
    gc.collect()


@pytest.mark.parametrize(("cores", "expected"), [(2, 8), (12, 12), (64, 32)])
def test_as_many_threads_decode_as_there_are_cores_within_bounds(monkeypatch, cores, expected):
    monkeypatch.setattr(dask.system, "CPU_COUNT", cores)
    threads = open_threads.Threads()
    threads.begin()
    at_once = threading.Barrier(min(cores, expected))

    async def decoded():
        await together(on_thread(at_once.wait, 60) for _ in range(min(cores, expected)))

    threads.start(decoded()).result(60)
    assert threads.work._max_workers == expected
    assert threads.decode._max_workers == min(cores, expected)
    threads.close()


def test_who_prepares_does_not_wait_until_everything_is_decoded(monkeypatch):
    monkeypatch.setattr(dask.system, "CPU_COUNT", 8)
    threads, go_on = open_threads.Threads(), threading.Event()
    threads.begin()

    async def decoded():
        await together(on_thread(go_on.wait, 60) for _ in range(100))

    decoding = threads.start(decoded())
    assert threads.work.submit(int, "7").result(60) == 7
    go_on.set()
    decoding.result(60)
    threads.close()


def slowly(sample):
    time.sleep(0.5)
    return sample


@pytest.mark.alone
def test_threads_end_though_waiting_for_them_is_interrupted(dataset):
    data = dataset._inside.reader.data
    dataset = xtd.IterableDataset(
        data, {"time": 10}, inputs="v", batch_size=3, memory="2 kB", transform=slowly
    )
    batches = iter(dataset)
    next(batches)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        batches.close()
        time.sleep(1)
    assert ended()


@pytest.mark.parametrize("batch_size", [None, 1, 2, 7, 1000])
def test_small_batches_gathered_together_are_handed_out_one_by_one(dataset, batch_size):
    dataset = xtd.IterableDataset(
        dataset._inside.reader.data, {"time": 10}, inputs="v", batch_size=batch_size, memory="2 kB"
    )
    found = [np.atleast_1d(batch.index.numpy()) for batch in dataset]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(400))
    assert len(found) == len(dataset)
    assert dataset.stats().batches == len(dataset)
    for batch in dataset:
        values = batch.x if batch_size else batch.x[None]
        starts = np.atleast_1d(batch.index.numpy()) * 10
        np.testing.assert_array_equal(values.numpy(), starts[:, None] + np.arange(10))


class Closing:
    """Garbage in a cycle, which closes threads when it is collected."""

    def __init__(self, threads):
        self.threads, self.own = threads, self

    def __del__(self):
        self.threads.close()


def test_the_garbage_collector_waits_for_no_thread():
    """It may run under a lock that one of them needs, such as that of the pools of Python."""
    go_on, threads = threading.Event(), open_threads.Threads()
    threads.begin()
    work = threads.work.submit(go_on.wait, 60)
    Closing(threads)
    gc.collect()
    assert not work.done()
    go_on.set()
    assert ended()


def test_who_waits_acts_on_a_signal_that_another_thread_got(monkeypatch):
    """As the system may have it: the main thread acts on it when it wakes."""
    monkeypatch.setattr(open_threads, "ATTENTIVE_SECONDS", 0.05)
    never = concurrent.futures.Future()

    def elsewhere():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    threading.Timer(0.2, elsewhere).start()
    with pytest.raises(KeyboardInterrupt):
        open_threads.waited(never)


@pytest.mark.parametrize("error", [TimeoutError("of a server"), ValueError("of a value")])
def test_what_is_waited_for_gives_its_result_or_its_error(error):
    done, failed = concurrent.futures.Future(), concurrent.futures.Future()
    threading.Timer(0.1, done.set_result, [7]).start()
    threading.Timer(0.1, failed.set_exception, [error]).start()
    assert open_threads.waited(done) == 7
    with pytest.raises(type(error), match="of a"):
        open_threads.waited(failed)
