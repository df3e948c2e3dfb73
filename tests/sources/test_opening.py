import asyncio
import json
import pickle
import random
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from helpers import forecast
from strategies import MORE

import xtorch_data as xtd
from xtorch_data.reading.recycled import codec_pipeline

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


@pytest.mark.filterwarnings("ignore:Object at:UserWarning")  # zarr's, of what it passes over
def test_what_xarray_opens_opens_and_what_is_lost_is_named_once(tmp_path):
    path, ds = tmp_path / "a.zarr", forecast(time=12)
    ds.to_zarr(path, group="sub", consolidated=False)
    forgotten = {"zarr_format": 2, "shape": (3,), "chunks": (3,), "dtype": "f4"}
    zarr.create_array(path / "sub" / "old", **forgotten)
    for group in ("sub", "/sub", "/sub/", "sub/"):
        xr.testing.assert_equal(xtd.open_zarr(path, group=group).compute(), ds)
    document = path / "sub" / "a" / "zarr.json"
    content = json.loads(document.read_text())
    del content["shape"]
    document.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="^the metadata of 'a' in") as info:
        xtd.open_zarr(path, group="/sub")
    assert str(info.value).count("the Zarr store") == 1


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


JUNK = (
    None, True, 0, -1, 1, 7, 2**31, 10**18, 10**30, 0.5, float("nan"), float("inf"), "", "0", "a",
    "float32", "<i4", "|O", "days since garbage", [], [0], [1, 2], [-4, 5], [None], ["a", "b"], {},
    {"name": "zstd"}, {"name": "bytes", "configuration": {"endian": "big"}}, {"id": "blosc"},
)  # fmt: skip
ATTRIBUTES = ("scale_factor", "add_offset", "_FillValue", "units", "missing_value", "coordinates")


def mutated(document, rng):
    """Metadata in which a value was replaced or removed, or an attribute added."""
    document = json.loads(json.dumps(document))
    places = []

    def walk(inner):
        keys = range(len(inner)) if isinstance(inner, list) else list(inner)
        for key in keys:
            places.append((inner, key))
            if isinstance(inner[key], (dict, list)):
                walk(inner[key])

    walk(document)
    if rng.random() < 0.25:
        attributes = document.get("attributes", document)
        attributes[rng.choice(ATTRIBUTES)] = rng.choice(JUNK)
        return document
    inner, key = rng.choice(places)
    if rng.random() < 0.2:
        del inner[key]
    else:
        inner[key] = rng.choice(JUNK)
    return document


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_of_any_kind_gives_the_values_of_xarray_or_an_error_that_names_the_store(
    tmp_path, zarr_format
):
    path, rng = tmp_path / "a.zarr", random.Random(zarr_format)
    values = np.arange(48.0, dtype="float32").reshape(8, 6)
    ds = xr.Dataset({name: (("time", "x"), values + at) for at, name in enumerate("tu")})
    ds = ds.chunk(time=4, x=6)
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False)
    files = [path / "t" / name for name in ("zarr.json", ".zarray", ".zattrs")]
    files = [file for file in files if file.exists()]
    whole = {file: json.loads(file.read_text()) for file in files}
    kinds = Counter()
    for _ in range(40 * MORE):
        file = rng.choice(files)
        content = json.dumps(mutated(whole[file], rng))
        file.write_text(content)
        try:
            opened = xtd.open_zarr(path, consolidated=False)
            dataset = xtd.IterableDataset(opened, {"time": 2, "x": -1}, batch_size=4)
            found = torch.cat([batch.x for batch in dataset]).numpy()
        except (ValueError, OSError, xtd.ReadError) as error:
            shown = f"{error}{getattr(error, '__notes__', '')}"
            assert "a.zarr" in shown or "'t'" in shown, (content, shown)
            kinds[type(error).__name__] += 1
        else:
            plain = xr.open_zarr(path, consolidated=False, chunks=None)
            for number, sample in enumerate(found):
                window = plain[list(opened.data_vars)].isel(dataset.windows[number])
                repeated = xr.broadcast(*window.values())  # along windowed dims that one lacks
                expected = np.stack([each.transpose("time", "x").values for each in repeated])
                expected = expected.astype("float32").reshape(sample.shape)
                np.testing.assert_allclose(sample, expected, rtol=1e-6)
            kinds["same"] += 1
        file.write_text(json.dumps(whole[file]))
    assert kinds["same"] > 5 and kinds["ValueError"] > 10, kinds


WRONG_METADATA = {
    "chunk of 0 steps": {"chunk_grid": {"chunk_shape": [0, 6]}},
    "chunks of another rank": {"chunk_grid": {"chunk_shape": [4]}},
    "negative": {"shape": [-8, 6]},
    "huge": {"shape": [10**30, 6]},
    "chunks larger than memory": {"chunk_grid": {"chunk_shape": [10**6, 10**6]}},
    "codec": {"codecs": [{"name": "unknown"}]},
    "dtype": {"data_type": "float1"},
    "fill": {"fill_value": "abc"},
    "dims": {"dimension_names": ["time"]},
    "no dims": {"dimension_names": None},
    "scale": {"attributes": {"scale_factor": "two"}},
    "offset": {"attributes": {"add_offset": {}}},
    "fill value": {"attributes": {"_FillValue": "?"}},
    "units": {"attributes": {"units": "days since garbage"}},
    "no shape": {"shape": KeyError},
    "no JSON": b"{",
    "nothing": b"",
    "no text": b"\xff\xfe",
}


@pytest.mark.filterwarnings("ignore:Object at:UserWarning", "ignore:Array '.*stored chunk shape")
def test_malformed_metadata_is_refused_by_store_and_variable(tmp_path):
    ds = xr.Dataset({name: (("time", "x"), np.ones((8, 6))) for name in "tu"})
    path = tmp_path / "a.zarr"
    ds.to_zarr(path, consolidated=False)
    document = path / "t" / "zarr.json"
    whole = document.read_text()
    for name, change in WRONG_METADATA.items():
        content = json.loads(whole)
        if isinstance(change, bytes):
            document.write_bytes(change)
        else:
            for key, value in change.items():
                if value is KeyError:
                    del content[key]
                elif key == "chunk_grid":
                    content[key]["configuration"] = value
                elif key == "attributes":
                    content[key] |= value
                else:
                    content[key] = value
            document.write_text(json.dumps(content))
        if name == "chunk of 0 steps" and zarr.open_array(document.parent).chunks[0]:
            continue  # newer releases of zarr read it as 1, with a warning
        for opens in (str, zarr.open_group, xr.open_zarr):
            try:
                given = opens(path)
            except Exception:  # which another library has refused
                continue
            if opens is xr.open_zarr and "t" not in given:
                continue  # with a warning
            with pytest.raises(ValueError, match="'t'") as info:
                xtd.IterableDataset(xtd.open_zarr(given) if opens is str else given, {"time": 2})
            assert type(info.value) is ValueError, name
            assert "a.zarr" in str(info.value) or name == "no dims"


def test_an_argument_that_xarray_does_not_take_is_named_before_the_store_is_looked_at():
    with pytest.raises(TypeError, match="'decode_tims': did you mean 'decode_times'"):
        xtd.open_zarr("/nowhere.zarr", decode_tims=False)
    with pytest.raises(TypeError, match="unexpected keyword argument 'zzz'$"):
        xtd.open_zarr("/nowhere.zarr", zzz=1)
