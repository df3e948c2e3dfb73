"""What a loader predicts of its device, compared with what is counted."""

import gc
import itertools
import time
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
import xarray as xr
from strategies import MORE
from torch.utils._python_dispatch import TorchDispatchMode

import xtorch_data as xtd
from xtorch_data.common.buffers import allotted
from xtorch_data.device.gather import DeviceGather
from xtorch_data.device.streams import PinnedBuffers, Streams
from xtorch_data.iteration.lookahead import Lookahead
from xtorch_data.loading import transfer

STEPS, Y, X = 240, 64, 64


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    """Two packed variables and one that is not, uncompressed."""
    folder, rng = tmp_path_factory.mktemp("costs"), np.random.default_rng(0)
    packing = {"scale_factor": 0.1, "_FillValue": -32768}
    variables = {
        name: (("time", "y", "x"), rng.integers(-9999, 9999, (STEPS, Y, X)).astype("i2"), packing)
        for name in "ab"
    }
    variables["c"] = ("time", "y", "x"), rng.normal(size=(STEPS, Y, X)).astype("f4")
    chunks = {"chunks": (10, Y, X), "compressors": None}
    xr.Dataset(variables).to_zarr(
        folder, zarr_format=3, consolidated=False, encoding=dict.fromkeys(variables, chunks)
    )
    return xtd.open_zarr(folder, consolidated=False)


class Counted:
    """Bytes that are sent, and those of blocks that are on the device at a time."""

    def __init__(self, monkeypatch):
        self.sent = self.most = self.live = 0
        room, copied = DeviceGather._room_for, Streams.copied

        def room_for(gather, nbytes):
            memory = room(gather, nbytes)
            self.sent += nbytes
            self.live += nbytes
            self.most = max(self.most, self.live)
            weakref.finalize(memory.untyped_storage(), self.free, nbytes)
            return memory

        def copy(streams, batch, then=None):
            self.sent += sum(tensor.nbytes for tensor in batch)
            return copied(streams, batch, then)

        monkeypatch.setattr(DeviceGather, "_room_for", room_for)
        monkeypatch.setattr(Streams, "copied", copy)

    def free(self, nbytes):
        self.live -= nbytes


WAYS = [*itertools.product(["host", "device"], ["host", "device"], [False, True])]


@pytest.mark.parametrize(
    ("gather", "decode", "shuffle"), WAYS if MORE > 1 else [WAYS[place] for place in (0, 3, 5, 6)]
)
def test_what_is_sent_and_held_is_what_was_predicted(ds, gather, decode, shuffle, monkeypatch):
    counted = Counted(monkeypatch)
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "y": -1, "x": -1}, {"time": 7}, batch_size=4, shuffle=shuffle,
        memory="4 MB", dtype=torch.bfloat16,
    )  # fmt: skip
    loader = xtd.DataLoader(dataset, device="cpu", gather=gather, decode=decode)
    found = loader.explain()
    next(iter(dataset))  # imports what is imported late
    dataset.set_epoch(0)
    gc.collect()
    tracemalloc.start()  # of what torch allots for tensors, it knows nothing: that is the device
    try:
        before, _ = tracemalloc.get_traced_memory()
        handed_out = 0
        for batch in loader:
            handed_out += batch.x.nbytes
            time.sleep(0.001)
        host = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    costs = found.device
    assert costs.handed_out == handed_out
    if gather == "host":
        assert counted.sent == costs.sent == handed_out  # as bfloat16, or 16 bits that are packed
        assert costs.blocks == 0
    else:
        # What is sent are windows: not the rest of chunks behind the last ones.
        assert 0.9 * costs.sent <= counted.sent <= costs.sent
        assert 0 < counted.most <= costs.blocks
    # Beside it, pieces of blocks as they are decoded, and tables of what packed values become.
    assert 0.2 * found.peak_memory.nbytes <= host <= 1.05 * found.peak_memory.nbytes + 2**21
    assert found.sample_nbytes == 3 * 8 * Y * X * 4
    assert "at most on cpu: " in str(found)


def test_packed_blocks_are_counted_packed(ds):
    dataset = xtd.IterableDataset(
        ds[["a", "b"]], {"time": 8, "y": -1, "x": -1}, batch_size=4, shuffle=True, memory="4 MB"
    )
    host, device = (
        xtd.DataLoader(dataset, device="cpu", gather=gather, decode=decode).explain()
        for gather, decode in [("device", "host"), ("device", "device")]
    )
    assert device.nbytes == host.nbytes / 2
    assert device.pool_nbytes == host.pool_nbytes / 2
    assert device.device.sent == host.device.sent / 2
    assert device.batches_per_rank == host.batches_per_rank
    assert [variable.dtype for variable in device.variables] == ["int16", "int16"]


def test_a_loader_without_a_device_explains_as_its_dataset_does(ds):
    dataset = xtd.IterableDataset(ds, {"time": 8, "y": -1, "x": -1}, batch_size=4)
    found = xtd.DataLoader(dataset).explain(world_size=3)
    assert found == dataset.explain(world_size=3)
    assert found.device is None and "device" not in str(found)
    there = xtd.DataLoader(dataset, device="cpu").explain(world_size=3)
    assert there.device.handed_out * 3 == pytest.approx(
        found.samples * found.sample_nbytes, rel=0.1
    )
    assert "device" in there._repr_html_()
    samples = xtd.MapDataset(ds, {"time": 8, "y": -1, "x": -1})
    with pytest.raises(TypeError, match="a sampler decides what is read"):
        xtd.DataLoader(samples, batch_size=4, sampler=range(3)).explain()


@pytest.mark.parametrize("gather", ["host", "device"])
def test_batches_are_gathered_as_far_ahead_as_predicted(gather, monkeypatch):
    """Also with a function of blocks, which takes no part in it."""
    found, of = [], Lookahead.of
    monkeypatch.setattr(Lookahead, "of", lambda *args: found.append(of(*args)) or found[-1])
    ds = xr.Dataset({"v": ("x", np.zeros(40))})
    dataset = xtd.IterableDataset(ds, {"x": 4}, batch_size=2, preprocess=lambda block: -block)
    loader = xtd.DataLoader(dataset, device="cpu", gather=gather)
    loader.explain()
    predicted = set(found)
    found.clear()
    assert [*loader]
    assert predicted == set(found) == {of(2 * 4 * 8, False)}


@pytest.mark.alone  # what threads hold at the same time is counted
@pytest.mark.parametrize(
    ("gather", "memory"), [("device", "1 MB"), ("device", "3 MB"), ("host", "4 MB")]
)
def test_page_locked_memory_is_predicted_as_torch_allots_it(ds, gather, memory, monkeypatch):
    """In powers of two, so that blocks may take more than the memory they were given."""
    live, most = [], []

    def fresh(buffers, nbytes):
        array = np.empty(allotted(nbytes), "u1")
        live.append(array.nbytes)
        most.append(sum(live))
        weakref.finalize(array, live.remove, array.nbytes)
        return array.data

    monkeypatch.setattr(PinnedBuffers, "_fresh", fresh)
    monkeypatch.setattr(transfer, "has_streams", lambda device: True)
    dataset = xtd.IterableDataset(
        ds, {"time": 5, "y": -1, "x": -1}, batch_size=3, shuffle=True, memory=memory
    )
    loader = xtd.DataLoader(dataset, device="cpu", gather=gather)
    found = loader.explain().peak_memory
    assert all(len(batch) for batch in loader)
    plain = xtd.DataLoader(dataset, device="cpu", gather=gather, pin_memory=False).explain()
    kind = "blocks" if gather == "device" else "batches"
    predicted = getattr(found, kind)
    assert 0.5 * predicted <= max(most) <= 1.2 * predicted  # as threads go
    assert predicted > 1.2 * getattr(plain.peak_memory, kind)


class Live(TorchDispatchMode):
    """Bytes of new tensors that are there at a time."""

    def __init__(self, known):
        super().__init__()
        self.live = {tensor.untyped_storage().data_ptr(): 0 for tensor in known}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.live:
                self.live[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage.data_ptr())
        self.most = max(self.most, sum(self.live.values()))
        return made


@pytest.mark.parametrize("inputs", ["i2", ["i2", "i1"], ["i2", "i1", "f4", "also i2"]])
@pytest.mark.parametrize("gather", ["host", "device"])
@pytest.mark.parametrize("size", [999, 99_999])
def test_what_passes_while_a_batch_is_decoded_is_what_was_predicted(gather, inputs, size):
    rng = np.random.default_rng(0)
    raw = xr.Dataset(
        {
            name: (("t", "x"), rng.integers(-9, 9, (16, size)).astype(name[-2:]))
            for name in ("i2", "i1", "f4", "also i2")
        }
    )
    for name in raw.data_vars.keys() - {"f4"}:
        raw[name].attrs["scale_factor"] = np.float32(0.5)
    dataset = xtd.IterableDataset(xr.decode_cf(raw), {"x": -1}, inputs=inputs, batch_size=8)
    loader = xtd.DataLoader(dataset, device="cpu", gather=gather, decode="device")
    costs = loader.explain().device
    unpacker = loader._transfer._there().unpacker
    packed = unpacker.signed(next(iter(loader._transfer.stream.batches(dataset.plan, 0, [(0, 8)]))))
    tables = [
        tensor
        for groups in unpacker._tables.values()
        for _, tables in groups
        if tables is not None
        for tensor in (tables.values, tables.begins)
    ]
    with Live([*packed, *tables]) as live:
        made = unpacker(packed)
    sent = sum(tensor.nbytes for tensor in packed)
    threads = 2 if gather == "device" and size > 999 else 1  # small batches are made by one
    assert threads * (sent + live.most - made.x.nbytes) == costs.passing


def test_batches_that_are_there_at_a_time(ds):
    """Those ahead, one handed out, and two in use by work that is queued."""
    dataset = xtd.IterableDataset(ds, {"time": 8, "y": -1, "x": -1}, batch_size=2)
    for prefetch, nbytes in itertools.product([0, 3], [dataset.explain().sample_nbytes * 2]):
        costs = xtd.DataLoader(dataset, device="cpu", prefetch=prefetch).explain().device
        assert costs.batches == (prefetch + 1 + 1 + 2) * nbytes
        assert costs.nbytes == costs.batches
