"""Mosaics of processes that do not wait for each other: at once, one after the other, killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED

SIZES = {"time": 20, "y": 8}


def source(folder):
    """A store of chunks that windows overlap."""
    values = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    ds = xr.Dataset(
        {"a": (("time", "y"), values), "kind": (("time", "y"), np.arange(160).reshape(20, 8))},
        coords={"time": xr.date_range("2000-01-01", periods=20), "y": np.arange(8.0)},
        attrs={"title": "a test"},
    )
    chunks = {"chunks": (5, 4)}
    ds.to_zarr(folder / "source.zarr", consolidated=False, encoding={"a": chunks, "kind": chunks})
    return folder / "source.zarr"


def samples(path, name="a"):
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.MapDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name
    )


def stream(path, rank, size, name="a", **options):
    """Samples of one of some processes."""
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.IterableDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name,
        rank=rank, world_size=size, shuffle=True, batch_size=2, uneven="pad", **options,
    )  # fmt: skip


def model(batch):
    """The targets, each more by the number of its sample."""
    return batch.y + batch.index[:, None, None]


def expected(path, name="a"):
    """What numpy's overlap-add makes of these predictions."""
    ds = xr.open_zarr(path, consolidated=False).load()[[name]]
    values, stride = ds[name].values, 2 if name == "a" else 4
    sums, weights = np.zeros(values.shape), np.zeros(values.shape)
    number = 0
    for t in range(0, 17, stride):
        for y in range(0, 5, stride):
            sums[t : t + 4, y : y + 4] += values[t : t + 4, y : y + 4] + number
            weights[t : t + 4, y : y + 4] += 1
            number += 1
    return ds.copy(data={name: (sums / weights).astype(values.dtype)})


def predict(path, rank, size, name="a", **options):
    blend = "mean" if name == "a" else None
    return xtd.predict(
        None, stream(path, rank, size, name), path.parent / "field.zarr", forward=model,
        blend=blend, **options,
    )  # fmt: skip


def require_whole(path, name="a"):
    """The store is complete, has nothing but the result, and this is right."""
    field = path.parent / "field.zarr"
    result = xtd.open_zarr(field).load()
    assert UNFINISHED not in result.attrs and result.attrs == {"title": "a test"}
    xr.testing.assert_allclose(result, expected(path, name))
    assert sorted(os.listdir(field)) == sorted([name, "time", "y", "zarr.json"])


@pytest.mark.parametrize("name", ["a", "kind"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_one_after_the_other_the_last_one_completes_the_store(order, name, tmp_path):
    path = source(tmp_path)
    *others, last = order
    for rank in others:
        with pytest.warns(UserWarning, match=f"rank.*{last}.* of 3 have not closed theirs"):
            found = predict(path, rank, 3, name)
        assert UNFINISHED in found.attrs
        with pytest.raises(ValueError, match="has not finished"):
            xtd.IterableDataset(found, {"time": 4})
    result = predict(path, last, 3, name)
    xr.testing.assert_allclose(result.load(), expected(path, name))
    require_whole(path, name)
    with pytest.raises(FileExistsError, match="is no unfinished result: remove it"):
        predict(path, 0, 3, name)


SCRIPT = """
import pathlib, sys
import torch
sys.path.insert(0, {tests!r})
import test_mosaic_apart as case
import warnings
warnings.simplefilter("ignore")
print("ready", flush=True)
sys.stdin.readline()
case.predict(pathlib.Path({path!r}), {rank}, {size}, mode={mode!r})
"""


def process(path, rank, size, mode="w-", script=SCRIPT):
    """A process of its own, which begins when it is told to."""
    tests = os.path.dirname(os.path.abspath(__file__))
    script = script.format(tests=tests, path=str(path), rank=rank, size=size, mode=mode)
    paths = os.pathsep.join([*sys.path, os.path.dirname(tests)])
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip


def test_at_once_processes_begin_and_complete_one_store(tmp_path):
    path, size = source(tmp_path), 4
    started = [process(path, rank, size) for rank in range(size)]
    for each in started:
        assert each.stdout.readline() == "ready\n"
    for each in started:
        each.stdin.write("\n")
        each.stdin.flush()
    for each in started:
        each.communicate(timeout=90)
        assert each.returncode == 0
    require_whole(path)


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, {tests!r})
import test_mosaic_apart as case
import xtorch_data as xtd
path = pathlib.Path({path!r})
kept, before = [], int({mode!r})
def kill(*arguments, real):
    kept.append(arguments)
    if len(kept) > before:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
from xtorch_data.writing.mosaic_store import MosaicStore
for name in ("keep", "write", "finish"):
    real = getattr(MosaicStore, name)
    def called(self, *arguments, real=real):
        return kill(self, *arguments, real=real)
    setattr(MosaicStore, name, called)
print("ready", flush=True)
sys.stdin.readline()
case.predict(path, {rank}, {size})
"""


@pytest.mark.parametrize("before", [0, 1, 2, 4, 7])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_was_killed_is_run_again(rank, before, tmp_path):
    """Rank 0 is killed as it adds and leaves its sums, rank 1 also as it completes the store."""
    path = source(tmp_path)
    for each in range(rank):
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, each, 2)
    killed = process(path, rank, 2, str(before), KILLED)
    killed.communicate("\n", timeout=90)
    assert killed.returncode == -signal.SIGKILL
    if before:
        with pytest.raises(FileExistsError, match=f"rank {rank} of 2 has begun .* mode='a'"):
            predict(path, rank, 2)
    if rank == 0:
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, 0, 2, mode="a")
    predict(path, 1, 2, mode="a")
    require_whole(path)


def test_whoever_was_killed_as_the_last_one_any_process_completes_the_store(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        from xtorch_data.writing.mosaic_store import MosaicStore

        def broken(*_):
            raise KeyboardInterrupt

        patch.setattr(MosaicStore, "finish", broken)
        with pytest.raises(KeyboardInterrupt):
            predict(path, 0, 2)
    asked = []
    xtd.predict(
        None, stream(path, 1, 2), tmp_path / "field.zarr", forward=asked.append, blend="mean",
        mode="a",
    )  # fmt: skip
    assert not asked
    require_whole(path)


def test_processes_without_samples_take_part(tmp_path):
    """Before anybody has begun the store, after, and as the last one."""
    path, size = source(tmp_path), 5
    mosaics = [
        xtd.Mosaic(stream(path, rank, size), tmp_path / "field.zarr", blend="mean")
        for rank in range(size)
    ]  # fmt: skip
    dataset = samples(path)
    mosaics[3].close()
    for number in range(len(dataset)):
        batch = dataset.fetch([number])
        mosaics[number % 2].add(batch, model(batch))
    for rank in (0, 2, 1):
        mosaics[rank].close()
        with pytest.raises(ValueError, match="ranks? .*4.* of 5 have not closed theirs"):
            mosaics[rank].to_xarray()
    mosaics[4].close()
    for each in mosaics:
        xr.testing.assert_allclose(each.to_xarray().load(), expected(path))
    require_whole(path)


def test_where_there_are_no_locks_one_of_them_completes_the_store(tmp_path):
    path, field = source(tmp_path), f"memory://{tmp_path.name}/field.zarr"
    for rank in range(2):
        with pytest.warns(UserWarning, match="have not closed"):
            predict_at(field, path, rank)
    predict_at(field, path, 2)
    result = xtd.open_zarr(field).load()
    assert UNFINISHED not in result.attrs
    xr.testing.assert_allclose(result, expected(path))


def predict_at(place, path, rank):
    xtd.predict(None, stream(path, rank, 3), place, forward=model, blend="mean")


def test_of_samples_that_nobody_added_places_are_missing_and_it_is_told(tmp_path):
    path = source(tmp_path)
    streams = [stream(path, rank, 2) for rank in range(2)]
    mosaics = [xtd.Mosaic(each, tmp_path / "field.zarr", blend="mean") for each in streams]
    dataset = samples(path)
    for number in range(len(dataset) - 3):  # all but the last window along time
        batch = dataset.fetch([number])
        mosaics[number % 2].add(batch, batch.y)
    mosaics[0].close()
    mosaics[1].close()
    assert mosaics[1].lacking == 3
    result = mosaics[0].to_xarray()["a"].load()
    truth = xr.open_zarr(path, consolidated=False)["a"].load()
    xr.testing.assert_allclose(result, truth.where(np.arange(20)[:, None] < 18))


def test_processes_of_something_else_are_refused(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    with pytest.raises(FileExistsError, match="ranks"):
        predict(path, 1, 3)
    with pytest.raises(FileExistsError, match="blend"):
        xtd.predict(None, stream(path, 1, 2), tmp_path / "field.zarr", forward=model, blend="hann")
    with pytest.raises(FileExistsError, match="predictions"):
        xtd.predict(
            None, stream(path, 1, 2), tmp_path / "field.zarr", blend="mean", mode="a",
            forward=lambda batch: model(batch).double(),
        )  # fmt: skip
    predict(path, 1, 2, mode="a")
    require_whole(path)


def test_a_sample_of_two_processes_is_an_error(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    batch = next(iter(stream(path, 0, 2)))
    mosaic = xtd.Mosaic(
        stream(path, 1, 2), tmp_path / "field.zarr",
        blend="mean",
    )  # fmt: skip
    mosaic.add(batch, batch.y)
    with pytest.raises(ValueError, match="was added by two ranks"):
        mosaic.close()


def test_one_alone_keeps_the_store_from_others(tmp_path):
    path = source(tmp_path)
    alone = xtd.Mosaic(samples(path), tmp_path / "field.zarr", blend="mean")
    mine = stream(path, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xtorch_data.writing.store_lock.PATIENCE", 0.05)
        with pytest.raises(FileExistsError, match="another Mosaic copies into"):
            xtd.Mosaic(mine, tmp_path / "field.zarr", blend="mean")
    alone.__exit__(KeyboardInterrupt, None, None)
    shared = xtd.Mosaic(mine, tmp_path / "field.zarr", blend="mean")
    with pytest.raises(FileExistsError, match="another Mosaic copies into"):
        xtd.Mosaic(samples(path), tmp_path / "field.zarr", blend="mean")
    shared.__exit__(KeyboardInterrupt, None, None)


@given(st.data())
@settings(max_examples=15)
def test_whoever_adds_what_in_any_order(tmp_path_factory, data):
    path = source(tmp_path_factory.mktemp("any"))
    dataset, size = samples(path), data.draw(st.integers(2, 4))
    owners = data.draw(
        st.lists(st.integers(0, size - 1), min_size=len(dataset), max_size=len(dataset))
    )
    order = data.draw(st.permutations(range(size)))
    together = data.draw(st.booleans())
    streams = [stream(path, rank, size, memory="300 B") for rank in range(size)]
    field, mosaics = path.parent / "field.zarr", {}
    for rank in order:
        mosaics[rank] = xtd.Mosaic(streams[rank], field, blend="mean")
        if together:
            continue
        add_all(mosaics[rank], dataset, owners, rank)
        mosaics[rank].close()
    if together:
        for rank in data.draw(st.permutations(range(size))):
            add_all(mosaics[rank], dataset, owners, rank)
        for rank in data.draw(st.permutations(range(size))):
            mosaics[rank].close()
    require_whole(path)


def add_all(mosaic, dataset, owners, rank):
    for number in np.flatnonzero(np.array(owners) == rank).tolist():
        batch = dataset.fetch([number])
        mosaic.add(batch, model(batch))
