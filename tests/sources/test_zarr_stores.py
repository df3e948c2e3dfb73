"""Stores around others and zarr's event loop, compared with what zarr itself opens."""

import asyncio
import threading

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, LoggingStore, MemoryStore, ZipStore

import xtorch_data as xtd
from xtorch_data.common.retry import retried
from xtorch_data.sources.lazy_arrays import zarr_array
from xtorch_data.sources.zarr_stores import (
    AnsweringStore,
    begun_loop,
    innermost,
    on_loop_of,
    open_zip,
    wait_for,
    with_pipeline_of_zarr,
)


def test_the_innermost_store_is_that_inside_all_others(tmp_path):
    store = LocalStore(tmp_path)
    assert innermost(store) is store
    assert innermost(LoggingStore(AnsweringStore(store))) is store


def test_a_zip_store_says_which_file_it_has_open(tmp_path):
    store = ZipStore(tmp_path / "a.zip", mode="w")
    assert open_zip(store) is None
    zarr.create_array(store, shape=(2,), dtype="f4", name="a")
    assert open_zip(store).name == str(tmp_path / "a.zip")
    store.close()


def test_requests_that_are_not_answered_in_time_fail():
    class Silent(MemoryStore):
        async def get(self, *args, **kwargs):
            await asyncio.Event().wait()

    store = AnsweringStore(Silent())

    async def read():
        return await store.get("a", default_buffer_prototype())

    with pytest.raises(TimeoutError, match="read_timeout"):
        asyncio.run(retried(read, 0, lambda: None, "a", timeout=0.01))


def test_what_is_waited_for_runs_on_the_loop_of_zarr():
    async def where():
        return asyncio.get_running_loop(), threading.current_thread()

    loop, thread = wait_for(where())
    assert loop is begun_loop()
    assert thread is not threading.current_thread()

    async def read():
        array = zarr.create_array({}, shape=(2,), dtype="f4")
        return (await on_loop_of(array, where()))[0], asyncio.get_running_loop()

    here, own = asyncio.run(read())
    assert here is own  # only sessions of fsspec need their own loop


def test_the_pipeline_of_zarr_takes_the_place_of_a_faster_one(tmp_path):
    xr.Dataset({"a": ("x", np.arange(6.0))}).to_zarr(tmp_path / "a", consolidated=False)
    fast = zarr_array(xtd.open_zarr(tmp_path / "a", consolidated=False)["a"].variable)
    plain = zarr.open_array(tmp_path / "a" / "a")
    again = with_pipeline_of_zarr(fast)
    pipelines = [type(each.async_array.codec_pipeline) for each in (fast, again, plain)]
    assert pipelines[0] is not pipelines[2]
    assert pipelines[1] is pipelines[2]
    np.testing.assert_array_equal(again[...], np.arange(6.0))
