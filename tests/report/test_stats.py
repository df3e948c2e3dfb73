import time

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd


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


def slow(obj):
    time.sleep(0.05)
    return obj


@pytest.mark.alone  # of wall times
@pytest.mark.parametrize("stage", ["preprocess", "transform", "batch_transform"])
def test_the_stage_that_limits_is_named(stage):
    dataset = make(**{stage: slow})
    list(dataset)
    assert dataset.stats().limited_by == stage.removeprefix("batch_")


@pytest.mark.alone  # of wall times
def test_a_slow_consumer_is_the_limit():
    dataset = make()
    for _ in dataset:
        time.sleep(0.1)
    assert dataset.stats().limited_by == "consumer"
    assert dataset.stats().wait < 0.3


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
