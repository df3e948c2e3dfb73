import asyncio
import json
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import xarray as xr
import zarr
from helpers import forecast

import xtorch_data as xtd
from xtorch_data.lazy import codec_pipeline

NAMES = ("t2m", "u10", "a", "Z")


class LateStore(zarr.storage.WrapperStore):
    """Answers about each of the names given later than about the one before it."""

    def __init__(self, store, names, consolidates=True):
        super().__init__(store)
        self.names = names
        self.consolidates = consolidates

    @property
    def supports_consolidated_metadata(self):
        return self.consolidates

    def _with_store(self, store):
        return type(self)(store, self.names, self.consolidates)

    async def get(self, key, prototype, byte_range=None):
        first = key.split("/")[0]
        if first in self.names and key.endswith((".json", ".zarray", ".zattrs")):
            await asyncio.sleep(0.005 * self.names.index(first))
        return await super().get(key, prototype, byte_range)


def test_it_opens_what_xarray_opens_without_dask(tmp_path):
    ds = forecast(time=12)
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    opened = xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)
    xr.testing.assert_equal(opened, xr.open_zarr(tmp_path / "a.zarr", consolidated=False))
    assert all(variable.chunks is None for variable in opened.variables.values())
    assert opened["a"].isel(time=0).equals(ds["a"].isel(time=0))


@pytest.mark.parametrize("how", ["said", "found", "store"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_variables_that_a_store_lists_in_any_order_are_sorted(tmp_path, zarr_format, how):
    ds = forecast(time=12, names=NAMES).assign_coords(valid=("time", range(12)))
    ds.attrs["title"] = "forecast"
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)
    said = {"consolidated": False} if how == "said" else {}

    def opened(names):
        store = LateStore(zarr.storage.LocalStore(tmp_path / "a.zarr"), names, how != "store")
        return xtd.open_zarr(store, **said), xr.open_zarr(store, consolidated=False, chunks=None)

    orders = [[*NAMES, "time", "valid", "y", "x"], ["x", "y", "valid", "time", *NAMES[::-1]]]
    first, second = (opened(names) for names in orders)
    assert list(first[1].variables) != list(second[1].variables)  # what the store does
    for ours, plain in (first, second):
        xr.testing.assert_identical(ours, plain)
        assert list(ours.data_vars) == ["a", "t2m", "u10", "Z"]
        assert list(ours.variables) == list(first[0].variables)
        assert list(ours.sizes) == list(first[0].sizes)
        assert ours.encoding == plain.encoding
        assert pickle.loads(pickle.dumps(ours)).identical(plain)


def test_a_group_lists_its_variables_in_the_same_order_each_time(tmp_path):
    forecast(time=12, names=NAMES).to_zarr(tmp_path / "a.zarr", consolidated=False)
    for names in (list(NAMES), list(NAMES)[::-1]):
        store = LateStore(zarr.storage.LocalStore(tmp_path / "a.zarr"), names)
        dataset = xtd.IterableDataset(zarr.open_group(store, mode="r"), input_dims={"time": 8})
        assert list(next(iter(dataset)).to_xarray().data_vars) == ["a", "t2m", "u10", "Z"]


def test_a_consolidated_store_keeps_its_order(tmp_path):
    forecast(time=12, names=NAMES).to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
    place = tmp_path / "a.zarr" / ".zmetadata"
    listed = json.loads(place.read_text())
    listed["metadata"] = dict(reversed(listed["metadata"].items()))
    place.write_text(json.dumps(listed))
    ours = xtd.open_zarr(tmp_path / "a.zarr")
    assert list(ours.data_vars) == ["Z", "u10", "t2m", "a"]
    assert list(ours.variables) == list(xr.open_zarr(tmp_path / "a.zarr").variables)


def test_other_warnings_come_through(tmp_path):
    ds = forecast(time=12)
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False, encoding={"a": {"_FillValue": -9.0}})
    zarr.open_array(tmp_path / "a.zarr", path="a").attrs["missing_value"] = -1.0
    with warnings.catch_warnings(record=True) as plain:
        warnings.simplefilter("always")
        xr.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert plain
    assert [str(each.message) for each in ours] == [str(each.message) for each in plain]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(type(plain[0].message)):
            xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)


class WaitingStore(zarr.storage.WrapperStore):
    """Answers when it may."""

    def __init__(self, store, events=None):
        super().__init__(store)
        self.events = events or (threading.Event(), threading.Event())
        self.asked, self.may = self.events

    def _with_store(self, store):
        return type(self)(store, self.events)

    async def get(self, key, prototype, byte_range=None):
        self.asked.set()
        while not self.may.is_set():
            await asyncio.sleep(0.01)
        return await super().get(key, prototype, byte_range)


def test_threads_that_open_at_the_same_time_leave_zarr_as_it_was(tmp_path):
    forecast(time=12, names=NAMES).to_zarr(tmp_path / "a.zarr", consolidated=False)
    before = zarr.config.get("codec_pipeline.path")
    local = zarr.storage.LocalStore(tmp_path / "a.zarr")
    alone = codec_pipeline(xtd.open_zarr(local, consolidated=False)["a"].variable)
    stores = [WaitingStore(local), WaitingStore(local)]
    with ThreadPoolExecutor(2) as threads:
        opening = []
        for store in stores:
            opening.append(threads.submit(xtd.open_zarr, store, consolidated=False))
            assert store.asked.wait(10)
        for store, each in zip(stores, opening, strict=True):  # who began first ends first
            ds = xtd.open_zarr(local, consolidated=False)
            assert codec_pipeline(ds["a"].variable) == alone
            store.may.set()
            each.result(10)
    assert zarr.config.get("codec_pipeline.path") == before != alone


def test_warnings_are_heard_after_threads_have_opened_stores(tmp_path):
    forecast(time=12).to_zarr(tmp_path / "a.zarr", consolidated=False)
    local = zarr.storage.LocalStore(tmp_path / "a.zarr")
    stores = [WaitingStore(local), WaitingStore(local)]
    with pytest.warns(UserWarning, match="still heard"), ThreadPoolExecutor(2) as threads:
        opening = []
        for store in stores:
            opening.append(threads.submit(xtd.open_zarr, store))
            assert store.asked.wait(10)
        for store, each in zip(stores, opening, strict=True):  # who began first ends first
            store.may.set()
            each.result(10)
        warnings.warn("still heard", stacklevel=1)
