import asyncio
import json
import traceback
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from helpers import numbered

import xtorch_data
from xtorch_data.common import retry
from xtorch_data.reading.chunk_stamps import ChunkStamps
from xtorch_data.reading.digests import Unidentified, digest, file_system
from xtorch_data.reading.identity import _of_object_store, identities, identity
from xtorch_data.sources.file_stamps import file_stamp


def file_system_of(**options):
    return SimpleNamespace(protocol="s3", storage_options=options, storage_args=())


def test_who_asks_is_no_part_of_what_is_read():
    one, other = (
        file_system(file_system_of(key=name, secret=name, token=name, endpoint_url="http://a"))
        for name in ("somebody", "else")
    )
    assert one == other
    assert "somebody" not in repr(one)
    elsewhere = file_system(file_system_of(key="somebody", endpoint_url="http://b"))
    assert digest(elsewhere) != digest(one)


def test_buckets_of_obstore_are_told_apart():
    obstore = pytest.importorskip("obstore")

    def bucket(name, endpoint="http://127.0.0.1:1", secret="one"):
        store = obstore.store.S3Store(
            name, endpoint=endpoint, access_key_id="a", secret_access_key=secret, region="r"
        )
        return digest(_of_object_store(store))

    assert bucket("a") == bucket("a", secret="two")
    assert len({bucket("a"), bucket("b"), bucket("a", "http://127.0.0.1:2")}) == 3


def test_slices_and_decoding_are_part_of_it(tmp_path):
    numbered((20, 3), ("time", "x")).to_zarr(tmp_path / "v.zarr", consolidated=False)

    def opened(**options):
        return xr.open_zarr(tmp_path / "v.zarr", chunks=None, consolidated=False, **options)["a"]

    a = opened()
    some = [
        a,
        a.isel(time=slice(0, 10)),
        a.isel(time=slice(10, 20)),
        a.isel(time=slice(None, None, 2)),
        a.isel(x=1),
        a.isel(x=2),
        a.isel(time=[1, 5, 3]),
        a.isel(time=[1, 3, 5]),
        a.rename(x="y"),
    ]
    found = [identity(each.variable) for each in some]
    assert len(set(found)) == len(found)
    assert identity(opened().isel(time=[1, 5, 3]).variable) == found[6]


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zarr writes attributes twice
@pytest.mark.parametrize("kind", ["npy", "pt", "zip"])
def test_files_written_anew_are_others(tmp_path, kind):
    def written(values):
        if kind == "npy":
            np.save(tmp_path / "v.npy", values)
            return xr.open_dataset(tmp_path / "v.npy", engine="npy")["v"]
        if kind == "pt":
            torch.save(torch.from_numpy(values), tmp_path / "v.pt")
            return xr.open_dataset(tmp_path / "v.pt", engine="pt")["v"]
        (tmp_path / "v.zip").unlink(missing_ok=True)
        with zarr.storage.ZipStore(tmp_path / "v.zip", mode="w") as store:
            xr.Dataset({"v": ("x", values)}).to_zarr(store, consolidated=False)
        store = zarr.storage.ZipStore(tmp_path / "v.zip", mode="r")
        return xr.open_zarr(store, chunks=None, consolidated=False)["v"]

    first = written(np.arange(5))
    one = identity(first.variable)
    assert identity(first.variable) == one
    assert identity(written(np.arange(1, 7)).variable) != one


def test_a_file_written_in_place_has_another_stamp_however_soon(tmp_path):
    path, found = tmp_path / "v", set()
    path.write_bytes(b"1")
    for number in range(8):
        with open(path, "r+b") as file:
            file.write(b"%d" % number)
        found.add(file_stamp(str(path)))
    assert len(found) == 8


def test_references_are_told_by_the_files_they_point_to(tmp_path):
    data, references = tmp_path / "data.bin", tmp_path / "references.json"
    xr.Dataset({"a": ("x", np.arange(4.0))}).to_zarr(
        tmp_path / "v.zarr",
        zarr_format=2,
        consolidated=False,
        encoding={"a": {"compressors": None}},
    )
    chunk = tmp_path / "v.zarr/a/0"
    found = {
        str(each.relative_to(tmp_path / "v.zarr")): each.read_text()
        for each in (tmp_path / "v.zarr").rglob(".z*")
    }
    data.write_bytes(b"header" + chunk.read_bytes())
    references.write_text(json.dumps({"version": 1, "refs": found | {"a/0": [str(data), 6, 32]}}))
    ds = xr.open_dataset(
        "reference://",
        engine="zarr",
        chunks=None,
        backend_kwargs={
            "consolidated": False,
            "zarr_format": 2,
            "storage_options": {"fo": str(references)},
        },
    )
    stamps = ChunkStamps.of(ds["a"].variable)
    before = stamps.within([(0, 4)])
    assert stamps.within([(0, 4)]) == before
    with open(data, "r+b") as file:
        file.seek(6)
        file.write(np.arange(1.0, 5).tobytes())
    assert stamps.within([(0, 4)]) != before
    dataset = xtorch_data.IterableDataset(ds, {"x": 4}, cache=tmp_path / "cache")
    assert next(iter(dataset)).x.tolist() == [[[1, 2, 3, 4]]]


def test_icechunk_is_told_by_its_snapshot(tmp_path):
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())

    def told(store):
        return identity(xr.open_zarr(store, chunks=None, consolidated=False)["a"].variable)

    session = repository.writable_session("main")
    numbered(8).to_zarr(session.store, consolidated=False)
    with pytest.raises(Unidentified, match="uncommitted changes"):
        told(session.store)
    session.commit("one")
    first = told(repository.readonly_session("main").store)
    assert told(repository.readonly_session("main").store) == first
    session = repository.writable_session("main")
    xr.Dataset({"a": ("time", np.zeros(4, "i8"))}).to_zarr(
        session.store, region={"time": slice(0, 4)}, consolidated=False
    )
    session.commit("two")
    assert told(repository.readonly_session("main").store) != first


def test_graphs_are_told_by_what_is_in_them():
    values = np.arange(6.0)

    def graph(values, by):
        array = dask.array.from_array(values, chunks=3, name="given-by-hand")
        return xr.Variable("x", array.map_blocks(lambda x: x * by, name="too", dtype="f8"))

    one = identity(graph(values, 2))
    assert identity(graph(values.copy(), 2)) == one
    assert identity(graph(values + 1, 2)) != one
    assert identity(graph(values, 3)) != one


def remote(path, names="a"):
    """Lazy variables of a store of fsspec, and its file system."""
    values = {name: ("x", np.arange(8.0)) for name in names}
    xr.Dataset(values).to_zarr(path, mode="w", consolidated=False)
    store = zarr.storage.FsspecStore.from_url(f"file://{path}")
    return xr.open_zarr(store, chunks=None, consolidated=False), store.fs


def refused(status):
    error = FileNotFoundError("https://me:geheim@host/a")  # what fsspec makes of any answer
    error.__cause__ = OSError(f"answered {status}")
    error.__cause__.status = status
    return error


def test_a_store_that_fails_in_passing_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    ds, fs = remote(tmp_path / "v.zarr")
    expected, info, errors = identity(ds["a"].variable), fs._info, [TimeoutError(), refused(503)]

    async def flaky(path, **options):
        if errors:
            raise errors.pop()
        return await info(path, **options)

    monkeypatch.setattr(fs, "_info", flaky)
    assert identity(ds["a"].variable) == expected
    assert not errors


@pytest.mark.parametrize("error", [TimeoutError("geheim=1"), refused(503), refused(403), OSError()])
def test_a_store_that_does_not_answer_is_no_store_that_knows_nothing(tmp_path, monkeypatch, error):
    ds, fs = remote(tmp_path / "v.zarr")

    async def failing(path, **options):
        raise error

    monkeypatch.setattr(fs, "_info", failing)
    arguments = {"input_dims": {"x": 2}, "cache": tmp_path / "cache", "retries": 0}
    for kind in (xtorch_data.IterableDataset, xtorch_data.MapDataset):
        with pytest.raises(ValueError, match="variable 'a'.*does not say when") as caught:
            kind(ds, **arguments)
        assert ":geheim" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("error", [NotImplementedError(), FileNotFoundError(), refused(404)])
def test_a_store_may_know_nothing_of_its_documents(tmp_path, monkeypatch, error):
    ds, fs = remote(tmp_path / "v.zarr")
    known = identity(ds["a"].variable)

    async def failing(path, **options):
        raise error

    monkeypatch.setattr(fs, "_info", failing)
    assert identity(ds["a"].variable) != known


def test_stores_are_asked_once_for_each_document_and_all_at_a_time(tmp_path, monkeypatch):
    ds, fs = remote(tmp_path / "v.zarr", "abcdefgh")
    info, asked, every = fs._info, [], asyncio.Event()

    async def noted(path, **options):
        asked.append(path)
        if len(asked) == 8:
            every.set()
        await asyncio.wait_for(every.wait(), 30)
        return await info(path, **options)

    monkeypatch.setattr(fs, "_info", noted)
    variables = {name: each.variable for name, each in ds.data_vars.items()}
    twice = variables | {f"half {name}": each[:4] for name, each in variables.items()}
    found = {name: each.result() for name, each in identities(twice).items()}
    assert len(asked) == len(set(asked)) == 8
    assert len(set(found.values())) == 16
