"""What an epoch took, as its stages, its consumer and plain counting have it."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd
from xtorch_data.common import recorder as recorders
from xtorch_data.common.recorder import Recorder
from xtorch_data.report.stats import stats_of


def make(**kwargs):
    data = xr.DataArray(np.arange(400.0).reshape(100, 4), dims=("time", "x"), name="v")
    return xtd.IterableDataset(data, {"time": 5, "x": -1}, batch_size=4, **kwargs)


def test_an_epoch_is_accounted_for():
    dataset = make()
    with pytest.raises(RuntimeError, match="nothing was iterated"):
        dataset.stats()
    list(dataset)
    stats = dataset.stats()
    assert (stats.epoch, stats.samples, stats.batches) == (0, 20, 5)
    assert stats.bytes_gathered == 20 * 5 * 4 * 4
    assert stats.blocks_read == len(dataset.plan.grid)
    assert 0 < stats.seconds < 60
    assert stats == dataset.stats()  # the clock has stopped
    assert "20 samples in 5 batches" in str(stats)
    list(dataset)
    assert dataset.stats().epoch == 1


@pytest.mark.parametrize("argument", ["preprocess", "transform", "batch_transform"])
def test_the_time_of_a_function_is_that_of_its_stage(argument):
    spent = []

    def function(obj):
        begun = time.perf_counter()
        found = obj + np.sort(np.arange(10_000.0)[::-1])[0]
        spent.append(time.perf_counter() - begun)
        return found

    dataset = make(**{argument: function})
    spent.clear()  # it has been tried
    list(dataset)
    assert spent
    assert getattr(dataset.stats(), argument.removeprefix("batch_")) >= sum(spent)


@pytest.mark.parametrize("stage", ["read", "preprocess", "prepare", "transform", "gather"])
@pytest.mark.parametrize("wait, waits", [(0.4, False), (0.6, True), (9.0, True)])
def test_the_stage_that_took_most_limits_unless_hardly_anybody_waited(stage, wait, waits):
    sums = dict.fromkeys(["read", "preprocess", "prepare", "transform", "gather"], 1.0)
    recorder = Recorder(0)
    recorder.add(**sums, wait=wait)
    recorder.add(**{stage: 0.1})
    stats = replace(stats_of(recorder), seconds=10.0)
    assert stats.limited_by == (stage if waits else "consumer")


def test_time_of_the_consumer_is_no_waiting(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(recorders, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    dataset = make()
    for _ in dataset:
        clock.now += 1.0
    assert clock.now == 5.0
    assert dataset.stats().wait == 0.0


def test_bytes_read_are_those_of_the_regions(tmp_path):
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((100, 4), "f8"))})
    ds.to_zarr(tmp_path / "v.zarr", encoding={"v": {"chunks": (10, 4)}}, consolidated=False)
    opened = xtd.open_zarr(tmp_path / "v.zarr", consolidated=False)
    dataset = xtd.IterableDataset(opened, {"time": 5, "x": -1}, {"time": 4}, inputs="v")
    list(dataset)
    assert dataset.stats().bytes_read == 100 * 4 * 4  # float64 becomes float32 as it is read


@pytest.mark.parametrize("chunks", [None, {}])
def test_bytes_read_are_also_those_of_variables_that_blocks_share(tmp_path, chunks):
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((100, 4), "f4")), "mask": ("x", np.ones(4))})
    ds.to_zarr(tmp_path / "v.zarr", encoding={"v": {"chunks": (10, 4)}}, consolidated=False)
    opened = xr.open_zarr(tmp_path / "v.zarr", consolidated=False, chunks=chunks)
    dataset = xtd.IterableDataset(
        opened,
        {"time": 5, "x": -1},
        inputs="v",
        preprocess=lambda block: block.assign(v=block["v"] * block["mask"]).astype("f4"),
        memory="1 kB",
    )
    list(dataset)
    assert dataset.stats().blocks_read > 1
    assert dataset.stats().bytes_read == 100 * 4 * 4 + 4 * ds["mask"].dtype.itemsize
