"""What a loader is asked to do on a device."""

import inspect
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from devices import on_cuda
from helpers import forecast

import xtorch_data as xtd
from xtorch_data.common.buffers import Buffers
from xtorch_data.device import streams as device_module
from xtorch_data.device.gather import DeviceGather
from xtorch_data.device.streams import PinnedBuffers, Streams, of_this_thread, on_device
from xtorch_data.loading import transfer
from xtorch_data.samples import tensors

WINDOW = {"time": 3, "y": -1, "x": -1}


def windows(**options):
    options = {"inputs": ["a", "b"], "targets": "a", "batch_size": 8} | options
    return xtd.IterableDataset(forecast(), WINDOW, **options)


def doubled(batch):
    return batch.replace(**{name: 2 * batch[name] for name in batch.keys()})


def test_what_a_loader_is_asked_for_is_in_its_repr():
    assert "on the CPU" in repr(xtd.DataLoader(windows()))
    assert "on cpu>" in repr(xtd.DataLoader(windows(), device="cpu"))
    assert "on cpu by gather='device'>" in repr(
        xtd.DataLoader(windows(), device="cpu", gather="device")
    )


def test_a_loader_can_be_made_again_from_its_attributes():
    """As Lightning does, for loaders of a `MapDataset` on several ranks."""
    given = {"prefetch": 2, "memory_format": torch.channels_last, "augment": doubled}
    loader = xtd.DataLoader(xtd.MapDataset(forecast(), WINDOW, inputs="a"), device="cpu", **given)
    names = set(inspect.signature(xtd.DataLoader.__init__).parameters)
    names -= {"self", "others", "kwargs", "multiprocessing_context"}  # this a property of torch's
    known = {name: value for name, value in vars(loader).items() if name in names}
    assert names == known.keys()
    again = xtd.DataLoader(**known)
    assert {name: vars(again)[name] for name in given} == given
    assert torch.equal(next(iter(again)).x, next(iter(loader)).x)


@pytest.mark.parametrize(
    "how", [{}, {"device": "cpu", "prefetch": 3}, {"device": "cpu", "gather": "device"}]
)
def test_a_dataset_knows_what_its_loader_has_handed_out(how):
    """Not what is on the device ahead: with a state of either, nothing is lost."""
    options = {"batch_size": 2, "shuffle": True}
    whole = [batch.index.tolist() for batch in windows(**options)]
    dataset = windows(**options)
    loader = xtd.DataLoader(dataset, **how)
    seen = [batch.index.tolist() for _, batch in zip(range(3), loader, strict=False)]
    assert dataset.state_dict() == loader.state_dict()
    rest = windows(**options)
    rest.load_state_dict(dataset.state_dict())
    assert seen + [batch.index.tolist() for batch in rest] == whole


@pytest.mark.parametrize("gather", ["host", "device"])
@pytest.mark.parametrize("decode", ["host", "device"])
def test_another_default_device_changes_nothing(gather, decode):
    """As `torch.set_default_device` makes it: new tensors are there if nothing else is said."""
    raw = forecast().astype("i2")
    for name in raw.data_vars:
        raw[name].attrs["scale_factor"] = 0.01
    ds = xr.decode_cf(raw)
    expected = [batch.x for batch in xtd.IterableDataset(ds, WINDOW, batch_size=4)]
    with torch.device("meta"):
        dataset = xtd.IterableDataset(ds, WINDOW, batch_size=4)
        loaders = [xtd.DataLoader(dataset, device="cpu", gather=gather, decode=decode)]
        if gather == decode:
            loaders += [xtd.DataLoader(dataset)]
            samples = xtd.MapDataset(ds, WINDOW)
            loaders += [xtd.DataLoader(samples, batch_size=4)]
            assert len([*xtd.DataLoader(samples, batch_size=4, shuffle=True)]) == len(expected)
        found = [[batch.x for batch in loader] for loader in loaders]
    for each in found:
        assert all(map(torch.equal, each, expected)) and len(each) == len(expected)


def test_batches_are_pinned_on_demand_where_they_stay_on_the_host(monkeypatch):
    """In memory of their own: nobody knows how long copies that the loop begins will read it."""
    pinned = []
    monkeypatch.setattr("xtorch_data.loading.loader.has_accelerator", lambda: True)
    monkeypatch.setattr(xtd.Batch, "pin_memory", lambda batch: pinned.append(batch) or batch)
    assert [*xtd.DataLoader(windows(), pin_memory=True)] == pinned
    assert pinned
    pinned.clear()
    assert [*xtd.DataLoader(windows())] and not pinned


def test_bfloat16_is_cast_in_memory_that_is_used_again():
    """So that it is page-locked where batches are."""
    taken = set()

    class Noted(Buffers):
        def take(self, shape, dtype):
            array = super().take(shape, dtype)
            taken.add(array.__array_interface__["data"][0])
            return array

    dataset = windows(dtype=torch.bfloat16)
    dataset._inside.reader._buffers = Noted(2**20)
    for batch, plain in zip(dataset, windows(), strict=True):
        assert batch.x.data_ptr() in taken
        assert torch.equal(batch.x, plain.x.to(torch.bfloat16))


# ---------------------------------------------------------------------------------------------
# What would be asked of a GPU


class FakeModule:
    """What torch has for a kind of device with streams; it notes what is asked of it."""

    def __init__(self):
        self.asked = []
        self.device = self.pinned = 0
        self.using = self.consumer = SimpleNamespace(
            name="consumer", device=3, wait_event=lambda event: self.note("wait", event.number)
        )
        self.numbers = itertools.count()
        self.names = itertools.chain(["side", "another side"], itertools.repeat("one more"))

    def note(self, *what):
        self.asked.append(what)

    def Stream(self, device):  # noqa: N802
        return SimpleNamespace(name=next(self.names), device=device)

    def Event(self, **_):  # noqa: N802
        event = SimpleNamespace(number=next(self.numbers), done=False)
        event.record = lambda stream: self.note("record", stream.name, event.number)
        event.synchronize = lambda: self.note("synchronize", event.number)
        event.query = lambda: False
        return event

    def current_device(self):
        return self.device

    def current_stream(self, device):
        return self.consumer

    def set_device(self, device):
        self.note("set device", device)

    def set_stream(self, stream):
        self.note("set stream", stream.name)

    def stream(self, stream):
        module = self

        class Using:
            def __enter__(self):
                module.using = stream

            def __exit__(self, *_):
                module.using = module.consumer

        return Using()


@pytest.fixture
def fake(monkeypatch):
    """A module of streams for the CPU, whose tensors note who uses them."""
    module, empty = FakeModule(), torch.empty

    def unpinned(*args, pin_memory=False, **kwargs):
        module.pinned += pin_memory
        return empty(*args, **kwargs)

    def record_stream(tensor, stream):
        module.note("used", stream.name)

    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    monkeypatch.setattr(torch, "empty", unpinned)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(tensors, "WITH_STREAMS", ("cpu",))
    return module


def test_a_stream_is_waited_for_before_a_batch_is_handed_out(fake):
    """In the order that CUDA asks for: copy, mark, wait of the consumer's stream, use noted."""
    streams = Streams.of(torch.device("cpu"))
    on = []
    batches = on_device(
        iter(windows(targets=None)), streams, 1,
        lambda batch: on.append(fake.using.name) or batch,
    )  # fmt: skip
    next(batches)
    assert on == ["side", "side"]
    assert fake.asked == [
        ("record", "side", 0),
        ("record", "side", 1),
        ("wait", 0),
        ("used", "consumer"),
        ("record", "consumer", 2),
    ]


def test_blocks_are_sent_in_the_order_that_cuda_asks_for(fake, monkeypatch):
    """Into memory of which no window is cut any more, from memory that is held until it is read."""
    gather = DeviceGather(torch.device("cpu"), 2**20)
    copy = torch.Tensor.copy_

    def noted(tensor, *args, **kwargs):
        fake.note("copy", fake.using.name)
        return copy(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "copy_", noted)
    views = {"x": [[np.arange(5.0)], [np.arange(3)]]}
    loaded = SimpleNamespace(views=views, axes=1, elsewhere=lambda views: views)
    assert gather.send(loaded).keys() == views.keys()
    assert fake.asked == [
        ("set device", torch.device("cpu")),
        ("record", "another side", 0),  # the stream that cuts windows
        ("synchronize", 0),
        ("copy", "side"),
        ("copy", "side"),
        ("record", "side", 1),
        ("synchronize", 1),
        ("used", "another side"),
    ]


def test_the_host_does_not_run_ahead_of_the_device_without_end(fake):
    """Batches that are in use are as many as there are steps queued: the host waits for these."""
    streams = Streams.of(torch.device("cpu"))
    dataset = windows(targets=None, batch_size=2)
    batches = on_device(iter(dataset), streams, 0)
    for number, _ in enumerate(batches):
        events = [what[2] for what in fake.asked if what[:2] == ("record", "consumer")]
        waited = [what[1] for what in fake.asked if what[0] == "synchronize"]
        assert len(events) == number + 1
        queued = [event for event in events if event not in waited]
        assert len(queued) <= device_module.BATCHES_QUEUED
    assert number > 4


def test_threads_work_on_the_device_that_was_asked_for(fake):
    """A thread begins on device 0, where another rank's process is at home."""
    fake.device = 3
    assert of_this_thread(torch.device("cpu")).index == 3
    assert of_this_thread(torch.device("cpu", 2)).index == 2
    streams = Streams.of(torch.device("cpu"))
    streams.begin()
    assert fake.asked == [("set device", torch.device("cpu")), ("set stream", "side")]


def test_copies_are_waited_for_where_there_are_no_streams(monkeypatch):
    """MPS would read memory that is used again."""
    asked = []
    monkeypatch.setattr(
        xtd.Batch, "to", lambda batch, device, non_blocking: asked.append(non_blocking) or batch
    )
    Streams.of(torch.device("cpu")).copied(next(iter(windows())))
    assert asked == [False]


def test_what_mps_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(transfer, "as_device", torch.device)
    with pytest.raises(TypeError, match="part 'x' has values of dtype float64, which MPS"):
        xtd.DataLoader(windows(dtype=torch.float64), device="mps")
    with pytest.raises(ValueError, match="MPS is that of the host"):
        xtd.DataLoader(windows(), device="mps", gather="device")
    assert xtd.DataLoader(windows(), device="mps").device.type == "mps"


def test_page_locked_memory_is_counted_as_torch_allots_it(monkeypatch):
    empty, asked = torch.empty, []

    def unpinned(nbytes, pin_memory, **options):
        asked.append((nbytes, pin_memory, options["device"]))
        return empty(nbytes, **options)

    monkeypatch.setattr(torch, "empty", unpinned)
    buffers = PinnedBuffers(idle=2**20)
    arrays = [buffers.take((nbytes,), np.dtype("u1")) for nbytes in (1, 1000, 1024, 1025)]
    assert [nbytes for nbytes, *_ in asked] == [1, 1024, 1024, 2048]
    assert {tuple(rest) for _, *rest in asked} == {(True, "cpu")}
    assert [array.nbytes for array in arrays] == [1, 1000, 1024, 1025]
    del arrays
    for nbytes in (1500, 1025, 2048, 513):  # of those that are idle
        assert buffers.take((nbytes,), np.dtype("u1")).nbytes == nbytes
    assert len(asked) == 4


@pytest.mark.parametrize("decode", ["host", "device"])
@pytest.mark.parametrize("gather", ["host", "device"])
def test_every_step_on_a_device_with_streams_is_taken(fake, gather, decode):
    """All that is asked of CUDA, and in an order that gives the right batches."""
    raw = (100 * forecast()).astype("i2")
    for name in raw.data_vars:
        raw[name].attrs["scale_factor"] = 0.01
    ds = xr.decode_cf(raw)
    options = {"batch_size": 4, "shuffle": True, "memory": "4 kB"}
    loader = xtd.DataLoader(
        xtd.IterableDataset(ds, WINDOW, {"time": 2}, **options),
        device="cpu", gather=gather, decode=decode,
    )  # fmt: skip
    expected = xtd.IterableDataset(ds, WINDOW, {"time": 2}, **options)
    for _ in range(2):
        for batch, plain in zip(loader, expected, strict=True):
            assert torch.equal(batch.x, plain.x)
    # Memory of batches, or of blocks; stored values that are in memory are sent from there.
    assert fake.pinned or gather == decode == "device"
    kinds = {what[0] for what in fake.asked}
    assert kinds >= {"record", "wait", "used", "synchronize"}
    assert ("set stream" in kinds) == ("set device" in kinds) == (gather == "device")


@pytest.mark.parametrize("gather", ["host", "device"])
def test_memory_is_not_page_locked_where_that_is_not_wanted(fake, gather, tmp_path):
    forecast().to_zarr(tmp_path, consolidated=False)  # what is in memory is sent from there
    dataset = xtd.IterableDataset(xtd.open_zarr(tmp_path, consolidated=False), WINDOW)
    for wanted in (False, True):
        assert [*xtd.DataLoader(dataset, device="cpu", gather=gather, pin_memory=wanted)]
        assert bool(fake.pinned) is wanted


def test_an_error_says_what_to_do_where_there_is_no_room_for_blocks(monkeypatch):
    empty = torch.empty

    def full(*args, dtype=None, **kwargs):
        if dtype is torch.int8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*args, dtype=dtype, **kwargs)

    loader = xtd.DataLoader(windows(), device="cpu", gather="device")
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(torch.OutOfMemoryError) as error:
        next(iter(loader))
    assert "give the loader less device_memory=" in error.value.__notes__[0]


def test_streams_are_used_again_in_the_next_epoch(fake):
    """Torch keeps memory for the stream that had it: new ones would take as much again."""
    made, stream = [], fake.Stream
    fake.Stream = lambda device: made.append(device) or stream(device)
    for gather, count in [("host", 1), ("device", 2)]:
        made.clear()
        how = xtd.DataLoader(windows(), device="cpu", gather=gather)._transfer
        there = [how._there() for _ in range(3)]
        assert there[0] is there[1] is there[2]
        assert len(made) == count


# ---------------------------------------------------------------------------------------------
# On a GPU


@on_cuda
@pytest.mark.parametrize("how", [{}, {"gather": "device"}, {"prefetch": 3}])
def test_kept_batches_stay_as_they_are_while_a_gpu_is_busy(how, tmp_path):
    """Steps of random length, and memory that another stream would take if it could."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 64, 64)).astype("f4")
    ds = xr.Dataset({"v": (("time", "y", "x"), values)})
    ds.to_zarr(
        tmp_path, zarr_format=3, consolidated=False, encoding={"v": {"chunks": (40, 64, 64)}}
    )
    ds = xtd.open_zarr(tmp_path, consolidated=False)
    window = {"time": 8, "y": -1, "x": -1}

    def dataset():
        return xtd.IterableDataset(
            ds, window, {"time": 7}, batch_size=16, shuffle=True, memory="4 MB"
        )

    kept, sums = [], []
    for batch in xtd.DataLoader(dataset(), device="cuda", **how):
        torch.cuda._sleep(int(rng.integers(0, 3_000_000)))
        noise = torch.full_like(batch.x, torch.nan)
        sums.append((batch.x.double().sum(), batch.index))
        del noise
        if rng.random() < 0.3:
            kept.append(batch)
    assert len(kept) > 3
    for total, index in sums:
        expected = sum(float(values[n : n + 8].astype("f8").sum()) for n in index.tolist())
        torch.testing.assert_close(total.item(), expected, rtol=1e-9, atol=1e-6)
    for batch in kept:
        for row, number in zip(batch.x.cpu(), batch.index.tolist(), strict=True):
            assert np.array_equal(row.numpy(), values[number : number + 8])


@on_cuda
@pytest.mark.parametrize("how", [{}, {"gather": "device"}])
def test_a_loop_that_never_waits_takes_no_more_memory(how):
    """The host may not queue steps for the whole epoch, each with a batch of its own."""
    ds = xr.Dataset({"v": (("time", "x"), np.zeros((4000, 2**14), "f4"))})
    dataset = xtd.IterableDataset(ds, {"time": 8, "x": -1}, batch_size=16, memory="64 MiB")
    nbytes = 16 * 8 * 2**14 * 4
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()["active_bytes.all.current"]
    for batch in xtd.DataLoader(dataset, device="cuda", **how):
        torch.cuda._sleep(20_000_000)
        batch.x.sum()
    blocks = 64 * 2**20 if how else 0
    # With what was let go of and cannot be used again yet.
    peak = torch.cuda.memory_stats()["active_bytes.all.peak"] - before
    assert peak <= blocks + 12 * nbytes


@on_cuda
def test_a_loop_that_is_left_leaves_the_gpu_in_order():
    for how in ({}, {"gather": "device"}):
        batches = iter(xtd.DataLoader(windows(), device="cuda", prefetch=3, **how))
        batch = next(batches)
        batches.close()
        torch.cuda.synchronize()
        assert torch.equal(batch.x.cpu(), next(iter(windows())).x)


@on_cuda
def test_a_graph_is_captured_while_a_loader_is_at_work():
    options = {"targets": None, "batch_size": 4}
    static = torch.zeros(4, 2, 3, 4, 5, device="cuda")
    graph, total = torch.cuda.CUDAGraph(), None
    batches = iter(xtd.DataLoader(windows(**options), device="cuda"))
    static.copy_(next(batches).x)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        total = static.sum()
    rest = itertools.islice(windows(**options), 1, None)
    for batch, plain in zip(batches, rest, strict=True):
        static.copy_(batch.x)
        graph.replay()
        torch.testing.assert_close(total.cpu(), plain.x.sum())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("how", [{}, {"gather": "device"}])
def test_nothing_is_put_on_another_gpu(how):
    """As in DDP: the process is at home on one, which its threads must know."""
    before = torch.cuda.memory_allocated(0)
    torch.cuda.set_device(1)
    try:
        for batch, plain in zip(
            xtd.DataLoader(windows(), device="cuda", **how), windows(), strict=True
        ):
            assert batch.x.device.index == 1
            assert torch.equal(batch.x.cpu(), plain.x)
        assert torch.cuda.memory_allocated(0) == before
    finally:
        torch.cuda.set_device(0)
