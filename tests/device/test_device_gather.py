"""Windows cut on a device are those cut on the host, and blocks are sent once."""

import itertools
import time
import weakref

import numpy as np
import pytest
import torch
import xarray as xr
from devices import DEVICES, assert_same
from helpers import anomaly, forecast, twice_plus_one

import xtorch_data as xtd
from xtorch_data.device.gather import DeviceGather


def mixed():
    """Variables of every size of value, with chunks that do not divide and dims in any order."""
    rng = np.random.default_rng(0)
    dims = {
        "a": ("f4", ("time", "y", "x")),
        "b": ("f8", ("x", "time", "y")),
        "c": ("i2", ("y", "x")),
        "d": ("?", ("time", "y", "x")),
        "e": ("c16", ("time", "x")),
        "f": ("u4", ("time", "y", "x")),
    }
    sizes = {"time": 24, "y": 4, "x": 5}
    return xr.Dataset(
        {
            name: (axes, rng.integers(0, 100, [sizes[dim] for dim in axes]).astype(dtype))
            for name, (dtype, axes) in dims.items()
        }
    ).chunk(time=10, x=3)


WINDOWS = [
    ({"time": 4, "y": -1, "x": -1}, {"time": 3}),
    ({"x": 2, "time": 4, "y": 3}, {"x": 1}),
    ({"time": 4}, {"time": -3}),
]
OPTIONS = [
    {"batch_size": 7},
    {"batch_size": 7, "shuffle": True, "memory": "6 kB"},
    {"batch_size": None, "shuffle": True},
    {"batch_size": 5, "cache": True, "drop_last": True},
    {"batch_size": 5, "shuffle": True, "uneven": "pad", "rank": 6, "world_size": 7},
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("window", "overlap"), WINDOWS)
def test_batches_are_the_same_bit_for_bit(window, overlap, device):
    ds = mixed()
    names = ["a", "b", "c", "d", "e", "f", ["a", "b"], ["a", "c"]]
    for name, options in zip(names, itertools.cycle(OPTIONS)):

        def make(name=name, options=options):
            targets = xtd.Select("a", time=slice(1, 3))
            return xtd.IterableDataset(ds, window, overlap, inputs=name, targets=targets, **options)

        expected, loader = make(), xtd.DataLoader(make(), device=device, gather="device")
        for _ in range(2):  # the second epoch may come from what is kept
            assert_same(loader, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_floating_data_is_cast_behind_the_bus(device):
    ds = forecast(names=("a",))
    options = {"input_dims": {"time": 3, "y": -1, "x": -1}, "batch_size": 4}
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        host = xtd.IterableDataset(ds, dtype=dtype, **options)
        loader = xtd.DataLoader(
            xtd.IterableDataset(ds, dtype=dtype, **options), device=device, gather="device"
        )
        assert_same(loader, host)
        assert next(iter(loader)).x.dtype == dtype


def test_values_that_lie_backwards_or_between_others_are_cut_as_well():
    record = np.zeros(30, [("pad", "i1"), ("v", "f4")])
    record["v"] = np.arange(30)
    behind = np.frombuffer(bytearray(4 + 8 * 30), "c8", offset=4)  # aligned to four bytes
    behind[:] = np.arange(30) * (1 + 2j)
    ds = xr.Dataset({"v": ("time", record["v"]), "w": ("time", np.arange(30.0)[::-1])})
    ds["z"] = "time", behind

    def backwards(block):
        """The same values, last ones first in memory."""
        return block.map(lambda each: each.copy(data=each.values[::-1].copy()[::-1]))

    for turn, names in itertools.product((None, backwards), (["v", "w"], "z")):
        options = {"input_dims": {"time": 4}, "input_overlap": {"time": 3}, "preprocess": turn}
        options |= {"inputs": names, "batch_size": 4}
        loader = xtd.DataLoader(xtd.IterableDataset(ds, **options), device="cpu", gather="device")
        assert_same(loader, xtd.IterableDataset(ds, **options))
        values = ds[[*names]].to_array().values if isinstance(names, list) else ds[names].values
        assert np.array_equal(next(iter(loader)).x[3], values[..., 3:7])


def test_each_value_is_sent_once(monkeypatch):
    sent = []
    empty = torch.empty

    def counting(*args, dtype=None, device=None, **kwargs):
        if dtype is torch.int8 and device is not None and len(args) == 1 and np.isscalar(args[0]):
            sent.append(args[0])
        return empty(*args, dtype=dtype, device=device, **kwargs)

    monkeypatch.setattr(torch, "empty", counting)
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((1000, 50), "f4"))}).chunk(time=100)
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "x": -1}, {"time": 7}, batch_size=16, shuffle=True, memory="200 kB"
    )
    batches = sum(
        batch.x.nbytes for batch in xtd.DataLoader(dataset, device="cpu", gather="device")
    )

    decoded = dataset.explain().nbytes
    # With the halo of each pool, which is decoded for it as well.
    assert ds.nbytes <= sum(sent) <= decoded
    assert batches > 7 * sum(sent)


@pytest.mark.parametrize("preprocess", [None, lambda block: block.transpose("x", "time")])
def test_of_data_in_memory_nothing_is_sent_that_lies_between_the_values_of_a_block(
    preprocess, monkeypatch
):
    sent, room = [], DeviceGather._room_for
    monkeypatch.setattr(
        DeviceGather, "_room_for", lambda self, nbytes: sent.append(nbytes) or room(self, nbytes)
    )
    ds = xr.Dataset({"v": (("time", "x"), np.arange(64 * 512, dtype="f4").reshape(64, 512))})
    options = {"batch_size": 16, "memory": "20 kB", "preprocess": preprocess}
    dataset = xtd.IterableDataset(ds, {"time": -1, "x": 8}, **options)
    loader = xtd.DataLoader(dataset, device="cpu", gather="device")
    assert_same(loader, xtd.IterableDataset(ds, {"time": -1, "x": 8}, **options))
    assert len(sent) > 4
    assert sum(sent) == ds.nbytes
    assert max(sent) <= loader.explain().device.blocks


def test_an_epoch_goes_on_where_it_was_left():
    def make():
        ds = forecast().chunk(time=7)
        dataset = xtd.IterableDataset(
            ds, {"time": 3, "y": -1, "x": -1}, {"time": 2}, batch_size=4, shuffle=True
        )
        return xtd.DataLoader(dataset, device="cpu", gather="device")

    whole, left = list(make()), make()
    for _, _batch in zip(range(5), left, strict=False):
        pass
    gone_on = make()
    gone_on.load_state_dict(left.state_dict())
    assert_same(gone_on, whole[5:])


def test_chunks_that_cannot_be_read_are_left_out_as_on_the_host():
    def broken(values):
        if values.shape[0] and values[0, 0] == 20:
            raise OSError("this one is lost")
        return values

    ds = xr.Dataset({"v": (("time", "x"), np.arange(60.0)[:, None] * np.ones(4))}).chunk(time=10)
    ds["v"] = ds["v"].copy(data=ds["v"].data.map_blocks(broken, dtype="f8", meta=np.empty((0, 0))))
    found = []
    for how in ({}, {"device": "cpu", "gather": "device"}):
        dataset = xtd.IterableDataset(
            ds, {"time": 4, "x": -1}, batch_size=4, on_error="skip", retries=0
        )
        batches = list(xtd.DataLoader(dataset, **how))
        found.append([(batch.index.tolist(), batch.skipped, batch.x.tolist()) for batch in batches])
    assert found[0] == found[1]
    assert any(skipped for _, skipped, _ in found[0])


def test_what_cannot_be_cut_there_is_refused_when_the_loader_is_made():
    ds = forecast()
    window = {"time": 3, "y": -1, "x": -1}

    def loader(dataset=None, **kwargs):
        dataset = xtd.IterableDataset(ds, window, batch_size=4) if dataset is None else dataset
        return xtd.DataLoader(dataset, **{"device": "cpu", "gather": "device", **kwargs})

    for argument in ("transform", "batch_transform"):
        function = anomaly if argument == "transform" else twice_plus_one
        with pytest.raises(ValueError, match=f"gather='device'.*{argument} takes labeled"):
            loader(xtd.IterableDataset(ds, window, batch_size=4, **{argument: function}))
    with pytest.raises(ValueError, match="num_workers=0"):
        loader(num_workers=2)
    with pytest.raises(ValueError, match="sampler"):
        loader(xtd.MapDataset(ds, window), sampler=[0, 1])
    with pytest.raises(ValueError, match="give device="):
        loader(device=None)
    with pytest.raises(ValueError, match="gather must be"):
        loader(gather="gpu")
    with pytest.raises(ValueError, match="device_memory.*gather='device'"):
        loader(gather="host", device_memory="1 GiB")
    with pytest.raises(ValueError, match="device_memory must be"):
        loader(device_memory="much")
    with pytest.raises(ValueError, match="less than the .* at the same time"):
        loader(device_memory=8)


def watched_stages(monkeypatch):
    """Every stage that is sent from now on, and after each how many were there."""
    sent, live = [], []
    send = DeviceGather.send

    def watched(self, loaded):
        there = send(self, loaded)
        sent.append(weakref.ref(there))
        live.append(sum(each() is not None for each in sent))
        return there

    monkeypatch.setattr(DeviceGather, "send", watched)
    return sent, live


def test_blocks_on_the_device_keep_to_their_memory(monkeypatch):
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((1600, 50), "f4"))}).chunk(time=20)
    dataset = xtd.IterableDataset(
        ds, {"time": 2, "x": -1}, batch_size=5, shuffle=True, memory="100 kB"
    )
    sent, live = watched_stages(monkeypatch)
    needed = dataset.plan.stage_nbytes
    for _ in xtd.DataLoader(dataset, device="cpu", gather="device", device_memory=needed):
        pass
    most = max(live)
    assert len(sent) > 4
    assert most <= 2  # the one that is gathered from, and one whose memory was just let go of


def test_what_is_cached_on_the_host_is_sent_ahead_as_well(monkeypatch):
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((1600, 50), "f4"))}).chunk(time=20)
    dataset = xtd.IterableDataset(
        ds, {"time": 2, "x": -1}, batch_size=5, shuffle=True, memory="200 kB", cache=True
    )
    loader = xtd.DataLoader(
        dataset,
        device="cpu",
        gather="device",
        device_memory=2 * dataset.plan.stage_nbytes,
    )
    sent, live = watched_stages(monkeypatch)
    for _ in range(2):
        sent[:], live[:] = [], []
        for _batch in loader:
            time.sleep(0.002)  # a step, in which the next stage can be sent
        assert 2 <= max(live) <= 3 < len(sent)
    assert dataset.stats().blocks_cached


@pytest.mark.parametrize("memory", ["1 GiB", "2 kB"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "c8"])
def test_windows_that_run_backwards_are_those_of_isel(dtype, memory):
    ds = forecast(time=30, dtype=dtype)
    cut = {"time": slice(None, None, -1), "x": slice(3, None, -2)}
    parts = {"x": xtd.Select(["a", "b"], cut), "y": xtd.Select("a", time=slice(2, 0, -1))}
    window = {"time": 3, "y": -1, "x": -1}
    samples = xtd.MapDataset(ds, window, {"time": 2}, parts=parts, dtype="f8")
    loader = xtd.DataLoader(
        samples, batch_size=5, shuffle=True, memory=memory, device="cpu", gather="device"
    )
    for batch in loader:
        for place, number in enumerate(batch.index.tolist()):
            sample = ds.isel(samples.windows[number])
            wanted = sample.isel(cut)[["a", "b"]].to_dataarray().values
            np.testing.assert_array_equal(batch.x[place], wanted)
            np.testing.assert_array_equal(batch.y[place], sample["a"][2:0:-1].values)
