"""Epochs through worker processes, however they start."""

import multiprocessing
import time

import numpy as np
import pytest
import torch.distributed
import torch.utils.data
from helpers import (
    add_noise,
    assert_labels,
    assert_once,
    forecast,
    in_a_process,
    orders,
    samples_of,
    xbatcher_windows,
)

import xtorch_data as xtd

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "forecast.zarr"
    forecast(time=64).to_zarr(
        path, consolidated=False, encoding={name: {"chunks": (6, 4, 5)} for name in "ab"}
    )
    return xtd.open_zarr(path, consolidated=False)


WINDOW = {"time": 8, "y": 4}


OVERLAP = {"time": 7}


def through_workers(ds, **kwargs):
    arguments = {"inputs": ["a", "b"], "targets": "a", "batch_size": 16} | kwargs
    return xtd.IterableDataset(ds, WINDOW, OVERLAP, **arguments)


def assert_epochs(loader, dataset, reference, ds, epochs):
    """Each epoch has the batches of one process, values and labels right, orders all different."""
    windows = xbatcher_windows(ds, ["a", "b"], WINDOW, OVERLAP)
    plain = ds.compute()
    seen = []
    for _ in range(epochs):
        batches = list(loader)
        assert len(batches) == len(dataset)
        assert_once(samples_of(batches), len(windows))
        assert sorted(orders(batches)) == sorted(orders(reference))
        seen.append(tuple(orders(batches)))
        for batch in batches:
            assert isinstance(batch, xtd.Batch)
            numbers = batch.index.tolist()
            cut = [plain.isel(windows[number]).transpose("time", "y") for number in numbers]
            x = np.stack([np.stack([one["a"].values, one["b"].values]) for one in cut])
            np.testing.assert_array_equal(batch.x.numpy(), x)
            np.testing.assert_array_equal(batch.y.numpy(), x[:, 0])
        coords = [plain.isel(windows[number]).coords for number in batches[0].index.tolist()]
        assert_labels(
            batches[0].to_xarray("x"),
            [{name: (c.dims, c.values) for name, c in one.items()} for one in coords],
        )
    assert len(set(seen)) == epochs
    for _ in loader:
        break
    dataset.set_epoch(1)
    assert tuple(orders(loader)) == seen[1]


@pytest.mark.parametrize(("context", "persistent"), [("forkserver", False), ("spawn", True)])
def test_the_plain_torch_loader_with_two_workers_over_several_epochs(on_disk, context, persistent):
    dataset = through_workers(on_disk, shuffle=True)
    reference = through_workers(on_disk, shuffle=True)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=persistent,
    )
    assert len(loader) == len(dataset)
    assert_epochs(loader, dataset, reference, on_disk, epochs=3 if persistent else 2)


def test_seeding_torch_before_every_epoch_still_gives_every_epoch_an_order_of_its_own(on_disk):
    dataset = through_workers(on_disk, shuffle=True)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="forkserver"
    )
    seen = []
    with torch.random.fork_rng():
        for _ in range(3):
            torch.manual_seed(0)
            seen.append(tuple(orders(loader)))
    assert len(set(seen)) == 3
    assert dataset.epoch == 3


FORKED = """
    import itertools, sys
    import torch
    import xtorch_data as xtd

    ds = xtd.open_zarr(sys.argv[1], consolidated=False)
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "y": 4}, {"time": 7}, inputs="a", batch_size=16, shuffle=True
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    for _ in range(2):
        numbers = [number for batch in loader for number in batch.index.tolist()]
        assert sorted(numbers) == list(range(57 * 5)), numbers
    print("forked before reading")
    numbers = [number for batch in dataset for number in batch.index.tolist()]
    assert sorted(numbers) == list(range(57 * 5))
    try:
        numbers = [number for batch in loader for number in batch.index.tolist()]
        assert sorted(numbers) == list(range(57 * 5))
    except RuntimeError as error:
        assert "forkserver" in str(error), error
    print("forked after reading")
"""


def test_forked_workers_yield_all_or_say_why_not_but_never_hang(on_disk):
    path = on_disk.encoding["source"]
    run = in_a_process(FORKED, path, warnings_as_errors=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["forked before reading", "forked after reading"]


def test_our_loader_with_two_workers_over_several_epochs(on_disk):
    dataset = through_workers(on_disk, shuffle=True)
    reference = through_workers(on_disk, shuffle=True)
    loader = xtd.DataLoader(dataset, num_workers=2)
    assert len(loader) == len(dataset)
    state = torch.get_rng_state()
    assert_epochs(loader, dataset, reference, on_disk, epochs=3)
    assert torch.equal(torch.get_rng_state(), state)
    del loader
    end = time.monotonic() + 10
    while left := [child for child in multiprocessing.active_children() if child.is_alive()]:
        assert time.monotonic() < end, f"processes left behind: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize("ours", [True, False])
def test_workers_tell_which_samples_are_repeated(on_disk, ours):
    """57 × 5 samples on 4 ranks: 72 each, of which the last rank has 3 again."""
    dataset = through_workers(on_disk, rank=3, world_size=4)
    if ours:
        loader = xtd.DataLoader(dataset, num_workers=2)
    else:
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver"
        )
    marked = {}
    for batch in loader:
        marked |= dict(zip(batch.index.tolist(), batch.repeated.tolist(), strict=True))
    assert marked == {number: number < 3 for number in [*range(216, 285), 0, 1, 2]}


def test_our_loader_with_workers_keeps_to_its_rank_and_transforms_alike(on_disk):
    arguments = {"shuffle": True, "transform": add_noise, "rank": 1, "world_size": 2}
    plain = {batch.index[0].item(): batch for batch in through_workers(on_disk, **arguments)}
    loader = xtd.DataLoader(through_workers(on_disk, **arguments), num_workers=1)
    batches = list(loader)
    assert len(batches) == len(loader) == len(plain)
    for batch in batches:
        other = plain[batch.index[0].item()]
        assert torch.equal(batch.index, other.index)
        assert torch.equal(batch.x, other.x)
