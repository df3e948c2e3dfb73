"""A loader changes each batch by a function of the user, wherever batches come from."""

import inspect

import numpy as np
import pytest
import torch
import xarray as xr
from devices import DEVICES, on_cuda
from helpers import forecast

import xtorch_data as xtd
from xtorch_data.loading.augmenting import augmented

WINDOW = {"time": 3, "y": -1, "x": -1}


def windows(**options):
    options = {"inputs": ["a", "b"], "targets": "a", "batch_size": 8} | options
    return xtd.IterableDataset(forecast(), WINDOW, **options)


def samples(**options):
    return xtd.MapDataset(forecast(), WINDOW, **{"inputs": ["a", "b"], "targets": "a"} | options)


def brighten(batch):
    """Each sample by a factor of its own, drawn before and after a batch is made of another."""
    batch = batch.replace(x=batch.x * (1 + batch.uniform(1)[..., None, None, None]))
    return batch.replace(y=batch.y + batch.uniform(2)[..., 1, None, None, None])


HOWS = {
    "a stream": (windows, {}),
    "on a device": (windows, {"device": "cpu", "prefetch": 3}),
    "cut on a device": (windows, {"device": "cpu", "gather": "device"}),
    "samples": (samples, {"batch_size": 8}),
    "samples on a device": (samples, {"batch_size": 8, "device": "cpu"}),
    "a sampler": (samples, {"batch_size": 8, "sampler": range(20)}),
}


@pytest.mark.parametrize("how", HOWS)
def test_batches_are_those_of_the_function_wherever_they_come_from(how):
    make, options = HOWS[how]
    loader = xtd.DataLoader(make(), augment=brighten, **options)
    plain = xtd.DataLoader(make(), **options)
    for _ in range(2):
        for batch, given in zip(loader, plain, strict=True):
            expected = brighten(given)
            assert torch.equal(batch.x, expected.x) and torch.equal(batch.y, expected.y)
            assert torch.equal(batch.index, given.index)
            xr.testing.assert_identical(batch.to_xarray(), expected.to_xarray())


def test_numbers_are_the_same_in_all_ways_to_a_batch():
    """A stream, samples, blocks on a device: what is drawn for a sample is its own."""

    def of(batches):
        every = ((batch.index.tolist(), batch.x, batch.y) for batch in batches)
        rows = (zip(*each, strict=True) for each in every)
        return {number: (x, y) for each in rows for number, x, y in each}

    found = [of(xtd.DataLoader(make(), augment=brighten, **how)) for make, how in HOWS.values()]
    found.append(of(xtd.DataLoader(windows(batch_size=3, shuffle=True), augment=brighten)))
    for each in found:
        for number in range(20):
            assert all(map(torch.equal, each[number], found[0][number]))


@pytest.mark.parametrize("make", [windows, samples])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_resumed_epoch_has_the_numbers_that_it_would_have_had(make, taken):
    options = {"batch_size": 8, "shuffle": True, "seed": 3}
    flip = xtd.RandomFlip("y", "x")

    def loader():
        dataset, rest = make(**(options if make is windows else {})), {}
        if make is samples:
            rest = options
        return xtd.DataLoader(dataset, augment=lambda b: brighten(flip(b)), **rest)

    whole = loader()
    first, second = list(whole), list(whole)
    cut = loader()
    _ = list(cut)
    batches = iter(cut)
    for _ in range(taken):
        next(batches)
    state = cut.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == (len(second) - taken if taken else len(first))
    for batch, expected in zip(rest, second[taken:], strict=True):
        assert torch.equal(batch.x, expected.x) and torch.equal(batch.y, expected.y)
        xr.testing.assert_identical(batch.to_xarray(), expected.to_xarray())


class Scaled(torch.nn.Module):
    """What a model's own first layer would do; its numbers live where the tensors do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([3.0, -2.0])[:, None, None, None])

    def forward(self, x):
        return (x - self.mean) * 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gather", ["host", "device"])
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
def test_a_compiled_function_is_compiled_once_for_batches_of_one_size(device, gather):
    torch._dynamo.reset()
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    module = Scaled().to(device)
    function = torch.compile(module, fullgraph=True, backend=backend)
    loader = xtd.DataLoader(
        windows(drop_last=True, shuffle=True),
        device=device,
        gather=gather,
        augment=lambda batch: batch.replace(x=function(batch.x)),
    )
    found = [*loader, *loader]
    expected = windows(drop_last=True, shuffle=True)
    for batch, plain in zip(found, [*expected, *expected], strict=True):
        assert batch.x.device.type == device
        assert torch.equal(batch.x, module(plain.x.to(device)))
        assert torch.equal(batch.index, plain.index)  # with its labels
        assert batch.to_xarray().coords.equals(plain.to_xarray().coords)
    assert len(compiled) == 1


def test_a_function_sees_tensors_as_they_lie_in_the_end():
    seen = []
    loader = xtd.DataLoader(
        windows(inputs="a", targets=None),
        device="cpu",
        memory_format=torch.channels_last,
        augment=lambda batch: seen.append(batch.x.stride()) or batch,
    )
    assert len([*loader]) == len(seen)
    assert seen[0] == torch.empty(8, 3, 4, 5).to(memory_format=torch.channels_last).stride()


def test_samples_one_at_a_time_are_changed_too():
    found = list(xtd.DataLoader(windows(batch_size=None), augment=brighten))
    for batch, plain in zip(found, windows(batch_size=None), strict=True):
        assert torch.equal(batch.x, brighten(plain).x)


def test_what_is_not_a_function_of_a_batch_is_refused():
    for wrong in ("flip", 3, torch.ones(2)):
        with pytest.raises(TypeError, match="augment must be a function of a batch"):
            xtd.DataLoader(windows(), augment=wrong)
    with pytest.raises(TypeError, match="augment must be an object of class RandomFlip"):
        xtd.DataLoader(windows(), augment=xtd.RandomFlip)
    with pytest.raises(TypeError, match=r"augment takes one argument, a batch.*takes \(x, y\)"):
        xtd.DataLoader(windows(), augment=lambda x, y: x)
    with pytest.raises(TypeError, match=r"device_transform any more: augment.*batch\.replace\(x="):
        xtd.DataLoader(windows(), device="cpu", device_transform=torch.abs)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda batch: batch.x, TypeError, "augment must return a Batch.* not Tensor"),
        (lambda batch: None, TypeError, "augment must return a Batch.* not NoneType"),
        (lambda batch: batch.replace(x=batch.x[1:]), ValueError, "must have the 8 samples"),
        (lambda batch: samples().fetch([0]), ValueError, "keep the samples of a batch.* 8 samples"),
        (lambda batch: samples().fetch(range(8, 0, -1)), ValueError, "in their order"),
    ],
)
def test_a_batch_comes_back_with_its_samples(wrong, error, message):
    with pytest.raises(error, match=message):
        next(iter(xtd.DataLoader(windows(), augment=wrong)))


@pytest.mark.parametrize(
    "how", [{}, *({"device": "cpu"} | each for each in ({}, {"prefetch": 3}, {"gather": "device"}))]
)
def test_an_error_of_the_function_ends_the_epoch_though_it_is_held(how):
    ended = []

    def noted(batches):
        try:
            yield from batches
        finally:
            ended.append(True)

    def wrong(batch):
        raise RuntimeError("out of memory")

    dataset = windows(batch_size=2)
    loader = xtd.DataLoader(dataset, augment=wrong, **how)
    inside, epoch = dataset._inside, dataset._inside.begin()
    if loader._transfer is None:
        batches = noted(inside.batches(epoch))
    else:
        batches = loader._transfer.moved(noted(loader._transfer.made(dataset, epoch, False)))
    with pytest.raises(RuntimeError, match="out of memory") as held:
        next(augmented(loader.augment, batches, False))
    assert ended
    del held


def test_changed_batches_are_pinned_on_demand_where_they_stay_on_the_host(monkeypatch):
    monkeypatch.setattr("xtorch_data.loading.loader.has_accelerator", lambda: True)
    pinned = []
    monkeypatch.setattr(xtd.Batch, "pin_memory", lambda batch: pinned.append(batch) or batch)
    found = [*xtd.DataLoader(windows(), augment=brighten, pin_memory=True)]
    assert len(found) and all(any(batch is each for each in pinned) for batch in found)


def test_flips_on_the_loader_are_those_of_the_batches():
    """With integers and a mask beside what is normalized, in one line, as the docs have it."""
    ds = forecast()
    ds["mask"] = ds["a"] > 0
    normalize = xtd.Normalize.fit(ds[["a", "b"]])
    dataset = xtd.MapDataset(
        ds, WINDOW, parts={"x": ["a", "b"], "mask": "mask"}, preprocess=normalize
    )
    flip = xtd.RandomFlip("y", "x", signs={"b": "y"})
    for batch in xtd.DataLoader(dataset, batch_size=8, augment=flip):
        labeled = normalize.inverse(batch.to_xarray("x"))
        for row in range(len(batch)):
            sample = labeled.isel(sample=row)
            there = ds.sel(time=sample["time"], y=sample["y"], x=sample["x"])
            np.testing.assert_allclose(sample["a"], there["a"], 1e-4, 1e-5)
            sign = np.sign(sample["y"].values[0] - sample["y"].values[1])  # it descends
            np.testing.assert_allclose(sample["b"], sign * there["b"], 1e-4, 1e-5)
            assert np.array_equal(batch["mask"][row], there["mask"])


def test_the_signature_names_it():
    assert inspect.signature(xtd.DataLoader).parameters["augment"].default is None


@on_cuda
@pytest.mark.parametrize("gather", ["host", "device"])
def test_flips_on_a_gpu_are_those_on_the_host(gather):
    flip = xtd.RandomFlip("y", "x", signs={"b": ["y", "x"]})
    options = {"preprocess": xtd.Normalize({"b": 2.0}, {"b": 3.0})}
    there = xtd.DataLoader(windows(**options), device="cuda", gather=gather, augment=flip)
    here = xtd.DataLoader(windows(**options), augment=flip)
    for batch, expected in zip(there, here, strict=True):
        assert batch.x.device.type == "cuda"
        torch.testing.assert_close(batch.x.cpu(), expected.x)
        assert torch.equal(batch.y.cpu(), expected.y)
        assert batch.to_xarray().coords.identical(expected.to_xarray().coords)
